//! `infalign calibrate` as a user runs it: made, extended, cut into shards, merged, inspected, applied, learned from, reported.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "../crates/remote/tests/server/mod.rs"]
mod server;

use std::path::PathBuf;
use std::process::Command;
#[cfg(unix)]
use std::sync::OnceLock;
#[cfg(unix)]
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(unix)]
use std::time::{Duration, Instant};

use common::{assert_done, bytes, copy, done, quickstart, refused, stderr, tuned};
use infalign_calibrate::store::write_to;
use infalign_calibrate::{Calibration, CalibrationMeta};
use serde_json::Value;

/// A folder with a reward, and prompts of the quickstart.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(prompts: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let reward = "kind = \"lexicon\"\nweights = { lovely = 2.0, good = 1.0, dirty = -2.0, dull = -1.5 }\n";
        std::fs::write(dir.path().join("reward.toml"), reward).unwrap();
        let all = std::fs::read_to_string(quickstart().join("train.jsonl")).unwrap();
        let lines: Vec<&str> = all.lines().take(prompts).collect();
        std::fs::write(dir.path().join("prompts.jsonl"), lines.join("\n") + "\n").unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `infalign calibrate ARGS` in the folder.
    fn run(&self, args: &[&str]) -> Command {
        let mut command = common::infalign(&["calibrate"]);
        command.args(args).current_dir(self.0.path());
        command
    }

    /// The options that say what rewards are made from, and `args`.
    fn reference(&self, args: &[&str]) -> Command {
        let model = quickstart().join("model");
        let mut all = args.to_vec();
        all.extend(["--model", model.to_str().unwrap(), "--prompts", "prompts.jsonl"]);
        all.extend(["--reward", "reward.toml", "--max-tokens", "24"]);
        self.run(&all)
    }

    fn make(&self, samples: &str, out: &str, more: &[&str]) -> Value {
        json(self.reference(&[&["--samples", samples, "--out", out, "--json"], more].concat()))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        bytes(self.0.path(), name)
    }
}

fn json(command: Command) -> Value {
    common::json(&common::run(command))
}

#[test]
fn a_table_is_the_same_made_at_once_extended_or_merged_of_shards() {
    let folder = Folder::new(7);
    let made = folder.make("24", "whole.parquet", &[]);
    assert_eq!((made["prompts"].as_u64(), made["new_responses"].as_u64()), (Some(7), Some(168)));
    folder.make("10", "extended.parquet", &[]);
    let more = folder.make("24", "extended.parquet", &["--batch", "5"]);
    assert_eq!(more["new_responses"], 98);
    assert!(folder.bytes("extended.parquet") == folder.bytes("whole.parquet"));
    let nothing = folder.make("24", "extended.parquet", &[]);
    assert_eq!(nothing["new_responses"], 0);
    for (shard, out) in [("1/2", "1.parquet"), ("2/2", "2.parquet")] {
        folder.make("24", out, &["--shard", shard]);
    }
    done(folder.run(&["merge", "1.parquet", "2.parquet", "--out", "merged.parquet"]));
    let inspected = |name| json(folder.run(&["inspect", name, "--json"]));
    assert!(folder.bytes("merged.parquet") == folder.bytes("whole.parquet"));
    let lines = done(folder.run(&["inspect", "whole.parquet"]));
    assert!(lines.contains("samples a prompt") && lines.contains("24"), "{lines}");
    done(folder.run(&["compress", "whole.parquet", "--quantiles", "8", "--out", "small.parquet"]));
    assert_eq!(inspected("small.parquet")["meta"]["quantiles"], 8);
}

#[test]
fn two_processes_do_not_work_on_one_table() {
    let folder = Folder::new(2);
    let lock = std::fs::File::create(folder.path(".t.parquet.lock")).unwrap();
    lock.try_lock().unwrap();
    let command = folder.reference(&["--samples", "4", "--out", "t.parquet"]);
    refused(command, &["another process is working on t.parquet"]);
    assert!(!folder.path("t.parquet").exists());
    drop(lock);
    folder.make("4", "t.parquet", &[]);
    assert!(!folder.path(".t.parquet.lock").exists(), "nothing is left beside the table");
}

