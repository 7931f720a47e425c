//! `infalign serve` as its clients see it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod common;
mod serving;

use std::path::PathBuf;
use std::process::Command;

use common::{infalign, quickstart, responses};
use serde_json::{Value, json};
use serving::{Server, model};

const LEXICON: &str =
    "kind = \"lexicon\"\nweights = { good = 1.0, nice = 1.0, dull = -1.0, cold = -1.0 }\n";

fn reward(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("reward.toml");
    std::fs::write(&path, LEXICON).unwrap();
    path
}

/// Some prompts of the quickstart, as rows.
fn rows() -> Vec<Value> {
    let text = std::fs::read_to_string(quickstart().join("test.jsonl")).unwrap();
    text.lines().take(4).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn generate(args: &[&str], rows: &[Value]) -> Vec<Value> {
    let model = model();
    let prompts = model.path().join("prompts.jsonl");
    std::fs::write(&prompts, rows.iter().map(|row| format!("{row}\n")).collect::<String>())
        .unwrap();
    let mut command = infalign(&["generate", "--json", "--model"]);
    command.arg(model.path()).arg("--prompts").arg(prompts).args(args);
    responses(&command.env("TEST_KEY", "open sesame").output().unwrap())
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn joined(parts: &[Value], index: u64, text: impl Fn(&Value) -> &Value) -> String {
    let choices = parts.iter().flat_map(|part| part["choices"].as_array().unwrap());
    let own = choices.filter(|choice| choice["index"] == index);
    own.map(|choice| text(choice).as_str().unwrap_or_default()).collect()
}

#[test]
fn a_seed_gives_what_generate_gives_in_whole_and_in_parts() {
    let server = Server::start(&["--batch", "5"]);
    let rows: Vec<Value> = rows().iter().map(|row| json!({ "prompt": row["prompt"] })).collect();
    let common = ["--seed", "7", "--max-tokens", "24", "--samples", "2", "--stop", " and"];
    let ways = ["--top-p", "0.9", "--temperature", "1.1", "--top-k", "3", "--stop-token-id", "23"];
    let expected = generate(&[&common[..], &ways].concat(), &rows);
    let ends_at = |token: u64| {
        expected.iter().any(|row| row["tokens"].as_array().unwrap().last().unwrap() == token)
    };
    assert!(ends_at(7) && ends_at(23), "\"and\" and \"dirty\" end some");
    let prompts: Vec<&Value> = rows.iter().map(|row| &row["prompt"]).collect();
    let asked = json!({
        "model": "tiny", "prompt": prompts, "n": 2, "seed": 7, "max_tokens": 24, "stop": " and", "top_p": 0.9,
        "temperature": 1.1, "top_k": 3, "stop_token_ids": [23], "logprobs": 0, "return_token_ids": true, "user": "me",
    });
    let answer = server.completion(&asked);
    assert_eq!((&answer["object"], &answer["seed"]), (&json!("text_completion"), &json!(7)));
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 8);
    for (index, (choice, expected)) in choices.iter().zip(&expected).enumerate() {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["text"], expected["response"]);
        assert_eq!(choice["token_ids"], expected["tokens"]);
        assert_eq!(choice["finish_reason"], expected["finish"]);
        let log_probs = &choice["logprobs"];
        assert_eq!(numbers(&log_probs["token_logprobs"]), numbers(&expected["log_probs"]));
        assert_eq!(
            log_probs["tokens"].as_array().unwrap().len(),
            log_probs["text_offset"].as_array().unwrap().len()
        );
    }
    let drawn: usize = expected.iter().map(|row| row["tokens"].as_array().unwrap().len()).sum();
    assert_eq!(answer["usage"]["completion_tokens"], drawn);
    assert_eq!(server.metric("infalign_generated_tokens_total"), drawn as f64);

    let mut streamed = asked.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({ "include_usage": true });
    let parts = server.stream("/v1/completions", &streamed);
    let (last, parts) = parts.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &answer["usage"]));
    assert!(parts.iter().all(|part| part.get("usage") == Some(&Value::Null)));
    for (index, choice) in choices.iter().enumerate() {
        let index = index as u64;
        assert_eq!(
            joined(parts, index, |choice| &choice["text"]),
            choice["text"].as_str().unwrap()
        );
        let own = || parts.iter().map(|part| &part["choices"][0]).filter(|c| c["index"] == index);
        let list = |key: fn(&Value) -> &Value| {
            own()
                .flat_map(|choice| key(choice).as_array().cloned().unwrap_or_default())
                .collect::<Vec<_>>()
        };
        assert_eq!(json!(list(|choice| &choice["token_ids"])), choice["token_ids"]);
        let prompts: Vec<&Value> = own().map(|choice| &choice["prompt_token_ids"]).collect();
        assert_eq!(prompts[0], &choice["prompt_token_ids"]);
        assert!(prompts[1..].iter().all(|ids| ids.is_null()), "once is enough");
        for key in ["token_logprobs", "tokens", "text_offset", "top_logprobs"] {
            let all: Vec<Value> = own()
                .flat_map(|c| c["logprobs"][key].as_array().cloned().unwrap_or_default())
                .collect();
            assert_eq!(json!(all), choice["logprobs"][key], "{key}");
        }
        let ends: Vec<&Value> =
            own().map(|c| &c["finish_reason"]).filter(|end| !end.is_null()).collect();
        assert_eq!(ends, [&choice["finish_reason"]]);
    }
}

