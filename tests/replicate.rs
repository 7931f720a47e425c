//! Runs again, and what is found where something differs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod runs;

use std::path::Path;

use infalign_record::hash::sha256_bytes;
use infalign_record::{BuildRecord, Expect, InputFile, Opening, Recorder, env, folder};
use runs::{clean, copy, done, fails, git, infalign, quickstart, recipe, refused, train, with_run};
use serde_json::{Value, json};

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The run as if another machine had done it, after a change of its files.
fn elsewhere(from: &Path, to: &Path, change: impl Fn(&Path)) {
    copy(from, to);
    change(to);
    close(from, to, folder::record(from).unwrap().build);
}

/// Closes a copy of a run anew, as if this test had done it, by the library that closes every run.
fn close(from: &Path, to: &Path, build: BuildRecord) {
    let original = folder::record(from).unwrap();
    let inputs = original.inputs.iter().map(|input| {
        let path = env::with_home(&input.path.replace("$RUN", &text(to)));
        InputFile { role: input.role.clone(), name: input.path.clone(), path: path.into() }
    });
    let opening = Opening {
        command: original.command.clone(),
        argv: original.argv.clone(),
        build,
        device: original.device.clone(),
        seed: original.seed.as_ref().map(|seed| seed.master),
        inputs: inputs.collect(),
        expect: None,
        diff: std::fs::read(to.join("diff.patch")).ok(),
    };
    Recorder::begin(to, opening).unwrap().completed().unwrap();
}

/// Changes the rewards that a method's samples hold.
fn rewards(run: &Path, method: &str, change: impl Fn(usize, f64) -> f64) {
    let path = run.join(format!("methods/{method}/samples.json"));
    let mut samples: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (prompt, rewards) in samples["rewards"].as_array_mut().unwrap().iter_mut().enumerate() {
        for reward in rewards.as_array_mut().unwrap() {
            *reward = json!(change(prompt, reward.as_f64().unwrap()));
        }
    }
    std::fs::write(path, samples.to_string()).unwrap();
}

#[test]
fn a_run_repeats_bit_for_bit_on_another_number_of_threads_which_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let original = path("original");
    let mut command = train(&original, &[]);
    command.env("RAYON_NUM_THREADS", "2").env("INFALIGN_AGENT", "Ada");
    done(command);
    let mut command = with_run("replicate", &original, &["--out", &text(&path("again"))]);
    command.env("RAYON_NUM_THREADS", "1").env("INFALIGN_AGENT", "Grace");
    let report = done(command);
    assert!(report.starts_with("# reproduced (repeat)"), "{report}");
    assert!(report.contains("program: the same bytes as the original's"), "{report}");
    assert!(report.contains("threads: 2 → 1"), "{report}");
    let statement = path("again/replication.json");
    let found: Value = serde_json::from_str(&std::fs::read_to_string(&statement).unwrap()).unwrap();
    assert_eq!(found["predicate"]["result"], "PASSED");
    let rows = found["predicate"]["infalign"]["results"].as_array().unwrap();
    // burn names the parameters in an optimizer's state at random, of which a checkpoint has the digest, and TensorBoard is told the time. Older
    // programs do not say what checkpoints are made by.
    let named_anew = |row: &&Value| {
        let file = row["result"].as_str().unwrap();
        let files = ["optimizer.bpk", "manifest-sha256.txt", "made-by.json"];
        files.iter().any(|name| file.ends_with(name)) || file.contains("/tensorboard/")
    };
    let rows: Vec<&Value> = rows.iter().filter(|row| !named_anew(row)).collect();
    assert!(rows.len() > 10 && rows.iter().all(|row| row["reached"] == "bitwise"), "{rows:?}");
    assert!(
        rows.iter().all(|row| row["required"] == "bitwise"),
        "on the same machine nothing less will do"
    );
    let replica = folder::record(&path("again/run")).unwrap();
    assert_eq!(replica.based_on, Some(folder::record(&original).unwrap().uuid));

    // What it is evidence of: that it runs; not that somebody else on another machine found the same.
    let badges = done(with_run("badges", &original, &["--replication", &text(&statement)]));
    assert!(badges.contains("Functional: yes"), "{badges}");
    assert!(
        badges.contains("Results Reproduced: no; the replication of")
            && badges.contains("same host"),
        "{badges}"
    );
    let (mut forged, file) = (found.clone(), path("forged.json"));
    forged["predicate"]["result"] = json!("FAILED");
    std::fs::write(&file, forged.to_string()).unwrap();
    let badges = done(with_run("badges", &original, &["--replication", &text(&file)]));
    assert!(
        badges.contains("Functional: no; ")
            && badges.contains("its result is not what its rows come to"),
        "{badges}"
    );

    let replayed = done(with_run("replay", &original, &["--out", &text(&path("replayed"))]));
    assert!(
        replayed.contains("results.json") && replayed.contains("win-rate-kl.svg"),
        "{replayed}"
    );
    assert!(!replayed.contains("DIFFERS"), "{replayed}");

    let spot = ["--out", &text(&path("spot")), "--spot", "3", "--nonce", "dice", "--steps", "2"];
    let report = done(with_run("replicate", &original, &spot));
    assert!(report.contains("extent: spot: ") && report.starts_with("# reproduced"), "{report}");

    let none = ["--out", &text(&path("none")), "--spot", "1", "--steps", "0"];
    assert!(fails(with_run("replicate", &original, &none), 2).contains("--steps"));
    let set = ["--out", &text(&path("none")), "--spot", "1", "--set", "prompts.train=elsewhere"];
    assert!(fails(with_run("replicate", &original, &set), 2).contains("cannot be used with"));

    // Nothing was written into the original.
    done(with_run("verify", &original, &[]));

    no_run_is_its_own_replica(dir.path(), &original);
    runs_elsewhere_are_judged_by_their_statistics(dir.path(), &original);
}

