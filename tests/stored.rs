//! `infalign evaluate` on stored responses: whose scores count, and how intervals are made.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;

use common::{infalign, json, run};
use serde_json::{Value, json};

/// What is found of two files of a folder.
fn evaluate(dir: &Path, [policy, reference]: [&str; 2], more: &[&str]) -> Value {
    let sides = ["evaluate", "--json", "--policy", policy, "--reference", reference];
    let mut command = infalign(&sides);
    command.args(more).current_dir(dir);
    json(&run(command))
}

#[test]
fn a_reward_that_is_asked_for_overrules_the_judge_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, response: &str, score: f64| {
        let samples = json!({
            "prompts": [{ "id": "a", "text": "a" }, { "id": "b", "text": "b" }],
            "responses": [[response, response], [response, response]],
            "rewards": [[score, score], [score, score]], "judged": [[score, score], [score, score]],
        });
        std::fs::write(dir.path().join(name), samples.to_string()).unwrap();
    };
    write("policy.json", "so it was", 0.0);
    write("reference.json", "so", 1.0);
    std::fs::write(dir.path().join("length.toml"), "kind = 'length'\nunit = 'words'\n").unwrap();
    let found = |more: &[&str]| {
        let row = evaluate(dir.path(), ["policy.json", "reference.json"], more);
        (row["win_rate"]["estimate"].as_f64().unwrap(), row["judge"].clone())
    };
    assert_eq!(found(&[]), (0.0, json!("judge")));
    assert_eq!(found(&["--judge", "length.toml"]), (1.0, json!("reward")));
}

#[test]
fn intervals_are_made_as_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, reward: fn(usize, usize) -> usize| {
        let row = |k: usize| {
            let (prompt, sample) = (k / 4, k % 4);
            let reward = reward(prompt, sample);
            format!(
                "{}\n",
                json!({ "prompt": format!("p{prompt}"), "response": "x", "reward": reward })
            )
        };
        std::fs::write(dir.path().join(name), (0..48).map(row).collect::<String>()).unwrap();
    };
    write("policy.jsonl", |prompt, sample| (prompt * prompt * 7 + sample * 5) % 11);
    write("reference.jsonl", |prompt, sample| (prompt * 3 + sample * 4) % 7);
    let sides = ["policy.jsonl", "reference.jsonl"];
    let found = |more: &[&str]| evaluate(dir.path(), sides, more)["win_rate"].clone();
    let ends = |more: &[&str]| {
        let found = found(more);
        ["low", "estimate", "high"].map(|key| found[key].as_f64().unwrap())
    };
    // Student's is as wide on one side as on the other.
    let skew = |[low, estimate, high]: [f64; 3]| (high - estimate) - (estimate - low);
    assert!(skew(ends(&["--interval", "t"])).abs() < 1e-12);
    assert!(skew(ends(&[])).abs() > 1e-3);
    for more in [&[][..], &["--interval", "t"]] {
        let narrow = [more, &["--level", "0.5"]].concat();
        let ([low, _, high], [inner_low, _, inner_high]) = (ends(more), ends(&narrow));
        assert!(low < inner_low && inner_high < high, "{more:?}");
        assert_eq!(found(&narrow)["level"], 0.5);
    }
    let few = ["--replicates", "200"];
    assert_ne!(ends(&few), ends(&[]));
    assert_ne!(ends(&[&few[..], &["--resample-seed", "1"]].concat()), ends(&few));
}
