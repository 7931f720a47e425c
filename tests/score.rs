//! `infalign score`, as a user runs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::process::{Command, Output};

use common::{json, quickstart, refused};
use serde_json::Value;

fn command(name: &str, arguments: &[&str]) -> Command {
    let model = quickstart().join("model");
    let mut command = common::infalign(&[name, "--model"]);
    command.arg(model).args(arguments);
    command
}

fn infalign(name: &str, arguments: &[&str]) -> Output {
    common::run(command(name, arguments))
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
        // What was printed is scored token by token as it was drawn.
        let printed = dir.path().join("printed.json");
        std::fs::write(&printed, generated.to_string()).unwrap();
        let scored = json(&infalign("score", &["--input", printed.to_str().unwrap(), "--json"]));
        let scored = scored["scores"].as_array().unwrap();
        assert_eq!(scored.len(), rows.len());
        for (row, score) in rows.iter().zip(scored) {
            let length = score["prompt_length"].as_u64().unwrap() as usize;
            assert_eq!(numbers(&score["ids"])[length..], numbers(&row["tokens"])[..]);
            let (given, drawn) = (numbers(&score["log_probs"]), numbers(&row["log_probs"]));
            assert_eq!(given.len(), drawn.len(), "{row} {score}");
            let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-5;
            assert!(given.iter().zip(&drawn).all(close), "{row} {score}");
        }
    }
}

#[test]
fn known_tokens_are_scored_and_the_text_is_rewarded() {
    let dir = tempfile::tempdir().unwrap();
    let (input, reward) = (dir.path().join("in.jsonl"), dir.path().join("reward.toml"));
    let row = |tokens: Value| {
        let row =
            serde_json::json!({ "prompt": "the", "response": " good good", "tokens": tokens });
        std::fs::write(&input, row.to_string()).unwrap();
    };
    std::fs::write(&reward, "kind = \"lexicon\"\nweights = { good = 1.5 }\n").unwrap();
    let score = || {
        let files = [&input, &reward].map(|path| path.to_str().unwrap());
        command("score", &["--input", files[0], "--reward", files[1], "--json"])
    };
    let scored = || json(&common::run(score()))["scores"][0].clone();
    // A number is a count of tokens, and says nothing of which they are.
    row(2.into());
    let read = scored();
    let length = read["prompt_length"].as_u64().unwrap() as usize;
    let mut known = read["ids"].as_array().unwrap()[length..].to_vec();
    // What follows the text, as the token that ends it does, is scored as well.
    known.push(known[0].clone());
    row(known.clone().into());
    let scored = scored();
    assert_eq!(scored["ids"].as_array().unwrap()[length..], known);
    assert_eq!(scored["reward"], 3.0);
    assert_eq!(numbers(&scored["log_probs"]).len(), known.len());
    row(serde_json::json!([5, 6, 2]));
    refused(score(), &["line 1", "are not those of its response"]);
}

#[test]
fn a_document_that_was_stopped_is_scored_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("printed.json");
    let row = serde_json::json!({ "prompt": "the", "response": " good soup" });
    for finished in [true, false] {
        let document = serde_json::json!({ "responses": [row], "finished": finished });
        std::fs::write(&input, document.to_string()).unwrap();
        let output = infalign("score", &["--input", input.to_str().unwrap(), "--json"]);
        assert_eq!(json(&output)["scores"].as_array().unwrap().len(), 1);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told.contains("printed.json says that it is not `finished`"), !finished);
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
    let output = infalign("score", &["--input", input, "--reward", reward]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().nth(2).unwrap().ends_with("3.000000"));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("1 of 2 lines are ids"), "{told}");
}

#[test]
fn bad_input_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.jsonl");
    let long = format!("{{\"prompt\": \"the\", \"response\": \"{}\"}}", " good".repeat(70));
    let two = "{\"prompt\": \"a\", \"response\": \"b\", \"completion\": \"c\"}";
    for (line, message) in [
        (long.as_str(), "line 2: it has 72 tokens"),
        (two, "line 2: It has both"),
        ("{\"ids\": [1, 99999]}", "line 2: token id 99999"),
        ("{\"prompt\": \"a\", \"response\": \"\"}", "line 2: The response is empty"),
        ("{\"text\": \"a\"}", "line 2: It is neither"),
    ] {
        std::fs::write(&path, format!("{{\"ids\": [1, 5]}}\n{line}\n")).unwrap();
        let errors = refused(command("score", &["--input", path.to_str().unwrap()]), &[]);
        assert!(errors.to_lowercase().contains(&message.to_lowercase()), "{errors}");
        assert!(!errors.contains("max_tokens"), "{errors}");
    }
    refused(command("score", &["--input", "in.csv"]), &["JSON Lines"]);
}

#[test]
fn a_tokenizer_whose_parts_contradict_each_other_is_named_and_no_panic_is_shown() {
    let text = std::fs::read_to_string(quickstart().join("model/tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    let piece = serde_json::json!({ "SpecialToken": { "id": "[NONE]", "type_id": 0 } });
    tokenizer["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing", "single": [piece], "pair": [], "special_tokens": {},
    });
    let model = common::model_with("tokenizer.json", &tokenizer.to_string());
    let input = model.path().join("in.jsonl");
    std::fs::write(&input, "{\"prompt\": \"the\", \"response\": \" good\"}\n").unwrap();
    let mut command = common::infalign(&["score", "--model"]);
    command.arg(model.path()).arg("--input").arg(input);
    let text = refused(command, &["tokenizer.json: its parts contradict each other"]);
    assert!(!text.contains("panicked"), "{text}");
}
