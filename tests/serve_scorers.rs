//! Controlled decoding behind `infalign serve`: what requests say of scorers, and what becomes of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod common;
mod serving;
#[allow(dead_code, reason = "each test file uses a part")]
mod visits;

use std::path::{Path, PathBuf};

use common::{refused, responses, tuned};
use serde_json::{Value, json};
use serving::Server;
use tempfile::TempDir;
use visits::{assert_done, infalign, quickstart};

/// Two rewards, and hardly any training: values need to differ, not to be good.
const RECIPE: &str = r#"task = "scorer"
name = "visits"
seed = 1
prompts = { kind = "files", train = "train.jsonl", test = "test.jsonl" }
generation = { max_tokens = 24 }
rollouts = { samples = 4, held_out = 2 }

[[head]]
name = "lovely"
reward = { kind = "lexicon", weights = { lovely = 1.0, good = 1.0, perfect = 2.0, dull = -1.0, nasty = -2.0 } }

[[head]]
name = "length"
reward = { kind = "length", unit = "words" }

[train]
method = "cd-fudge"
steps = 20
examples_per_step = 16
optimizer = { learning_rate = 1e-2, warmup_steps = 2, final_share = 0.1 }
"#;

/// A scorer of the quickstart's model, and a reward.
struct Trained {
    dir: TempDir,
}

impl Trained {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, count) in [("train", 12), ("test", 4)] {
            let text = std::fs::read_to_string(quickstart().join(format!("{name}.jsonl"))).unwrap();
            let lines: Vec<&str> = text.lines().take(count).collect();
            std::fs::write(dir.path().join(format!("{name}.jsonl")), lines.join("\n")).unwrap();
        }
        let recipe = format!("model = {:?}\n{RECIPE}", quickstart().join("model"));
        std::fs::write(dir.path().join("recipe.toml"), recipe).unwrap();
        let reward = "kind = 'lexicon'\nweights = { lovely = 1.0, dull = -1.0 }\n";
        std::fs::write(dir.path().join("reward.toml"), reward).unwrap();
        let mut command = infalign(&["scorer", "--out"]);
        command.arg(dir.path().join("run")).arg(dir.path().join("recipe.toml"));
        assert_done(&command.output().unwrap());
        Self { dir }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("run/scorer")
    }

    fn scorer(&self, reward: &str) -> String {
        format!("{}#{reward}", self.folder().display())
    }

    fn reward(&self) -> String {
        self.dir.path().join("reward.toml").display().to_string()
    }

    /// A server with both rewards of the scorer, of which the first counts.
    fn serve(&self, more: &[&str]) -> Server {
        let (lovely, length, reward) =
            (self.scorer("lovely"), self.scorer("length:0"), self.reward());
        let args = ["--scorer", &lovely, "--scorer", &length, "--reward", &reward];
        Server::start(&[&args[..], more].concat())
    }

    fn generate(&self, prompt: &str, args: &[&str]) -> Vec<Value> {
        let prompts = self.dir.path().join("asked.jsonl");
        std::fs::write(&prompts, json!({ "prompt": prompt }).to_string()).unwrap();
        let mut command = infalign(&["generate", "--json", "--max-tokens", "12", "--seed", "3"]);
        command.arg("--model").arg(quickstart().join("model")).arg("--prompts").arg(prompts);
        responses(&command.args(args).output().unwrap())
    }
}

fn prompt(place: usize) -> String {
    let text = std::fs::read_to_string(quickstart().join("test.jsonl")).unwrap();
    let line: Value = serde_json::from_str(text.lines().nth(place).unwrap()).unwrap();
    line["prompt"].as_str().unwrap().to_owned()
}

const GUIDED: [&str; 5] = [
    "cd-token:lambda=2,candidates=20",
    "cd-block:length=3,samples=3",
    "beam:width=2,branch=2,length=4",
    "pruned-best-of:4,length=3,keep=0.5",
    "best-of:2 over cd-block:length=4,samples=2",
];

