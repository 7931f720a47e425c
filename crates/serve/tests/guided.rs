//! Requests that a scorer of one's own guides: what one of them waits for is no other's business; and scorers that cannot be served.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use infalign_decode::guided::{PrefixScorer, ScorerSession};
use infalign_decode::{DecodeError, Engine};
use infalign_model::{LanguageModel, ModelError, Prompts, Session, Tokenizer};
use infalign_reward::{Reward, RewardError};
use infalign_serve::{ServeError, Service, run};

/// Longer than any of it takes, however busy this machine is.
const LONG: Duration = Duration::from_secs(20);
/// Responses at a time.
const BATCH: usize = 2;

/// Every token is as probable as any other.
struct Uniform {
    vocabulary: usize,
}

impl LanguageModel for Uniform {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }
    fn context(&self) -> usize {
        16
    }
    fn read(&self, prompts: &[&[u32]]) -> Result<Prompts, ModelError> {
        Ok(Prompts::new(prompts.len(), vec![0.0; prompts.len() * self.vocabulary], ()))
    }
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Rows { vocabulary: self.vocabulary, count: 0, logits: Vec::new() })
    }
}

struct Rows {
    vocabulary: usize,
    count: usize,
    logits: Vec<f32>,
}

impl Rows {
    fn set(&mut self, count: usize) {
        self.count = count;
        self.logits = vec![0.0; count * self.vocabulary];
    }
}

impl Session for Rows {
    fn logits(&self) -> &[f32] {
        &self.logits
    }
    fn push(&mut self, _: &[u32]) -> Result<(), ModelError> {
        Ok(())
    }
    fn select(&mut self, rows: &[usize]) {
        self.set(rows.len());
    }
    fn join(&mut self, _: &Prompts, chosen: &[usize], _: usize) -> Result<(), ModelError> {
        self.set(self.count + chosen.len());
        Ok(())
    }
}

/// Says that it is asked, and answers once it may.
struct Held {
    asked: Sender<()>,
    may: Mutex<Receiver<()>>,
}

impl Reward for Held {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let _ = self.asked.send(());
        let _ = self.may.lock().unwrap().recv();
        Ok(vec![0.0; pairs.len()])
    }
}

/// A scorer whose every value is 0.
struct Zero {
    vocabulary: usize,
}

impl PrefixScorer for Zero {
    fn session(&self, _new_tokens: usize) -> Box<dyn ScorerSession + '_> {
        Box::new(ZeroSession)
    }
    fn check(&self, model: &dyn LanguageModel) -> Result<(), DecodeError> {
        if model.vocabulary() == self.vocabulary {
            return Ok(());
        }
        Err(DecodeError::other("another vocabulary"))
    }
    fn greatest(&self) -> Option<f64> {
        Some(0.0)
    }
}

struct ZeroSession;

impl ScorerSession for ZeroSession {
    fn join(&mut self, _entering: &[(&[u32], usize)]) -> Result<(), DecodeError> {
        Ok(())
    }
    fn push(&mut self, _tokens: &[u32]) -> Result<(), DecodeError> {
        Ok(())
    }
    fn select(&mut self, _rows: &[usize]) {}
    fn values(&self, _states: &[f32], next: &[&[u32]]) -> Result<Vec<f64>, DecodeError> {
        Ok(vec![0.0; next.iter().map(|next| next.len()).sum()])
    }
}

fn service(reward: Held) -> Service {
    let tokenizer = Tokenizer::of_words(["a b"]).unwrap();
    let vocabulary = tokenizer.vocabulary();
    let engine = Engine::start(Arc::new(Uniform { vocabulary }), BATCH).unwrap();
    let mut service = Service::new("uniform", engine, Arc::new(tokenizer));
    let place = service.scorers.add_own("zero", Box::new(Zero { vocabulary }));
    service.scorers.count(place, 0, 1.0).unwrap();
    Service { reward: Some(Arc::new(reward)), seed: 1, ..service }
}

/// The answer, head and body.
fn ask(address: SocketAddr, line: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(3 * LONG)).unwrap();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_request_that_waits_for_its_reward_has_no_room_in_the_batch() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ((asked, asking), (answer, may)) = (channel(), channel());
    let service = service(Held { asked, may: Mutex::new(may) });
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let running =
        std::thread::spawn(move || run(listener, service, move || stopped.load(Ordering::Relaxed)));
    let complete = move |procedure: &str| {
        let body = format!(r#"{{"prompt": "a", "max_tokens": 4, "procedure": "{procedure}"}}"#);
        ask(address, "POST /v1/completions", &body)
    };
    // All the room that there is.
    let waiting = std::thread::spawn(move || complete("best-of:2 over cd-token:lambda=1"));
    asking.recv_timeout(LONG).unwrap();
    let other = complete("cd-token:lambda=1");
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    let start = Instant::now();
    while !ask(address, "GET /metrics", "").contains("\ninfalign_responses_running 0\n") {
        assert!(start.elapsed() < LONG, "what waits for its reward counts as generated");
    }
    assert!(!waiting.is_finished());
    drop(answer);
    let chosen = waiting.join().unwrap();
    assert!(chosen.starts_with("HTTP/1.1 200"), "{chosen}");
    stop.store(true, Ordering::Relaxed);
    running.join().unwrap().unwrap();
}

#[test]
fn what_cannot_be_served_is_refused_at_the_start() {
    let refused = |change: &dyn Fn(&mut Service)| {
        let ((asked, _asking), (_answer, may)) = (channel(), channel());
        let mut service = service(Held { asked, may: Mutex::new(may) });
        change(&mut service);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        run(listener, service, || true).unwrap_err()
    };
    let add = |name: &'static str, more: usize| {
        move |service: &mut Service| {
            let vocabulary = service.tokenizer.vocabulary() + more;
            let place = service.scorers.add_own(name, Box::new(Zero { vocabulary }));
            service.scorers.count(place, 0, 1.0).unwrap();
        }
    };
    let error = refused(&add("zero", 0));
    assert!(matches!(&error, ServeError::SameName { name } if name == "zero"), "{error}");
    let error = refused(&add("other", 1));
    assert!(matches!(&error, ServeError::Scorer { name, .. } if name == "other"), "{error}");
    assert!(error.to_string().ends_with("another vocabulary"), "{error}");
    for timeout in [Duration::ZERO, Duration::MAX] {
        let error = refused(&|service: &mut Service| service.limits.timeout = timeout);
        assert!(matches!(error, ServeError::Limit { limit: "timeout", .. }), "{error}");
    }
}