/// Neither by its own name nor by that of a copy.
fn no_run_is_its_own_replica(dir: &Path, original: &Path) {
    let twin = dir.join("twin");
    copy(original, &twin);
    for replica in [original, twin.as_path()] {
        let out = text(&dir.join("itself"));
        let words = ["--replica", &text(replica), "--out", &out];
        let message = fails(with_run("replicate", original, &words), 2);
        assert!(message.contains("is the run itself, or a copy of it"), "{message}");
    }
}

fn runs_elsewhere_are_judged_by_their_statistics(dir: &Path, original: &Path) {
    let compare = |name: &str, change: &dyn Fn(&Path)| {
        let other = dir.join(name);
        elsewhere(original, &other, change);
        let out = dir.join(format!("{name}-report"));
        with_run("replicate", original, &["--replica", &text(&other), "--out", &text(&out)])
    };
    let report = done(compare("same", &|_| ()));
    assert!(report.contains("program: ") && report.starts_with("# reproduced"), "{report}");

    let worse = |run: &Path| rewards(run, "ctrl-best", |_, reward| reward - 10.0);
    let report = fails(compare("worse", &worse), 1);
    assert!(report.starts_with("# NOT reproduced"), "{report}");
    assert!(
        report.contains("ctrl-best: win rate, sample | equivalent | differs (fails)"),
        "{report}"
    );
    assert!(report.contains("different: "), "{report}");

    // Another layout of the same numbers.
    let layout = |run: &Path| rewards(run, "ctrl-best", |_, reward| reward);
    let report = done(compare("layout", &layout));
    let row = "| methods/ctrl-best/samples.json | - | bitwise |  |  | but for times or layout |";
    assert!(report.contains(row), "{report}");
}

#[test]
fn evaluations_elsewhere_are_judged_by_their_statistics_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("judge.toml"), "kind = 'length'\nunit = 'words'\n").unwrap();
    let original = path("original");
    let mut command = infalign(&["evaluate", "--samples", "4", "--max-tokens", "12"]);
    command.args(["--procedure", "best-of:2", "--prompts"]).arg(quickstart().join("test.jsonl"));
    for side in ["--policy", "--reference"] {
        command.arg(side).arg(quickstart().join("model"));
    }
    command.arg("--judge").arg(path("judge.toml")).arg("--out").arg(&original);
    done(command);
    let compare = |name: &str, change: &dyn Fn(usize, f64) -> f64| {
        let other = path(name);
        elsewhere(&original, &other, |run| rewards(run, "policy", change));
        let out = text(&path(&format!("{name}-report")));
        with_run("replicate", &original, &["--replica", &text(&other), "--out", &out])
    };
    let near = |prompt: usize, reward: f64| if prompt == 0 { reward + 0.1 } else { reward };
    let report = done(compare("near", &near));
    assert!(report.starts_with("# reproduced (repeat)"), "{report}");
    assert!(report.contains("| policy: win rate, best-of:2 | equivalent | "), "{report}");
    let report = fails(compare("far", &|_, reward| reward + 3.0), 1);
    assert!(
        report.contains("| policy: win rate, best-of:2 | equivalent | differs (fails)"),
        "{report}"
    );

    // A folder that names samples elsewhere is not followed.
    let results = std::fs::read_to_string(original.join("results.json")).unwrap();
    let away = results.replace("\"method\": \"policy\"", "\"method\": \"../../policy\"");
    assert_ne!(away, results);
    copy(&original, &path("away"));
    std::fs::write(path("away/results.json"), away).unwrap();
    let message = fails(with_run("report", &path("away"), &[]), 2);
    assert!(message.contains("leads out of the run"), "{message}");
}

