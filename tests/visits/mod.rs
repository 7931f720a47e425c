//! Rated sentences and preferences about visits, in the words of the quickstart's model, and how tests run the command on them.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

#[allow(unused_imports, reason = "each test takes what it needs")]
pub(crate) use crate::common::{
    assert_done, done, infalign, json_file, quickstart, refused, stderr,
};

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

pub(crate) fn train(recipe: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = infalign(&["train", "--out"]);
    command.arg(out).arg(recipe).args(more);
    command
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
