//! `infalign evaluate`: what is refused is refused before anything is sampled or scored, and what was sampled or answered is never lost.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "../crates/remote/tests/server/mod.rs"]
mod server;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{
    as_another, copy, done, fails, infalign, json_file, quickstart, refused, run, stderr, tuned,
};
use infalign_model::CausalLm;
use infalign_record::folder;
use infalign_record::record::Status;
use serde_json::json;
use server::{Reply, Request, serve};

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

#[test]
fn what_cannot_be_measured_is_refused_before_a_token_is_drawn() {
    let given = Given::new(3);
    given.write("one.jsonl", "{\"prompt\": \"monday :\"}\n");
    given.write("bad.toml", "kind = 'lexicon'\nweights = {}\n");
    given.write("unknown.toml", "kind = 'taste'\n");
    let judged = ["--judge", "judge.toml", "--samples", "6"];
    let long = "x".repeat(201);
    for (args, told) in [
        (&["--samples", "6"][..], "--judge is missing"),
        (&["--judge", "judge.toml"], "--samples is missing"),
        (&["--judge", "absent.toml", "--samples", "6"], "absent.toml"),
        (&["--judge", "bad.toml", "--samples", "6"], "weights"),
        (&["--judge", "unknown.toml", "--samples", "6"], "unknown.toml"),
        (&[&judged[..], &["--reward", "unknown.toml"]].concat(), "unknown.toml"),
        (&[&judged[..], &["--pairwise", "absent.toml"]].concat(), "cannot read the judge"),
        (&[&judged[..], &["--pairwise", "unknown.toml"]].concat(), "unknown.toml"),
        (&[&judged[..], &["--procedure", "cd-token:lambda=1"]].concat(), "--scorer DIR"),
        (
            &[&judged[..], &["--procedure", "beam:width=2,branch=2,length=4"]].concat(),
            "--scorer DIR",
        ),
        (
            &[&judged[..], &["--reference-procedure", "cd-block:length=2,samples=2"]].concat(),
            "--scorer DIR",
        ),
        (&[&judged[..], &["--procedure", "best-of:8"]].concat(), "give 8 or more"),
        (
            &[&judged[..], &["--procedure", "soft-best-of:7,temperature=1"]].concat(),
            "give 7 or more",
        ),
        (&[&judged[..], &["--replicates", "99"]].concat(), "at least 100"),
        (
            &[&judged[..], &["--procedure", "best-of:4", "--plan", "0.02"]].concat(),
            "give 8 or more",
        ),
        (
            &["--judge", "judge.toml", "--samples", "1", "--procedure", "sample", "--plan", "0.02"],
            "give 2 or more",
        ),
        (&[&judged[..], &["--name", "a/b"]].concat(), "no name for a folder"),
        (&[&judged[..], &["--name", long.as_str()]].concat(), "at most 200"),
        (&[&judged[..], &["--temperature", "-1"]].concat(), "temperature"),
        (&[&judged[..], &["--device", "cuda"]].concat(), "cuda"),
    ] {
        let text = refused(given.models(&[args, &["--out", "out"]].concat()), &[told]);
        // Sampling begins by saying so.
        assert!(!text.contains("[1/2]"), "{args:?}: {text}");
        assert!(!given.path("out").exists(), "{args:?}");
    }
    let model = quickstart().join("model");
    for (more, told) in [
        (["--prompts", "one.jsonl", "--max-tokens", "4"], "at least 2"),
        (["--prompts", "prompts.jsonl", "--max-tokens", "600"], "context"),
    ] {
        let mut command = given.evaluate(&[&judged[..], &more].concat());
        command.arg("--policy").arg(&model).arg("--reference").arg(&model);
        let text = refused(command, &[told]);
        assert!(!text.contains("[1/2]"), "{text}");
    }
}

