//! A run of the quickstart in miniature, and how tests run the command.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Two methods, three steps.
const SMALL: [&str; 8] = [
    "calibration.samples=4",
    "train.steps=3",
    "train.prompts_per_step=2",
    "train.samples_per_prompt=4",
    "train.optimizer.warmup_steps=1",
    "evaluation.samples=4",
    "method=[{ name = 'raw', objective = 'raw' }, { name = 'ctrl-best', objective = 'exp:10' }]",
    "expect={ claim = [{ better = 'ctrl-best', worse = 'base', procedure = 'best-of:4' }] }",
];

pub(crate) fn infalign(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infalign"));
    command
        .args(args)
        .env_remove("INFALIGN_DATA")
        .env_remove("RAYON_NUM_THREADS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// `train` with the small settings, without the claim, which too small a run does not keep.
pub(crate) fn train(out: &Path, more: &[&str]) -> Command {
    let mut command = infalign(&["train", "--out"]);
    command.arg(out);
    for set in &SMALL[..7] {
        command.args(["--set", set]);
    }
    command.args(more);
    command
}

/// The claim that the small settings can be given.
pub(crate) fn claim() -> [&'static str; 2] {
    ["--set", SMALL[7]]
}

/// A recipe file with the small settings, whose prompts and model are files beside it.
pub(crate) fn recipe(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let path = dir.join("recipe.toml");
    std::fs::copy(source.join("quickstart.toml"), &path).unwrap();
    std::fs::create_dir_all(dir.join("quickstart/model")).unwrap();
    for folder in ["quickstart", "quickstart/model"] {
        for entry in std::fs::read_dir(source.join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                std::fs::copy(entry.path(), dir.join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    path
}

pub(crate) fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

pub(crate) fn done(command: Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the command, which has to end with that exit code, and returns stderr with stdout before it.
pub(crate) fn fails(command: Command, code: i32) -> String {
    let output = run(command);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn with_run(command: &str, run: &Path, more: &[&str]) -> Command {
    let mut words = infalign(&[command]);
    words.arg(run).args(more);
    words
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

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
