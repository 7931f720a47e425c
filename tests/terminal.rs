//! What a stranger's run holds does nothing to the terminal that it is told on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod runs;

use std::path::{Path, PathBuf};

use runs::{done, fails, infalign, with_run};
use serde_json::{Value, json};

/// Clears the screen of a terminal.
const CLEAR: &str = "\u{1b}[2J";
/// The same, to be seen.
const VISIBLE: &str = "\\u{1b}[2J";

/// A small run, with another value in its record.
fn run_with(dir: &Path, key: &str, value: Value) -> PathBuf {
    let run = dir.join(key);
    let mut command = infalign(&["transform", "curve", "--transform", "identity", "--kl", "0.5"]);
    command.arg("--record").arg(&run);
    done(command);
    let path = run.join("record.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record[key] = value;
    std::fs::write(path, record.to_string()).unwrap();
    run
}

#[test]
fn errors_show_control_characters() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join(format!("absent{CLEAR}"));
    let text = fails(with_run("verify", &absent, &[]), 2);
    assert!(text.contains(&format!("absent{VISIBLE} is no folder")), "{text:?}");
    assert!(!text.contains(CLEAR), "{text:?}");

    let forged = run_with(dir.path(), "command", json!(format!("{CLEAR}all is well")));
    let text = fails(with_run("verify", &forged, &[]), 2);
    assert!(text.contains("record.json is refused: its command holds"), "{text:?}");
    assert!(!text.contains(CLEAR), "{text:?}");
}

#[test]
fn a_result_is_plain_on_a_terminal_and_as_it_is_in_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_with(dir.path(), "metrics", json!({ CLEAR: 1.0 }));
    let finding = |name: &str| format!("results.json contradicts the record: {name} is absent");
    let text = fails(with_run("verify", &run, &[]), 1);
    assert!(text.contains(&finding(CLEAR)), "{text:?}");
    #[cfg(target_os = "linux")]
    {
        let mut script = std::process::Command::new("script");
        script.args(["-qec", "\"$PROGRAM\" verify \"$RUN\"", "/dev/null"]);
        script.env("PROGRAM", env!("CARGO_BIN_EXE_infalign")).env("RUN", &run);
        let Ok(output) = script.stdin(std::process::Stdio::null()).output() else {
            eprintln!("SKIPPED: there is no `script`, whose terminal the command would run on");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{text:?}");
        assert!(text.contains(&finding(VISIBLE)) && !text.contains(CLEAR), "{text:?}");
    }
}
