//! How tests run the command, and the quickstart in miniature.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

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

/// Starts the command, asks it to stop once a file is there, and returns stderr; it has to end as what was stopped does.
#[cfg(unix)]
pub(crate) fn stopped(mut command: Command, once: &Path) -> String {
    let mut child = command.spawn().unwrap();
    while !once.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    text
}

/// The document that a command printed, which has to have succeeded.
pub(crate) fn json(output: &Output) -> Value {
    assert_done(output);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The responses of such a document.
pub(crate) fn responses(output: &Output) -> Vec<Value> {
    json(output)["responses"].as_array().unwrap().clone()
}

pub(crate) fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|_| panic!("{}", path.display())))
        .unwrap()
}

/// A file of a run.
pub(crate) fn bytes(run: &Path, file: &str) -> Vec<u8> {
    let path = run.join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs that have to have ended the same: these files and the policies, byte for byte, after as many steps of each method.
pub(crate) fn assert_equal(runs: [&Path; 2], files: &[&str], methods: &[&str], steps: usize) {
    let policies = methods.iter().map(|name| format!("methods/{name}/policy/model.safetensors"));
    for file in files.iter().map(|file| (*file).to_owned()).chain(policies) {
        let [a, b] = runs.map(|run| bytes(run, &file));
        assert!(a == b, "{file} differs");
    }
    for (method, run) in methods.iter().flat_map(|method| runs.map(|run| (method, run))) {
        let lines = bytes(run, &format!("methods/{method}/metrics.jsonl"));
        let lines = serde_json::Deserializer::from_slice(&lines).into_iter::<Value>();
        let done: Vec<Value> = lines.map(|line| line.unwrap()["step"].clone()).collect();
        assert_eq!(done, (1..=steps).map(Value::from).collect::<Vec<_>>(), "{method}");
    }
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

/// The command where writes fail as they do on a full disk, by a limit on the size of files.
pub(crate) fn on_a_full_disk<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_infalign")]).args(args);
    shell.env_remove("INFALIGN_DATA").output().unwrap()
}

/// The quickstart's model with one more file.
pub(crate) fn model_with(file: &str, text: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&quickstart().join("model"), dir.path());
    std::fs::write(dir.path().join(file), text).unwrap();
    dir
}

/// The quickstart's model in a folder of `dir`, with a weight that is another.
pub(crate) fn tuned(dir: &Path) -> PathBuf {
    let to = dir.join("tuned");
    copy(&quickstart().join("model"), &to);
    let weights = to.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&0.05_f32.to_le_bytes());
    std::fs::write(weights, bytes).unwrap();
    to
}

/// The bundled recipe's model and prompts.
pub(crate) fn quickstart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/quickstart").canonicalize().unwrap()
}