#[test]
fn claims_are_tried_on_the_replica() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let original = path("original");
    // `base` is not a method of a recipe, so this claim is refused before anything is run.
    let claim = |worse: &str| {
        format!(
            "expect={{ claim = [{{ better = 'ctrl-best', worse = '{worse}', procedure = 'best-of:4' }}] }}"
        )
    };
    assert!(fails(train(&original, &["--set", &claim("base")]), 2).contains("\"base\""));
    done(train(&original, &["--set", &claim("raw")]));
    for (name, change, holds) in [("better", 10.0, true), ("worse", -10.0, false)] {
        let other = path(name);
        elsewhere(&original, &other, |run| rewards(run, "ctrl-best", |_, reward| reward + change));
        let out = text(&path(&format!("{name}-report")));
        let report = fails(
            with_run("replicate", &original, &["--replica", &text(&other), "--out", &out]),
            1,
        );
        let row = "| ctrl-best wins more than raw under best-of:4 | ";
        let expected = format!("{row}{} |", if holds { "yes" } else { "NO" });
        assert!(report.contains(&expected), "{report}");
    }
}

#[test]
fn runs_that_were_told_to_do_different_things_are_not_comparable() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (recipe, original) = (recipe(dir.path()), path("original"));
    let mut command = train(&original, &[]);
    command.arg(&recipe);
    done(command);

    // A swapped data set: found before anything is run, with both digests.
    let prompts = dir.path().join("quickstart/train.jsonl");
    let whole = std::fs::read_to_string(&prompts).unwrap();
    let swapped: Vec<&str> = whole.lines().rev().collect();
    std::fs::write(&prompts, swapped.join("\n")).unwrap();
    let out = text(&path("swapped"));
    let message = fails(with_run("replicate", &original, &["--out", &out]), 2);
    assert!(message.contains("train.jsonl (prompts.train) is another"), "{message}");
    assert!(!path("swapped").exists());

    // The same data set elsewhere will do.
    let moved = path("moved.jsonl");
    std::fs::write(&moved, &whole).unwrap();
    let set = format!("prompts.train={}", moved.display());
    let message = fails(
        with_run("replicate", &original, &["--out", &out, "--set", "seed=3", "--set", &set]),
        2,
    );
    assert!(message.contains("not comparable"), "{message}");
    assert!(message.contains("differs in seed: 1 and 3"), "{message}");

    // A folder that does not verify is not run.
    std::fs::write(original.join("results.json"), "{}").unwrap();
    for command in ["replicate", "replay"] {
        let message = fails(with_run(command, &original, &[]), 2);
        assert!(message.contains("results.json has changed"), "{message}");
    }
}

#[test]
fn a_replica_that_fails_is_told_from_one_that_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (recipe, original) = (recipe(dir.path()), dir.path().join("original"));
    let mut command = train(&original, &[]);
    command.arg(&recipe);
    done(command);
    let out = text(&dir.path().join("out"));
    let set = ["--out", &out, "--set", "train.optimizer.learning_rate=-1"];
    let message = fails(with_run("replicate", &original, &set), 3);
    assert!(message.contains("failed"), "{message}");
    // The same where the names of both folders begin like options.
    copy(&original, &dir.path().join("-x"));
    let mut command = infalign(&["replicate", "--out=-out", set[2], set[3], "--", "-x"]);
    command.current_dir(dir.path());
    assert!(fails(command, 3).contains("learning_rate"), "it was read");
    let expect = Expect::read(&original).unwrap();
    assert_eq!(expect, Expect::default());
    // Not one of train's words.
    assert!(fails(infalign(&["replicate"]), 2).contains("RUN"));
    #[cfg(unix)]
    a_replica_that_is_asked_to_stop_stops(dir.path(), &original);
}

