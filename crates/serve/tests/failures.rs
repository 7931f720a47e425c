//! A server whose model fails: what is told to whom, and what becomes of the server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use infalign_decode::Engine;
use infalign_model::{LanguageModel, ModelError, Prompts, Session, Tokenizer};
use infalign_serve::{ServeError, Service, run};

/// Fails to read a prompt, and panics where its text is `panic`.
struct Broken {
    vocabulary: usize,
    panics_at: u32,
}

impl LanguageModel for Broken {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }
    fn context(&self) -> usize {
        16
    }
    fn read(&self, prompts: &[&[u32]]) -> Result<Prompts, ModelError> {
        assert!(prompts.iter().all(|prompt| !prompt.contains(&self.panics_at)), "as it is told to");
        Err(ModelError::other("the device\nis lost"))
    }
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Empty)
    }
}

/// A batch that nothing enters.
struct Empty;

impl Session for Empty {
    fn logits(&self) -> &[f32] {
        &[]
    }
    fn push(&mut self, _: &[u32]) -> Result<(), ModelError> {
        Ok(())
    }
    fn select(&mut self, _: &[usize]) {}
    fn join(&mut self, _: &Prompts, _: &[usize], _: usize) -> Result<(), ModelError> {
        Ok(())
    }
}

/// A server of the broken model.
struct Server {
    address: SocketAddr,
    /// What it was told to stop by.
    stop: Arc<AtomicBool>,
    /// What it has told.
    lines: Arc<Mutex<Vec<String>>>,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, lines) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (asked, told) = (stop.clone(), lines.clone());
        let tell = move |line: &str| told.lock().unwrap().push(line.to_owned());
        let service = service(Arc::new(tell));
        let running = std::thread::spawn(move || {
            run(listener, service, move || asked.load(Ordering::Relaxed))
        });
        Self { address, stop, lines, running }
    }

    /// The answer, head and body.
    fn ask(&self, line: &str, body: &str) -> String {
        let mut connection = TcpStream::connect(self.address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    fn complete(&self, body: &str) -> String {
        self.ask("POST /v1/completions", body)
    }
}

fn service(tell: Arc<dyn Fn(&str) + Send + Sync>) -> Service {
    let tokenizer = Tokenizer::of_words(["secret panic"]).unwrap();
    let panics_at = tokenizer.encode("panic").unwrap().last().copied().unwrap();
    let model = Arc::new(Broken { vocabulary: tokenizer.vocabulary(), panics_at });
    let engine = Engine::start(model, 2).unwrap();
    Service { seed: 1, tell, ..Service::new("broken", engine, Arc::new(tokenizer)) }
}

#[test]
fn a_failure_of_the_server_leaves_a_line_without_the_prompt() {
    let server = Server::start();
    let answer = server.complete(r#"{"prompt": "secret", "max_tokens": 4}"#);
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("is lost"), "{answer}");
    let answer = server.complete(r#"{"prompt": "secret", "max_tokens": 4, "stream": true}"#);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("is lost"), "{answer}");
    // What the client has done wrong is no failure of the server.
    assert!(server.complete(r#"{"prompt": "secret", "n": 0}"#).starts_with("HTTP/1.1 400"));
    let metrics = server.ask("GET /metrics", "");
    assert!(
        metrics.contains("infalign_failed_requests_total{code=\"server_error\"} 2\n"),
        "{metrics}"
    );
    server.stop.store(true, Ordering::Relaxed);
    server.running.join().unwrap().unwrap();
    let lines = server.lines.lock().unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines.iter() {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        assert!(words[0].starts_with("20") && words[0].ends_with('Z'), "{line}");
        assert!(words[1].starts_with("cmpl-"), "{line}");
        assert_eq!(words[2], "500 server_error: the device is lost");
    }
}

#[test]
fn an_engine_that_has_stopped_ends_the_server() {
    let server = Server::start();
    let answer = server.complete(r#"{"prompt": "panic", "max_tokens": 4}"#);
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("engine_stopped"), "{answer}");
    let ended = server.running.join().unwrap();
    assert!(matches!(ended, Err(ServeError::Engine)), "{ended:?}");
    assert!(server.lines.lock().unwrap()[0].contains(" 500 engine_stopped: "));
}
