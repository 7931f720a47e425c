//! A small HTTP/1.1 server for the tests of whoever asks one.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

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
