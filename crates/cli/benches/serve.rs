//! 64 clients that stream from `infalign serve` at once, against the same engine without a server: tokens a second, errors, and what the
//! server's memory does. Other clients go away in the middle of their answers all the while. Linux only.
//!
//! `INFALIGN_DATA=… cargo bench -p infalign-cli --bench serve`; `-- SECONDS` for another time than two minutes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program that prints a table"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use infalign_decode::{EncodedPrompt, Generator, Sampler, Sampling};
use infalign_model::{CausalLm, Tokenizer};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIENTS: usize = 64;
const MAX_TOKENS: usize = 200;
const PROMPT: &str = "Once upon a time";

fn main() {
    let Some(data) = std::env::var_os("INFALIGN_DATA") else {
        println!("SKIPPED: set INFALIGN_DATA to the data folder");
        return;
    };
    let model = Path::new(&data).join("stories260K-hf");
    let seconds = std::env::args().filter_map(|word| word.parse().ok()).next_back().unwrap_or(120);
    let time = Duration::from_secs(seconds);
    let before = offline(&model, time / 8);
    let served = serve(&model, time);
    let after = offline(&model, time / 8);
    let engine = (before + after) / 2.0;
    println!("engine alone     {before:>9.0} tokens/s before, {after:.0} after");
    println!(
        "{CLIENTS} clients       {served:>9.0} tokens/s, {:.2} of the engine's (at least 0.80 is asked for)",
        served / engine
    );
}

/// Tokens a second of the engine with as many responses at a time as there are clients.
fn offline(model: &Path, time: Duration) -> f64 {
    let device = infalign_backend::device(None).unwrap();
    let folder = model;
    let model = CausalLm::load(folder, &device).unwrap();
    let tokenizer = Tokenizer::load(folder, model.config()).unwrap();
    let model = model.for_inference();
    let (start, mut tokens) = (Instant::now(), 0);
    let sampling = Sampling { max_tokens: MAX_TOKENS, ..Sampling::default() };
    for seed in 0.. {
        let (model, stops) = (model.as_ref(), tokenizer.stops());
        let generator = Generator::new(model, stops, &sampling, seed, "bench", CLIENTS);
        let prompt = EncodedPrompt::new("p", PROMPT, &tokenizer).unwrap();
        let all = generator.generate(&[prompt], 0..16 * CLIENTS).unwrap();
        tokens += all.iter().flatten().map(|response| response.tokens.len()).sum::<usize>();
        if start.elapsed() > time {
            break;
        }
    }
    tokens as f64 / start.elapsed().as_secs_f64()
}

/// Tokens a second that clients of a server receive.
fn serve(model: &Path, time: Duration) -> f64 {
    let (mut child, address) = start(model);
    let pid = child.id();
    println!("before           {:>9} KiB, {} open files", resident(pid) >> 10, open_files(pid));
    let (over, tokens, requests) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (errors, gone) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (over, tokens, requests, errors, address) =
                (&over, &tokens, &requests, &errors, &address);
            scope.spawn(move || {
                for number in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    match stream(address, client * 1_000_000 + number) {
                        Some(used) => tokens.fetch_add(used, Ordering::Relaxed),
                        None => errors.fetch_add(1, Ordering::Relaxed),
                    };
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let mut connection = ask(&address, 0);
                let mut some = [0; 600];
                let _ = connection.read(&mut some);
                gone.fetch_add(1, Ordering::Relaxed);
                drop(connection);
                std::thread::sleep(Duration::from_millis(250));
            }
        });
        for tenth in 1..=10 {
            std::thread::sleep(
                (start + time * tenth / 10).saturating_duration_since(Instant::now()),
            );
            let (memory, files) = (resident(pid) >> 10, open_files(pid));
            println!(
                "after {:>4.0} s     {memory:>9} KiB, {files} open files",
                start.elapsed().as_secs_f64()
            );
        }
        over.store(true, Ordering::Relaxed);
    });
    let rate = tokens.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
    println!(
        "requests         {:>9}, of which {} failed; {} clients went away",
        count(&requests),
        count(&errors),
        count(&gone)
    );
    std::thread::sleep(Duration::from_millis(500));
    let left: Vec<String> = get(&address, "/metrics")
        .lines()
        .filter(|line| line.starts_with("infalign_responses_"))
        .map(str::to_owned)
        .collect();
    let memory = resident(pid) >> 10;
    println!(
        "in the end       {memory:>9} KiB, {} open files, {}",
        open_files(pid),
        left.join(", ")
    );
    assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
    println!("the server ended with {}", child.wait().unwrap());
    rate
}

fn start(model: &Path) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infalign"));
    command.arg("serve").arg("--model").arg(model).args(["--port", "0"]);
    command.args(["--batch", &CLIENTS.to_string()]).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("serving ")).expect("the server starts");
    let address = line.rsplit_once("http://").unwrap().1.strip_suffix("/v1").unwrap().to_owned();
    (child, address)
}

fn ask(address: &str, seed: usize) -> TcpStream {
    let body = json!({
        "prompt": PROMPT, "max_tokens": MAX_TOKENS, "seed": seed, "stream": true, "stream_options": { "include_usage": true },
    });
    let body = body.to_string();
    let mut connection = TcpStream::connect(address).unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json";
    write!(connection, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    connection
}

/// Receives an answer part by part; the tokens that it has, or None where it is not whole.
fn stream(address: &str, seed: usize) -> Option<usize> {
    let (mut used, mut whole) = (None, false);
    for line in BufReader::new(ask(address, seed)).lines() {
        let line = line.ok()?;
        // The last part with choices has no such key; the one with what was used has no choice.
        if let Some(document) =
            line.strip_prefix("data: {").filter(|text| text.contains("\"usage\""))
        {
            let document: Value = serde_json::from_str(&format!("{{{document}")).ok()?;
            used = document["usage"]["completion_tokens"].as_u64();
        }
        whole |= line == "data: [DONE]";
    }
    used.filter(|_| whole).map(|used| used as usize)
}

fn get(address: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    write!(connection, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    text
}

/// Memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
