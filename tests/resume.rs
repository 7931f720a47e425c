//! `--resume` of runs that have ended, that were stopped, killed or damaged, and that several processes begin at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{
    assert_equal, bytes, copy, done, fails, infalign, one_of_four, quickstart, refused, train_small,
};

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

/// The same words for its beginning and for going on, with as many steps.
fn begun_or_resumed(out: &Path, steps: usize) -> Command {
    let mut command = train_one(out);
    command.arg(quickstart().with_extension("toml")).arg("--resume");
    command.args(["--set", &format!("train.steps={steps}")]);
    command
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
fn what_another_run_has_made_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, other] = ["whole", "other"].map(|name| dir.path().join(name));
    done(train_one(&whole));
    let mut command = train_one(&other);
    command.args(["--set", "seed=2"]);
    done(command);
    let remove = |path: &Path| match path.is_dir() {
        true => std::fs::remove_dir_all(path).unwrap(),
        false => std::fs::remove_file(path).unwrap(),
    };
    for (made, not_yet) in [
        ("reference-samples.json", &[][..]),
        ("methods/a/samples.json", &[]),
        ("methods/a/checkpoints", &["methods/a/policy", "methods/a/samples.json"]),
    ] {
        let run = dir.path().join(made.replace('/', "-"));
        copy(&whole, &run);
        // As if it had been killed.
        for file in ["record.json", "results.json", made].iter().chain(not_yet) {
            remove(&run.join(file));
        }
        let (from, to) = (other.join(made), run.join(made));
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(std::fs::copy(from, &to).unwrap()),
        }
        let told = format!("{made} cannot be used: delete it and resume");
        refused(resumed(&run), &[&told, "it was made with another seed"]);
        remove(&to);
        done(resumed(&run));
        assert!(bytes(&run, "results.json") == bytes(&whole, "results.json"), "{made}");
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
    let told = format!("{} cannot be used: put it back as it was, or delete ", steps.display());
    let anew = format!("{} to begin the training anew", checkpoints.display());
    let lacks = "it does not have a line for each of the 3 steps";
    refused(resumed(&run), &[&told, &anew, lacks]);
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

#[test]
fn one_command_line_begins_a_run_and_goes_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let [out, absent] = ["run", "absent"].map(|name| dir.path().join(name));
    // As if it had been killed as it began.
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join(".lock"), "").unwrap();
    let printed = done(begun_or_resumed(&out, 3));
    let recorded = bytes(&out, "record.json");
    assert_eq!(done(begun_or_resumed(&out, 3)), printed);
    assert!(bytes(&out, "record.json") == recorded, "nothing was left to do");
    refused(begun_or_resumed(&out, 4), &["was run with another recipe"]);
    refused(resumed(&absent), &["no run to resume", "name the recipe"]);
    assert!(!absent.exists());
}

#[cfg(unix)]
#[test]
fn a_job_that_is_stopped_goes_on_when_it_is_queued_again() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    // A job alone, and the first of some that bash runs in turns.
    for more in [&[][..], &["--array", "1"]] {
        let job = dir.path().join("job.sh");
        let mut command = train_one(&run);
        command.arg(quickstart().with_extension("toml"));
        command.args(["--set", "train.steps=150", "--slurm"]).arg(&job).args(more);
        done(command);
        let bash = || {
            let mut bash = common::clean("bash");
            bash.arg(&job);
            bash
        };
        common::stopped(bash(), &run.join("methods/a/metrics.jsonl"));
        done(bash());
        done(verify(&run));
        std::fs::remove_dir_all(&run).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn what_is_asked_to_stop_does_not_sample_to_the_end() {
    use std::time::{Duration, Instant};

    let dir = tempfile::tempdir().unwrap();
    let stopped = |name: &str, set: &str, once: &str| {
        let run = dir.path().join(name);
        let mut command = train_one(&run);
        command.args(["--set", set]);
        let start = Instant::now();
        let text = common::stopped(command, &run.join(once));
        assert!(start.elapsed() < Duration::from_secs(60), "it takes many minutes to the end");
        assert!(text.contains("--resume goes on with it: stopped; every finished"), "{text}");
        run
    };
    let run = stopped("reference", "evaluation.samples=20000", "calibration.parquet");
    assert!(!run.join("reference-samples.json").exists());
    let watch = "evaluation.watch={ every = 1, samples = 20000 }";
    let run = stopped("watch", watch, "methods/a/metrics.jsonl");
    // The step is done again, with the look at it.
    assert_eq!(common::steps_kept(&run.join("methods/a/checkpoints")), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_goes_on_past_a_hangup_that_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let command = begun_or_resumed(&run, 150);
    // As nohup does.
    let mut shell = common::clean("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    let mut child = shell.arg(command.get_program()).args(command.get_args()).spawn().unwrap();
    let metrics = run.join("methods/a/metrics.jsonl");
    common::wait_until(&mut child, "its training", || metrics.exists());
    let hangup = Command::new("kill").args(["-HUP", &child.id().to_string()]).status();
    assert!(hangup.unwrap().success());
    common::assert_done(&child.wait_with_output().unwrap());
}
