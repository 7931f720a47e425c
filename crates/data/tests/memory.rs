//! What reading responses takes: the only test of its process, whose peak the system tells.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use infalign_data::responses;

const ROWS: usize = 512;
const TOKENS: usize = 2048;

/// Writes what `infalign generate --json` prints, whose numbers take more memory than their digits, and returns its bytes.
fn write(path: &Path) -> u64 {
    let mut file = BufWriter::new(File::create(path).unwrap());
    write!(file, "{{\"procedure\": \"sample\", \"responses\": [").unwrap();
    for row in 0..ROWS {
        let comma = if row > 0 { "," } else { "" };
        write!(file, "{comma}{{\"prompt\": \"p{row}\", \"response\": \"x\", \"tokens\": [10000")
            .unwrap();
        for token in 1..TOKENS {
            write!(file, ",{}", 10_000 + token).unwrap();
        }
        write!(file, "]}}").unwrap();
    }
    write!(file, "]}}").unwrap();
    file.into_inner().unwrap().metadata().unwrap().len()
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_document_is_in_memory_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generated.json");
    let bytes = write(&path);
    let before = peak();
    let found = responses::read(&path).unwrap();
    let taken = (peak() - before) as f64 / bytes as f64;
    assert_eq!(found.prompts.len(), ROWS);
    assert_eq!(found.prompts[0].responses[0].tokens, Some(TOKENS));
    // The text, and 32 bytes for each token, which has six in the file.
    assert!(taken < 8.0, "reading took {taken:.2} times the file");
}