/// A server of rewards that counts what it is asked: a request each.
fn scoring() -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let url = serve(move |request: &Request| {
        counted.fetch_add(1, Ordering::Relaxed);
        let n = request.json["query"].as_array().unwrap().len();
        Reply::new(200, json!({ "rewards": (0..n).map(|k| k as f64).collect::<Vec<_>>() }))
    });
    (url, asked)
}

#[test]
fn stored_responses_that_cannot_be_measured_are_not_scored() {
    let given = Given::new(1);
    let (url, asked) = scoring();
    given.write("server.toml", &format!("kind = 'remote'\nurl = '{url}/get_reward'\n"));
    let rows = |prompts: &[&str]| -> String {
        let row =
            |prompt: &&str| format!("{}\n", json!({"prompt": prompt, "response": "x"})).repeat(3);
        prompts.iter().map(row).collect()
    };
    given.write("a.jsonl", &rows(&["a", "b"]));
    given.write("b.jsonl", &rows(&["a", "c"]));
    given.write("single.jsonl", &rows(&["a"]));
    for (policy, more, told) in [
        ("b.jsonl", &[][..], "prompt 2 is"),
        ("single.jsonl", &[], "1 against 2"),
        ("a.jsonl", &["--procedure", "best-of:4"], "give 4 or more"),
        ("a.jsonl", &["--procedure", "best-of:2", "--plan", "0.1"], "give 4 or more"),
        ("a.jsonl", &["--procedure", "majority:4"], "give 4 or more"),
        ("a.jsonl", &["--procedure", "rejection:quantile=0.5,draws=2"], "rejection"),
        ("a.jsonl", &["--replicates", "3"], "at least 100"),
        ("a.jsonl", &["--prompts", "prompts.jsonl"], "--prompts is for models"),
        // Their defaults say nothing either.
        ("a.jsonl", &["--seed", "0"], "--seed is for models"),
        ("a.jsonl", &["--max-tokens", "64"], "--max-tokens is for models"),
        (
            "a.jsonl",
            &["--procedure", "best-of:2", "--temperature", "0"],
            "--temperature is for models",
        ),
        ("a.jsonl", &["--top-k", "0"], "--top-k is for models"),
        ("a.jsonl", &["--top-p", "0.5"], "--top-p is for models"),
        ("a.jsonl", &["--stop-token-id", "3"], "--stop-token-id is for models"),
        ("a.jsonl", &["--batch", "256"], "--batch is for models"),
        ("a.jsonl", &["--memory", "1"], "--memory is for models"),
        ("a.jsonl", &["--device", "cpu"], "--device is for models"),
    ] {
        let sides = ["--policy", policy, "--reference", "a.jsonl", "--judge", "server.toml"];
        refused(given.evaluate(&[&sides[..], more].concat()), &[told]);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0, "the judge was not asked");
    let sides = ["--policy", "a.jsonl", "--reference", "a.jsonl", "--judge", "server.toml"];
    done(given.evaluate(&sides));
    assert!(asked.load(Ordering::Relaxed) > 0);
}

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
fn of_an_evaluation_by_another_version_nobody_knows_whether_the_reference_is_the_same() {
    let given = Given::new(2);
    done(given.models(&["--samples", "2", "--judge", "judge.toml", "--out", "out"]));
    copy(&given.path("out"), &given.path("old"));
    as_another(&given.path("old"));
    let file = given.path("old/settings.json");
    let mut settings = json_file(&file);
    let version = settings.as_object_mut().unwrap().remove(folder::SETTINGS_VERSION);
    assert_eq!(version, Some(json!("2")));
    settings["--reference"] = json!("weights and tokenizer.json");
    std::fs::write(&file, settings.to_string()).unwrap();
    let told = warned(&given, &["out", "old"]);
    assert!(!told.contains("differ in"), "{told}");
    assert!(told.contains("out and old were evaluated by versions of infalign that"), "{told}");
}

