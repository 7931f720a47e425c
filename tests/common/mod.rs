//! How tests run the command, and the quickstart in miniature.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The quickstart made small: every stage, seconds instead of minutes.
pub(crate) const SMALL: [&str; 6] = [
    "calibration.samples=4",
    "train.steps=3",
    "train.prompts_per_step=2",
    "train.samples_per_prompt=4",
    "train.optimizer.warmup_steps=1",
    "evaluation.samples=4",
];

/// The command, without the data and the input of whoever runs the tests.
pub(crate) fn infalign(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infalign"));
    command
        .args(args)
        .env_remove("INFALIGN_DATA")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// `train` with the small settings, and with other values of some keys.
pub(crate) fn train_small(out: &Path, sets: &[&str]) -> Command {
    let mut command = infalign(&["train", "--out"]);
    command.arg(out);
    for set in SMALL.iter().chain(sets) {
        command.args(["--set", set]);
    }
    command
}

pub(crate) fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

/// Runs the command, which has to succeed, and returns what it printed.
pub(crate) fn done(command: Command) -> String {
    let output = run(command);
    assert_done(&output);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the command, which has to end with that exit code, and returns stderr with stdout before it.
pub(crate) fn fails(command: Command, code: i32) -> String {
    let output = run(command);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

pub(crate) fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|_| panic!("{}", path.display())))
        .unwrap()
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The bundled recipe's model and prompts.
pub(crate) fn quickstart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/quickstart").canonicalize().unwrap()
}
