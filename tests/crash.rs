//! Folders that several processes begin to write into at once, and what processes that were killed have left in them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{bytes, done, infalign, json_file, one_of_four, refused, train_small};

/// A curve that is computed at once.
const CURVE: [&str; 7] = ["transform", "curve", "--transform", "identity", "--beta", "1", "--json"];

fn verify(run: &Path) -> Command {
    let mut command = infalign(&["verify"]);
    command.arg(run);
    command
}

fn recorded(out: &Path) -> Command {
    let mut command = infalign(&CURVE);
    command.arg("--record").arg(out);
    command
}

/// A plan with the curve alone, into `reproductions/mine`.
fn reproduce(dir: &Path) -> Command {
    let plan = format!(
        "title = 'a curve'\npaper = 'none'\nscale = 'exact'\n[[step]]\nname = 'curve'\ncommand = {CURVE:?}\n"
    );
    std::fs::create_dir_all(dir.join("plans")).unwrap();
    std::fs::write(dir.join("plans/mine.toml"), plan).unwrap();
    let mut command = infalign(&["reproduce", "mine", "--plans", "plans"]);
    command.current_dir(dir);
    command
}

#[test]
fn a_reproduction_clears_what_was_left_half_written_but_not_what_a_step_may_be_writing() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("reproductions/mine");
    // As if it had been killed as it began.
    std::fs::create_dir_all(&run).unwrap();
    for name in [".lock", ".part-x1"] {
        std::fs::write(run.join(name), "").unwrap();
    }
    done(reproduce(dir.path()));
    std::fs::create_dir_all(run.join("steps/curve")).unwrap();
    for name in [".part-x2", "steps/.part-x3", "steps/curve/.part-x4"] {
        std::fs::write(run.join(name), "").unwrap();
    }
    done(reproduce(dir.path()));
    let there = [".part-x1", ".part-x2", "steps/.part-x3", "steps/curve/.part-x4"];
    assert_eq!(there.map(|name| run.join(name).exists()), [false, false, false, true]);
    done(verify(&run));
}

#[test]
fn one_process_records_into_a_folder_and_another_that_was_killed_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("at-once");
    one_of_four(|| recorded(&out));
    done(verify(&out));
    assert!(json_file(&out.join("record.json"))["earlier"].as_array().is_none_or(Vec::is_empty));

    let out = dir.path().join("killed");
    std::fs::create_dir(&out).unwrap();
    std::fs::copy(dir.path().join("at-once/start.json"), out.join("start.json")).unwrap();
    for name in [".lock", ".part-x1", "results.txt", "expect.toml"] {
        std::fs::write(out.join(name), "").unwrap();
    }
    done(recorded(&out));
    done(verify(&out));
    let results = bytes(&out, "results.json");
    refused(recorded(&out), &["holds a run already: give another --record"]);
    assert!(bytes(&out, "results.json") == results);
}

#[test]
fn nothing_is_begun_in_the_run_of_another_command_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("reproductions/mine");
    done(recorded(&out));
    for name in ["manifest-sha256.txt", "ro-crate-metadata.json", "ro-crate-preview.html"] {
        std::fs::remove_file(out.join(name)).unwrap();
    }
    let names = || {
        let entries = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.filter(|name| name != ".lock").collect();
        names.sort();
        names
    };
    let (there, record) = (names(), bytes(&out, "record.json"));
    refused(train_small(&out, &[]), &["holds a run already: it has no config.toml to go on by"]);
    refused(reproduce(dir.path()), &["holds a run of another command: give another --out"]);
    assert!(names() == there && bytes(&out, "record.json") == record);
}
