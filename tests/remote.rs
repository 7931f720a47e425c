//! `infalign generate` with servers as a user runs it: one that has the quickstart's model, and one that scores.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "../crates/decode/tests/server/mod.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{fails, infalign, quickstart, refused, run};
use infalign_model::{CausalLm, Tokenizer};
use serde_json::{Value, json};
use server::{Completions, Form, Reply, Request, serve};

const KEY: &str = "open sesame";

/// Completions by the quickstart's model.
fn completions() -> Completions {
    let device = infalign_backend::device(None).unwrap();
    let dir = quickstart().join("model");
    let model = CausalLm::load(&dir, &device).unwrap();
    let tokenizer = Tokenizer::load(&dir, model.config()).unwrap();
    Completions { model, tokenizer, form: Form::Beside }
}

/// What a server says to those who know the key.
fn guarded(request: &Request, answer: impl Fn(&Request) -> Reply) -> Reply {
    let known = request.authorization.as_deref() == Some(&format!("Bearer {KEY}"));
    if known { answer(request) } else { Reply::new(401, "who are you?") }
}

fn generate(dir: &Path, model: &Path, args: &[&str]) -> Command {
    let prompts = dir.join("prompts.jsonl");
    let all = std::fs::read_to_string(quickstart().join("test.jsonl")).unwrap();
    std::fs::write(&prompts, all.lines().take(6).collect::<Vec<_>>().join("\n")).unwrap();
    let mut command = infalign(&["generate", "--model"]);
    command.arg(model).arg("--prompts").arg(prompts);
    command.args(["--max-tokens", "24"]).args(args).env("TEST_KEY", KEY);
    command
}

fn responses(command: Command) -> Vec<Value> {
    common::responses(&run(command))
}

/// The model's folder without its weights.
fn without_weights(dir: &Path) -> PathBuf {
    let model = dir.join("model");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(quickstart().join("model")).unwrap().flatten() {
        if file.path().extension().is_some_and(|extension| extension == "json") {
            std::fs::copy(file.path(), model.join(file.file_name())).unwrap();
        }
    }
    model
}

