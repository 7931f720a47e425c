//! Tokens a second of batched generation, greedy and sampled: medians of five.
//!
//! `INFALIGN_DATA=… cargo bench -p infalign-decode --bench generation`; the same with transformers: `python crates/decode/benches/generation.py`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that prints a table")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use infalign_decode::{EncodedPrompt, Generator, Sampling, Stream};
use infalign_model::{CausalLm, TransformerConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 32;
const PROMPT: usize = 8;
const NEW_TOKENS: usize = 128;
const RUNS: usize = 5;

fn main() {
    let device = infalign_backend::device(None).unwrap();
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
    let mut stream = Stream::new(0, "weights", "", 0);
    let mut position = 0;
    let mut normal = || {
        position += 1;
        stream.normal(position) as f32
    };
    measure("llama 5.4M", CausalLm::random(config, &mut normal, &device).unwrap());
}

fn measure(name: &str, model: CausalLm) {
    let model = model.for_inference();
    for (how, temperature) in [("greedy", 0.0), ("sampled", 1.0)] {
        let sampling = Sampling { temperature, max_tokens: NEW_TOKENS, ..Sampling::default() };
        let stops = BTreeSet::new();
        let generator = Generator {
            model: model.as_ref(),
            stops: &stops,
            sampling,
            seed: 0,
            stage: "bench",
            batch: BATCH,
            stop_texts: None,
            watch: None,
        };
        let prompt = |k: u32| EncodedPrompt {
            id: k.to_string(),
            text: String::new(),
            tokens: (0..PROMPT as u32).map(|t| 3 + (17 * k + 5 * t) % 500).collect(),
        };
        let prompts: Vec<EncodedPrompt> = (0..BATCH as u32).map(prompt).collect();
        generator.generate(&prompts, 1).unwrap();
        let mut rates: Vec<f64> = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                generator.generate(&prompts, 1).unwrap();
                (BATCH * NEW_TOKENS) as f64 / start.elapsed().as_secs_f64()
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        println!("{name:<12} {how:<8} {:>9.0} tokens/s", rates[RUNS / 2]);
    }
}