#[test]
fn as_many_tokens_as_there_are_leave_none_out() {
    let (server, prompt) = (Server::start(&[]), json!({ "prompt": "the soup" }));
    let text = |more: &[&str]| {
        let args = [&["--seed", "7", "--max-tokens", "24"][..], more].concat();
        generate(&args, std::slice::from_ref(&prompt))[0]["response"].clone()
    };
    let expected = text(&[]);
    assert_eq!(text(&["--top-k", "89"]), expected);
    for top_k in [89, 100_000] {
        let asked = json!({ "prompt": "the soup", "seed": 7, "max_tokens": 24, "top_k": top_k });
        assert_eq!(server.completion(&asked)["choices"][0]["text"], expected, "{top_k}");
    }
}

#[test]
fn messages_are_answered_by_the_template() {
    let server = Server::start(&[]);
    let messages = json!([{ "role": "user", "content": "the soup" }]);
    let expected =
        generate(&["--seed", "3", "--max-tokens", "12"], &[json!({ "messages": messages })]);
    let asked = json!({ "model": "tiny", "messages": messages, "seed": 3, "max_completion_tokens": 12, "logprobs": true, "top_logprobs": 2 });
    let answer = server.post("/v1/chat/completions", &asked).json();
    let choice = &answer["choices"][0];
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["message"]["content"], expected[0]["response"]);
    let content = choice["logprobs"]["content"].as_array().unwrap();
    assert!(!content.is_empty());
    let told: Vec<f32> =
        content.iter().map(|token| token["logprob"].as_f64().unwrap() as f32).collect();
    assert_eq!(told, numbers(&expected[0]["log_probs"]));
    for token in content {
        let top = token["top_logprobs"].as_array().unwrap();
        let of = |k: usize| top[k]["logprob"].as_f64().unwrap();
        assert!(top.len() == 2 && of(0) >= of(1) && of(0) >= token["logprob"].as_f64().unwrap());
        let bytes: Vec<u8> = serde_json::from_value(token["bytes"].clone()).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), token["token"].as_str().unwrap());
    }
    let mut streamed = asked.clone();
    streamed["stream"] = true.into();
    streamed["return_token_ids"] = true.into();
    let parts = server.stream("/v1/chat/completions", &streamed);
    assert_eq!(parts[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    let prompt_ids = |part: &Value| part["choices"][0]["prompt_token_ids"].is_array();
    assert!(prompt_ids(&parts[0]) && !parts[1..].iter().any(prompt_ids));
    assert!(
        parts
            .iter()
            .all(|part| part["object"] == "chat.completion.chunk" && part["id"] == parts[0]["id"])
    );
    assert_eq!(
        joined(&parts, 0, |choice| &choice["delta"]["content"]),
        choice["message"]["content"].as_str().unwrap()
    );
    // Without a length, an answer may be as long as the context has room for.
    let long =
        server.post("/v1/chat/completions", &json!({ "messages": messages, "seed": 3 })).json();
    let text = long["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(text.starts_with(choice["message"]["content"].as_str().unwrap()));
}

#[test]
fn no_answer_is_longer_than_the_server_allows() {
    let server = Server::start(&["--max-tokens", "3"]);
    // One that would end after 26 tokens.
    let messages = json!([{ "role": "user", "content": "the soup" }]);
    let chat = json!({ "messages": messages, "seed": 3 });
    let answer = server.post("/v1/chat/completions", &chat).json();
    for answer in [answer, server.completion(&json!({ "prompt": "the soup", "seed": 3 }))] {
        assert_eq!(answer["choices"][0]["finish_reason"], "length", "{answer}");
        assert_eq!(answer["usage"]["completion_tokens"], 3, "{answer}");
    }
}

/// The model with bytes, of which none is a character, in place of some of its words; no space stands between words.
fn with_bytes(is_byte: impl Fn(u64) -> bool) -> tempfile::TempDir {
    let model = model();
    let path = model.path().join("tokenizer.json");
    let mut tokenizer: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let words = tokenizer["model"]["vocab"].as_object().unwrap().clone();
    let byte = |(word, id): (String, Value)| match id.as_u64().unwrap() {
        number if number > 2 && is_byte(number) => (format!("<0x{:02X}>", 0x80 + number), id),
        _ => (word, id),
    };
    tokenizer["model"]["vocab"] = Value::Object(words.into_iter().map(byte).collect());
    tokenizer["decoder"] =
        json!({ "type": "Sequence", "decoders": [{ "type": "ByteFallback" }, { "type": "Fuse" }] });
    std::fs::write(path, tokenizer.to_string()).unwrap();
    model
}

#[test]
fn the_bytes_of_a_token_are_those_that_characters_are_made_of() {
    let server = Server::of(with_bytes(|_| true), &[]);
    let asked = json!({
        "messages": [{ "role": "user", "content": "the soup" }], "n": 8, "seed": 3, "max_completion_tokens": 12,
        "logprobs": true, "return_token_ids": true,
    });
    let answer = server.post("/v1/chat/completions", &asked).json();
    let mut n_bytes = 0;
    for choice in answer["choices"].as_array().unwrap() {
        let ids = choice["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap());
        let told = choice["logprobs"]["content"].as_array().unwrap();
        for (id, token) in ids.zip(told).filter(|(id, _)| *id > 2) {
            assert_eq!(token["bytes"], json!([0x80 + id]));
            n_bytes += 1;
        }
    }
    assert!(n_bytes > 0, "no response has a word");
}

#[test]
fn tokens_begin_where_their_text_does() {
    let is_byte = |id: u64| id.is_multiple_of(2);
    let server = Server::of(with_bytes(is_byte), &[]);
    let asked = json!({ "prompt": [5], "n": 16, "seed": 3, "max_tokens": 24, "temperature": 2, "logprobs": 0,
        "return_token_ids": true });
    let answer = server.completion(&asked);
    let (mut n_words, mut n_bytes) = (0, 0);
    for choice in answer["choices"].as_array().unwrap() {
        let list = |value: &Value| value.as_array().unwrap().clone();
        let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
        let (ids, log_probs) = (list(&choice["token_ids"]), &choice["logprobs"]);
        let (tokens, offsets) = (list(&log_probs["tokens"]), list(&log_probs["text_offset"]));
        let mut before = 0;
        for ((id, token), offset) in ids.iter().zip(&tokens).zip(&offsets) {
            let (id, offset) = (id.as_u64().unwrap(), offset.as_u64().unwrap() as usize);
            assert!((before..=text.len()).contains(&offset), "{offset} after {before}: {choice}");
            before = offset;
            if id > 2 && !is_byte(id) {
                let word = token.as_str().unwrap();
                let found: String = text[offset..].iter().take(word.chars().count()).collect();
                assert_eq!(found, word, "{choice}");
                n_words += 1;
            }
            n_bytes += usize::from(id > 2 && is_byte(id));
        }
    }
    assert!(n_words > 0 && n_bytes > 0, "{n_words} words and {n_bytes} bytes");
}

#[test]
fn greedy_alternatives_begin_with_what_is_drawn() {
    let server = Server::start(&[]);
    let asked = json!({ "prompt": "the soup", "temperature": 0, "logprobs": 3, "max_tokens": 8 });
    let log_probs = server.completion(&asked)["choices"][0]["logprobs"].clone();
    let drawn = numbers(&log_probs["token_logprobs"]);
    let top = log_probs["top_logprobs"].as_array().unwrap();
    assert!(!drawn.is_empty() && drawn.len() == top.len(), "{log_probs}");
    for (drawn, top) in drawn.iter().zip(top) {
        let top: Vec<f32> =
            top.as_object().unwrap().values().map(|n| n.as_f64().unwrap() as f32).collect();
        assert_eq!(top.len(), 3);
        assert_eq!(top.iter().copied().fold(f32::MIN, f32::max), *drawn);
    }
}

#[test]
fn a_procedure_chooses_by_the_reward() {
    let dir = tempfile::tempdir().unwrap();
    let reward = reward(&dir);
    let server = Server::start(&["--reward", reward.to_str().unwrap()]);
    let rows: Vec<Value> = rows().iter().map(|row| json!({ "prompt": row["prompt"] })).collect();
    for procedure in ["best-of:4", "worst-of:3", "soft-best-of:4,temperature=2"] {
        let args = [
            "--seed",
            "5",
            "--max-tokens",
            "24",
            "--procedure",
            procedure,
            "--reward",
            reward.to_str().unwrap(),
        ];
        for (row, expected) in rows.iter().zip(generate(&args, &rows)) {
            let asked = json!({ "prompt": row["prompt"], "seed": 5, "max_tokens": 24, "procedure": procedure });
            let answer = server.completion(&asked);
            assert_eq!(answer["procedure"], procedure);
            let choice = &answer["choices"][0];
            assert_eq!(choice["text"], expected["response"]);
            for key in ["score", "model_tokens", "scorer_calls"] {
                assert_eq!(choice[key], expected[key], "{key}");
            }
            let streamed = json!({ "prompt": row["prompt"], "seed": 5, "max_tokens": 24, "procedure": procedure, "stream": true });
            let parts = server.stream("/v1/completions", &streamed);
            assert_eq!(
                joined(&parts, 0, |choice| &choice["text"]),
                choice["text"].as_str().unwrap()
            );
            assert_eq!(parts.last().unwrap()["choices"][0]["score"], choice["score"]);
        }
    }
}

#[test]
fn what_else_is_asked_for_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let reward = reward(&dir);
    let args = ["--reward", reward.to_str().unwrap(), "--batch", "7"];
    let (server, rows) = (Server::start(&args), rows());
    let asked = |k: usize| {
        let procedure = ["sample", "best-of:2"][k % 2];
        json!({
            "prompt": rows[k % rows.len()]["prompt"], "seed": k, "n": 1 + k % 3, "max_tokens": 4 + k % 20, "logprobs": 0,
            "temperature": 0.5 + k as f64 / 20.0, "top_k": k % 5, "procedure": procedure,
        })
    };
    server.ask_alone_and_together(24, 3, asked);
}

#[test]
fn an_answer_tells_the_seed_that_repeats_it_and_equal_prompts_differ() {
    let server = Server::start(&[]);
    let mut asked = json!({ "prompt": ["the soup", "the soup"], "max_tokens": 24 });
    let answer = server.completion(&asked);
    assert_ne!(answer["choices"][0]["text"], answer["choices"][1]["text"]);
    assert_ne!(server.completion(&asked)["seed"], answer["seed"]);
    asked["seed"] = answer["seed"].clone();
    assert_eq!(server.completion(&asked)["choices"], answer["choices"]);
    // That of the first request is the server's.
    let first = |seed: &str| {
        let server = Server::start(&["--seed", seed]);
        server.completion(&json!({ "prompt": "the soup", "max_tokens": 1 }))["seed"].clone()
    };
    assert_eq!(first("4"), first("4"));
    assert_ne!(first("4"), first("5"));
}

#[test]
fn a_negative_seed_is_told_as_it_was_sent() {
    let server = Server::start(&[]);
    let asked = json!({ "prompt": "the soup", "seed": -7, "max_tokens": 8 });
    let answer = server.completion(&asked);
    assert_eq!(answer["seed"], -7);
    assert_eq!(server.completion(&asked)["choices"], answer["choices"]);
}

#[test]
fn null_is_what_is_not_there() {
    let server = Server::start(&[]);
    let plain = json!({ "prompt": "the soup", "seed": 1, "max_tokens": 5, "stream": true });
    let mut nulls = plain.clone();
    for key in ["zeal", "top_p", "echo", "tools", "service_tier"] {
        nulls[key] = Value::Null;
    }
    nulls["stream_options"] = json!({ "include_usage": null, "include_obfuscation": null });
    let texts =
        |body: &Value| joined(&server.stream("/v1/completions", body), 0, |choice| &choice["text"]);
    assert_eq!(texts(&nulls), texts(&plain));
    let parts = json!([{ "type": "text", "text": "the soup", "cache_control": null }]);
    let messages = json!([{ "role": "user", "content": parts, "name": null }]);
    let chat = json!({ "messages": messages, "max_tokens": 5, "metadata": null });
    server.post("/v1/chat/completions", &chat).json();
}

#[test]
fn what_other_servers_know_may_say_what_is_so() {
    let server = Server::start(&[]);
    let with = |body: &Value, more: Value| {
        let mut body = body.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let neutral = json!({
        "best_of": 2, "echo": false, "metadata": { "run": "a" }, "service_tier": "auto", "ignore_eos": false, "min_tokens": 0,
        "length_penalty": 1.0, "use_beam_search": false, "skip_special_tokens": true,
    });
    let plain = json!({ "prompt": "the soup", "n": 2, "seed": 1, "max_tokens": 5 });
    let more = with(&neutral, json!({ "suffix": "" }));
    let answer = server.completion(&with(&plain, more));
    assert_eq!(answer["choices"], server.completion(&plain)["choices"]);
    let messages = json!([{ "role": "user", "content": "the soup" }]);
    let plain = json!({ "messages": messages, "n": 2, "seed": 1, "max_tokens": 5, "stream": true });
    let more = json!({
        "logprobs": false, "top_logprobs": 0, "parallel_tool_calls": true, "modalities": ["text"], "service_tier": "default",
        "stream_options": { "include_obfuscation": false, "continuous_usage_stats": false },
    });
    let texts = |body: &Value| {
        let parts = server.stream("/v1/chat/completions", body);
        [0, 1].map(|index| joined(&parts, index, |choice| &choice["delta"]["content"]))
    };
    assert_eq!(texts(&with(&plain, with(&neutral, more))), texts(&plain));
}

#[test]
fn the_host_may_be_a_name_or_stand_in_brackets() {
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has_ipv6 {
        eprintln!("SKIPPED for brackets: this machine has no IPv6");
    }
    for host in ["localhost", "[::1]"].into_iter().take(1 + usize::from(has_ipv6)) {
        let server = Server::start(&["--host", host]);
        assert_eq!(server.get("/health").status, 200, "{host}");
    }
}

#[test]
fn no_two_answers_have_the_same_id() {
    // Two that start in the same second.
    let ids: Vec<String> = std::thread::scope(|scope| {
        let ask = || {
            let server = Server::start(&[]);
            let asked = json!({ "prompt": "the soup", "max_tokens": 1 });
            let id = || server.completion(&asked)["id"].as_str().unwrap().to_owned();
            [id(), id()]
        };
        let clients: Vec<_> = (0..2).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| id.starts_with("cmpl-")), "{ids:?}");
    let different: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(different.len(), 4, "{ids:?}");
}

/// What `generate --server` asks is what `serve` answers, tokens and log-probabilities included.
#[test]
fn generate_can_ask_this_server() {
    let dir = tempfile::tempdir().unwrap();
    let reward = reward(&dir);
    let server = Server::start(&["--api-key-env", "TEST_KEY"]);
    let rows = rows();
    let args = [
        "--temperature",
        "1e-6",
        "--max-tokens",
        "20",
        "--procedure",
        "best-of:2",
        "--reward",
        reward.to_str().unwrap(),
    ];
    let here = generate(&args, &rows);
    let there = ["--server", &server.url(), "--api-key-env", "TEST_KEY"];
    assert_eq!(generate(&[&args[..], &there].concat(), &rows), here);
}

/// The official client, streaming included; `cargo xtask test` makes the environment for it.
#[test]
fn the_official_client_works_unchanged() {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/openai_client.py");
    let Some(python) = std::env::var_os("INFALIGN_OPENAI_PYTHON").filter(|path| !path.is_empty())
    else {
        eprintln!("SKIPPED: INFALIGN_OPENAI_PYTHON names no Python that has the package `openai`");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let reward = reward(&dir);
    let server =
        Server::start(&["--api-key-env", "TEST_KEY", "--reward", reward.to_str().unwrap()]);
    let output =
        Command::new(python).arg(script).arg(server.url()).arg("open sesame").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("all is well"), "{told}");
}
