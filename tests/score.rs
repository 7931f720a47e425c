//! `infalign score`, as a user runs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::process::Output;

use common::quickstart;
use serde_json::Value;

fn infalign(command: &str, arguments: &[&str]) -> Output {
    let model = quickstart().join("model");
    let mut process = common::infalign(&[command, "--model"]);
    process.arg(model).args(arguments).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn generated_responses_have_the_log_probabilities_that_generation_gave_them() {
    let prompts = quickstart().join("test.jsonl");
    let arguments = ["--prompts", prompts.to_str().unwrap(), "--max-tokens", "24", "--json"];
    for other in [vec![], vec!["--temperature", "0.7"], vec!["--top-p", "0.8"]] {
        let generated = json(&infalign("generate", &[&arguments[..], &other].concat()));
        let dir = tempfile::tempdir().unwrap();
        let (texts, ids) = (dir.path().join("texts.jsonl"), dir.path().join("ids.jsonl"));
        let rows = generated["responses"].as_array().unwrap();
        let text = |row: &Value| {
            serde_json::json!({ "prompt": row["prompt"], "response": row["response"] }).to_string()
        };
        std::fs::write(&texts, rows.iter().map(text).collect::<Vec<_>>().join("\n")).unwrap();
        let scored = json(&infalign("score", &["--input", texts.to_str().unwrap(), "--json"]));
        let scored = scored["scores"].as_array().unwrap();
        assert_eq!(scored.len(), rows.len());
        let mut lines = Vec::new();
        for (row, score) in rows.iter().zip(scored) {
            // Generation counts the token that ends the response, which its text does not show.
            let (given, drawn) = (numbers(&score["log_probs"]), numbers(&row["log_probs"]));
            assert!(drawn.len() - given.len() <= 1, "{row} {score}");
            let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-5;
            assert!(given.iter().zip(&drawn).all(close), "{row} {score}");
            let length = score["prompt_length"].as_u64().unwrap() as usize;
            let mut tokens = numbers(&score["ids"])[..length].to_vec();
            tokens.extend(numbers(&row["tokens"]));
            let tokens: Vec<u32> = tokens.into_iter().map(|id| id as u32).collect();
            lines.push(serde_json::json!({ "ids": tokens }).to_string());
        }
        // As ids, the ending token is scored too.
        std::fs::write(&ids, lines.join("\n")).unwrap();
        let whole = json(&infalign("score", &["--input", ids.to_str().unwrap(), "--json"]));
        for (row, score) in rows.iter().zip(whole["scores"].as_array().unwrap()) {
            let (all, drawn) = (numbers(&score["log_probs"]), numbers(&row["log_probs"]));
            let last = &all[all.len() - drawn.len()..];
            assert!(last.iter().zip(&drawn).all(|(a, b)| (a - b).abs() < 1e-5), "{row} {score}");
        }
    }
}

#[test]
fn rewards_stand_beside_texts_only() {
    let dir = tempfile::tempdir().unwrap();
    let (input, reward) = (dir.path().join("in.jsonl"), dir.path().join("reward.toml"));
    std::fs::write(
        &input,
        "{\"ids\": [1, 5, 6]}\n{\"prompt\": \"the\", \"response\": \" good good soup\"}\n",
    )
    .unwrap();
    std::fs::write(&reward, "kind = \"lexicon\"\nweights = { good = 1.5 }\n").unwrap();
    let [input, reward] = [&input, &reward].map(|path| path.to_str().unwrap());
    let scored = json(&infalign("score", &["--input", input, "--reward", reward, "--json"]));
    assert_eq!(scored["scores"][0]["reward"], Value::Null);
    assert_eq!(scored["scores"][1]["reward"], 3.0);
    let text = infalign("score", &["--input", input, "--reward", reward]).stdout;
    assert!(String::from_utf8(text).unwrap().lines().nth(2).unwrap().ends_with("3.000000"));
}

#[test]
fn bad_input_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.jsonl");
    for (line, message) in [
        ("{\"ids\": [1, 99999]}", "line 2: token id 99999"),
        ("{\"prompt\": \"a\", \"response\": \"\"}", "line 2: The response is empty"),
        ("{\"text\": \"a\"}", "line 2: It is neither"),
    ] {
        std::fs::write(&path, format!("{{\"ids\": [1, 5]}}\n{line}\n")).unwrap();
        let output = infalign("score", &["--input", path.to_str().unwrap()]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.to_lowercase().contains(&message.to_lowercase()), "{errors}");
    }
}
