//! A chat model that judges pairs: what is asked, what is kept, and what is refused.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../remote/tests/server/mod.rs"]
mod server;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use infalign_reward::{Preference, PreferenceConfig, Verdict};
use serde_json::{Value, json};

use server::{Reply, Request, serve};

/// Prefers the longer response, and the first of equals, as a model that is biased by place would.
fn longest(request: &Request) -> Reply {
    assert_eq!(request.path, "/v1/chat/completions");
    assert_eq!(
        (&request.json["model"], &request.json["temperature"]),
        (&json!("judge"), &json!(0))
    );
    let question = request.json["messages"][1]["content"].as_str().unwrap();
    let part = |from: &str, to: &str| {
        let begin = question.find(from).unwrap() + from.len();
        question[begin..begin + question[begin..].find(to).unwrap()].len()
    };
    let first = part("[Response A]\n", "\n\n[Response B]");
    let second = part("[Response B]\n", "\n\nWhich");
    let verdict = if first >= second { "A" } else { "B" };
    Reply::new(200, says(verdict))
}

/// An answer of that text.
fn says(content: &str) -> Value {
    json!({ "choices": [{ "message": { "content": content } }] })
}

fn config(url: &str, cache: Option<&Path>, most_requests: usize) -> PreferenceConfig {
    let text = format!(
        "url = '{url}/v1/chat/completions'\nmodel = 'judge'\nmost_requests = {most_requests}"
    );
    PreferenceConfig { cache: cache.map(Into::into), ..toml::from_str(&text).unwrap() }
}

const PAIRS: [(&str, &str, &str); 3] =
    [("Say", "long response", "short"), ("Say", "short", "long response"), ("Say", "same", "same")];

#[test]
fn answers_are_kept_and_the_number_of_questions_is_limited() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("judge.jsonl");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let url = serve(move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        longest(request)
    });
    let judge = |most| Preference::new(&config(&url, Some(&cache), most), &|_| None).unwrap();
    let (first, second) = (Verdict::First, Verdict::Second);
    // Two of the three may be asked.
    let two = judge(2);
    assert_eq!(two.verdicts(&PAIRS[..2]).unwrap(), [first, second]);
    let error = two.verdicts(&PAIRS).unwrap_err().to_string();
    assert!(error.contains("`most_requests` is 2"), "{error}");
    // Another process goes on with what was answered.
    assert_eq!(judge(1).verdicts(&PAIRS).unwrap(), [first, second, first]);
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    assert_eq!(judge(0).verdicts(&PAIRS).unwrap(), [first, second, first]);
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[test]
fn a_question_that_fails_costs_no_answer_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("judge.jsonl");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let url = serve(move |request| {
        // The failure comes first.
        let fails = request.json["messages"][1]["content"].as_str().unwrap().contains("same");
        if fails && counted.load(Ordering::Relaxed) < 3 {
            counted.fetch_add(1, Ordering::Relaxed);
            return Reply::new(400, "no");
        }
        std::thread::sleep(Duration::from_millis(300));
        counted.fetch_add(1, Ordering::Relaxed);
        longest(request)
    });
    let judge = |most| Preference::new(&config(&url, Some(&cache), most), &|_| None).unwrap();
    let error = judge(3).verdicts(&PAIRS).unwrap_err().to_string();
    assert!(error.contains("status 400"), "{error}");
    let (first, second) = (Verdict::First, Verdict::Second);
    assert_eq!(judge(0).verdicts(&PAIRS[..2]).unwrap(), [first, second]);
    assert_eq!(judge(1).verdicts(&PAIRS).unwrap(), [first, second, first]);
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[test]
fn answers_of_another_server_or_model_or_to_another_criterion_are_asked_for_anew() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("judge.jsonl");
    let config = config(&serve(longest), Some(&cache), 1);
    let ask = |config: &PreferenceConfig| {
        Preference::new(config, &|_| None).unwrap().verdicts(&PAIRS[..1])
    };
    ask(&config).unwrap();
    let known = PreferenceConfig { most_requests: 0, ..config };
    ask(&known).unwrap();
    for other in [
        PreferenceConfig { url: "http://host/v1".into(), ..known.clone() },
        PreferenceConfig { model: "other".into(), ..known.clone() },
        PreferenceConfig { criterion: "other".into(), ..known.clone() },
    ] {
        let error = ask(&other).unwrap_err().to_string();
        assert!(error.contains("`most_requests` is 0"), "{error}");
    }
}

#[test]
fn what_is_asked_again_is_limited_too() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let url = serve(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Reply::Answer(503, vec!["Retry-After: 0".into()], "busy".into())
    });
    let judge = Preference::new(&config(&url, None, 2), &|_| None).unwrap();
    let error = judge.verdicts(&PAIRS[..1]).unwrap_err().to_string();
    assert!(error.contains("at 2 tries") && error.contains("busy"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn answers_that_are_no_verdict_are_kept_apart_from_ties() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("judge.jsonl");
    let url = serve(|request: &Request| {
        let question = request.json["messages"][1]["content"].as_str().unwrap();
        Reply::new(200, says(if question.contains("long") { "C" } else { "It depends." }))
    });
    let expected = [Verdict::Tie, Verdict::Tie, Verdict::Unusable];
    for most in [3, 0] {
        let judge = Preference::new(&config(&url, Some(&cache), most), &|_| None).unwrap();
        assert_eq!(judge.verdicts(&PAIRS).unwrap(), expected, "{most} may be asked");
    }
}

#[test]
fn a_judge_without_any_verdict_is_an_error_that_quotes_it() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("judge.jsonl");
    let url = serve(|_: &Request| Reply::new(200, says("It depends.")));
    for (most, told) in [(3, "one of them: \"It depends.\""), (0, "kept by an earlier run")] {
        let judge = Preference::new(&config(&url, Some(&cache), most), &|_| None).unwrap();
        assert!(judge.verdicts(&[]).unwrap().is_empty());
        let error = judge.verdicts(&PAIRS).unwrap_err().to_string();
        for part in [url.as_str(), "to 3 questions is A, B or C", "`criterion`", told] {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn an_answer_without_a_text_names_the_server() {
    let url = serve(|_: &Request| Reply::new(200, json!({ "choices": [] })));
    let judge = Preference::new(&config(&url, None, 9), &|_| None).unwrap();
    let error = judge.verdicts(&PAIRS).unwrap_err().to_string();
    assert!(error.contains(&url) && error.contains("is missing"), "{error}");
}
