//! Tokens a second of batched generation, greedy and sampled: medians of five. On Linux also the memory that it takes.
//!
//! `INFALIGN_DATA=… cargo bench -p infalign-decode --bench generation`; the same with transformers: `python crates/decode/benches/generation.py`.
//! `INFALIGN_DTYPE=bf16` rounds the weights to bf16. `INFALIGN_DEVICE` is a device as `--device` takes it; `INFALIGN_MODELS` names folders of models to measure in place of these, with colons between them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that prints a table")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use infalign_decode::{EncodedPrompt, Generator, Sampler, Sampling, Stream};
use infalign_model::{CausalLm, LanguageModel, TransformerConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 32;
const PROMPT: usize = 8;
const NEW_TOKENS: usize = 128;
const RUNS: usize = 5;

fn main() {
    let name = std::env::var("INFALIGN_DEVICE").ok().map(|name| name.parse().unwrap());
    let device = infalign_backend::device(name.as_ref()).unwrap();
    if let Ok(dirs) = std::env::var("INFALIGN_MODELS") {
        for dir in dirs.split(':').map(Path::new) {
            let name = dir.file_name().unwrap().to_string_lossy().into_owned();
            measure(&name, CausalLm::load(dir, &device).unwrap());
        }
        return;
    }
    match std::env::var("INFALIGN_DATA") {
        Ok(data) => {
            let dir = Path::new(&data).join("stories260K-hf");
            measure("stories260K", CausalLm::load(&dir, &device).unwrap());
        }
        Err(_) => println!("SKIPPED stories260K: set INFALIGN_DATA to the data folder"),
    }
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 768,
        "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 512,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let config = TransformerConfig::read(dir.path(), infalign_model::Head::CausalLm).unwrap();
    let random = || {
        let mut normal = Stream::new(0, "weights", "", 0).normals(1);
        CausalLm::random(config.clone(), &mut normal, &device).unwrap()
    };
    if cfg!(target_os = "linux") && infalign_backend::is_cpu(&device) {
        let before = resident("VmRSS");
        weigh(random(), before);
    }
    measure("llama 5.4M", random());
}

/// Prints the most memory that 32 × 256 new tokens take, model included, and what weights and keys and values alone come to.
fn weigh(model: CausalLm, before: u64) {
    let config = model.config().clone();
    let weights: usize = model.net().num_params() * size_of::<f32>();
    let model = model.for_inference();
    let cache = BATCH * model.cache_bytes(PROMPT + 256);
    let sampling = Sampling { max_tokens: 256, ..Sampling::default() };
    // From here on the peak counts.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    generate(model.as_ref(), &sampling);
    let peak = resident("VmHWM") - before;
    let least = (weights + cache) as u64;
    println!(
        "hidden {}: peak {} MiB, weights and cache {} MiB, ratio {:.2}",
        config.hidden_size,
        peak >> 20,
        least >> 20,
        peak as f64 / least as f64
    );
}

/// A line of /proc/self/status, in bytes.
fn resident(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn generate(model: &dyn LanguageModel, sampling: &Sampling) {
    let stops = BTreeSet::new();
    let generator = Generator::new(model, &stops, sampling, 0, "bench", BATCH);
    let prompt = |k: u32| EncodedPrompt {
        id: k.to_string(),
        text: String::new(),
        tokens: (0..PROMPT as u32).map(|t| 3 + (17 * k + 5 * t) % 500).collect(),
    };
    let prompts: Vec<EncodedPrompt> = (0..BATCH as u32).map(prompt).collect();
    generator.generate(&prompts, 0..1).unwrap();
}

/// What a GPU's memory pools hold, which is the most that they had to.
fn reserved(device: &Device) -> String {
    let bytes = device.memory_pool_usage().map(|usage| usage.bytes_reserved);
    bytes.map_or_else(String::new, |bytes| format!("  reserved {} MiB", bytes >> 20))
}

fn measure(name: &str, model: CausalLm) {
    let device = model.device();
    let rounded = std::env::var("INFALIGN_DTYPE").is_ok_and(|dtype| dtype == "bf16");
    let model = if rounded { model.in_bf16().unwrap() } else { model }.for_inference();
    for (how, temperature) in [("greedy", 0.0), ("sampled", 1.0)] {
        let sampling = Sampling { temperature, max_tokens: NEW_TOKENS, ..Sampling::default() };
        generate(model.as_ref(), &sampling);
        let mut rates: Vec<f64> = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                generate(model.as_ref(), &sampling);
                (BATCH * NEW_TOKENS) as f64 / start.elapsed().as_secs_f64()
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        println!("{name:<12} {how:<8} {:>9.0} tokens/s{}", rates[RUNS / 2], reserved(&device));
    }
}
