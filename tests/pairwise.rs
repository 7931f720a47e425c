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

/// Where a server lists its models.
const MODELS: &str = "/v1/models";

/// Whether response A is `good`, and whether B is.
fn good(request: &Request) -> [bool; 2] {
    let question = request.json["messages"][1]["content"].as_str().unwrap();
    ["A", "B"].map(|response| question.contains(&format!("[Response {response}]\ngood")))
}

/// An answer of that text, to what is asked at the only place where chats are.
fn answer(request: &Request, content: &str) -> Reply {
    if request.path != "/v1/chat/completions" {
        let message = format!("there is nothing at {}", request.path);
        return Reply::new(404, json!({ "error": message }));
    }
    Reply::new(200, json!({ "choices": [{ "message": { "content": content } }] }))
}

/// Prefers `good` to anything else, and the first of two that are alike.
fn verdict(request: &Request) -> Reply {
    answer(request, if good(request) == [false, true] { "B" } else { "A" })
}

/// Prefers `good` to anything else, and has no verdict on two that are alike.
fn unsure(request: &Request) -> Reply {
    let content = match good(request) {
        [true, false] => "A",
        [false, true] => "B",
        _ => "Can you help me?",
    };
    answer(request, content)
}

/// A server, and how often it was asked for a verdict.
fn counted(answer: fn(&Request) -> Reply) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let url = serve(move |request| {
        count.fetch_add(usize::from(request.path != MODELS), Ordering::Relaxed);
        answer(request)
    });
    (url, asked)
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
        "url = '{url}'\nmodel = 'judge'\nmost_requests = {most_requests}\ncache = '{}'\n",
        cache.display()
    );
    std::fs::write(dir.join("judge.toml"), text).unwrap();
}

/// The document of an evaluation that succeeds.
fn found(dir: &Path, args: &[&str]) -> Value {
    common::json(&evaluate(dir, &[args, &["--json"]].concat()))
}

/// What an evaluation that fails says.
fn refused(dir: &Path, code: i32) -> String {
    let output = evaluate(dir, &["--procedure", "best-of:2"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(code) && output.stdout.is_empty(), "{text}");
    text
}

#[test]
fn pairs_are_judged_in_both_orders_and_answers_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (url, asked) = counted(verdict);
    let whole = format!("{url}/v1/chat/completions");
    judge(dir.path(), &whole, 1);
    assert!(refused(dir.path(), 3).contains("`most_requests` is 1"));
    judge(dir.path(), &whole, 50);
    let best_of_2 = found(dir.path(), &["--procedure", "best-of:2"]);
    let judged = &best_of_2["pairwise"][0];
    // The best of two: good against bad twice, good against good, bad against good: 1, 1, ½, 0.
    assert_eq!(judged["win_rate"]["estimate"], json!(0.625));
    assert_eq!(judged["n_pairs"], 4);
    // The two that are alike are won by whichever stands first; the others do not depend on it.
    assert_eq!(judged["first_preferred"]["estimate"], json!(0.625));
    assert_eq!(judged["agreement"]["share"]["estimate"], json!(1.0));
    assert_eq!(judged["unusable_share"], json!(0.0));
    let before = asked.load(Ordering::Relaxed);
    // The base of the server's addresses is the same judge.
    for url in [&whole, &format!("{url}/v1"), &format!("{url}/v1/")] {
        judge(dir.path(), url, 50);
        assert_eq!(found(dir.path(), &["--procedure", "best-of:2"]), best_of_2);
    }
    assert_eq!(asked.load(Ordering::Relaxed), before, "every answer was kept");
    // Single samples, both of each prompt.
    let all = found(dir.path(), &["--pairs", "9"]);
    assert_eq!(all["pairwise"][0]["n_pairs"], 8);
    assert!(asked.load(Ordering::Relaxed) > before, "the base can be asked");
}

#[test]
fn answers_that_are_no_verdict_count_as_ties_and_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (url, asked) = counted(unsure);
    judge(dir.path(), &format!("{url}/v1"), 50);
    let best_of_2 = found(dir.path(), &["--procedure", "best-of:2"]);
    let judged = &best_of_2["pairwise"][0];
    assert_eq!(judged["win_rate"]["estimate"], json!(0.625));
    assert_eq!(judged["first_preferred"]["estimate"], json!(0.5));
    // Good against good, in both orders, of four pairs.
    assert_eq!(judged["unusable_share"], json!(0.25));
    let before = asked.load(Ordering::Relaxed);
    let output = evaluate(dir.path(), &["--procedure", "best-of:2"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("25.0 % of the answers are no verdict and count as ties"), "{text}");
    assert_eq!(asked.load(Ordering::Relaxed), before, "they were kept as others are");
}

#[test]
fn a_judge_that_gives_no_verdict_at_all_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (url, asked) = counted(|request| answer(request, "Can you help me?"));
    judge(dir.path(), &format!("{url}/v1"), 50);
    let text = refused(dir.path(), 3);
    for told in ["\"Can you help me?\"", "is A, B or C", "`criterion`", "another `model`"] {
        assert!(text.contains(told), "{text}");
    }
    let before = asked.load(Ordering::Relaxed);
    assert!(refused(dir.path(), 3).contains("kept by an earlier run"));
    assert_eq!(asked.load(Ordering::Relaxed), before);
}

#[test]
fn a_key_that_the_server_does_not_know_is_refused_before_anything_is_judged() {
    let dir = tempfile::tempdir().unwrap();
    let (url, asked) = counted(|_| Reply::new(401, "who are you?"));
    judge(dir.path(), &format!("{url}/v1"), 50);
    let text = refused(dir.path(), 2);
    assert!(text.contains("judge.toml: api_key_env: ") && text.contains("401: who are you?"));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let (url, asked) = counted(|_| Reply::new(200, r#"{"data": [{"id": "one"}, {"id": "two"}]}"#));
    judge(dir.path(), &format!("{url}/v1/chat/completions"), 50);
    let text = refused(dir.path(), 3);
    assert!(text.contains("does not list the model \"judge\", but one, two"), "{text}");
    assert_ne!(asked.load(Ordering::Relaxed), 0, "some servers take names that they do not list");
}

#[test]
fn a_judge_that_cannot_be_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let told = |told: &str, code: i32| {
        let text = refused(dir.path(), code);
        assert!(text.contains(told), "{text}");
    };
    told("cannot read the judge", 2);
    std::fs::write(dir.path().join("judge.toml"), "url = 'http://host'\n").unwrap();
    told("missing field", 2);
    let (url, _) = counted(|_| Reply::new(200, json!({ "choices": [] })));
    judge(dir.path(), &format!("{url}/v1"), 50);
    told("`choices[0].message.content` is missing", 3);
    let (url, _) = counted(verdict);
    judge(dir.path(), &url, 50);
    told("there is nothing at /", 3);
}
