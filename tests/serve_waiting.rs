//! What `infalign serve` does where clients go away or keep it waiting, and where it ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod common;
mod serving;

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;
use serving::{Answer, Server, answer};

/// Asks for so much that it takes minutes.
fn endless(stream: bool) -> Vec<u8> {
    let asked = json!({ "prompt": "the soup", "n": 30_000, "max_tokens": 40, "stream": stream });
    asked.to_string().into_bytes()
}

/// An answer once the places of an earlier request are free.
fn once_free(ask: impl Fn() -> Answer) -> Answer {
    let start = Instant::now();
    loop {
        let answer = ask();
        if answer.status != 429 {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "its places are not free again");
    }
}

#[test]
fn who_goes_away_makes_room_for_others() {
    let server = Server::start(&["--batch", "2", "--queue", "30000"]);
    for (round, stream) in [false, true].into_iter().enumerate() {
        let mut connection = server.send("POST", "/v1/completions", &[], &endless(stream));
        server.wait_for("infalign_responses_running", |running| running == 2.0);
        assert!(server.metric("infalign_responses_waiting") > 1000.0);
        if stream {
            let mut some = [0; 1000];
            connection.read_exact(&mut some).unwrap();
            assert!(some.starts_with(b"HTTP/1.1 200"));
        }
        let full = server.post("/v1/completions", &json!({ "prompt": "the soup", "n": 3 }));
        assert_eq!((full.status, &full.error()["code"]), (429, &json!("queue_full")));
        assert!(full.head.contains("retry-after: 1"), "{}", full.head);
        drop(connection);
        server.wait_for("infalign_responses_running", |running| running == 0.0);
        assert_eq!(server.metric("infalign_responses_waiting"), 0.0);
        assert_eq!(server.metric("infalign_abandoned_requests_total"), (round + 1) as f64);
        let all = json!({ "prompt": "the soup", "n": 30_000, "max_tokens": 1 });
        assert_eq!(once_free(|| server.post("/v1/completions", &all)).status, 200);
    }
}

#[test]
fn what_takes_too_long_is_broken_off() {
    let server = Server::start(&["--batch", "1", "--queue", "30000", "--timeout", "0.5"]);
    let answer_to = |server: &Server, stream| {
        answer(server.send("POST", "/v1/completions", &[], &endless(stream)))
    };
    let answer = answer_to(&server, false);
    assert_eq!((answer.status, &answer.error()["code"]), (504, &json!("timeout")));
    let streamed = once_free(|| answer_to(&server, true));
    assert_eq!(streamed.status, 200);
    let events = streamed.events();
    assert!(events.len() > 1);
    assert_eq!(events.last().unwrap()["error"]["code"], "timeout");
    server.wait_for("infalign_responses_running", |running| running == 0.0);
    assert_eq!(server.metric("infalign_abandoned_requests_total"), 2.0);
    // The stream counts as one that failed, though its status is 200.
    assert_eq!(server.metric("infalign_failed_requests_total{code=\"timeout\"}"), 2.0);
    // A body that never comes.
    let mut slow = std::net::TcpStream::connect(&server.address).unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close";
    slow.write_all(format!("{head}\r\nContent-Length: 10\r\n\r\n{{").as_bytes()).unwrap();
    assert_eq!(serving::answer(slow).status, 408);
}

#[test]
fn bodies_that_do_not_end_have_a_share_of_the_memory_and_no_more() {
    const LARGEST: usize = 32 << 20;
    let server = Server::start(&["--max-body", &LARGEST.to_string()]);
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {LARGEST}\r\n\r\n"
    );
    let mut unfinished = head.into_bytes();
    unfinished.resize(unfinished.len() + LARGEST - 1, b' ');
    let connections = [(); 2].map(|()| {
        let mut connection = std::net::TcpStream::connect(&server.address).unwrap();
        connection.write_all(&unfinished).unwrap();
        connection
    });
    let received = (connections.len() * (LARGEST - 1)) as f64;
    server.wait_for("infalign_body_bytes", |bytes| bytes == received);
    let ask = || server.post("/v1/completions", &json!({ "prompt": "the soup", "max_tokens": 1 }));
    let full = ask();
    assert_eq!((full.status, &full.error()["code"]), (429, &json!("queue_full")));
    drop(connections);
    server.wait_for("infalign_body_bytes", |bytes| bytes == 0.0);
    assert_eq!(ask().status, 200);
}

#[test]
fn a_request_that_has_ended_keeps_no_place_from_one_without_a_reward() {
    // It takes what it is asked, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let reward = dir.path().join("reward.toml");
    let url = format!("http://{}/get_reward", silent.local_addr().unwrap());
    std::fs::write(&reward, format!("kind = 'remote'\nurl = '{url}'\n")).unwrap();
    let limits = ["--batch", "1", "--queue", "1", "--timeout", "2"];
    let server = Server::start(&[&limits[..], &["--reward", reward.to_str().unwrap()]].concat());
    let sample = json!({ "prompt": "the soup", "max_tokens": 2, "n": 2 });
    let mut best = sample.clone();
    best["n"] = 1.into();
    best["procedure"] = "best-of:2".into();
    // Twice as many as there are places may be left behind, and no more.
    for left in 1..=4 {
        let answer = server.post("/v1/completions", &best);
        assert_eq!((answer.status, &answer.error()["code"]), (504, &json!("timeout")));
        assert_eq!(server.metric("infalign_places_taken"), 0.0);
        // All places are free, though the reward has not given up.
        assert_eq!(server.metric("infalign_threads"), f64::from(left));
        assert_eq!(server.post("/v1/completions", &sample).status, 200);
    }
    let full = server.post("/v1/completions", &best);
    assert_eq!((full.status, &full.error()["code"]), (429, &json!("queue_full")));
    assert_eq!(server.post("/v1/completions", &sample).status, 200);
}

