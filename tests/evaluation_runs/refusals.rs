//! What cannot be measured is refused before anything is drawn or scored, and where there is no KL that is said.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use infalign_model::CausalLm;
use serde_json::json;

use super::Given;
use super::common::{copy, done, quickstart, refused};
use super::server::{Reply, Request, serve};

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
