//! How tests run the command, and the quickstart in miniature.
#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::print_stdout, reason = "a test that failed tells what it did")]

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

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

/// How the names of variables begin that change what the command does, or are recorded.
const OF_CALLER: [&str; 6] =
    ["SLURM_", "INFALIGN_", "HF_", "HUGGING_FACE_", "GIT_", "RAYON_NUM_THREADS"];
/// What the names of variables hold whose values must not be recorded.
const OF_SECRETS: [&str; 8] =
    ["KEY", "TOKEN", "SECRET", "PASSW", "CRED", "AUTH", "COOKIE", "SESSION"];
/// For waiting: what lasts longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Shares of the time of a whole run after which it is killed.
const KILLED_AFTER: [f64; 8] = [0.05, 0.37, 0.14, 0.55, 0.23, 0.46, 0.09, 0.6];

/// The command.
pub(crate) fn infalign(args: &[&str]) -> Command {
    let mut command = clean(env!("CARGO_BIN_EXE_infalign"));
    command.args(args);
    command
}

/// A program without the input, the variables and the secrets of whoever runs the tests; what cargo needs stays.
pub(crate) fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        let is_secret = OF_SECRETS.iter().any(|part| upper.contains(part));
        if OF_CALLER.iter().any(|of| upper.starts_with(of))
            || (is_secret && !upper.starts_with("CARGO"))
        {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs git in a folder without the repository and the settings of whoever runs the tests, and returns what it printed; it has to succeed.
pub(crate) fn git(dir: &Path, words: &[&str]) -> String {
    let mut git = clean("git");
    for name in ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"] {
        git.env(name, if cfg!(windows) { "NUL" } else { "/dev/null" });
    }
    git.args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(words).current_dir(dir);
    done(git)
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
    let words = format!("{:?}", command.get_args().collect::<Vec<_>>());
    let output = run(command);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    assert_eq!(output.status.code(), Some(code), "{words}: {text}");
    text
}

/// Runs the command, which has to refuse its input in these words among others, and returns what it said.
pub(crate) fn refused(command: Command, needles: &[&str]) -> String {
    let words = format!("{:?}", command.get_args().collect::<Vec<_>>());
    let text = fails(command, 2);
    for needle in needles {
        assert!(text.contains(needle), "{words} does not tell {needle:?}: {text}");
    }
    text
}

/// Runs four of a command at once, of which one has to do its work and the others are told that there is another.
pub(crate) fn one_of_four(command: impl Fn() -> Command) {
    let all: Vec<Child> = (0..4).map(|_| command().spawn().unwrap()).collect();
    let outputs: Vec<Output> =
        all.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    assert_eq!(outputs.iter().filter(|output| output.status.success()).count(), 1);
    for output in outputs.iter().filter(|output| !output.status.success()) {
        let text = stderr(output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        let told = text.contains("another process is") || text.contains("holds a run already");
        assert!(told, "{text}");
    }
}

/// Waits until something is so while the command runs, which must not end before; `what` names it.
pub(crate) fn wait_until(child: &mut Child, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    loop {
        // Looked at first: what it did at its end counts.
        let ended = child.try_wait().unwrap();
        if condition() {
            return;
        }
        if ended.is_some() || start.elapsed() > PATIENCE {
            let _ = child.kill();
            let mut told = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                let _ = stderr.read_to_string(&mut told);
            }
            let ended = ended.map_or_else(|| "not in a minute".to_owned(), |s| s.to_string());
            panic!("waited for {what}: {ended}: {told}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Presses Ctrl-C.
#[cfg(unix)]
pub(crate) fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

/// Starts the command, asks it to stop once a file is there, and returns stderr; it has to end as what was stopped does.
#[cfg(unix)]
pub(crate) fn stopped(mut command: Command, once: &Path) -> String {
    let mut child = command.spawn().unwrap();
    wait_until(&mut child, &once.display().to_string(), || once.exists());
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    text
}

/// Begins a run, kills it again and again as it goes on, and lets it come to its end.
///
/// - `whole`: how long the run takes when it is left alone.
/// - `begun`, `resumed`: the command that begins it in the folder `out`, and the one that goes on with it.
pub(crate) fn killed_until_done(
    out: &Path,
    whole: Duration,
    begun: impl Fn() -> Command,
    resumed: impl Fn() -> Command,
) {
    let next = || if out.join("config.toml").exists() { resumed() } else { begun() };
    let mut killed = 0;
    for share in KILLED_AFTER {
        let mut child = next().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(share));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        println!("after {share} of {whole:?}: {status}");
        if status.success() {
            break;
        }
        killed += 1;
    }
    assert!(killed > 0, "the run is too short");
    done(next());
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

/// How many checkpoints a folder of them has.
pub(crate) fn steps_kept(checkpoints: &Path) -> usize {
    let entries = std::fs::read_dir(checkpoints).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("step-")).count()
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

/// Makes another run of a copy, by its record.
pub(crate) fn as_another(run: &Path) {
    let file = run.join("record.json");
    let mut record = json_file(&file);
    record["uuid"] = "another".into();
    std::fs::write(file, record.to_string()).unwrap();
}

/// The command where writes fail as they do on a full disk, by a limit on the size of files.
pub(crate) fn on_a_full_disk<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"";
    let mut shell = clean("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_infalign")]).args(args);
    run(shell)
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
