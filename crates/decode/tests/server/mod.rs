//! A small HTTP/1.1 server for tests, and completions by a model of this process in the forms of vLLM's and llama.cpp's servers.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use infalign_decode::{EncodedPrompt, Finish, Generator, Response, Sampler, Sampling, StopTexts};
use infalign_model::{CausalLm, Tokenizer};
use serde_json::{Value, json};

/// A request as it came in.
pub(crate) struct Request {
    /// `/v1/completions`, say.
    pub(crate) path: String,
    /// The header of that name.
    pub(crate) authorization: Option<String>,
    /// The body; null where there is none.
    pub(crate) json: Value,
    /// Number of the connection that it came by.
    pub(crate) connection: usize,
}

/// What the server does about a request.
pub(crate) enum Reply {
    /// Status, headers and body.
    Answer(u16, Vec<String>, String),
    /// Keeps silent.
    Silence,
    /// Begins an answer, and closes the connection.
    Break,
}

impl Reply {
    /// An answer without headers of its own.
    pub(crate) fn new(status: u16, body: impl ToString) -> Self {
        Self::Answer(status, Vec::new(), body.to_string())
    }
}

/// Serves on a free port of this machine for as long as the test runs; gives the address.
pub(crate) fn serve(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for (connection, stream) in listener.incoming().flatten().enumerate() {
            let answer = answer.clone();
            std::thread::spawn(move || converse(stream, connection, answer.as_ref()));
        }
    });
    url
}

/// Answers the requests of one connection, one after the other.
fn converse(stream: TcpStream, connection: usize, answer: &dyn Fn(&Request) -> Reply) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read(&mut reader, connection) {
        match answer(&request) {
            Reply::Answer(status, headers, body) => {
                let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
                let length = body.len();
                let text = format!(
                    "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
                );
                if (&stream).write_all(text.as_bytes()).is_err() {
                    return;
                }
            }
            Reply::Silence => std::thread::sleep(Duration::from_secs(3600)),
            Reply::Break => {
                let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"cho");
                return;
            }
        }
    }
}

/// The next request; None where the other side has gone.
fn read(reader: &mut BufReader<TcpStream>, connection: usize) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        let of = |line: &&String| {
            line.split_once(": ").is_some_and(|(n, _)| n.eq_ignore_ascii_case(name))
        };
        lines.iter().find(of).map(|line| line.split_once(": ").unwrap().1.to_owned())
    };
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = lines[0].split(' ').nth(1).unwrap().to_owned();
    let json = serde_json::from_slice(&body).unwrap_or_default();
    Some(Request { path, authorization: header("authorization"), json, connection })
}

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
        let stops: BTreeSet<u32> =
            serde_json::from_value(request["stop_token_ids"].clone()).unwrap();
        let sampling = Sampling {
            temperature: request["temperature"].as_f64().unwrap(),
            top_k: request["top_k"].as_i64().unwrap().max(0) as usize,
            top_p: request["top_p"].as_f64().unwrap(),
            max_tokens: request["max_tokens"].as_u64().unwrap() as usize,
        };
        let generator = Generator {
            model: &self.model,
            stops: &stops,
            stop_texts: Some(StopTexts { tokenizer: &self.tokenizer, texts: stop }),
            sampling,
            seed: request["seed"].as_u64().unwrap(),
            stage: "server",
            batch: 1,
            watch: None,
        };
        generator.generate(std::slice::from_ref(prompt), 1).unwrap().remove(0).remove(0)
    }
}