#[cfg(unix)]
#[test]
fn a_stop_waits_for_no_busy_server_and_keeps_what_was_finished() {
    static BUSY: AtomicBool = AtomicBool::new(false);
    let (folder, first) = (Folder::new(2), OnceLock::new());
    // It has time for the first prompt.
    let url = server::serve(move |request| {
        let prompts = request.json["prompts"].as_array().unwrap();
        let first = first.get_or_init(|| prompts[0].clone());
        if prompts.iter().all(|prompt| prompt == first) {
            let rewards = serde_json::json!({ "rewards": vec![1.5; prompts.len()] });
            return server::Reply::new(200, rewards);
        }
        BUSY.store(true, Ordering::Relaxed);
        server::Reply::Answer(503, vec!["Retry-After: 3600".into()], "busy".into())
    });
    let reward = format!("kind = \"remote\"\nurl = \"{url}/get_reward\"\n");
    std::fs::write(folder.path("reward.toml"), reward).unwrap();
    // A prompt at a time.
    let more = ["--samples", "256", "--batch", "16", "--out", "t.parquet"];
    let mut child = folder.reference(&more).spawn().unwrap();
    common::wait_until(&mut child, "a busy server", || BUSY.load(Ordering::Relaxed));
    let start = Instant::now();
    common::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("t.parquet holds what was finished"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    let table = infalign_calibrate::store::read(folder.path("t.parquet")).unwrap();
    let samples: Vec<usize> = table.rows().iter().map(|row| row.samples()).collect();
    assert_eq!(samples, [256]);
}

#[test]
fn a_table_is_gone_on_with_by_the_model_that_it_was_begun_with() {
    let folder = Folder::new(2);
    copy(&quickstart().join("model"), &folder.path("model"));
    let make = |samples: &str| {
        let made = ["--model", "model", "--prompts", "prompts.jsonl", "--reward", "reward.toml"];
        let how = ["--max-tokens", "8", "--samples", samples, "--out", "t.parquet"];
        folder.run(&[made, how].concat())
    };
    // Writes a file of the model with other contents of some keys, and returns what it was.
    let with = |file: &str, changes: Value| {
        let path = folder.path("model").join(file);
        let before = std::fs::read_to_string(&path).unwrap();
        let mut keys: Value = serde_json::from_str(&before).unwrap();
        keys.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        std::fs::write(&path, keys.to_string()).unwrap();
        before
    };
    done(make("2"));
    // What nothing depends on may be another, and how the files are written.
    let truncation = serde_json::json!({ "direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0 });
    with("tokenizer.json", serde_json::json!({ "truncation": truncation }));
    with("config.json", serde_json::json!({ "transformers_version": "5.0.0", "pad_token_id": 0 }));
    done(make("4"));
    let lowercase = serde_json::json!({ "type": "Lowercase" });
    for (file, changes, told) in [
        ("generation_config.json", serde_json::json!({ "eos_token_id": [2, 3] }), "sampling"),
        ("config.json", serde_json::json!({ "eos_token_id": [2, 3] }), "sampling"),
        ("config.json", serde_json::json!({ "rope_theta": 500.0 }), "model_sha256"),
        ("config.json", serde_json::json!({ "rms_norm_eps": 1e-5 }), "model_sha256"),
        ("tokenizer.json", serde_json::json!({ "normalizer": lowercase }), "tokenizer_sha256"),
    ] {
        let before = with(file, changes);
        refused(make("6"), &[&format!("made with {told} `")]);
        std::fs::write(folder.path("model").join(file), before).unwrap();
    }
    done(make("6"));
}

#[test]
fn given_responses_get_their_calibrated_rewards() {
    let folder = Folder::new(3);
    folder.make("16", "t.parquet", &[]);
    let line = std::fs::read_to_string(folder.path("prompts.jsonl")).unwrap();
    let prompt: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    let prompt = prompt["prompt"].as_str().unwrap();
    let row = |more: Value| {
        let mut row = serde_json::json!({ "prompt": prompt });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row.to_string()
    };
    let rows =
        [row(serde_json::json!({ "reward": 99 })), row(serde_json::json!({ "reward": -99 }))];
    std::fs::write(folder.path("rewards.jsonl"), rows.join("\n")).unwrap();
    let apply = |args: &[&str]| folder.run(&[&["apply", "--table", "t.parquet"], args].concat());
    let document = json(apply(&["--input", "rewards.jsonl", "--transform", "exp:10", "--json"]));
    let u: Vec<f64> =
        document["rows"].as_array().unwrap().iter().map(|row| row["u"].as_f64().unwrap()).collect();
    assert_eq!(u, [16.5 / 17.0, 0.5 / 17.0]);
    let phi = document["rows"][0]["phi"].as_f64().unwrap();
    assert!((phi - (10.0 * u[0]).exp()).abs() < 1e-9 * phi);
    let rows = [
        row(serde_json::json!({ "response": " lovely lovely" })),
        "{\"prompt\": \"x\", \"response\": \"y\"}".to_owned(),
    ];
    std::fs::write(folder.path("responses.jsonl"), rows.join("\n")).unwrap();
    let with_reward = ["--input", "responses.jsonl", "--reward", "reward.toml"];
    refused(apply(&with_reward), &["1 of 2 prompts are not in this calibration table"]);
    let skipped = common::run(apply(&[&with_reward[..], &["--skip-missing"]].concat()));
    assert_done(&skipped);
    assert!(stderr(&skipped).contains("1 of 2 rows left out"), "{}", stderr(&skipped));
    assert_eq!(String::from_utf8(skipped.stdout).unwrap().lines().count(), 2);
    std::fs::write(folder.path("other.toml"), "kind = \"length\"\nunit = \"words\"\n").unwrap();
    let other = apply(&["--input", "responses.jsonl", "--reward", "other.toml", "--skip-missing"]);
    refused(other, &["was made with the reward"]);
}

#[test]
fn a_calibrator_serves_prompts_that_nothing_was_sampled_for() {
    let folder = Folder::new(60);
    folder.make("16", "t.parquet", &[]);
    let model = quickstart().join("model");
    let model = ["--model", model.to_str().unwrap()];
    let learn = [
        &["learn", "t.parquet", "--prompts", "prompts.jsonl", "--out", "c.json", "--json"],
        &model[..],
    ];
    let report = json(folder.run(&learn.concat()));
    let error = report["error"].as_f64().unwrap();
    assert!(
        error < report["error_without_features"].as_f64().unwrap() + 1e-9 && error < 0.3,
        "{report}"
    );
    let test = quickstart().join("test.jsonl");
    let predict = [
        "predict",
        "--calibrator",
        "c.json",
        "--out",
        "p.parquet",
        "--prompts",
        test.to_str().unwrap(),
    ];
    done(folder.run(&[&predict[..], &model].concat()));
    let inspected = json(folder.run(&["inspect", "p.parquet", "--json"]));
    assert_eq!(
        (inspected["summary"]["prompts"].as_u64(), inspected["meta"]["quantiles"].as_u64()),
        (Some(160), Some(64))
    );
    // A file of another version.
    let calibrator = std::fs::read_to_string(folder.path("c.json")).unwrap();
    for (version, told) in [(1, "learn again"), (9, "a newer infalign reads it")] {
        let other = format!("\"schema_version\":{version},\"new\":0,");
        let other = calibrator.replace("\"schema_version\":2,", &other);
        std::fs::write(folder.path("other.json"), other).unwrap();
        let predict = ["predict", "--calibrator", "other.json", "--out", "no", "--prompts"];
        let command = folder.run(&[&predict[..], &["prompts.jsonl"], &model].concat());
        refused(command, &[&format!("is a calibrator of version {version}, not 2: {told}")]);
    }
    // Another model's states mean something else.
    let tuned = tuned(folder.0.path());
    let other = ["--prompts", "prompts.jsonl", "--out", "no", "--model", tuned.to_str().unwrap()];
    for command in [&["learn", "t.parquet"][..], &["predict", "--calibrator", "c.json"]] {
        let command = folder.run(&[command, &other].concat());
        refused(command, &["is not the reference policy"]);
        assert!(!folder.path("no").exists());
    }
}

#[test]
fn a_report_is_one_page_and_finds_out_a_wrong_table() {
    let folder = Folder::new(12);
    folder.make("32", "t.parquet", &[]);
    let of = |out: &str, more: &[&str]| {
        json(folder.reference(&[&["report", "t.parquet", "--out", out, "--json"], more].concat()))
    };
    let right = of("right", &[]);
    assert!(right["uniformity"]["p_value"].as_f64().unwrap() > 0.001, "{right}");
    assert_eq!(right["uniformity"]["responses"], 192);
    assert!(right["recommended_samples"].as_u64().unwrap() > 4, "{right}");
    let page = std::fs::read_to_string(folder.path("right/report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 3, "everything is in the page");
    for file in ["spread.png", "noise.svg", "uniformity.png", "report.json"] {
        assert!(folder.path("right").join(file).exists(), "{file}");
    }
    // Without a model, everything but uniformity.
    let alone = json(folder.run(&["report", "t.parquet", "--out", "alone", "--json"]));
    assert_eq!(alone["uniformity"], Value::Null);
    for (option, value, told) in [
        ("--max-tokens", "64", "--max-tokens says how fresh responses are drawn"),
        ("--temperature", "0.5", "--temperature says"),
        ("--top-k", "3", "--top-k says"),
        ("--top-p", "0.5", "--top-p says"),
        ("--stop-token-id", "3", "--stop-token-id says"),
        ("--batch", "8", "--batch says"),
        ("--memory", "1", "--memory says"),
        ("--device", "cpu", "--model"),
    ] {
        refused(folder.run(&["report", "t.parquet", "--out", "x", option, value]), &[told]);
    }
    let hotter = folder.reference(&["report", "t.parquet", "--out", "x", "--temperature", "0.5"]);
    refused(hotter, &["made with sampling"]);
}

#[test]
fn bad_input_is_one_sentence_and_exit_code_2() {
    let folder = Folder::new(2);
    folder.make("4", "t.parquet", &[]);
    std::fs::write(folder.path("cut.parquet"), &folder.bytes("t.parquet")[..300]).unwrap();
    let empty = Calibration::new(CalibrationMeta::default());
    write_to(&empty, std::fs::File::create(folder.path("zero.parquet")).unwrap()).unwrap();
    std::fs::write(folder.path("c.json"), "mine").unwrap();
    let lines = |names: &[&str]| {
        let rows: Vec<String> =
            names.iter().map(|name| format!("{{\"prompt\": \"{name}\"}}")).collect();
        std::fs::write(folder.path("prompts.jsonl"), rows.join("\n")).unwrap();
    };
    for (args, needle) in [
        (&["--samples", "1", "--out", "n.parquet"][..], "--samples is 1"),
        (&["--samples", "0", "--out", "n.parquet"], "--samples is 0"),
        (&["--samples", "4", "--out", "n.parquet", "--shard", "3/2"], "give i/n"),
        (&["--samples", "4", "--out", "t.parquet", "--seed", "1"], "made with seed `0`"),
        (&["--samples", "4", "--out", "cut.parquet"], "not a complete Parquet file"),
        (&["--samples", "4", "--out", "none/t.parquet"], "a folder that is there"),
        (&["--samples", "4", "--out", "c.json/t.parquet"], "a folder that is there"),
        (&["--samples", "4", "--out", "n.parquet", "--temperature", "inf"], "a finite number"),
        (&["--samples", "4"], "--out"),
    ] {
        refused(folder.reference(args), &[needle]);
    }
    for (args, needle) in [
        (&["inspect", "none.parquet"][..], "none.parquet"),
        (&["merge", "t.parquet", "cut.parquet", "--out", "m.parquet"], "cut.parquet"),
        (&["compress", "t.parquet", "--quantiles", "1", "--out", "m.parquet"], "1 quantiles"),
        (&["compress", "t.parquet", "--quantiles", "18446744073709551615", "--out", "m"], "65536"),
        (&["report", "t.parquet", "--out", "r", "--kl", "-1"], "-1"),
        (&["report", "zero.parquet", "--out", "r"], "zero.parquet: there are no prompts"),
        (&["inspect", "zero.parquet"], "zero.parquet: there are no prompts"),
        (&["merge", "t.parquet", "--out", "t.parquet"], "is there already; give another --out"),
        (&["compress", "t.parquet", "--quantiles", "2", "--out", "c.json"], "is there already"),
        (&["report", "t.parquet", "--out", "c.json"], "c.json is no folder"),
        (&[], "Usage"),
    ] {
        refused(folder.run(args), &[needle]);
    }
    let model = quickstart().join("model");
    let reader = ["--model", model.to_str().unwrap(), "--prompts", "prompts.jsonl"];
    for command in [&["learn", "t.parquet"][..], &["predict", "--calibrator", "c.json"]] {
        let command = folder.run(&[command, &reader, &["--out", "c.json"]].concat());
        refused(command, &["is there already"]);
    }
    assert_eq!(folder.bytes("c.json"), b"mine");
    for (reward, needle) in [
        ("kind = \"lexicon\"\nweights = { good = nan }\n", "the weight of `good` is NaN"),
        ("[reward]\nkind = \"length\"\nunit = \"words\"\n", "take the heading [reward] out"),
    ] {
        std::fs::write(folder.path("reward.toml"), reward).unwrap();
        let command = folder.reference(&["--samples", "4", "--out", "n.parquet"]);
        refused(command, &["reward.toml: ", needle]);
    }
    std::fs::write(folder.path("reward.toml"), "kind = \"length\"\nunit = \"words\"\n").unwrap();
    lines(&["once more", "once more"]);
    let twice = folder.reference(&["--samples", "4", "--out", "n.parquet"]);
    refused(twice, &["is that of line 1 already"]);
}

/// One text under two ids is one prompt: in shards, and where fresh responses are tested.
#[test]
fn equal_texts_are_one_prompt() {
    let folder = Folder::new(6);
    let all = std::fs::read_to_string(folder.path("prompts.jsonl")).unwrap();
    let named = |id: usize, line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row["id"] = id.to_string().into();
        row.to_string()
    };
    let twice: Vec<String> =
        all.lines().chain(all.lines()).enumerate().map(|(id, line)| named(id, line)).collect();
    std::fs::write(folder.path("prompts.jsonl"), twice.join("\n")).unwrap();
    assert_eq!(folder.make("8", "t.parquet", &[])["prompts"], 6);
    for (shard, out) in [("1/2", "1.parquet"), ("2/2", "2.parquet")] {
        assert_eq!(folder.make("8", out, &["--shard", shard])["prompts"], 3);
    }
    done(folder.run(&["merge", "1.parquet", "2.parquet", "--out", "merged.parquet"]));
    assert!(folder.bytes("merged.parquet") == folder.bytes("t.parquet"));
    let report = ["report", "t.parquet", "--out", "r", "--json", "--fresh", "10"];
    assert_eq!(json(folder.reference(&report))["uniformity"]["responses"], 60);
}
