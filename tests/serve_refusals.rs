//! What `infalign serve` refuses, and whom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod common;
mod serving;

use common::{infalign, quickstart, refused};
use serde_json::{Value, json};
use serving::{Server, model};

#[test]
fn prompts_and_responses_fit_the_context() {
    let server = Server::start(&[]);
    let long = ["soup"; 80].join(" ");
    let chat = json!([{ "role": "user", "content": &long }]);
    for (path, body, field) in [
        ("/v1/completions", json!({ "prompt": &long }), "prompt"),
        ("/v1/completions", json!({ "prompt": ["the soup", &long] }), "prompt"),
        ("/v1/chat/completions", json!({ "messages": chat }), "messages"),
        ("/v1/completions", json!({ "prompt": "a", "max_tokens": 64 }), "max_tokens"),
    ] {
        let answer = server.post(path, &body);
        let error = answer.error();
        assert_eq!((answer.status, &error["param"]), (400, &json!(field)), "{error}");
        assert_eq!(error["code"], "context_length_exceeded", "{error}");
        assert!(error["message"].as_str().unwrap().starts_with(&format!("`{field}` ")), "{error}");
    }
    // Without a length, a response ends where the context does.
    for prompt in [json!(vec![3; 60]), json!([vec![3; 60], vec![4; 60]])] {
        let answer = server.completion(&json!({ "prompt": prompt }));
        assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() <= 8, "{answer}");
    }
}

