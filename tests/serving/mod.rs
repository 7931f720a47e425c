//! `infalign serve` as a process, and a client that sends what it is told to, wrong or right.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::{infalign, model_with};
use serde_json::Value;
use tempfile::TempDir;

/// Written by hand, in the manner of those that models have.
const TEMPLATE: &str = "{{ bos_token }} {% for message in messages %}{{ message.role }} : {{ message.content }} {{ eos_token }} {% endfor %}
{%- if add_generation_prompt %}assistant :{% endif %}";

/// The command before the model's folder.
const SERVE: [&str; 6] = ["serve", "--port", "0", "--name", "tiny", "--model"];

/// The quickstart's model with a chat template.
pub(crate) fn model() -> TempDir {
    model_with("chat_template.jinja", TEMPLATE)
}

/// A server, which is killed in the end unless it has been stopped.
pub(crate) struct Server {
    child: Child,
    /// HOST:PORT.
    pub(crate) address: String,
    /// Collects what it says.
    stderr: Option<JoinHandle<String>>,
    _model: TempDir,
}

/// An answer whose end has come.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Server {
    /// A server of the quickstart's model, at a port of its own.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::of(model(), args)
    }

    /// A server of the model in a folder.
    pub(crate) fn of(model: TempDir, args: &[&str]) -> Self {
        let mut command = infalign(&SERVE);
        command.arg(model.path()).args(args);
        Self::run(command, model)
    }

    /// A server of the quickstart's model that may have so many files open.
    #[cfg(unix)]
    pub(crate) fn with_files(most: usize) -> Self {
        let (model, script) = (model(), format!("ulimit -n {most}; exec \"$0\" \"$@\""));
        let mut shell = crate::common::clean("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_infalign")]).args(SERVE).arg(model.path());
        Self::run(shell, model)
    }

    fn run(mut command: Command, model: TempDir) -> Self {
        let mut child = command.env("TEST_KEY", "open sesame").spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let serving = |line: &String| line.contains("serving ");
        let line = lines.by_ref().map_while(Result::ok).find(serving).expect("the server starts");
        let address =
            line.rsplit_once("http://").unwrap().1.strip_suffix("/v1").unwrap().to_owned();
        let rest = move || lines.map_while(Result::ok).map(|line| line + "\n").collect();
        let stderr = Some(std::thread::spawn(rest));
        Self { child, address, stderr, _model: model }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a request of JSON, unless its headers say otherwise, and returns the connection.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> TcpStream {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        head += &format!("Content-Length: {}\r\n", body.len());
        for (name, value) in [("Host", &*self.address), ("Content-Type", "application/json")] {
            if !headers.iter().any(|header| header.starts_with(name)) {
                head += &format!("{name}: {value}\r\n");
            }
        }
        headers.iter().for_each(|header| head += &format!("{header}\r\n"));
        // At once, or a server that refuses the head may be gone before the body comes.
        connection.write_all(&[head.as_bytes(), b"\r\n", body].concat()).unwrap();
        connection
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        answer(self.send(method, path, headers, body))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &[], body.to_string().as_bytes())
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    /// A completion that has to succeed.
    pub(crate) fn completion(&self, body: &Value) -> Value {
        self.post("/v1/completions", body).json()
    }

    /// The parts of a streamed answer that has to succeed, without the mark of the end.
    pub(crate) fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.head.contains("content-type: text/event-stream"), "{}", answer.head);
        answer.events()
    }

    /// A number of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    }

    pub(crate) fn wait_for(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        let start = Instant::now();
        while !wanted(self.metric(name)) {
            assert!(start.elapsed() < Duration::from_secs(60), "{name} is {}", self.metric(name));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks for `n` completions one by one, and then `times` all at once, which has to change none of them.
    pub(crate) fn ask_alone_and_together(
        &self,
        n: usize,
        times: usize,
        asked: impl Fn(usize) -> Value + Sync,
    ) {
        let choices = |k: usize| self.completion(&asked(k))["choices"].clone();
        let alone: Vec<Value> = (0..n).map(&choices).collect();
        let choices = &choices;
        for _ in 0..times {
            let together: Vec<Value> = std::thread::scope(|scope| {
                let clients: Vec<_> = (0..n).map(|k| scope.spawn(move || choices(k))).collect();
                clients.into_iter().map(|client| client.join().unwrap()).collect()
            });
            assert_eq!(together, alone);
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// How it ended, and what it said after it had started.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(start.elapsed() < Duration::from_secs(60), "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        (status, self.stderr.take().unwrap().join().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Receives an answer to its end.
pub(crate) fn answer(mut connection: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body) } else { body.to_owned() };
    Answer { status, head: head.to_owned(), body }
}

fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            break;
        }
        text += &rest[..length];
        body = &rest[length + 2..];
    }
    text
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// The error that it tells, in OpenAI's form.
    pub(crate) fn error(&self) -> Value {
        let document: Value =
            serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        document["error"].clone()
    }

    /// Its events, without the mark of the end.
    pub(crate) fn events(&self) -> Vec<Value> {
        let mut events: Vec<&str> =
            self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(events.pop(), Some("[DONE]"), "{}", self.body);
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}
