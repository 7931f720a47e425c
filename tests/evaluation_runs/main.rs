//! `infalign evaluate`: what is refused is refused before anything is sampled or scored, and what was sampled or answered is never lost.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod comparisons;
mod refusals;
mod resuming;
#[path = "../../crates/remote/tests/server/mod.rs"]
mod server;
#[cfg(unix)]
mod stopping;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{copy, infalign, quickstart};
use serde_json::json;

/// A folder with prompts of the quickstart and rewards.
struct Given(tempfile::TempDir);

impl Given {
    fn new(prompts: usize) -> Self {
        let given = Self(tempfile::tempdir().unwrap());
        let all = std::fs::read_to_string(quickstart().join("test.jsonl")).unwrap();
        let some: Vec<&str> = all.lines().take(prompts).collect();
        given.write("prompts.jsonl", &(some.join("\n") + "\n"));
        given.write("judge.toml", "kind = 'lexicon'\nweights = { good = 1.0, dull = -1.0 }\n");
        given
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        name.to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `infalign evaluate` in the folder.
    fn evaluate(&self, args: &[&str]) -> Command {
        let mut command = infalign(&["evaluate"]);
        command.args(args).current_dir(self.0.path());
        command
    }

    /// The quickstart's model against itself, judged by its words.
    fn models(&self, args: &[&str]) -> Command {
        let model = quickstart().join("model");
        self.between([&model, &model], args)
    }

    /// A policy and a reference, judged by their words.
    fn between(&self, [policy, reference]: [&Path; 2], args: &[&str]) -> Command {
        let mut command = self.evaluate(&["--prompts", "prompts.jsonl", "--max-tokens", "24"]);
        command.arg("--policy").arg(policy).arg("--reference").arg(reference).args(args);
        command
    }

    /// The quickstart's model with a part of a file's text replaced.
    fn model(&self, name: &str, file: &str, (from, to): (&str, &str)) -> PathBuf {
        let model = self.path(name);
        copy(&quickstart().join("model"), &model);
        let text = std::fs::read_to_string(model.join(file)).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(model.join(file), text.replace(from, to)).unwrap();
        model
    }
}

/// Stored responses, as `a.jsonl` and `b.jsonl`.
fn write_responses(given: &Given) {
    let row = |k: usize| json!({ "prompt": format!("p{}", k / 2), "response": format!("r{k}"), "reward": k % 3 });
    let rows: String = (0..6).map(|k| format!("{}\n", row(k))).collect();
    given.write("a.jsonl", &rows);
    given.write("b.jsonl", &rows);
}
