//! A run with a record that a stranger can verify: `cargo run -p infalign --example record`
//!
//! Opens a record before the work, closes it after, and finds a file that was changed since.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use infalign::record::verify::verify;
use infalign::record::{BuildRecord, InputFile, Opening, Recorder, RunDir};

fn main() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let run = RunDir::create(root.path(), "example")?;
    let data = "examples/problem.json";
    let opening = Opening {
        command: "example".to_owned(),
        argv: std::env::args().skip(1).collect(),
        build: BuildRecord { version: "0.1.0".to_owned(), ..BuildRecord::default() },
        seed: Some(1),
        inputs: vec![InputFile { role: "problem".into(), name: data.into(), path: data.into() }],
        ..Opening::default()
    };
    let recorder = Recorder::begin(run.path(), opening)?;
    let results = run.path().join("results.json");
    std::fs::write(&results, r#"{"answer": 42}"#)?; // the work
    let record = recorder.completed()?;
    println!("recorded {} with {} output", record.uuid, record.outputs.len());
    anyhow::ensure!(verify(run.path())?.findings.is_empty(), "it is what was recorded");

    std::fs::write(&results, r#"{"answer": 43}"#)?;
    let findings = verify(run.path())?.findings;
    for finding in &findings {
        println!("{finding}");
    }
    anyhow::ensure!(!findings.is_empty(), "a changed file is found");
    Ok(())
}
