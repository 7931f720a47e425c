//! Prompts of messages, as a user gives them to the commands.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::{bytes, done, json, model_with, refused, run, train_small};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Begins with `<s>`, as the tokenizer would by itself, and ends every message with `</s>`.
const TEMPLATE: &str = "\
{{ bos_token }} {% if messages[0].role == 'system' %}{{ raise_exception('No system role here') }}{% endif %}
{% for message in messages %}
{{ message.role }} : {{ message.content }} {{ eos_token }} {% endfor %}
{% if add_generation_prompt %}
assistant :
{%- endif %}";

/// Names the day, or a day of its own where it is not told.
const DATED: &str = "\
{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% else %}{% set day = 'friday' %}{% endif %}
{{ bos_token }} on {{ day }} {{ messages[0].content }} :";

fn infalign(command: &str, model: &TempDir, args: &[&str]) -> Command {
    let mut process = common::infalign(&[command, "--model"]);
    process.arg(model.path()).args(args);
    process
}

fn rows(dir: &TempDir, rows: &[Value]) -> PathBuf {
    let path = dir.path().join("rows.jsonl");
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(&path, text).unwrap();
    path
}

fn generate(model: &TempDir, prompts: &[Value], args: &[&str]) -> Command {
    let file = rows(model, prompts);
    let all = ["--prompts", file.to_str().unwrap(), "--max-tokens", "8"];
    infalign("generate", model, &[&all, args].concat())
}

fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

#[test]
fn messages_go_through_the_template_and_responses_can_be_scored() {
    let model = model_with("chat_template.jinja", TEMPLATE);
    let prompts = [
        json!({ "messages": user("the soup"), "id": "a" }),
        json!({ "prompt": user("the soup"), "id": "b" }),
        json!({ "prompt": [{ "role": "user", "content": "the soup" }, { "role": "assistant", "content": "was" }], "id": "c" }),
    ];
    let generated = json(&run(generate(&model, &prompts, &["--temperature", "0", "--json"])));
    let generated = generated["responses"].as_array().unwrap();
    assert_eq!(generated[0]["tokens"], generated[1]["tokens"], "the two keys mean the same");
    assert_eq!(generated[2]["prompt"], prompts[2]["prompt"]);
    let texts = done(generate(&model, &prompts, &["--temperature", "0"]));
    assert!(texts.starts_with("<s> user : the soup </s> assistant :"), "{texts}");
    assert!(texts.contains("assistant : was"), "{texts}");

    let given: Vec<Value> = generated
        .iter()
        .map(|row| json!({ "prompt": row["prompt"], "response": row["response"] }))
        .collect();
    let input = rows(&model, &given);
    let score = infalign("score", &model, &["--input", input.to_str().unwrap(), "--json"]);
    let scored = json(&run(score));
    for (row, score) in generated.iter().zip(scored["scores"].as_array().unwrap()) {
        let ids = score["ids"].as_array().unwrap();
        assert!(ids[0] == 1 && ids[1] != 1, "one beginning of the text: {ids:?}");
        let (drawn, given) =
            (row["log_probs"].as_array().unwrap(), score["log_probs"].as_array().unwrap());
        let close =
            |(a, b): (&Value, &Value)| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-5;
        assert!(
            given.len() + 1 >= drawn.len() && drawn.iter().zip(given).all(close),
            "{row} {score}"
        );
    }
}

#[test]
fn what_a_template_refuses_is_named_by_prompt_or_line() {
    let model = model_with("chat_template.jinja", TEMPLATE);
    let system = json!([{ "role": "system", "content": "be kind" }, { "role": "user", "content": "the soup" }]);
    let prompts = [json!({ "prompt": system, "id": "mine" })];
    refused(
        generate(&model, &prompts, &[]),
        &["prompt `mine`", "refuses the messages: No system role here"],
    );
    let input =
        rows(&model, &[json!({ "ids": [1, 2] }), json!({ "prompt": system, "response": "a" })]);
    let score = infalign("score", &model, &["--input", input.to_str().unwrap()]);
    refused(score, &["line 2", "No system role here"]);
    let last = [json!({ "prompt": [{ "role": "system", "content": "be kind" }] })];
    refused(generate(&model, &last, &[]), &["the last message is of the role system"]);
}

#[test]
fn a_model_without_a_template_reads_texts_only() {
    let model = model_with("README.md", "");
    let messages = generate(&model, &[json!({ "prompt": user("the soup") })], &[]);
    refused(messages, &["has no chat template"]);
    done(generate(&model, &[json!({ "prompt": "the soup" })], &[]));
}

#[test]
fn results_do_not_depend_on_the_day() {
    let model = model_with("chat_template.jinja", DATED);
    let contents = ["the soup", "the tea", "the staff"];
    let prompts = contents.map(|text| json!({ "messages": user(text) }));
    let text = done(generate(&model, &prompts, &[]));
    assert!(text.contains("<s> on friday the soup :"), "{text}");
    let undated = model_with("chat_template.jinja", "{{ strftime_now('%A') }}");
    refused(generate(&undated, &prompts, &[]), &["it asks for the time (strftime_now)"]);

    let dir = tempfile::tempdir().unwrap();
    let (file, judge) = (rows(&dir, &prompts), dir.path().join("judge.toml"));
    std::fs::write(&judge, "kind = 'lexicon'\nweights = { good = 1.0 }\n").unwrap();
    let out = dir.path().join("evaluation");
    let mut evaluate = common::infalign(&["evaluate", "--samples", "2", "--max-tokens", "8"]);
    evaluate.arg("--policy").arg(model.path()).arg("--reference").arg(model.path());
    evaluate.arg("--prompts").arg(&file).arg("--judge").arg(&judge).arg("--out").arg(&out);
    done(evaluate);
    let samples = String::from_utf8(bytes(&out, "methods/policy/samples.json")).unwrap();
    assert!(samples.contains("<s> on friday the soup :"), "{samples}");

    let sets =
        [format!("model={}", model.path().display()), format!("prompts.train={}", file.display())];
    let mut train = train_small(&dir.path().join("run"), &sets.each_ref().map(String::as_str));
    train.arg("--dry-run");
    done(train);
}
