//! An evaluation that goes on: with what was drawn, another judge, no other samples, and nothing that was changed; and its replay.

use std::path::PathBuf;
use std::process::Command;

use infalign_record::folder;
use infalign_record::record::Status;
use serde_json::json;

use super::common::{done, fails, infalign, json_file, quickstart, refused, tuned};
use super::server::{Reply, serve};
use super::{Given, write_responses};

#[test]
fn a_judge_that_gives_no_rewards_loses_nothing_and_may_be_replaced() {
    let given = Given::new(2);
    let url = serve(|_| Reply::new(400, "not today"));
    given.write("server.toml", &format!("kind = 'remote'\nurl = '{url}/r'\n"));
    let args = ["--samples", "2", "--judge", "server.toml", "--out", "out"];
    let text = fails(given.models(&args), 3);
    assert!(text.contains("status 400: not today") && text.contains("--resume"), "{text}");
    let drawn = std::fs::read_to_string(given.path("out/drawn.jsonl")).unwrap();
    assert_eq!(drawn.lines().count(), 2);
    assert_eq!(folder::record(&given.path("out")).unwrap().status, Status::Failed);
    // Another one scores what was drawn.
    let args = ["--samples", "2", "--judge", "judge.toml", "--out", "out", "--resume"];
    let found = done(given.models(&[&args[..], &["--json"]].concat()));
    let fresh = ["--samples", "2", "--judge", "judge.toml", "--json"];
    assert_eq!(found, done(given.models(&fresh)));
    // A model against itself does not repeat its own responses.
    let [policy, reference] = ["methods/policy/samples.json", "reference-samples.json"]
        .map(|file| json_file(&given.path("out").join(file))["responses"].clone());
    assert_ne!(policy, reference);
}

#[test]
fn what_samples_depend_on_cannot_be_another_when_an_evaluation_goes_on() {
    let given = Given::new(2);
    let common = ["--judge", "judge.toml", "--out", "out"];
    done(given.models(&[&["--samples", "2"][..], &common].concat()));
    let is_another = |command: Command, told: &str| {
        let told = format!("was begun with another {told}: it was ");
        refused(command, &[told.as_str()]);
    };
    let resumed = [&common[..], &["--resume"]].concat();
    for (args, told) in [
        (&["--samples", "3"][..], "--samples"),
        (&["--samples", "2", "--seed", "1"], "--seed"),
        (&["--samples", "2", "--temperature", "0.7"], "way to sample"),
        (&["--samples", "2", "--name", "mine"], "--name"),
    ] {
        is_another(given.models(&[args, &resumed].concat()), told);
    }
    let (model, tuned) = (quickstart().join("model"), tuned(given.0.path()));
    let theta = ("\"rope_theta\": 10000.0", "\"rope_theta\": 500.0");
    let turned = given.model("turned", "config.json", theta);
    let stop = ("\"eos_token_id\": 2", "\"eos_token_id\": [2, 3]");
    let stopping = given.model("stopping", "generation_config.json", stop);
    for (sides, told) in [
        ([&tuned, &model], "--policy"),
        ([&turned, &model], "--policy"),
        ([&stopping, &model], "--policy"),
        ([&model, &tuned], "--reference"),
    ] {
        let args = [&["--samples", "2"][..], &resumed].concat();
        is_another(given.between(sides.map(PathBuf::as_path), &args), told);
    }
    // What nothing depends on may be another.
    let unread = ("\"model_type\"", "\"transformers_version\": \"5.0.0\", \"model_type\"");
    let same = given.model("same", "config.json", unread);
    let args = [&["--samples", "3"][..], &resumed].concat();
    is_another(given.between([&same, &model], &args), "--samples");
    let prompts = std::fs::read_to_string(given.path("prompts.jsonl")).unwrap();
    given.write("prompts.jsonl", &format!("{prompts}{{\"prompt\": \"monday :\"}}\n"));
    is_another(given.models(&[&["--samples", "2"][..], &resumed].concat()), "--prompts");
}

#[test]
fn samples_that_were_changed_after_the_end_are_not_put_on_record() {
    let given = Given::new(1);
    write_responses(&given);
    let args = ["--policy", "a.jsonl", "--reference", "b.jsonl", "--out", "out"];
    let resumed = [&args[..], &["--resume"]].concat();
    let printed = done(given.evaluate(&args));
    let record = || std::fs::read(given.path("out/record.json")).unwrap();
    let recorded = record();
    assert_eq!(done(given.evaluate(&resumed)), printed);
    assert!(record() == recorded, "nothing was made, so nothing is recorded");
    let samples = given.path("out/reference-samples.json");
    let whole = std::fs::read_to_string(&samples).unwrap();
    std::fs::write(&samples, format!("{whole}\n")).unwrap();
    let told = "reference-samples.json has changed since the run ended";
    refused(given.evaluate(&resumed), &[told]);
    std::fs::remove_file(&samples).unwrap();
    assert_eq!(done(given.evaluate(&resumed)), printed);

    // Of one that has not ended, what cannot be read is named.
    std::fs::remove_file(given.path("out/record.json")).unwrap();
    std::fs::write(&samples, &whole[..99]).unwrap();
    let told = "reference-samples.json cannot be used: delete it and resume";
    let text = refused(given.evaluate(&resumed), &[told]);
    assert!(!text.contains("--resume"), "{text}");
}

#[test]
fn an_evaluation_of_files_at_home_is_replayed() {
    let given = Given::new(2);
    let row = |prompt: usize, sample: usize, reward: usize| {
        json!({ "prompt": format!("p{prompt}"), "response": format!("r{sample}"), "reward": reward })
            .to_string()
    };
    let rows = |gain: usize| -> String {
        (0..6).map(|i| row(i / 2, i % 2, (i * i + gain) % 5) + "\n").collect()
    };
    given.write("a.jsonl", &rows(1));
    given.write("b.jsonl", &rows(3));
    let at_home = |command: &mut Command| {
        command.env("HOME", given.0.path()).current_dir(given.0.path());
    };
    let policy = format!("--policy={}", given.path("a.jsonl").display());
    let mut command = infalign(&["evaluate", &policy, "--reference"]);
    command.arg(given.path("b.jsonl")).args(["--out", "e"]);
    at_home(&mut command);
    done(command);
    let results = std::fs::read_to_string(given.path("e/results.json")).unwrap();
    assert!(results.contains("~/a.jsonl"), "{results}");
    let mut replay = infalign(&["replay", "e"]);
    at_home(&mut replay);
    assert!(!done(replay).contains("DIFFERS"));
}