/// What is said where a comparison is made.
fn warned(given: &Given, paths: &[&str]) -> String {
    let mut command = infalign(&[&["compare"], paths].concat());
    command.current_dir(given.0.path());
    let output = run(command);
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn evaluations_that_were_copied_or_changed_are_told_from_others() {
    let given = Given::new(2);
    done(given.models(&["--samples", "2", "--judge", "judge.toml", "--out", "out"]));
    copy(&given.path("out"), &given.path("other"));
    for paths in [["out", "other"], ["out", "out/methods/policy"]] {
        let mut command = infalign(&[&["compare"], &paths[..]].concat());
        command.current_dir(given.0.path());
        refused(command, &["\"policy\"", "the same run or a copy of it"]);
    }
    as_another(&given.path("other"));
    let told = warned(&given, &["out", "other"]);
    assert!(!told.contains("warning"), "{told}");
    // A method is found from among the methods, too.
    let mut command = infalign(&["compare", "policy", "../../other/methods/policy"]);
    command.current_dir(given.path("out/methods"));
    done(command);
    let samples = given.path("other/methods/policy/samples.json");
    std::fs::copy(given.path("other/reference-samples.json"), samples).unwrap();
    let told = warned(&given, &["out", "other"]);
    assert!(told.contains("methods/policy/samples.json of other has changed since"), "{told}");
    for file in ["settings.json", "record.json"] {
        std::fs::write(given.path("other").join(file), "{").unwrap();
    }
    let told = warned(&given, &["out", "other"]);
    assert!(told.contains("by what other was measured is not known"), "{told}");
    assert!(told.contains("settings.json"), "{told}");
    assert!(told.contains("whether files of other are those on record is not known"), "{told}");
}

#[test]
fn other_prompts_of_the_same_ids_are_refused() {
    let given = Given::new(4);
    let all = std::fs::read_to_string(given.path("prompts.jsonl")).unwrap();
    let prompts: Vec<serde_json::Value> =
        all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |(id, row): (usize, &serde_json::Value)| {
        format!("{}\n", json!({ "id": id, "prompt": row["prompt"] }))
    };
    for (out, two) in ["first", "second"].into_iter().zip(prompts.chunks(2)) {
        given.write("prompts.jsonl", &two.iter().enumerate().map(named).collect::<String>());
        done(given.models(&["--samples", "2", "--judge", "judge.toml", "--out", out]));
    }
    let told = ["have other prompts", "prompt 1, `0`, is", "cold saturday at the gallery"];
    let mut compare = infalign(&["compare", "first", "second"]);
    compare.current_dir(given.0.path());
    let text = refused(compare, &told);
    assert!(text.contains("differ in --prompts: win rates"), "{text}");
    let [policy, reference] =
        ["first/methods/policy/samples.json", "second/reference-samples.json"];
    refused(given.evaluate(&["--policy", policy, "--reference", reference]), &told);
}

#[test]
fn there_is_a_kl_where_both_sides_have_the_same_tokens() {
    let given = Given::new(3);
    let judged = ["--judge", "judge.toml", "--samples", "2"];
    let model = quickstart().join("model");
    let cut = r#""truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}"#;
    let cutting = given.model("cutting", "tokenizer.json", ("\"truncation\": null", cut));
    let found = done(given.between([&cutting, &model], &[&judged[..], &["--json"]].concat()));
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let nats = found["kl"]["estimate"].as_f64().unwrap();
    assert!(nats.abs() < 1e-4, "it is the same model: {found}");

    let words = given.model("words", "tokenizer.json", ("\"lovely\"", "\"lively\""));
    let text = done(given.between([&words, &model], &judged));
    assert!(text.contains("the tokenizers of the two models have different tokens"), "{text}");

    // With more logits than the tokenizer has tokens.
    let wide = given.path("wide");
    copy(&model, &wide);
    let device = infalign_backend::device(None).unwrap();
    let mut config = CausalLm::load(&model, &device).unwrap().config().clone();
    config.vocab_size = 96;
    CausalLm::random(config, &mut || 0.0, &device).unwrap().save(&wide).unwrap();
    for sides in [[&wide, &model], [&model, &wide]] {
        let sides = sides.map(PathBuf::as_path);
        let told = ["there is no KL", " of 96", " of 89", "resize_token_embeddings(89)"];
        for all in [&[][..], &["--top-k", "100"]] {
            let text = refused(given.between(sides, &[&judged[..], all].concat()), &told);
            assert!(!text.contains("[1/2]"), "{text}");
        }
    }
    let tempered = [&judged[..], &["--temperature", "0.7"]].concat();
    let text = done(given.between([&wide, &model], &tempered));
    assert!(text.contains("these samples do not tell it"), "{text}");
}

/// Waits for a file with lines, while the process runs.
fn wait_for_lines(child: &mut Child, file: &Path) {
    let has_lines = || std::fs::read_to_string(file).is_ok_and(|text| text.contains('\n'));
    common::wait_until(child, &file.display().to_string(), has_lines);
}

#[cfg(unix)]
#[test]
fn a_stopped_evaluation_goes_on_where_it_was_and_ends_as_if_it_had_not_been() {
    let given = Given::new(60);
    let args = |out: &'static str| {
        [
            "--samples",
            "24",
            "--judge",
            "judge.toml",
            "--procedure",
            "best-of:4",
            "--batch",
            "8",
            "--out",
            out,
        ]
    };
    // It begins where there is none yet.
    let printed = done(given.models(&[&args("whole")[..], &["--resume"]].concat()));

    // Killed in the middle of one side, and told to stop in the middle of the other.
    let mut child = given.models(&args("parts")).spawn().unwrap();
    wait_for_lines(&mut child, &given.path("parts/drawn.jsonl"));
    child.kill().unwrap();
    child.wait().unwrap();
    refused(given.models(&args("parts")), &["holds an evaluation already", "--resume"]);
    let other_seed = [&args("parts")[..], &["--resume", "--seed", "5"]].concat();
    refused(given.models(&other_seed), &["another --seed: it was 0 and is 5"]);
    let resumed = [&args("parts")[..], &["--resume"]].concat();
    let before = std::fs::read_to_string(given.path("parts/drawn.jsonl")).unwrap();
    let mut child = given.models(&resumed).spawn().unwrap();
    wait_for_lines(&mut child, &given.path("parts/reference-drawn.jsonl"));
    common::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("--resume goes on") && output.stdout.is_empty(), "{text}");
    let record = folder::record(&given.path("parts")).unwrap();
    assert_eq!((record.status, record.earlier.len()), (Status::Failed, 1));
    assert!(record.error.unwrap().contains("stopped"));
    assert!(given.path("parts/methods/policy/samples.json").is_file(), "one side is whole");
    assert!(!given.path("parts/drawn.jsonl").exists() && !before.is_empty());
    assert!(!given.path("parts/results.json").exists());

    assert_eq!(done(given.models(&resumed)), printed);
    for file in
        ["results.json", "reference-samples.json", "methods/policy/samples.json", "settings.json"]
    {
        let read = |run: &str| std::fs::read(given.path(run).join(file)).unwrap();
        assert!(read("whole") == read("parts"), "{file} differs");
    }
    assert!(!given.path("parts/reference-drawn.jsonl").exists());
    let mut verify = infalign(&["verify", "parts"]);
    verify.current_dir(given.0.path());
    done(verify);

    // Without a folder nothing is kept, which is said.
    let many = ["--samples", "5000", "--judge", "judge.toml", "--batch", "8"];
    let mut child = given.models(&many).spawn().unwrap();
    let mut text = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(text.by_ref().map(Result::unwrap).any(|line| line.contains("[1/2] policy")));
    common::interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let rest: Vec<String> = text.map(Result::unwrap).collect();
    assert!(rest.iter().any(|line| line.contains("without --out, nothing is kept")), "{rest:?}");
}