/// The command alone is asked, and what it runs comes to its own end before it.
#[cfg(unix)]
fn a_replica_that_is_asked_to_stop_stops(dir: &Path, original: &Path) {
    use infalign_record::record::Status;

    let out = dir.join("stopped");
    let long = ["--out", &text(&out), "--set", "train.steps=5000"];
    let begun = out.join("run/methods/raw/metrics.jsonl");
    let message = runs::stopped(with_run("replicate", original, &long), &begun);
    assert!(message.contains("stopped/run: stopped; what was finished is kept"), "{message}");
    let replica = folder::record(&out.join("run")).unwrap();
    assert_eq!((replica.status, replica.exit), (Status::Failed, Some(4)));
}

/// A run that reaches a server, or writes elsewhere, is not started unasked.
#[test]
fn a_run_that_reaches_beyond_its_folder_is_not_started_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let original = path("original");
    done(train(&original, &[]));
    let other = |name: &str, settings: &str| {
        let run = path(name);
        copy(&original, &run);
        let config = run.join("config.toml");
        let whole = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{whole}\n{settings}\n")).unwrap();
        close(&original, &run, folder::record(&original).unwrap().build);
        let out = text(&path(&format!("{name}-again")));
        move |more: &[&str]| {
            let words = [&["--out", &out][..], more].concat();
            with_run("replicate", &run, &words)
        }
    };
    let server =
        other("server", "[[elsewhere]]\nurl = 'http://127.0.0.1:9/x'\napi_key_env = 'MY_KEY'");
    let message = fails(server(&[]), 2);
    for said in ["http://127.0.0.1:9/x", "MY_KEY", "--allow-remote"] {
        assert!(message.contains(said), "{message}");
    }
    assert!(!path("server-again").exists(), "nothing was started");
    // It is started, and finds that it has no such settings.
    assert!(!fails(server(&["--allow-remote"]), 3).contains("--allow-remote"));
    let cache = other("cache", "[[elsewhere]]\ncache = '/tmp/elsewhere.jsonl'");
    let message = fails(cache(&["--allow-remote"]), 2);
    assert!(message.contains("outside of its replica") && message.contains("elsewhere.jsonl"));

    // Nor one of a command line that was made up.
    std::fs::write(path("prompts.jsonl"), "{\"prompt\": \"the\"}\n").unwrap();
    let mut command = infalign(&["generate", "--max-tokens", "2", "--prompts"]);
    command.arg(path("prompts.jsonl")).arg("--model").arg(quickstart().join("model"));
    command.arg("--record").arg(path("generated"));
    done(command);
    let record = path("generated/record.json");
    let mut made_up: Value =
        serde_json::from_str(&std::fs::read_to_string(&record).unwrap()).unwrap();
    for word in ["--server=http://127.0.0.1:9", "--api-key-env=MY_KEY"] {
        made_up["argv"].as_array_mut().unwrap().push(json!(word));
    }
    std::fs::write(&record, made_up.to_string()).unwrap();
    close(&path("generated"), &path("generated"), folder::record(&original).unwrap().build);
    let out = text(&path("generated-again"));
    let message = fails(with_run("replicate", &path("generated"), &["--out", &out]), 2);
    assert!(message.contains("--server http://127.0.0.1:9"), "{message}");
    assert!(message.contains("--api-key-env MY_KEY"), "{message}");
}

#[test]
fn another_temperature_or_seed_of_a_command_line_is_not_comparable() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("prompts.jsonl"), "{\"prompt\": \"the\"}\n").unwrap();
    let generate = |name: &str, more: &[&str]| {
        let mut command = infalign(&["generate", "--max-tokens", "2", "--prompts"]);
        command.arg(path("prompts.jsonl")).arg("--model").arg(quickstart().join("model"));
        command.args(more).arg("--record").arg(path(name));
        done(command);
    };
    generate("original", &["--temperature", "0.5"]);
    generate("warmer", &["--temperature", "0.9"]);
    generate("seeded", &["--temperature", "0.5", "--seed", "3"]);
    let compare = |name: &str| {
        let words = ["--replica", &text(&path(name)), "--out", &text(&path(&format!("{name}-r")))];
        with_run("replicate", &path("original"), &words)
    };
    for (name, told) in [("warmer", "--temperature: 0.5 and 0.9"), ("seeded", "seeds differ")] {
        let message = fails(compare(name), 2);
        assert!(message.contains("not comparable") && message.contains(told), "{message}");
    }
}