#[test]
fn a_server_takes_the_place_of_the_weights() {
    let dir = tempfile::tempdir().unwrap();
    let model = without_weights(dir.path());
    let completions = completions();
    let url = serve(move |request| guarded(request, |request| completions.answer(request)));
    let reward = dir.path().join("reward.toml");
    std::fs::write(&reward, "kind = \"lexicon\"\nweights = { good = 1.0, nice = 1.0 }\n").unwrap();
    let remote = ["--server", &url, "--api-key-env", "TEST_KEY", "--timeout", "60"];
    let common = ["--json", "--temperature", "1e-6", "--procedure", "best-of:2", "--stop", " and"];
    let common = [&common[..], &["--reward", reward.to_str().unwrap()]].concat();
    let here = responses(generate(dir.path(), &quickstart().join("model"), &common));
    let there = responses(generate(dir.path(), &model, &[&common[..], &remote].concat()));
    assert_eq!(here.len(), 6);
    // Of an adapter that the server has, its base's tokenizer is all that is needed.
    let adapter = dir.path().join("adapter");
    std::fs::create_dir(&adapter).unwrap();
    let config = json!({ "peft_type": "LORA", "base_model_name_or_path": "../model", "r": 1 });
    std::fs::write(adapter.join("adapter_config.json"), config.to_string()).unwrap();
    let by_adapter = responses(generate(dir.path(), &adapter, &[&common[..], &remote].concat()));
    assert_eq!(by_adapter, there);
    for (here, there) in here.iter().zip(&there) {
        for key in ["id", "prompt", "response", "score", "tokens", "finish", "model_tokens"] {
            assert_eq!(here[key], there[key], "{key}");
        }
        let numbers = |row: &Value| -> Vec<f64> {
            row["log_probs"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
        };
        let (here, there) = (numbers(here), numbers(there));
        assert_eq!(here.len(), there.len());
        assert!(here.iter().zip(&there).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn what_a_server_answered_before_it_failed_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let (completions, asked) = (completions(), AtomicUsize::new(0));
    // The first question is which models there are.
    let url = serve(move |request| match asked.fetch_add(1, Ordering::Relaxed) {
        0..5 => completions.answer(request),
        _ => Reply::new(400, "enough"),
    });
    let args = ["--json", "--server", &url, "--batch", "1"];
    let output = run(generate(dir.path(), &quickstart().join("model"), &args));
    assert_eq!(output.status.code(), Some(3));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("status 400: enough"), "{stderr}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["responses"].as_array().unwrap().len(), 4);
}

#[test]
fn a_server_that_cannot_be_used_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let model = quickstart().join("model");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let locked = serve(|request| guarded(request, |_| Reply::new(200, "{\"data\": []}")));
    let several = serve(|_| Reply::new(200, r#"{"data": [{"id": "one"}, {"id": "two"}]}"#));
    let loading = serve(|_| Reply::Answer(503, vec!["Retry-After: 0".into()], "loading".into()));
    let named = ["--server-model", "one"];
    for (url, args, code, told) in [
        (dead.as_str(), &[][..], 2, "gave no answer at 5 tries"),
        (&locked, &[], 2, "status 401: who are you?"),
        (&locked, &["--api-key-env", "TEST_KEY"], 2, "has no model"),
        (&locked, &["--api-key-env", "NO_SUCH_KEY"], 2, "NO_SUCH_KEY of --api-key-env"),
        (&several, &[], 2, "--server-model: one, two"),
        (&several, &named, 3, "`choices` has 0 entries"),
        (&several, &["--server-model", "three"], 3, "not list the model \"three\", but one, two"),
        (&loading, &named, 2, "status 503: loading"),
        ("localhost:8000", &[], 2, "http://HOST:PORT"),
        (&several, &["--timeout", "0"], 2, "seconds above 0"),
        (&several, &["--memory", "1"], 2, "cannot be used with"),
    ] {
        let command = generate(dir.path(), &model, &[&["--server", url], args].concat());
        let text = fails(command, code);
        assert!(text.contains(told) && !text.contains(KEY), "{url} {args:?}: {text}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_search_for_a_model() {
    let (dir, asked) = (tempfile::tempdir().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = asked.clone();
    let url = serve(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Reply::Answer(503, vec!["Retry-After: 3600".into()], "loading".into())
    });
    let mut command = generate(dir.path(), &quickstart().join("model"), &["--server", &url]);
    let mut child = command.spawn().unwrap();
    common::wait_until(&mut child, "a question", || asked.load(Ordering::Relaxed) > 0);
    common::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let told = common::stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("since that was to stop"), "{told}");
}

/// The reward is a server's in OpenRLHF's form, and what it says is kept.
#[test]
fn best_of_n_selects_by_the_reward_of_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let url = serve(move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        guarded(request, |request| {
            let queries = request.json["query"].as_array().unwrap();
            let shorter = |query: &Value| -(query.as_str().unwrap().len() as f64);
            let rewards: Vec<f64> = queries.iter().map(shorter).collect();
            Reply::new(200, json!({ "rewards": rewards }))
        })
    });
    let (reward, cache) = (dir.path().join("remote.toml"), dir.path().join("rewards.jsonl"));
    let table = |key: &str| {
        let cache = cache.display();
        format!(
            "kind = \"remote\"\nurl = \"{url}/get_reward\"\ncache = '{cache}'\napi_key_env = \"{key}\"\n"
        )
    };
    let args = ["--json", "--procedure", "best-of:2", "--reward", reward.to_str().unwrap()];
    let model = quickstart().join("model");
    std::fs::write(&reward, table("TEST_KEY")).unwrap();
    let first = responses(generate(dir.path(), &model, &args));
    assert_eq!(first.len(), 6);
    for row in &first {
        let text = |key: &str| row[key].as_str().unwrap().len() as f64;
        assert_eq!(row["score"].as_f64().unwrap(), -(text("prompt") + text("response")));
    }
    let asked = requests.load(Ordering::Relaxed);
    assert_eq!(first, responses(generate(dir.path(), &model, &args)));
    assert_eq!(requests.load(Ordering::Relaxed), asked, "all was in the cache");

    std::fs::write(&reward, table("NO_SUCH_KEY")).unwrap();
    refused(generate(dir.path(), &model, &args), &["NO_SUCH_KEY of `api_key_env`"]);
}