#[cfg(unix)]
#[test]
fn answers_of_judges_are_asked_for_once_whatever_happens() {
    let given = Given::new(1);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let url = serve(move |request: &Request| {
        if request.path != "/v1/chat/completions" {
            return Reply::new(404, "there is nothing here");
        }
        counted.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(40));
        Reply::new(200, json!({ "choices": [{ "message": { "content": "A" } }] }))
    });
    let judge = |most: usize| {
        let text = format!(
            "url = '{url}/v1/chat/completions'\nmodel = 'judge'\nmost_requests = {most}\nparallel = 1\n"
        );
        given.write("pairwise.toml", &text);
    };
    let rows = |word: &str| -> String {
        let row = |k: usize| json!({"prompt": format!("p{k}"), "response": format!("{word} {k}"), "reward": 1.0});
        (0..20).map(|k| format!("{}\n", row(k))).collect()
    };
    given.write("a.jsonl", &rows("ours"));
    given.write("b.jsonl", &rows("theirs"));
    let args = [
        "--policy",
        "a.jsonl",
        "--reference",
        "b.jsonl",
        "--pairwise",
        "pairwise.toml",
        "--out",
        "out",
    ];
    // More than may be asked: nothing is.
    judge(39);
    let text = fails(given.evaluate(&args), 3);
    assert!(text.contains("`most_requests` is 39") && text.contains("40 more questions"), "{text}");
    assert_eq!(asked.load(Ordering::Relaxed), 0);

    judge(40);
    let resumed = [&args[..], &["--resume"]].concat();
    let mut child = given.evaluate(&resumed).spawn().unwrap();
    common::wait_until(&mut child, "five questions", || asked.load(Ordering::Relaxed) >= 5);
    common::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let so_far = asked.load(Ordering::Relaxed);
    assert!(so_far < 40, "it was stopped before the end");
    done(given.evaluate(&resumed));
    assert_eq!(asked.load(Ordering::Relaxed), 40, "no question was asked twice");
    // The answers are in the folder, so its results can be computed again without the server.
    let mut replay = infalign(&["replay", "out"]);
    replay.current_dir(given.0.path());
    assert!(done(replay).contains("results.json  the same bytes"));
    assert_eq!(asked.load(Ordering::Relaxed), 40);
}

