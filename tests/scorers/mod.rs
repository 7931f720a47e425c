//! A recipe of prefix scorers in the words of the quickstart, and how tests run it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{infalign, quickstart};

/// A folder with a few prompts, two rewards and a recipe.
pub(crate) fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, count) in [("train", 24), ("test", 12)] {
        let text = std::fs::read_to_string(quickstart().join(format!("{name}.jsonl"))).unwrap();
        let lines: Vec<&str> = text.lines().take(count).collect();
        std::fs::write(dir.path().join(format!("{name}.jsonl")), lines.join("\n")).unwrap();
    }
    let text = format!(
        r#"task = "scorer"
name = "visits"
seed = 1
model = "{}"
prompts = {{ kind = "files", train = "train.jsonl", test = "test.jsonl" }}
generation = {{ max_tokens = 16 }}
rollouts = {{ samples = 16, held_out = 8 }}

[[head]]
name = "lovely"
reward = {{ kind = "lexicon", weights = {{ lovely = 1.0, good = 1.0, perfect = 2.0, dull = -1.0, nasty = -2.0 }} }}

[[head]]
name = "length"
reward = {{ kind = "length", unit = "words" }}

[train]
method = "cd-fudge"
steps = 200
examples_per_step = 32
optimizer = {{ learning_rate = 3e-3, warmup_steps = 5, final_share = 0.1 }}

[[evaluation]]
samples = 4
weights = {{ lovely = 1.0 }}
procedures = ["sample", "best-of:4", "cd-block:length=4,samples=4", "cd-token:lambda=2"]
"#,
        quickstart().join("model").display()
    );
    std::fs::write(dir.path().join("recipe.toml"), text).unwrap();
    std::fs::write(
        dir.path().join("reward.toml"),
        "kind = 'lexicon'\nweights = { lovely = 1.0, good = 1.0, perfect = 2.0, dull = -1.0, nasty = -2.0 }\n",
    )
    .unwrap();
    dir
}

pub(crate) fn scorer(dir: &Path, out: &str, more: &[&str]) -> Command {
    let mut command = infalign(&["scorer", "--out"]);
    command.arg(dir.join(out)).arg(dir.join("recipe.toml")).args(more);
    command
}

pub(crate) fn generate(dir: &Path, model: &Path, args: &[&str]) -> Command {
    let mut command = infalign(&["generate", "--json", "--max-tokens", "16", "--model"]);
    command.arg(model).arg("--prompts").arg(dir.join("test.jsonl"));
    command.arg("--reward").arg(dir.join("reward.toml")).args(args);
    command
}

pub(crate) fn mean(rows: &[Value], of: impl Fn(&Value) -> f64) -> f64 {
    rows.iter().map(of).sum::<f64>() / rows.len() as f64
}

/// A copy of the quickstart's model with one file changed.
pub(crate) fn copy(
    dir: &Path,
    name: &str,
    file: &str,
    change: impl Fn(Vec<u8>) -> Vec<u8>,
) -> PathBuf {
    let to = dir.join(name);
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(quickstart().join("model")).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap();
        let changed = if entry.file_name() == file { change(bytes) } else { bytes };
        std::fs::write(to.join(entry.file_name()), changed).unwrap();
    }
    to
}

/// The model with a token that is written otherwise.
pub(crate) fn other_tokenizer(dir: &Path) -> PathBuf {
    copy(dir, "other", "tokenizer.json", |bytes| {
        String::from_utf8(bytes).unwrap().replace("\"lovely\"", "\"lively\"").into_bytes()
    })
}
