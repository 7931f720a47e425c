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

/// One whose optimum is not computed.
const EXPECTED: &str = r#"method=[
    {name="one",objective="reward:best-of:4"},
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
        assert!((0.0..0.9).contains(&number("lacking")) && number("start") < number("value"));
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
fn at_a_target_kl_the_optimum_is_as_far_and_a_stopped_run_finds_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let train = "train={steps=60,prompts_per_step=3,samples_per_prompt=64,target_kl=0.2,optimizer={learning_rate=5e-3}}";
    done(oracle(&run, &["rollouts.samples=16", train]));
    let results = std::fs::read(run.join("results.json")).unwrap();
    let found: Value = serde_json::from_slice(&results).unwrap();
    for optimum in found["optima"].as_array().unwrap() {
        let number = |key: &str| optimum[key].as_f64().unwrap();
        // As far: the values differ by what is expected of Φ alone.
        assert!(number("kl") > 0.01 && number("lacking") >= 0.0, "{optimum}");
        assert!(number("distance") < number("kl"), "nearer than the reference: {optimum}");
    }
    std::fs::remove_file(run.join("methods/best/optimum.json")).unwrap();
    std::fs::remove_file(run.join("results.json")).unwrap();
    let mut again = infalign(&["train", "--resume", "--out"]);
    again.arg(&run);
    done(again);
    assert_eq!(std::fs::read(run.join("results.json")).unwrap(), results, "the same bytes");
}

#[test]
fn rewards_that_are_all_equal_have_no_optimum_to_gain() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let equal = "reward={kind='patterns',weights={'zzz'=1.0}}";
    let train = "train={steps=2,prompts_per_step=3,samples_per_prompt=4,target_kl=0.2,optimizer={learning_rate=5e-3}}";
    done(oracle(&run, &["rollouts.samples=16", train, equal]));
    let results = json_file(&run.join("results.json"));
    let one = &results["optima"][0];
    assert_eq!((one["lacking"].as_f64(), one["beta"].as_f64()), (Some(0.0), Some(1.0)), "{one}");
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
        (
            &[EXPECTED, "rollouts.samples=16"],
            ["reward:best-of:4 is not computed", "evaluation.optimum"],
        ),
    ] {
        let mut command = oracle(&out, more);
        command.arg("--dry-run");
        let text = fails(command, 2);
        assert!(needles.iter().all(|needle| text.contains(needle)), "{text}");
    }
}
