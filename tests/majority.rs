//! Policies that are trained for a majority, and evaluated under it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;

use common::{done, infalign, json_file, quickstart, refused, stderr, train_small};
use infalign_stats::plurality_weights;
use serde_json::{Value, json};

/// A reward that takes the last of some words for the answer, and finds “lovely” right.
fn answers(dir: &Path) -> String {
    let rows = |name: &str| -> String {
        let text = std::fs::read_to_string(quickstart().join(format!("{name}.jsonl"))).unwrap();
        let row = |line: &str| {
            let prompt = serde_json::from_str::<Value>(line).unwrap()["prompt"].clone();
            format!("{}\n", json!({"prompt": prompt, "answer": "lovely"}))
        };
        text.lines().map(row).collect()
    };
    let file = dir.join("answers.jsonl");
    std::fs::write(&file, rows("train") + &rows("test")).unwrap();
    format!("{{ kind = 'answer', file = '{}', pattern = 'lovely|nice|good|dull' }}", file.display())
}

/// The mean over prompts of how likely the vote of three is right, from what a run has stored.
fn right(samples: &Value) -> f64 {
    let prompts = samples["answers"].as_array().unwrap();
    let of_prompt = |answers: &Value| -> f64 {
        let answers: Vec<Option<&str>> =
            answers.as_array().unwrap().iter().map(Value::as_str).collect();
        let weights = plurality_weights(&answers, 3).unwrap();
        let right = weights.iter().zip(&answers).filter(|(_, answer)| **answer == Some("lovely"));
        right.map(|(weight, _)| weight).sum()
    };
    prompts.iter().map(of_prompt).sum::<f64>() / prompts.len() as f64
}

#[test]
fn a_policy_is_trained_and_evaluated_for_a_majority() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let reward = format!("reward={}", answers(dir.path()));
    let sets = [
        reward.as_str(),
        "method=[{name='raw',objective='raw'},{name='vote',objective='reward:majority:3'}]",
        "evaluation.baseline='raw'",
        "evaluation.procedures=['sample','majority:3']",
    ];
    done(train_small(&run, &sets));
    let results = json_file(&run.join("results.json"));
    let rows: Vec<&Value> = results["rows"].as_array().unwrap().iter().collect();
    let row = |method: &str, procedure: &str| -> &Value {
        let of = |row: &&&Value| row["method"] == method && row["procedure"] == procedure;
        rows.iter().find(of).unwrap_or_else(|| panic!("no {method} under {procedure}"))
    };
    for method in ["raw", "vote"] {
        let samples = json_file(&run.join(format!("methods/{method}/samples.json")));
        let found = row(method, "majority:3");
        let score = found["score"]["estimate"].as_f64().unwrap();
        assert!((score - right(&samples)).abs() < 1e-12, "{method}: {score}");
        assert_eq!(found["procedure_kl"]["kind"], "bound", "{found}");
        assert_eq!(found["predicted_win_rate"], Value::Null, "{found}");
    }
    // It is another policy than that of the reward itself.
    let weights = |method: &str| {
        std::fs::read(run.join(format!("methods/{method}/policy/model.safetensors"))).unwrap()
    };
    assert!(weights("raw") != weights("vote"));
    let mut report = infalign(&["report"]);
    report.arg(&run);
    done(report);

    let mut dry = train_small(&dir.path().join("dry"), &sets[1..]);
    let text = stderr(&dry.arg("--dry-run").output().unwrap());
    assert!(text.contains("warning: under majority:N whole responses"), "{text}");

    let few = [sets.as_slice(), &["train.samples_per_prompt=3"]].concat();
    refused(train_small(&dir.path().join("few"), &few), &["samples_per_prompt is 3"]);
    let won = "method=[{name='raw',objective='win-rate:majority:3'}]";
    let won = train_small(&dir.path().join("won"), &[&reward, won]);
    refused(won, &["cannot be told from responses"]);
}

#[test]
fn models_are_evaluated_under_a_majority_from_the_samples_of_other_procedures() {
    let dir = tempfile::tempdir().unwrap();
    let reward = answers(dir.path());
    let reward = reward.trim_start_matches("{ ").trim_end_matches(" }").replace(", ", "\n");
    std::fs::write(dir.path().join("judge.toml"), reward).unwrap();
    let model = quickstart().join("model");
    let mut command = infalign(&["evaluate", "--judge", "judge.toml", "--samples", "4"]);
    command.args(["--max-tokens", "12", "--procedure", "sample", "--procedure", "majority:3"]);
    command.args(["--json", "--out", "run", "--policy"]).arg(&model).arg("--reference").arg(&model);
    command.arg("--prompts").arg(quickstart().join("test.jsonl"));
    command.current_dir(dir.path());
    let rows: Value = serde_json::from_str(&done(command)).unwrap();
    let rows = rows["rows"].as_array().unwrap();
    assert_eq!(rows[1]["procedure"], "majority:3");
    let samples = json_file(&dir.path().join("run/methods/policy/samples.json"));
    let score = rows[1]["score"]["estimate"].as_f64().unwrap();
    assert!((score - right(&samples)).abs() < 1e-12, "{score}");
}
