//! `infalign generate --exact` as a user runs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{done, infalign, refused};
use serde_json::Value;

/// Two letters, at most two tokens: $ ½, a$ ¼, b$ ¼.
const BASE: &str =
    r#"{"D": 2, "p": {"": ["1/4", "1/4", "1/2"]}, "r": {"$": 0, "a$": 1, "b$": -1}}"#;

/// Another base policy and another reward of the same shape.
const OTHER: &str = r#"{"D": 2, "p": {"": [0.1, 0.1, 0.8]}, "r": {"$": 3, "a$": 0, "b$": 0}}"#;

fn write(dir: &Path) -> [String; 2] {
    [("base.json", BASE), ("other.json", OTHER)].map(|(name, text)| {
        let file = dir.join(name);
        std::fs::write(&file, text).unwrap();
        format!("tabular:{}", file.display())
    })
}

fn generate(args: &[&str]) -> Command {
    infalign(&[&["generate"], args].concat())
}

fn json(args: &[&str]) -> Value {
    common::json(&common::run(generate(args)))
}

fn close(document: &Value, pointer: &str, expected: f64) {
    let got = document.pointer(pointer).and_then(Value::as_f64).unwrap();
    assert!((got - expected).abs() < 1e-12, "{pointer}: {got} against {expected}");
}

#[test]
fn distributions_and_their_measures_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    let [base, other] = write(dir.path());
    let of = |procedure: &str, more: &[&str]| {
        json(&[&["--exact", "--json", "--model", &base, "--procedure", procedure], more].concat())
    };
    let sample = json(&["--exact", "--json", "--model", &base]);
    assert_eq!(sample["procedure"], "sample");
    for (pointer, expected) in [
        ("/expected_reward", 0.0),
        ("/kl", 0.0),
        ("/win_rate", 0.5),
        ("/expected_length", 1.5),
        ("/distribution/$", 0.5),
        ("/distribution/a$", 0.25),
        ("/distribution/b$", 0.25),
    ] {
        close(&sample, pointer, expected);
    }
    let best = of("best-of:2", &[]);
    close(&best, "/distribution/a$", 1.0 - 0.75 * 0.75);
    close(&best, "/distribution/b$", 0.0625);
    close(&of("worst-of:2", &[]), "/distribution/b$", 1.0 - 0.75 * 0.75);
    let soft = of("soft-best-of:2,temperature=0.5", &[]);
    let share = |a: f64, b: f64| 1.0 / (1.0 + ((b - a) / 0.5).exp());
    let a = 0.0625 + 2.0 * 0.25 * (0.5 * share(1.0, 0.0) + 0.25 * share(1.0, -1.0));
    close(&soft, "/distribution/a$", a);
    let blocks = of("cd-block:length=2,samples=2", &[]);
    assert_eq!(blocks["distribution"], best["distribution"], "one block is the whole response");
    close(&blocks, "/expected_blocks", 1.0);
    close(&blocks, "/kl_bound", 2_f64.ln() - 0.5);
    // Values of another table: after $, 3; after a or b, 0. With the model's own, by weight.
    let transfer = of("cd-token:lambda=1", &["--scorer", &other]);
    close(&transfer, "/distribution/$", 0.5 * 3_f64.exp() / (0.5 * 3_f64.exp() + 0.5));
    let weighted = [format!("{base}:2"), format!("{other}:0.5")];
    let two = of("cd-token:lambda=1", &["--scorer", &weighted[0], "--scorer", &weighted[1]]);
    let weights = [0.25 * 2_f64.exp(), 0.25 * (-2_f64).exp(), 0.5 * 1.5_f64.exp()];
    close(&two, "/distribution/a$", weights[0] / weights.iter().sum::<f64>());
}

#[test]
fn without_json_it_is_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let [base, _] = write(dir.path());
    let text = done(generate(&["--exact", "--model", &base, "--procedure", "best-of:2"]));
    for line in [
        "procedure        best-of:2",
        "win rate         0.640625000",
        "a$               0.437500000",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
    }
}

#[test]
fn bad_input_is_one_sentence_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let [base, _] = write(dir.path());
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("tabular:{}", path.display())
    };
    let broken = file("broken.json", &BASE.replace(r#""1/2""#, r#""1/3""#));
    let deep = file("deep.json", r#"{"D": 1, "p": {"": [0, 0, 1]}, "r": {"$": 0}}"#);
    let (infinite, huge) = (format!("{base}:inf"), format!("{base}:1e308"));
    let guided = ["--exact", "--model", &base, "--procedure", "cd-token:lambda=1"];
    for (args, needle) in [
        (&["--exact", "--model", "some/dir"][..], "give --model tabular:FILE.json"),
        (&["--model", "some/dir"], "--prompts is missing: give a file of prompts"),
        (&["--model", &base, "--prompts", "p.txt"], "add --exact"),
        (&["--model", &base], "add --exact"),
        (
            &["--exact", "--model", &broken],
            "broken.json: the row of `p` for the prefix `` sums to 0.83",
        ),
        (&["--exact", "--model", "tabular:absent.json"], "cannot read absent.json"),
        (
            &["--exact", "--model", &base, "--procedure", "beam:width=2,branch=2,length=1"],
            "exact enumeration is not available",
        ),
        (
            &["--exact", "--model", &base, "--scorer", &base],
            "--scorer guides cd-token and cd-block only",
        ),
        (&[&guided[..], &["--scorer", &deep]].concat(), "D = 1, but the model has 2 and D = 2"),
        (&[&guided[..], &["--scorer", "dir"]].concat(), "the scorer dir is not a table"),
        (&[&guided[..], &["--scorer", &infinite]].concat(), "is inf: give a finite number"),
        (
            &[&guided[..], &["--scorer", &huge, "--scorer", &huge]].concat(),
            "beyond the range of numbers",
        ),
        (
            &[
                "--exact",
                "--model",
                &base,
                "--procedure",
                "cd-token:lambda=1e308",
                "--scorer",
                &huge,
            ],
            "the value is 1e308",
        ),
        (&["--exact", "--model", &base, "--prompts", "p.txt"], "cannot be used with"),
        (&["--exact", "--model", &base, "--seed", "1"], "cannot be used with"),
        (&["--exact", "--model", &base, "--batch", "1"], "cannot be used with"),
        (&["--exact", "--model", &base, "--device", "cpu"], "cannot be used with"),
    ] {
        refused(generate(args), &[needle]);
    }
}