#[test]
fn guided_answers_are_those_of_generate_in_whole_and_in_parts() {
    let trained = Trained::new();
    let server = trained.serve(&[]);
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["scorers"], json!({ "lovely": 1.0, "length": 0.0 }));
    let text = prompt(0);
    let (lovely, length) = (trained.scorer("lovely"), trained.scorer("length:-0.5"));
    for procedure in GUIDED {
        for (weights, scorers) in [
            (json!({ "lovely": 1.0, "length": 0.0 }), vec![&lovely]),
            (json!({ "lovely": 1.0, "length": -0.5 }), vec![&lovely, &length]),
        ] {
            let mut args = vec!["--procedure", procedure, "--samples", "2"];
            scorers.iter().for_each(|scorer| args.extend(["--scorer", scorer.as_str()]));
            let reward = trained.reward();
            // A reward is asked only where it chooses.
            if procedure.contains("best-of") {
                args.extend(["--reward", &reward]);
            }
            let expected = trained.generate(&text, &args);
            let mut asked = json!({ "prompt": text, "seed": 3, "n": 2, "max_tokens": 12, "procedure": procedure,
                "return_token_ids": true, "logprobs": 0 });
            if weights["length"] != 0.0 {
                asked["scorers"] = weights.clone();
            }
            let answer = server.completion(&asked);
            assert_eq!((&answer["procedure"], &answer["scorers"]), (&json!(procedure), &weights));
            let choices = answer["choices"].as_array().unwrap();
            assert_eq!(choices.len(), 2);
            for (choice, expected) in choices.iter().zip(&expected) {
                assert_eq!(choice["text"], expected["response"], "{procedure}");
                assert_eq!(choice["token_ids"], expected["tokens"]);
                for key in ["score", "value", "kl", "truncation", "model_tokens", "scorer_calls"] {
                    assert_eq!(choice[key], expected[key], "{procedure}: {key}");
                }
            }
            asked["stream"] = true.into();
            let parts = server.stream("/v1/completions", &asked);
            for (index, choice) in choices.iter().enumerate() {
                let own: Vec<&Value> = parts
                    .iter()
                    .map(|part| &part["choices"][0])
                    .filter(|part| part["index"] == index)
                    .collect();
                let text: String = own.iter().filter_map(|part| part["text"].as_str()).collect();
                assert_eq!(text, choice["text"].as_str().unwrap(), "{procedure}");
                let ids: Vec<&Value> =
                    own.iter().filter_map(|part| part["token_ids"].as_array()).flatten().collect();
                assert_eq!(json!(ids), choice["token_ids"], "{procedure}");
                let last = own.last().unwrap();
                assert_eq!((&last["kl"], &last["score"]), (&choice["kl"], &choice["score"]));
            }
        }
    }
}

#[test]
fn what_else_is_asked_for_changes_no_guided_answer() {
    let trained = Trained::new();
    let server = trained.serve(&["--batch", "9"]);
    let prompts: Vec<String> = (0..4).map(prompt).collect();
    let procedures = [&GUIDED[..], &["sample", "best-of:3"]].concat();
    let asked = |k: usize| {
        let procedure = procedures[k % procedures.len()];
        let mut asked = json!({ "prompt": prompts[k % 4], "seed": k, "n": 1 + k % 2, "max_tokens": 4 + k % 9, "procedure": procedure });
        if k.is_multiple_of(3) && k % procedures.len() < GUIDED.len() {
            asked["scorers"] = json!({ "lovely": 1.0 - k as f64 / 10.0, "length": -0.25 });
        }
        asked
    };
    server.ask_alone_and_together(21, 2, asked);
    server.wait_for("infalign_responses_running", |running| running == 0.0);
    assert_eq!(server.metric("infalign_responses_waiting"), 0.0);
}