#[test]
fn who_keeps_the_server_waiting_is_let_go() {
    let server = Server::start(&["--timeout", "0.5"]);
    let connect = || {
        let connection = std::net::TcpStream::connect(&server.address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        connection.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        connection
    };
    // A head that never ends.
    let mut half = connect();
    half.write_all(b"POST /v1/comp").unwrap();
    assert_eq!(half.read(&mut [0; 9]).unwrap(), 0, "the connection is closed");
    // More answers than what lies between the two processes holds, none of which is read.
    let mut deaf = connect();
    let asked = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100);
    let error = loop {
        if let Err(error) = deaf.write_all(&asked) {
            break error.kind();
        }
    };
    assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    assert_eq!(server.get("/health").status, 200);
}

#[cfg(unix)]
#[test]
fn a_server_that_has_no_files_left_says_so_once_and_goes_on() {
    let server = Server::with_files(64);
    let connect = || std::net::TcpStream::connect(&server.address).unwrap();
    let idle: Vec<_> = (0..80).map(|_| connect()).collect();
    let mut late = connect();
    late.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    // The server tries more than once in this time.
    late.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    let kind = late.read(&mut [0; 9]).unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind}");
    drop(idle);
    late.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(answer(late).status, 200);
    // The one that asks.
    server.wait_for("infalign_connections", |open| open == 1.0);
    server.signal("-TERM");
    let (status, stderr) = server.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stderr.matches("Z cannot accept connections: ").count(), 1, "{stderr}");
}

#[cfg(unix)]
#[test]
fn a_signal_lets_running_requests_end() {
    let server = Server::start(&["--batch", "1", "--queue", "3000"]);
    let asked = json!({ "prompt": "the soup", "n": 300, "max_tokens": 40 }).to_string();
    let connection = server.send("POST", "/v1/completions", &[], asked.as_bytes());
    server.wait_for("infalign_responses_running", |running| running == 1.0);
    let mut half = std::net::TcpStream::connect(&server.address).unwrap();
    half.write_all(b"POST /v1/comp").unwrap();
    server.signal("-TERM");
    let document = answer(connection).json();
    assert_eq!(document["choices"].as_array().unwrap().len(), 300);
    let start = Instant::now();
    let (status, stderr) = server.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("stopped"), "{stderr}");
    assert!(start.elapsed() < Duration::from_secs(10), "half a request is nothing to wait for");
}

#[cfg(unix)]
#[test]
fn a_client_that_is_slow_gets_its_whole_answer() {
    let server = Server::start(&["--queue", "3000"]);
    // More than what lies between the two processes holds.
    let asked = json!({ "prompt": "the soup", "n": 1200, "max_tokens": 40, "logprobs": 20 });
    let asked = asked.to_string();
    let connection = server.send("POST", "/v1/completions", &[], asked.as_bytes());
    server.wait_for("infalign_generated_tokens_total", |tokens| tokens > 0.0);
    server.signal("-TERM");
    // Longer than what a server that ends has for last words.
    std::thread::sleep(Duration::from_secs(4));
    let answer = answer(connection);
    assert!(answer.body.len() > 8_000_000, "{} bytes", answer.body.len());
    assert_eq!(answer.json()["choices"].as_array().unwrap().len(), 1200);
    let (status, stderr) = server.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[cfg(unix)]
#[test]
fn what_does_not_end_in_time_is_told_so() {
    let server = Server::start(&["--batch", "1", "--queue", "90000", "--grace", "0.2"]);
    let streamed = server.send("POST", "/v1/completions", &[], &endless(true));
    let whole = server.send("POST", "/v1/completions", &[], &endless(false));
    // A client that keeps its connection has no say in it, nor has one that never gets to what it asks.
    let _idle = std::net::TcpStream::connect(&server.address).unwrap();
    let mut half = std::net::TcpStream::connect(&server.address).unwrap();
    half.write_all(b"POST /v1/comp").unwrap();
    server.wait_for("infalign_responses_waiting", |waiting| waiting > 40_000.0);
    server.signal("-INT");
    assert_eq!(answer(whole).status, 503);
    let events = answer(streamed).events();
    assert_eq!(events.last().unwrap()["error"]["message"], "the server is shutting down");
    let (status, stderr) = server.ended();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let told = " 503 shutting_down: the server is shutting down\n";
    assert_eq!(stderr.matches(told).count(), 2, "{stderr}");
    assert!(!stderr.contains("the soup"), "{stderr}");
}
