//! `--resume` of runs that have ended, that were killed or damaged, and that several processes begin at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{assert_equal, bytes, copy, done, fails, infalign, one_of_four, refused, train_small};

fn resumed(out: &Path) -> Command {
    let mut command = infalign(&["train", "--resume", "--out"]);
    command.arg(out);
    command
}

/// One method in place of four, in as few steps as the small settings have.
fn train_one(out: &Path) -> Command {
    let method = "method=[{ name = 'a', objective = 'exp:10' }]";
    train_small(out, &[method, "evaluation.baseline=a"])
}

fn verify(run: &Path) -> Command {
    let mut command = infalign(&["verify"]);
    command.arg(run);
    command
}

#[test]
fn a_run_that_has_ended_is_printed_again_and_its_files_stay_what_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    done(train_one(&whole));
    let recorded = bytes(&whole, "record.json");
    let results = done(resumed(&whole));
    assert!(results.contains("best-of:4"), "{results}");
    assert!(bytes(&whole, "record.json") == recorded, "nothing was made, so nothing is recorded");

    for (file, told) in [
        ("methods/a/samples.json", "samples.json has changed since the run ended: put it back"),
        ("calibration.parquet", "calibration.parquet has changed since the run ended: put it back"),
        ("record.json", "record.json has changed since the run ended: put it back"),
        ("ro-crate-metadata.json", "ro-crate-metadata.json has changed since the run ended"),
        ("config.toml", "begin a new run with another --out"),
        ("mine.txt", "mine.txt was not there when the run ended: move it elsewhere"),
    ] {
        let run = dir.path().join(file.replace('/', "-"));
        copy(&whole, &run);
        let path = run.join(file);
        let mut text = std::fs::read(&path).unwrap_or_default();
        // White space changes nothing but the digest.
        text.push(b'\n');
        std::fs::write(&path, text).unwrap();
        fails(verify(&run), 1);
        let text = fails(resumed(&run), 2);
        assert!(text.contains(told), "{file}: {text}");
        fails(verify(&run), 1);
        if file == "config.toml" {
            continue;
        }
        std::fs::remove_file(&path).unwrap();
        done(resumed(&run));
        done(verify(&run));
        assert!(bytes(&run, "results.json") == bytes(&whole, "results.json"), "{file}");
    }
}

#[test]
fn files_that_a_run_cannot_go_on_with_are_named_and_made_again_once_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    done(train_one(&whole));
    for (file, deleted) in [
        ("calibration.parquet", "calibration.parquet"),
        ("reference-samples.json", "reference-samples.json"),
        ("methods/a/samples.json", "methods/a/samples.json"),
        ("methods/a/policy/model.safetensors", "methods/a/policy"),
    ] {
        let run = dir.path().join(file.replace('/', "-"));
        copy(&whole, &run);
        // As if it had been killed.
        for left_out in ["record.json", "results.json"] {
            std::fs::remove_file(run.join(left_out)).unwrap();
        }
        let cut = bytes(&run, file);
        std::fs::write(run.join(file), &cut[..cut.len() - 100]).unwrap();
        let text = fails(resumed(&run), 2);
        let path = run.join(deleted);
        let told = format!("error: {} cannot be used: delete it and resume", path.display());
        assert!(text.contains(&told) && !text.contains("--resume"), "{file}: {text}");
        match path.is_dir() {
            true => std::fs::remove_dir_all(path).unwrap(),
            false => std::fs::remove_file(path).unwrap(),
        }
        done(resumed(&run));
        assert!(bytes(&run, "results.json") == bytes(&whole, "results.json"), "{file}");
    }
}

#[test]
fn what_is_not_made_again_is_not_recorded_as_if_it_had_never_been() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    done(train_one(&run));
    let recorded = bytes(&run, "record.json");
    let steps = bytes(&run, "methods/a/metrics.jsonl");
    std::fs::remove_file(run.join("methods/a/metrics.jsonl")).unwrap();
    for _ in 0..2 {
        let text = fails(resumed(&run), 3);
        assert!(text.contains("methods/a/metrics.jsonl of the run in "), "{text}");
        assert!(text.contains("is not made again by itself: put it back"), "{text}");
        assert!(bytes(&run, "record.json") == recorded);
    }
    std::fs::write(run.join("methods/a/metrics.jsonl"), steps).unwrap();
    done(resumed(&run));
    done(verify(&run));
}

#[test]
fn steps_that_were_lost_are_not_sealed_as_if_they_had_never_been() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, run] = ["whole", "run"].map(|name| dir.path().join(name));
    done(train_one(&whole));
    copy(&whole, &run);
    // As if it had been killed after the last step, of whose lines the disk had no space for one.
    for file in ["record.json", "results.json", "methods/a/samples.json"] {
        std::fs::remove_file(run.join(file)).unwrap();
    }
    std::fs::remove_dir_all(run.join("methods/a/policy")).unwrap();
    let steps = run.join("methods/a/metrics.jsonl");
    let lines = std::fs::read_to_string(&steps).unwrap();
    let lines: Vec<&str> = lines.split_inclusive('\n').collect();
    std::fs::write(&steps, [lines[0], lines[2]].concat()).unwrap();

    let checkpoints = run.join("methods").join("a").join("checkpoints");
    let told = format!("{} cannot be used: delete it and resume", checkpoints.display());
    refused(resumed(&run), &[&told, "metrics.jsonl does not have a line for each of the 3 steps"]);
    std::fs::remove_dir_all(checkpoints).unwrap();
    done(resumed(&run));
    assert_equal([&whole, &run], &["results.json"], &["a"], 3);
    done(verify(&run));
}

#[test]
fn a_run_that_was_killed_before_its_record_was_whole_is_the_one_to_resume() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("runs/2026-11-23T08-00-00Z-train-0000");
    done(train_one(&run));
    let resume = || {
        let mut command = infalign(&["train", "--resume"]);
        command.current_dir(dir.path());
        command
    };
    let none = "no run under runs/ is unfinished";
    refused(resume(), &[none]);
    std::fs::remove_file(run.join("manifest-sha256.txt")).unwrap();
    done(resume());
    done(verify(&run));
    refused(resume(), &[none]);
}

#[test]
fn of_processes_that_begin_one_run_one_does_and_the_others_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    one_of_four(|| train_one(&out));
    done(verify(&out));
}