/// Stored responses, as `a.jsonl` and `b.jsonl`.
fn write_responses(given: &Given) {
    let row = |k: usize| json!({ "prompt": format!("p{}", k / 2), "response": format!("r{k}"), "reward": k % 3 });
    let rows: String = (0..6).map(|k| format!("{}\n", row(k))).collect();
    given.write("a.jsonl", &rows);
    given.write("b.jsonl", &rows);
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

#[cfg(unix)]
#[test]
fn a_second_wish_to_stop_ends_what_waits() {
    let given = Given::new(1);
    write_responses(&given);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let url = serve(move |_: &Request| {
        counted.fetch_add(1, Ordering::Relaxed);
        Reply::Silence
    });
    given.write("server.toml", &format!("kind = 'remote'\nurl = '{url}/get_reward'\n"));
    let args = ["--policy", "a.jsonl", "--reference", "b.jsonl", "--judge", "server.toml"];
    let told = given.path("told.txt");
    let mut command = given.evaluate(&args);
    let mut child = command.stderr(std::fs::File::create(&told).unwrap()).spawn().unwrap();
    common::wait_until(&mut child, "a question", || asked.load(Ordering::Relaxed) > 0);
    common::interrupt(&child);
    let is_stopping = || std::fs::read_to_string(&told).unwrap().contains("stopping; Ctrl-C again");
    common::wait_until(&mut child, "the first wish", is_stopping);
    // What comes within 0.1 s is the same wish.
    std::thread::sleep(Duration::from_millis(400));
    assert!(child.try_wait().unwrap().is_none(), "the first waits for what was begun");
    common::interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(4));
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
