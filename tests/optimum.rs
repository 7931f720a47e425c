//! Trained policies beside their exact optimum, on a model whose responses can all be listed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{done, fails, infalign, json_file, quickstart};
use serde_json::Value;

const METHODS: &str = r#"method=[
    {name="one",objective="identity"}, {name="best",objective="exp:10"}, {name="raw",objective="raw"},
    {name="sft",kind="best-of-n-sft",n=4,train={steps=2,examples_per_step=8,optimizer={learning_rate=1e-3}}},
]"#;
/// Two that need no table.
const WITHOUT_TABLE: &str = r#"method=[
    {name="one",objective="identity"},
    {name="sft",kind="best-of-n-sft",n=4,train={steps=2,examples_per_step=8,optimizer={learning_rate=1e-3}}},
]"#;

/// The recipe of the oracle in miniature.
fn oracle(out: &Path, more: &[&str]) -> Command {
    let recipe = quickstart().join("../oracle.toml");
    let mut command = infalign(&["train", "--out"]);
    command.arg(out).arg(recipe);
    let small = [METHODS, "evaluation.baseline='one'", "calibration.samples=64", "train.steps=60"];
    for set in small.iter().chain(more) {
        command.args(["--set", set]);
    }
    command
}

#[test]
fn policies_stand_beside_their_optimum() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let printed = done(oracle(&run, &["rollouts.samples=16"]));
    assert!(printed.contains("beside the exact optimum"), "{printed}");
    let results = json_file(&run.join("results.json"));
    let optima = results["optima"].as_array().unwrap();
    let methods: Vec<&Value> = optima.iter().map(|optimum| &optimum["method"]).collect();
    assert_eq!(methods, ["one", "best", "raw"], "those that CTRL trains");
    for optimum in optima {
        let number = |key: &str| optimum[key].as_f64().unwrap();
        assert_eq!(number("beta"), 0.25);
        assert!(number("value") < number("optimum") && number("distance") > 0.0, "{optimum}");
        let lacks = (number("optimum") - number("value")) / number("beta");
        assert!(
            (lacks - number("distance")).abs() < 1e-4,
            "β log Z − value = β KL(π‖π*): {optimum}"
        );
        let best_of = &optimum["win_rates"][1];
        assert_eq!(best_of["procedure"], "best-of:4");
        assert!(best_of["policy"].as_f64().unwrap() > 0.5, "{optimum}");
    }
    let replayed = done({
        let mut replay = infalign(&["replay"]);
        replay.arg(&run);
        replay
    });
    let results = replayed.lines().find(|line| line.starts_with("results.json"));
    assert!(results.is_some_and(|line| line.ends_with("the same bytes")), "{replayed}");
}

#[test]
fn what_cannot_be_listed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    for (more, needles) in [
        (&["generation.max_tokens=8", "rollouts.samples=16"][..], ["3 prompts", "max_tokens"]),
        (
            &["generation.max_tokens=32", "model='quickstart/model'", "rollouts.samples=16"],
            ["more than can be counted", "max_tokens"],
        ),
        (
            &["calibration={group=true}", "rollouts.samples=16", WITHOUT_TABLE],
            ["calibration.group", "evaluation.optimum"],
        ),
    ] {
        let mut command = oracle(&out, more);
        command.arg("--dry-run");
        let text = fails(command, 2);
        assert!(needles.iter().all(|needle| text.contains(needle)), "{text}");
    }
}
