//! `infalign evaluate --pairwise`: a chat model that compares responses in both orders.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "../crates/remote/tests/server/mod.rs"]
mod server;

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use server::{Reply, Request, serve};

/// Prefers `good` to anything else, and the first of two that are alike.
fn verdict(request: &Request) -> Reply {
    let question = request.json["messages"][1]["content"].as_str().unwrap();
    let place = |response: &str| question.contains(&format!("[Response {response}]\ngood"));
    let verdict = if place("B") && !place("A") { "B" } else { "A" };
    Reply::new(200, json!({ "choices": [{ "message": { "content": verdict } }] }))
}

fn evaluate(dir: &Path, args: &[&str]) -> Output {
    let rows = |texts: [&str; 8]| -> String {
        let row = |(k, text): (usize, &&str)| {
            let reward = if *text == "good" { 1.0 } else { 0.0 };
            format!(
                "{}\n",
                json!({"prompt": format!("p{}", k / 2), "response": text, "reward": reward})
            )
        };
        texts.iter().enumerate().map(row).collect()
    };
    let file = |name: &str, texts| {
        std::fs::write(dir.join(name), rows(texts)).unwrap();
        dir.join(name)
    };
    let policy = file("a.jsonl", ["good", "bad", "bad", "good", "good", "good", "bad", "bad"]);
    let reference = file("b.jsonl", ["bad", "bad", "bad", "bad", "good", "bad", "bad", "good"]);
    let mut command = common::infalign(&["evaluate", "--policy"]);
    command.arg(policy).arg("--reference").arg(reference);
    command.arg("--pairwise").arg(dir.join("judge.toml")).args(args).output().unwrap()
}

fn judge(dir: &Path, url: &str, most_requests: usize) {
    let cache = dir.join("answers.jsonl");
    let text = format!(
        "url = '{url}/v1/chat/completions'\nmodel = 'judge'\nmost_requests = {most_requests}\ncache = '{}'\n",
        cache.display()
    );
    std::fs::write(dir.join("judge.toml"), text).unwrap();
}

#[test]
fn pairs_are_judged_in_both_orders_and_answers_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let url = serve(move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        verdict(request)
    });
    judge(dir.path(), &url, 1);
    let limited = evaluate(dir.path(), &["--procedure", "best-of:2"]);
    assert_eq!(limited.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&limited.stderr).contains("`most_requests` is 1"));
    judge(dir.path(), &url, 50);
    let run = |args: &[&str]| -> Value {
        let output = evaluate(dir.path(), args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let found = run(&["--procedure", "best-of:2", "--json"]);
    let judged = &found["pairwise"][0];
    // The best of two: good against bad twice, good against good, bad against good: 1, 1, ½, 0.
    assert_eq!(judged["win_rate"]["estimate"], json!(0.625));
    assert_eq!(judged["n_pairs"], 4);
    // The two that are alike are won by whichever stands first; the others do not depend on it.
    assert_eq!(judged["first_preferred"]["estimate"], json!(0.625));
    assert_eq!(judged["agreement"]["share"]["estimate"], json!(1.0));
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(run(&["--procedure", "best-of:2", "--json"]), found);
    assert_eq!(asked.load(Ordering::Relaxed), before, "every answer was kept");
    // Single samples, both of each prompt.
    let all = run(&["--pairs", "9", "--json"]);
    assert_eq!(all["pairwise"][0]["n_pairs"], 8);
}

#[test]
fn a_judge_that_cannot_be_reached_or_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let told = |told: &str, code: i32| {
        let output = evaluate(dir.path(), &[]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(told) && output.stdout.is_empty(), "{text}");
    };
    told("cannot read the judge", 2);
    std::fs::write(dir.path().join("judge.toml"), "url = 'http://host'\n").unwrap();
    told("missing field", 2);
    judge(dir.path(), "http://127.0.0.1:9", 50);
    told("gave no answer", 3);
}
