//! Rated sentences and preferences about visits, in the words of the quickstart's model, and how tests run the command on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const THINGS: [&str; 6] = ["soup", "bread", "tea", "music", "light", "view"];
const WORDS: [(&str, f64); 8] = [
    ("nice", 1.0),
    ("lovely", 2.0),
    ("good", 1.2),
    ("perfect", 3.0),
    ("dull", -1.0),
    ("nasty", -2.0),
    ("slow", -0.8),
    ("awful", -2.5),
];

pub(crate) fn infalign(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infalign"));
    command.args(args).env_remove("INFALIGN_DATA").stdin(Stdio::null());
    command
}

pub(crate) fn train(recipe: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = infalign(&["train", "--out"]);
    command.arg(out).arg(recipe).args(more).output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

pub(crate) fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|_| panic!("{}", path.display())))
        .unwrap()
}

pub(crate) fn quickstart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/quickstart").canonicalize().unwrap()
}

/// Sentence number `index` about a thing, with the rating of its word.
fn sentence(index: usize) -> (String, f64) {
    let (word, rating) = WORDS[index * 7 % WORDS.len()];
    let (a, b) = (THINGS[index % THINGS.len()], THINGS[index / THINGS.len() % THINGS.len()]);
    (format!("the {a} was {word} . we found the {b} {word} ."), rating)
}

/// A folder with `ratings.tsv` and `preferences.jsonl`.
pub(crate) fn data() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let ratings = (0..160).map(sentence).enumerate();
    let ratings = ratings.map(|(i, (text, rating))| format!("{i}\t{rating}\tday {i} : {text}\n"));
    std::fs::write(dir.path().join("ratings.tsv"), ratings.collect::<String>()).unwrap();
    let pair = |i: usize| {
        let [(a, rating_a), (b, rating_b)] = [sentence(i), sentence(i + 3)];
        let (chosen, rejected) = if rating_a > rating_b { (a, b) } else { (b, a) };
        let prompt = format!("day {i} :");
        format!(
            "{}\n",
            json!({"prompt": prompt, "chosen": format!(" {chosen}"), "rejected": format!(" {rejected}")})
        )
    };
    let pairs: String = (0..160).map(pair).collect();
    std::fs::write(dir.path().join("preferences.jsonl"), pairs).unwrap();
    dir
}
