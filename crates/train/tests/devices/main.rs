//! Parity: every device of every backend that is compiled in computes what the CPU computes, and what transformers computes.
//!
//! `cargo xtask test --backend wgpu` and `--backend cuda` run this with their backend beside the CPU. A build for the CPU alone checks the CPU.
//!
//! Differences are told as shares of the largest number of what is compared. The largest that pass:
//! - on the CPU 1e-4;
//! - on wgpu 2e-4: f32 throughout, in sums of another order;
//! - on cuda 1e-2: burn takes products of f32 matrices in TF32, whose mantissa has ten bits; norms of gradients after steps of AdamW 3e-2.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking")]

mod generation;
mod kernels;
mod models;
mod training;

use std::path::{Path, PathBuf};

use infalign_backend::{Device, compiled};
use serde_json::Value;

/// A device to be compared with the CPU.
#[derive(Clone)]
struct Candidate {
    name: String,
    device: Device,
    tolerance: f32,
    /// Whether products of f32 matrices are f32 throughout.
    exact: bool,
}

fn cpu() -> Device {
    infalign_backend::device(Some(&"cpu".parse().unwrap())).unwrap()
}

/// All devices; a backend that is compiled in and has none is an error, since its tests would pass without having been run.
fn candidates() -> Vec<Candidate> {
    let devices = compiled().iter().flat_map(|backend| {
        assert!(backend.count() > 0, "there is no device for the backend {}", backend.name());
        let tolerance = match backend.name() {
            "cpu" => 1e-4,
            "wgpu" => 2e-4,
            _ => 1e-2,
        };
        (0..backend.count()).map(move |index| Candidate {
            name: format!("{}:{index}", backend.name()),
            device: backend.device(index).unwrap(),
            tolerance,
            exact: backend.exact_products(),
        })
    });
    devices.collect()
}

impl Candidate {
    /// Refuses numbers that are too far from the expected ones.
    fn near(&self, what: &str, found: &[f32], expected: &[f32]) {
        self.within(self.tolerance, what, found, expected);
    }

    fn within(&self, tolerance: f32, what: &str, found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len(), "{}: {what}", self.name);
        let largest = expected.iter().fold(f32::MIN_POSITIVE, |a, b| a.max(b.abs()));
        let off = |(a, b): (&f32, &f32)| (a - b).abs() / largest;
        let worst = found.iter().zip(expected).map(off).fold(0.0, f32::max);
        println!("{}: {what}: off by {worst:.1e} of the largest", self.name);
        let finite = found.iter().all(|x| x.is_finite());
        assert!(finite && worst < tolerance, "{}: {what}: off by {worst}", self.name);
    }
}

/// Checkpoints of every architecture, with what transformers computes of them.
const MODELS: [&str; 13] = [
    "llama",
    "llama-bf16",
    "llama-f16",
    "llama-sharded",
    "llama3",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt-neox",
    "gpt-neox-serial",
];

fn fixture(name: &str) -> (PathBuf, Value) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    let dir = fixtures.join(name);
    let text = std::fs::read_to_string(dir.join("reference.json")).unwrap();
    (dir, serde_json::from_str(&text).unwrap())
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

/// The prompts of a reference, as token ids.
fn prompts(reference: &Value) -> Vec<Vec<u32>> {
    reference["prompts"].as_array().unwrap().iter().map(ids).collect()
}