#[test]
fn guided_requests_are_refused_by_field_and_left_when_nobody_waits() {
    let trained = Trained::new();
    let server = trained.serve(&["--batch", "8", "--queue", "90000"]);
    let block = "cd-block:length=3,samples=2";
    for (procedure, scorers, field, told) in [
        (
            block,
            json!({ "depth": 1 }),
            "scorers",
            "name `depth`, but this server has `lovely`, `length`",
        ),
        (block, json!({ "lovely": "heavy" }), "scorers", "a number for each name"),
        (block, json!({ "lovely": 0 }), "scorers", "no scorer a weight other than 0"),
        (block, json!({}), "scorers", "no scorer a weight other than 0"),
        (block, json!(["lovely"]), "scorers", "a number for each name"),
        (block, json!({ "lovely": 1e308, "length": 1e308 }), "", "smaller weights"),
        ("best-of:2", json!({ "lovely": 1 }), "scorers", "nothing to say in `best-of:2`"),
        ("cd-block:length=0,samples=2", json!({ "lovely": 1 }), "procedure", "length is `0`"),
        ("cd-block:length=1,samples=9", json!({ "lovely": 1 }), "procedure", "room for 8"),
        ("cd-token:lambda=1e308", json!({ "lovely": 1e10 }), "", "smaller λ"),
    ] {
        let asked = json!({ "prompt": "the soup", "max_tokens": 5, "procedure": procedure, "scorers": scorers });
        let answer = server.post("/v1/completions", &asked);
        let error = answer.error();
        assert_eq!(answer.status, 400, "{asked}: {error}");
        assert_eq!(error["param"].as_str().unwrap_or_default(), field, "{asked}: {error}");
        assert!(error["message"].as_str().unwrap().contains(told), "{asked}: {error}");
    }
    let logprobs = json!({ "prompt": "the soup", "procedure": block, "logprobs": 2 });
    assert_eq!(server.post("/v1/completions", &logprobs).error()["param"], "logprobs");

    // Of a search, nothing is told before its end; it is left all the same.
    for procedure in ["beam:width=2,branch=2,length=4", block] {
        let endless =
            json!({ "prompt": "the soup", "n": 5_000, "max_tokens": 40, "procedure": procedure });
        let body = endless.to_string();
        let first = server.send("POST", "/v1/completions", &[], body.as_bytes());
        server.wait_for("infalign_responses_running", |running| running == 8.0);
        let second = server.send("POST", "/v1/completions", &[], body.as_bytes());
        server.wait_for("infalign_responses_waiting", |waiting| waiting >= 10_000.0);
        drop(second);
        server.wait_for("infalign_responses_waiting", |waiting| waiting == 0.0);
        drop(first);
        server.wait_for("infalign_responses_running", |running| running == 0.0);
    }
    let asked = json!({ "prompt": "the soup", "max_tokens": 5, "procedure": block });
    assert_eq!(server.post("/v1/completions", &asked).status, 200);
}

#[test]
fn scorers_that_cannot_be_served_are_refused_at_the_start() {
    let trained = Trained::new();
    let (folder, lovely) = (trained.folder().display().to_string(), trained.scorer("lovely"));
    let start = |model: &Path, scorers: &[&str], told: &[&str]| {
        let mut command = infalign(&["serve", "--port", "0", "--model"]);
        command.arg(model);
        scorers.iter().for_each(|scorer| {
            command.arg("--scorer").arg(scorer);
        });
        refused(command, told);
    };
    for (scorers, told) in [
        (&["absent"][..], "is not a folder"),
        (&[&folder], "has values of lovely, length: name one"),
        (&[&lovely, &lovely], "two scorers are called \"lovely\""),
        (&["x:heavy"], "give a finite number"),
    ] {
        start(&quickstart().join("model"), scorers, &[told]);
    }
    // A model of other weights that writes more than the base reads, on whose states the scorer was trained.
    let (long, weightless) = (tuned(trained.dir.path()), trained.scorer("length:0"));
    let config = std::fs::read_to_string(long.join("config.json")).unwrap();
    let longer =
        config.replace("\"max_position_embeddings\": 64", "\"max_position_embeddings\": 128");
    assert_ne!(longer, config);
    std::fs::write(long.join("config.json"), longer).unwrap();
    let trunk = "its trunk reads 64 tokens, but the model 128";
    start(&long, &[&weightless], &["the scorer of \"length\"", trunk]);
}