/// A repository with a program that says what it was told and fails, and the commit that has it.
fn stand_in(folder: &Path) -> String {
    std::fs::create_dir(folder).unwrap();
    let manifest = "[workspace]\n[package]\nname = \"infalign-cli\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
                    [[bin]]\nname = \"infalign\"\npath = \"main.rs\"\n[features]\nflex = []\n";
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    let main =
        "fn main() { eprintln!(\"{:?}\", std::env::args().nth(1)); std::process::exit(9) }\n";
    std::fs::write(folder.join("main.rs"), main).unwrap();
    let mut cargo = clean("cargo");
    cargo.args(["generate-lockfile", "--offline"]).current_dir(folder);
    done(cargo);
    git(folder, &["init", "--quiet"]);
    git(folder, &["add", "."]);
    git(folder, &["commit", "--quiet", "--message", "t"]);
    git(folder, &["rev-parse", "HEAD"]).trim().to_owned()
}

/// Flags by which the compiler would start one are refused before anything is built.
fn a_record_names_no_program_to_run(dir: &Path, build: &BuildRecord) {
    let path = |name: &str| dir.join(name);
    let rustflags = Some("-Clink-arg=-wrapper -Clink-arg=sh,-c,exit".to_owned());
    copy(&path("run"), &path("flags"));
    close(&path("run"), &path("flags"), BuildRecord { rustflags, ..build.clone() });
    let out = path("flags-again");
    let words = ["--source", &text(&path("clone")), "--out", &text(&out)];
    refused(with_run("replicate", &path("flags"), &words), &["-Clink-arg=-wrapper"]);
    assert!(!out.join("source").exists());
}

#[test]
fn the_program_of_another_commit_is_built_from_a_clone() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    done(train(&path("run"), &[]));
    let commit = stand_in(&path("clone"));
    let mut build = folder::record(&path("run")).unwrap().build;
    build.source.commit = Some(commit.clone());
    build.source.dirty = Some(false);
    build.source.sha256 = "0".repeat(64);
    build.build_id = "1".repeat(64);
    // Of whoever built this test.
    build.rustflags = None;
    a_record_names_no_program_to_run(dir.path(), &build);
    copy(&path("run"), &path("other"));
    close(&path("run"), &path("other"), build);
    // Not in a folder without that commit.
    let here = ["--source", &text(dir.path()), "--out", &text(&path("nothing"))];
    let message = fails(with_run("replicate", &path("other"), &here), 2);
    assert!(message.contains("not comparable") && message.contains(&commit), "{message}");
    let (source, out) = (text(&path("clone")), text(&path("again")));
    let mut command = with_run("replicate", &path("other"), &["--source", &source, "--out", &out]);
    // As a hook of another repository has them.
    command.env("GIT_DIR", path("nowhere")).env("GIT_INDEX_FILE", path("nowhere/index"));
    let message = fails(command, 3);
    assert!(message.contains("Some(\"train\")"), "the program of the commit was run: {message}");
    assert!(path("again/source/main.rs").is_file());
    // With changes that are in no commit, if the run has kept them and that is asked for.
    let main = path("clone/main.rs");
    let whole = std::fs::read_to_string(&main).unwrap();
    std::fs::write(&main, whole.replace("exit(9)", "exit({ eprintln!(\"changed\"); 9 })")).unwrap();
    let diff = git(&path("clone"), &["diff", "--binary", "HEAD"]);
    std::fs::write(&main, whole).unwrap();
    let mut build = folder::record(&path("other")).unwrap().build;
    build.source.dirty = Some(true);
    build.source.untracked = Some(0);
    build.source.diff_sha256 = Some(sha256_bytes(diff.as_bytes()));
    copy(&path("run"), &path("changed"));
    close(&path("run"), &path("changed"), build.clone());
    let with = |name: &str, more: &[&str]| {
        let out = text(&path(name));
        let words = [&["--source", &source, "--out", &out][..], more].concat();
        with_run("replicate", &path("changed"), &words)
    };
    let message = fails(with("unasked", &[]), 2);
    assert!(message.contains("in no commit") && message.contains("--apply-diff"), "{message}");
    let message = fails(with("absent", &["--apply-diff"]), 2);
    assert!(message.contains("--include-diff would have kept"), "{message}");
    std::fs::write(path("changed/diff.patch"), &diff).unwrap();
    close(&path("run"), &path("changed"), build);
    let message = fails(with("applied", &["--apply-diff"]), 3);
    assert!(message.contains("changed") && message.contains("Some(\"train\")"), "{message}");

    // This program in its place, if that is what is wanted.
    let any = ["--any-program", "--out", &text(&path("any"))];
    let report = done(with_run("replicate", &path("other"), &any));
    assert!(
        report.contains("program: infalign ") && report.contains("source: 000000000000 → "),
        "{report}"
    );
}
