//! Completions by a model of this process in the forms of vLLM's and llama.cpp's servers, on the HTTP server of `infalign-remote`'s tests.
#![allow(dead_code, reason = "each test uses a part of it")]

#[path = "../../../remote/tests/server/mod.rs"]
mod http;

use std::collections::BTreeSet;

use infalign_decode::{EncodedPrompt, Finish, Generator, Response, Sampler, Sampling, StopTexts};
use infalign_model::{CausalLm, Tokenizer};
use serde_json::{Value, json};

pub(crate) use http::{Reply, Request, serve};

/// Where a server tells token ids.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// Beside the log-probabilities, as vLLM.
    Beside,
    /// With the log-probabilities, as llama.cpp.
    Within,
}

/// Answers completions by a model of this process.
pub(crate) struct Completions {
    pub(crate) model: CausalLm,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) form: Form,
}

impl Completions {
    /// The answer to `/v1/completions` or `/v1/models`.
    pub(crate) fn answer(&self, request: &Request) -> Reply {
        match request.path.as_str() {
            "/v1/models" => Reply::new(200, json!({ "data": [{ "id": "served" }] })),
            "/v1/completions" if request.json["model"] == "served" => {
                Reply::new(200, json!({ "choices": [self.choice(&request.json)] }))
            }
            "/v1/completions" => {
                Reply::new(404, json!({ "error": { "message": "no such model" } }))
            }
            _ => Reply::new(404, "nothing here"),
        }
    }

    fn choice(&self, request: &Value) -> Value {
        let tokens: Vec<u32> = serde_json::from_value(request["prompt"].clone()).unwrap();
        let stop: Vec<String> = serde_json::from_value(request["stop"].clone()).unwrap();
        let prompt = EncodedPrompt { id: String::new(), text: String::new(), tokens };
        let response = self.sample(request, &prompt, &stop);
        let text = self.tokenizer.decode_response(&prompt.tokens, &response.tokens).unwrap();
        let text = StopTexts { tokenizer: &self.tokenizer, texts: &stop }.cut(&text).to_owned();
        let finish = if response.finish == Finish::Stop { "stop" } else { "length" };
        let pairs = response.tokens.iter().zip(&response.log_probs);
        let content: Vec<Value> =
            pairs.map(|(id, log_prob)| json!({ "id": id, "logprob": log_prob })).collect();
        let mut choice = json!({ "text": text, "finish_reason": finish });
        choice["logprobs"] = match self.form {
            Form::Within => json!({ "content": content }),
            Form::Beside => json!({ "token_logprobs": response.log_probs }),
        };
        if let Form::Beside = self.form {
            assert_eq!(request["return_token_ids"], true);
            choice["token_ids"] = json!(response.tokens);
        }
        choice
    }

    fn sample(&self, request: &Value, prompt: &EncodedPrompt, stop: &[String]) -> Response {
        let sampling = Sampling {
            temperature: request["temperature"].as_f64().unwrap(),
            top_k: request["top_k"].as_i64().unwrap().max(0) as usize,
            top_p: request["top_p"].as_f64().unwrap(),
            max_tokens: request["max_tokens"].as_u64().unwrap() as usize,
            stop_token_ids: serde_json::from_value(request["stop_token_ids"].clone()).unwrap(),
        };
        let generator = Generator {
            model: &self.model,
            stops: &BTreeSet::new(),
            stop_texts: Some(StopTexts { tokenizer: &self.tokenizer, texts: stop }),
            sampling,
            seed: request["seed"].as_u64().unwrap(),
            stage: "server",
            batch: 1,
            watch: None,
        };
        generator.generate(std::slice::from_ref(prompt), 0..1).unwrap().remove(0).remove(0)
    }
}
