//! Adapters against PEFT: random ones on the models beside them, with the numbers that it computes (`fixtures/make_lora.py`), and a real one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests fail by panicking"
)]

mod files;
mod numbers;
mod refusals;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use infalign_backend::Device;
use infalign_model::{CausalLm, LanguageModel};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

const CAUSAL: [&str; 8] = [
    "lora-llama",
    "lora-llama-all",
    "lora-llama-saved",
    "lora-llama-layer",
    "lora-gpt2",
    "lora-gpt-neox",
    "lora-gpt-neox-head",
    "lora-gpt-neox-saved",
];

/// Greatest difference of a logit from PEFT's.
const TOLERANCE: f32 = 1e-4;
/// Greatest difference of a merged model's from that of the model with its adapter, as a share of the largest logit.
const MERGED: f32 = 1e-5;

fn device() -> Device {
    infalign_backend::device(None).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// An adapter's folder, the model that it belongs to, and what PEFT computes.
fn case(name: &str) -> (PathBuf, CausalLm, Value) {
    let reference = read_json(&fixture(name).join("reference.json"));
    let base = fixture(reference["base"].as_str().unwrap());
    (fixture(name), CausalLm::load(&base, &device()).unwrap(), reference)
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn prompts(reference: &Value) -> Vec<Vec<u32>> {
    let ids = |value: &Value| numbers(value).into_iter().map(|id| id as u32).collect();
    reference["prompts"].as_array().unwrap().iter().map(ids).collect()
}

fn logits(model: &CausalLm, prompt: &[u32]) -> Vec<f32> {
    model.start(&[prompt], 1).unwrap().logits().to_vec()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn largest(logits: &[f32]) -> f32 {
    logits.iter().fold(0.0, |most, logit| most.max(logit.abs()))
}

/// Names, types, shapes and bytes of a file's tensors.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(dir: &Path) -> Tensors {
    let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.iter().map(|(name, view)| (name.to_owned(), tensor(view))).collect()
}

fn write_tensors(dir: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(dir.join("adapter_model.safetensors"), bytes).unwrap();
}

/// A copy of an adapter's folder with some keys of its configuration replaced.
fn changed(dir: &Path, keys: &Value) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let weights = "adapter_model.safetensors";
    std::fs::copy(dir.join(weights), copy.path().join(weights)).unwrap();
    let mut config = read_json(&dir.join("adapter_config.json"));
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(copy.path().join("adapter_config.json"), config.to_string()).unwrap();
    copy
}