#[test]
fn what_no_context_could_hold_is_not_encoded() {
    let server = Server::start(&[]);
    let long = "soup ".repeat(20_000);
    let chat = json!([{ "role": "user", "content": &long }]);
    for (path, body, field) in [
        ("/v1/completions", json!({ "prompt": &long }), "prompt"),
        ("/v1/completions", json!({ "prompt": ["the soup", &long] }), "prompt"),
        ("/v1/chat/completions", json!({ "messages": chat }), "messages"),
    ] {
        let answer = server.post(path, &body);
        let error = answer.error();
        assert_eq!((answer.status, &error["param"]), (400, &json!(field)), "{error}");
        assert_eq!(error["code"], "context_length_exceeded", "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("`{field}` has 1000")), "{message}");
        assert!(message.contains("bytes, more than"), "{message}");
    }
    // Of a word that it does not know, the tokenizer makes one token.
    let answer = server.completion(&json!({ "prompt": "x".repeat(60_000), "max_tokens": 1 }));
    assert_eq!(answer["usage"]["prompt_tokens"], 2);
}

#[test]
fn messages_need_a_chat_template() {
    let model = model();
    std::fs::remove_file(model.path().join("chat_template.jinja")).unwrap();
    let server = Server::of(model, &[]);
    let asked = json!({ "messages": [{ "role": "user", "content": "the soup" }] });
    let answer = server.post("/v1/chat/completions", &asked);
    let expected = "the model `tiny` has no chat template; use /v1/completions";
    assert_eq!((answer.status, &answer.error()["message"]), (400, &json!(expected)));
}

#[test]
fn bad_requests_are_refused_by_field() {
    let server = Server::start(&[
        "--max-tokens",
        "20",
        "--batch",
        "4",
        "--queue",
        "4",
        "--max-body",
        "5000",
    ]);
    let with = |more: Value| {
        let mut body = json!({ "model": "tiny", "prompt": "the soup" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let refused = |body: Value, status: u16, field: &str, told: &str| {
        let says_how = ["stream", "stream_options"].iter().any(|key| body.get(key).is_some());
        let mut bodies = vec![body.clone()];
        if body.is_object() && !says_how {
            bodies[0]["stream"] = true.into();
            bodies.push(body);
        }
        for body in bodies {
            let answer = server.post("/v1/completions", &body);
            let error = answer.error();
            assert_eq!(answer.status, status, "{body}: {error}");
            assert_eq!(error["param"].as_str().unwrap_or_default(), field, "{body}: {error}");
            assert!(error["message"].as_str().unwrap().contains(told), "{body}: {error}");
            assert_eq!(error["type"], "invalid_request_error");
        }
    };
    for (more, field, told) in [
        (
            json!({ "temprature": 1, "zeal": 2 }),
            "temprature",
            "the fields `temprature`, `zeal` are unknown",
        ),
        (json!({ "scorers": {} }), "scorers", "nothing to say in `sample`"),
        (json!({ "temperature": "hot" }), "temperature", "`temperature` is \"hot\""),
        (json!({ "temperature": -1 }), "temperature", "temperature is -1"),
        (
            json!({ "temperature": 0, "procedure": "majority:2" }),
            "temperature",
            "above 0 for any procedure but `sample`",
        ),
        (json!({ "top_p": 0 }), "top_p", "top_p is 0"),
        (json!({ "top_k": -2 }), "top_k", "`top_k` is -2"),
        (json!({ "n": 0 }), "n", "`n` is 0"),
        (json!({ "n": 9 }), "n", "needs 9 responses"),
        (json!({ "n": u64::MAX, "prompt": ["a", "b"] }), "n", "at most 8 at a time"),
        (json!({ "n": 2, "procedure": "majority:5" }), "n", "needs 10 responses"),
        (json!({ "n": 2, "procedure": "majority:9" }), "procedure", "needs 18 responses"),
        (
            json!({ "prompt": ["a", "b"], "procedure": "majority:5" }),
            "procedure",
            "needs 10 responses",
        ),
        (json!({ "n": 2, "best_of": 1 }), "best_of", "only 2"),
        (json!({ "n": 1.5 }), "n", "`n` is 1.5, but has to be a whole number of 1"),
        (json!({ "max_tokens": 0 }), "max_tokens", "a whole number of 1 or more"),
        (
            json!({ "max_completion_tokens": 0 }),
            "max_completion_tokens",
            "`max_completion_tokens` is 0",
        ),
        (json!({ "prompt": vec![3; 60], "max_tokens": 10 }), "max_tokens", "has room for 4"),
        (
            json!({ "prompt": [vec![3; 60], vec![3; 3]] }),
            "max_tokens",
            "`max_tokens` is missing: after the longest prompt, of 60 tokens",
        ),
        (json!({ "max_tokens": 21 }), "max_tokens", "this server makes at most 20"),
        (json!({ "max_tokens": 1e300 }), "max_tokens", "`max_tokens` is 1e+300"),
        (
            json!({ "max_tokens": 3, "max_completion_tokens": 4 }),
            "max_tokens",
            "but `max_completion_tokens` is 4",
        ),
        (json!({ "seed": 0.5 }), "seed", "a whole number"),
        (json!({ "stop": [1] }), "stop", "text or a list of texts"),
        (json!({ "stop": "x".repeat(300) }), "stop", "at most 256 bytes"),
        (json!({ "stop": vec!["x"; 17] }), "stop", "at most 16 texts"),
        (json!({ "stream": "yes" }), "stream", "`stream` is \"yes\""),
        (json!({ "stream_options": {} }), "stream_options", "needs `stream`"),
        (json!({ "stream": true, "stream_options": { "x": 1 } }), "stream_options.x", "unknown"),
        (json!({ "logprobs": 21 }), "logprobs", "at most 20"),
        (json!({ "presence_penalty": 0.5 }), "presence_penalty", "only 0"),
        (json!({ "min_tokens": 1 }), "min_tokens", "only 0"),
        (json!({ "service_tier": "flex" }), "service_tier", "only \"auto\" or \"default\""),
        (json!({ "procedure": "best-off:2" }), "procedure", "nearest valid form"),
        (json!({ "procedure": "best-of:2" }), "procedure", "without --reward"),
        (json!({ "procedure": "cd-block:length=2,samples=2" }), "procedure", "scorer"),
        (json!({ "procedure": "cd-block:length=0,samples=2" }), "procedure", "length is `0`"),
        (
            json!({ "procedure": "rejection:quantile=0.5,draws=4" }),
            "procedure",
            "calibration table",
        ),
        (json!({ "procedure": 3 }), "procedure", "`procedure` is 3"),
        (json!({ "prompt": 3 }), "prompt", "`prompt` holds 3"),
        (json!({ "prompt": [] }), "prompt", "`prompt` is empty"),
        (json!({ "prompt": [[3], []] }), "prompt", "`prompt` is empty"),
        (json!({ "prompt": [1, -1] }), "prompt", "no tokens"),
        (json!({ "prompt": [100_000] }), "prompt", "the token 100000"),
        (json!({ "prompt": vec![3; 100] }), "prompt", "has 100 tokens"),
        (json!({ "prompt": null }), "prompt", "`prompt` is missing"),
    ] {
        refused(with(more), 400, field, told);
    }
    refused(with(json!({ "model": "huge" })), 404, "model", "this server has `tiny`");
    refused(json!([1]), 400, "", "has to be a JSON object");
    refused(with(json!({ "user": "x".repeat(6000) })), 413, "", "larger than 5000 bytes");
    for (body, told) in [
        (json!({ "messages": [] }), "the last message is none"),
        (json!({ "messages": [{ "role": "user" }] }), "`messages[0].content` is missing"),
        (json!({ "prompt": "a" }), "unknown"),
        (json!({}), "`messages` is missing"),
        (
            json!({ "messages": [{ "role": "user", "content": "a" }], "top_logprobs": 1 }),
            "needs `logprobs`",
        ),
    ] {
        let answer = server.post("/v1/chat/completions", &body);
        let error = answer.error();
        assert_eq!(answer.status, 400, "{error}");
        assert!(error["message"].as_str().unwrap().contains(told), "{body}: {error}");
    }
    for body in [
        &b"{\"prompt\": "[..],
        b"",
        b"\xff\xfe",
        b"{\"temperature\": NaN}",
        "[".repeat(4000).as_bytes(),
    ] {
        let answer = server.ask("POST", "/v1/completions", &[], body);
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(
            answer.error()["message"].as_str().unwrap().contains("not valid JSON"),
            "{answer:?}"
        );
    }
    let huge = vec![b' '; 50_000_000];
    assert_eq!(server.ask("POST", "/v1/completions", &[], &huge).status, 413);
    assert_eq!(server.get("/v1/completions").status, 405);
    assert_eq!(server.get("/v2").status, 404);
    for name in ["other", "%ff"] {
        let answer = server.get(&format!("/v1/models/{name}"));
        assert_eq!((answer.status, &answer.error()["code"]), (404, &json!("model_not_found")));
        assert!(answer.error()["message"].as_str().unwrap().contains(&format!("`{name}`")));
    }
    // After all that, it answers as before.
    assert_eq!(server.completion(&with(json!({})))["choices"].as_array().unwrap().len(), 1);
    assert_eq!(server.metric("infalign_responses_running"), 0.0);
}

#[test]
fn only_who_knows_the_key_is_answered() {
    let server = Server::start(&["--api-key-env", "TEST_KEY"]);
    let ask = |path: &str, headers: &[&str]| server.ask("GET", path, headers, b"");
    for (headers, told) in [
        (&[][..], "there is no API key"),
        (&["Authorization: Bearer open"], "the API key is wrong"),
        (&["Authorization: open sesame"], "the API key is wrong"),
    ] {
        let answer = ask("/v1/models", headers);
        assert_eq!((answer.status, &answer.error()["code"]), (401, &json!("invalid_api_key")));
        assert!(answer.error()["message"].as_str().unwrap().contains(told), "{answer:?}");
        assert_eq!(server.ask("POST", "/v1/completions", headers, b"{}").status, 401);
    }
    // Who knows it is no page in a browser, and may come through a proxy.
    let through =
        ["Authorization: Bearer open sesame", "Host: proxy.example", "Content-Type: text/plain"];
    assert_eq!(server.ask("POST", "/v1/completions", &through, b"{}").status, 400);
    let models = ask("/v1/models", &["Authorization: Bearer open sesame"]).json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("tiny")));
    assert_eq!(ask("/v1/models/tiny", &["authorization: bearer open sesame"]).json()["id"], "tiny");
    assert_eq!(ask("/health", &[]).json(), json!({ "status": "ok" }));
    let metrics = ask("/metrics", &[]);
    assert!(metrics.head.contains("text/plain; version=0.0.4"));
    assert!(
        metrics
            .body
            .contains("infalign_http_responses_total{path=\"/v1/models\",status=\"401\"} 3"),
        "{}",
        metrics.body
    );
}

#[test]
fn without_a_key_no_page_in_a_browser_is_answered() {
    let server = Server::start(&[]);
    let asked = json!({ "prompt": "the soup", "max_tokens": 1 }).to_string();
    let ask = |header: &str| server.ask("POST", "/v1/completions", &[header], asked.as_bytes());
    for (header, status, told) in [
        ("Host: evil.example:80", 403, "not at \"evil.example:80\""),
        ("Content-Type: text/plain", 415, "`Content-Type: application/json`"),
        ("Content-Type: ", 415, "`Content-Type: application/json`"),
        ("Content-Encoding: gzip", 415, "`Content-Encoding: gzip`"),
    ] {
        let answer = ask(header);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.error()["message"].as_str().unwrap().contains(told), "{answer:?}");
    }
    assert_eq!(server.ask("GET", "/v1/models", &["Host: evil.example"], b"").status, 403);
    for header in [
        "Host: localhost:1",
        "Content-Type: application/json; charset=utf-8",
        "Content-Encoding: identity",
    ] {
        assert_eq!(ask(header).status, 200, "{header}");
    }
}

#[test]
fn what_cannot_be_served_is_one_sentence() {
    let model = quickstart().join("model");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (args, told) in [
        (&["--port", &port][..], "cannot listen at 127.0.0.1"),
        (&["--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY of --api-key-env holds no key"),
        (&["--reward", "none.toml"], "cannot read the reward none.toml"),
        (&["--timeout", "-1"], "above 0"),
        (&["--timeout", "0"], "above 0"),
        (&["--grace", "-1"], "0 or more"),
        (&["--max-tokens", "0"], "at least 1"),
        (&["--max-body", "0"], "at least 1"),
        (&["--name", ""], "give a name"),
        (&["--batch", "0"], "at least 1"),
        (&["--host", "nowhere.invalid"], "--host nowhere.invalid is neither"),
    ] {
        let mut command = infalign(&["serve", "--model"]);
        command.arg(&model);
        if !args.contains(&"--port") {
            command.args(["--port", "0"]);
        }
        command.args(args);
        refused(command, &[told]);
    }
}
