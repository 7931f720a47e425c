//! Reproductions: plans, what they find, and going on with one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;
use std::process::Output;

#[cfg(unix)]
use common::{SMALL, json_file, stopped};
use common::{infalign, stderr};
use serde_json::Value;

/// `infalign reproduce` in `dir`, on the plans of this repository unless `words` name others.
fn reproduce(dir: &Path, words: &[&str]) -> Output {
    infalign(&["reproduce"]).args(words).current_dir(dir).output().unwrap()
}

fn plans() -> String {
    format!("{}/../../recipes/reproduce", env!("CARGO_MANIFEST_DIR"))
}

fn stdout(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder with one plan, of a step that prints β, KL and win rates at β = 1, and a finding about them.
fn with_plan(finding: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("plans")).unwrap();
    let plan = format!(
        "title = 'a curve'\npaper = 'none'\nscale = 'exact'\n\
         [[step]]\nname = 'curve'\ncommand = ['transform', 'curve', '--transform', 'identity', '--beta', '1', '--json']\n{finding}"
    );
    std::fs::write(dir.path().join("plans/mine.toml"), plan).unwrap();
    dir
}

fn finding(is: &str, expect: &str) -> String {
    format!("[[finding]]\nstates = 'it is so'\nstep = 'curve'\nis = {is}\nexpect = '{expect}'\n")
}

#[test]
fn what_is_exact_is_reproduced_and_not_computed_twice() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["infalign-transforms", "--plans", &plans(), "--json"];
    let first = reproduce(dir.path(), &words);
    let document: Value = serde_json::from_str(&stdout(&first, 0)).unwrap();
    let findings = document["findings"].as_array().unwrap();
    assert!(findings.len() == 2 && findings.iter().all(|f| f["verdict"] == "agrees"));
    let run = dir.path().join("reproductions/infalign-transforms");
    assert!(run.join("steps/figure/transforms.svg").is_file());
    let crated = std::fs::read_to_string(run.join("ro-crate-metadata.json")).unwrap();
    assert!(crated.contains("OrganizeAction") && crated.contains("#step-figure"));
    let second = reproduce(dir.path(), &words);
    assert_eq!(stdout(&second, 0), stdout(&first, 0));
    assert!(stderr(&second).contains("figure: already done"));
    let of = |command: &str, code: i32| {
        let output = infalign(&[command]).arg(&run).output().unwrap();
        stdout(&output, code);
        stderr(&output)
    };
    of("verify", 0);
    for command in ["replay", "replicate"] {
        assert!(of(command, 2).contains("whose steps are runs of their own"), "{command}");
    }
}

#[test]
fn nothing_ends_because_nobody_reads_what_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = infalign(&["reproduce", "infalign-transforms", "--plans", &plans()]);
    let output = command.current_dir(dir.path()).stderr(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!output.stdout.is_empty());
}

#[test]
fn a_verdict_that_was_not_expected_fails_the_check() {
    for (is, expect, code) in [
        ("{ at = '/win_rate/sample', least = 0.5 }", "agrees", 0),
        ("{ at = '/win_rate/sample', most = 0.5 }", "differs", 0),
        ("{ at = '/win_rate/sample', most = 0.5 }", "agrees", 1),
        ("{ at = '/win_rate/nothing', most = 0.5 }", "agrees", 3),
    ] {
        let dir = with_plan(&finding(is, expect));
        stdout(&reproduce(dir.path(), &["mine", "--plans", "plans"]), code);
    }
    let dir = with_plan(&finding("{ at = '/win_rate/sample', most = 0.5 }", "agrees"));
    let smoke = stdout(&reproduce(dir.path(), &["mine", "--plans", "plans", "--smoke"]), 0);
    assert!(smoke.contains("not judged"), "{smoke}");
}

#[test]
fn one_plan_that_fails_does_not_keep_the_others_from_running() {
    let dir = with_plan("");
    let broken = "title = 'none'\npaper = 'none'\nscale = 'none'\n\
                  [[step]]\nname = 'curve'\ncommand = ['transform', 'curve', '--transform', 'cube', '--kl', '1']\n";
    std::fs::write(dir.path().join("plans/broken.toml"), broken).unwrap();
    let output = reproduce(dir.path(), &["all", "--plans", "plans"]);
    assert!(stdout(&output, 3).contains("# mine: a curve"));
    let errors = stderr(&output);
    assert!(errors.contains("broken: the step curve failed"), "{errors}");
}

#[test]
fn a_training_is_gone_through_in_small_and_its_methods_compared() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["infalign-quickstart", "--plans", &plans(), "--smoke", "--json"];
    let document: Value = serde_json::from_str(&stdout(&reproduce(dir.path(), &words), 0)).unwrap();
    let findings = document["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 4);
    assert!(findings.iter().all(|finding| finding["verdict"].is_null()));
    // The last is at a common KL, which steps so few do not reach.
    assert!(findings[..3].iter().all(|finding| finding["estimate"].is_number()));
}

#[cfg(unix)]
#[test]
fn a_reproduction_that_is_asked_to_stop_stops_its_step() {
    let dir = with_plan("");
    let sets = SMALL.iter().chain(&["train.steps=5000"]).flat_map(|set| ["--set", *set]);
    let words: Vec<&str> = ["train", "--out", "$STEP"].into_iter().chain(sets).collect();
    let plan = format!(
        "title = 'long'\npaper = 'none'\nscale = 'none'\n[[step]]\nname = 'train'\ncommand = {words:?}\n"
    );
    std::fs::write(dir.path().join("plans/long.toml"), plan).unwrap();
    let step = dir.path().join("reproductions/long/steps/train");
    let mut command = infalign(&["reproduce", "long", "--plans", "plans"]);
    command.current_dir(dir.path());
    let message = stopped(command, &step.join("methods/raw/metrics.jsonl"));
    assert!(message.contains("the step train: stopped; what was finished is kept"), "{message}");
    assert_eq!(json_file(&step.join("record.json"))["status"], "failed");
}

#[test]
fn what_cannot_be_reproduced_is_refused_with_a_reason() {
    let dir = with_plan("");
    let refused = |words: &[&str], told: &str| {
        let output = reproduce(dir.path(), words);
        let errors = stderr(&output);
        assert!(output.status.code() == Some(2) && errors.contains(told), "{errors}");
    };
    refused(&["nothing", "--plans", "plans"], "there is no plan \"nothing\"; there are mine");
    refused(&["mine"], "--plans");
    refused(&["infalign-stories", "--plans", &plans()], "INFALIGN_DATA");
    std::fs::write(dir.path().join("plans/wrong.toml"), "title = 'x'\nstepp = 1").unwrap();
    refused(&["mine", "--plans", "plans"], "stepp");
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    refused(&["mine", "--plans", "empty"], "empty holds no plans: name their folder by --plans");
    let list = stdout(&reproduce(dir.path(), &["--list", "--plans", &plans()]), 0);
    assert!(list.contains("infalign-frontiers"), "{list}");
}
