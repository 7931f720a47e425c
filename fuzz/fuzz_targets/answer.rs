//! Answers of servers, over a connection of this machine: one that speaks OpenAI's protocol, and one that scores in OpenRLHF's form.
#![no_main]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use infalign_decode::{EncodedPrompt, Patience, RemoteGenerator, Sampler, Sampling, Server};
use infalign_fuzz::Folder;
use infalign_model::{Tokenizer, TransformerConfig, write_word_tokenizer};
use infalign_reward::{RemoteReward, Reward};
use libfuzzer_sys::fuzz_target;

/// Status and body of the next answer.
static ANSWER: Mutex<(u16, Vec<u8>)> = Mutex::new((200, Vec::new()));

static SERVERS: LazyLock<(Server, RemoteReward)> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("the port's address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || converse(&stream));
        }
    });
    let patience = || Patience { tries: 1, ..Patience::new(Duration::from_secs(5)) };
    let reward = RemoteReward::new(&url, None, patience()).expect("an address");
    (Server::new(&url, None, patience()).expect("an address"), reward)
});

static MODEL: LazyLock<(TransformerConfig, Tokenizer)> = LazyLock::new(|| {
    let folder = Folder::new();
    let vocabulary = write_word_tokenizer(folder.path(), ["a b c"].into_iter());
    let config = TransformerConfig::llama(vocabulary.expect("a folder"), 2, 2, 1, 1, 16);
    let tokenizer = Tokenizer::load(folder.path(), &config).expect("a tokenizer");
    (config, tokenizer)
});

fuzz_target!(|data: &[u8]| {
    let Some((status, body)) = data.split_first() else { return };
    let status = [200, 404, 503][usize::from(status % 3)];
    *ANSWER.lock().expect("a server that runs") = (status, body.to_vec());
    let (server, reward) = &*SERVERS;
    if let Ok(scores) = reward.score(&[("a", "b"), ("a", "c")]) {
        assert!(scores.len() == 2 && scores.iter().all(|score| score.is_finite()), "{scores:?}");
    }
    let _ = server.models();
    let (config, tokenizer) = &*MODEL;
    let generator = RemoteGenerator {
        server,
        model: "served",
        config,
        tokenizer,
        stop_texts: &["c".to_owned()],
        sampling: Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, max_tokens: 4 },
        seed: 1,
        stage: "fuzz",
        batch: 1,
        interrupted: None,
    };
    let prompt = EncodedPrompt { id: "p".into(), text: "a b".into(), tokens: vec![1, 3, 4] };
    let Ok(responses) = generator.generate(&[prompt], 0..1) else { return };
    let response = &responses[0][0];
    assert_eq!(response.tokens.len(), response.log_probs.len());
    assert!(response.tokens.iter().all(|token| (*token as usize) < config.vocab_size));
    assert!(response.log_probs.iter().all(|value| value.is_finite()), "{response:?}");
});

/// Gives the answer to every request of a connection.
fn converse(mut stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    while let Some(length) = header(&mut reader) {
        let read = reader.read_exact(&mut vec![0; length]);
        let (status, body) = ANSWER.lock().expect("a target that runs").clone();
        let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n", body.len());
        if read.and_then(|()| stream.write_all(&[head.as_bytes(), &body].concat())).is_err() {
            return;
        }
    }
}

/// The length of the body that a request announces; None where the other side has gone.
fn header(reader: &mut impl BufRead) -> Option<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end().to_lowercase().split_once(": ") {
            Some(("content-length", text)) => length = text.parse().ok()?,
            Some(_) => {}
            None if line.trim_end().is_empty() => return Some(length),
            None => {}
        }
    }
}
