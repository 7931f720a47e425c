//! Seconds a training step takes: medians of five, after two that do not count. On Linux also the most memory that was taken.
//!
//! `INFALIGN_DATA=… MIMALLOC_PURGE_DELAY=10000 cargo bench -p infalign-train --bench step`, with the allocator as the binary has it; the same with PyTorch and TRL: `python crates/train/benches/step.py`.
//! `INFALIGN_DEVICE` is a device as `--device` takes it; `INFALIGN_MODELS` names folders of models to measure in place of these, with colons between them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that prints a table")]

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::Device;
use infalign_decode::{EncodedPrompt, Sampling, Stream};
use infalign_model::{
    CausalLm, Head, Sequence, Tokenizer, TransformerConfig, write_word_tokenizer,
};
use infalign_reward::{Reward, RewardError};
use infalign_train::{
    Calibrator, CtrlConfig, CtrlTrainer, FitMetrics, LanguageModelConfig, Objective,
    OptimizerConfig, train_language_model,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RUNS: usize = 5;
const UNCOUNTED: usize = 2;

fn main() {
    let name = std::env::var("INFALIGN_DEVICE").ok().map(|name| name.parse().unwrap());
    let device = infalign_backend::device(name.as_ref()).unwrap();
    if let Ok(dirs) = std::env::var("INFALIGN_MODELS") {
        for dir in dirs.split(':').map(Path::new) {
            let name = dir.file_name().unwrap().to_string_lossy().into_owned();
            let model = CausalLm::load(dir, &device).unwrap();
            reinforcement(&name, &model, &words(&model));
            supervised(&name, model);
        }
        return;
    }
    if let Ok(data) = std::env::var("INFALIGN_DATA") {
        let dir = Path::new(&data).join("stories260K-hf");
        let model = CausalLm::load(&dir, &device).unwrap();
        let tokenizer = Tokenizer::load(&dir, model.config()).unwrap();
        reinforcement("stories260K", &model, &tokenizer);
    } else {
        println!("SKIPPED stories260K: set INFALIGN_DATA to the data folder");
    }
    let model = llama(512, &device);
    reinforcement("llama 5.4M", &model, &words(&model));
    supervised("llama 7.2M", llama(4096, &device));
}

/// A tokenizer for a model that needs none.
fn words(model: &CausalLm) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    write_word_tokenizer(dir.path(), std::iter::once("a b c")).unwrap();
    Tokenizer::load(dir.path(), model.config()).unwrap()
}

/// A random Llama of 6 layers.
fn llama(vocabulary: usize, device: &Device) -> CausalLm {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 768,
        "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": vocabulary,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let config = TransformerConfig::read(dir.path(), Head::CausalLm).unwrap();
    let mut normal = Stream::new(0, "weights", "", 0).normals(1);
    CausalLm::random(config, &mut normal, device).unwrap()
}

/// Another number for every response.
struct Lengths;

impl Reward for Lengths {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let value = |text: &str| text.bytes().map(|b| f32::from(b % 17)).sum::<f32>();
        Ok(pairs.iter().map(|(_, response)| value(response)).collect())
    }
}

/// Steps of 16 prompts × 8 responses × 64 tokens.
fn reinforcement(name: &str, model: &CausalLm, tokenizer: &Tokenizer) {
    let optimizer = OptimizerConfig { final_share: 1.0, ..OptimizerConfig::new(1e-6) };
    let config = serde_json::json!({
        "steps": RUNS + UNCOUNTED, "prompts_per_step": 16, "samples_per_prompt": 8, "beta": 0.05, "checkpoint_every": 1000,
        "optimizer": optimizer,
    });
    let config: CtrlConfig = serde_json::from_value(config).unwrap();
    let prompt = |k: u32| EncodedPrompt {
        id: k.to_string(),
        text: k.to_string(),
        tokens: (0..8).map(|t| 3 + (17 * k + 5 * t) % 500).collect(),
    };
    let prompts: Vec<EncodedPrompt> = (0..16).map(prompt).collect();
    let objective: Objective = "exp:10".parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let trainer = CtrlTrainer {
        config: &config,
        objective: &objective,
        prompts: &prompts,
        reference: model,
        tokenizer,
        reward: &Lengths,
        calibrator: Calibrator::Group,
        rollouts: None,
        sampling: Sampling { max_tokens: 64, ..Sampling::default() },
        batch: 128,
        seed: 1,
        checkpoints: folder.path().into(),
    };
    let mut clock = Clock::new(name, "RLOO step", model.device());
    let mut observe = |_: &_, _: &_| {
        clock.tick();
        Ok(())
    };
    trainer.run(&mut observe, &AtomicBool::new(false)).unwrap();
}

/// Steps of 16 × 128 tokens.
fn supervised(name: &str, model: CausalLm) {
    let tokens = |k: u32| (0..129).map(|t| 3 + (131 * k + 7 * t * t) % 4000).collect();
    let texts: Vec<Sequence> =
        (0..16).map(|k| Sequence { tokens: tokens(k), prompt_length: 1 }).collect();
    let config = serde_json::json!({
        "steps": RUNS + UNCOUNTED, "texts_per_step": 16, "checkpoint_every": 1000, "optimizer": { "learning_rate": 1e-4 },
    });
    let config: LanguageModelConfig = serde_json::from_value(config).unwrap();
    let mut clock = Clock::new(name, "supervised step", model.device());
    let stop = AtomicBool::new(false);
    let folder = tempfile::tempdir().unwrap();
    let mut observe = |_: &FitMetrics| clock.tick();
    train_language_model(model, &texts, &config, 1, folder.path(), &mut observe, &stop).unwrap();
}

/// Times steps, and prints what they take as soon as all are there: what comes after them, such as writing a large model, does not count.
struct Clock<'a> {
    name: &'a str,
    what: &'a str,
    device: Device,
    last: Instant,
    steps: Vec<f64>,
}

impl<'a> Clock<'a> {
    fn new(name: &'a str, what: &'a str, device: Device) -> Self {
        Self { name, what, device, last: Instant::now(), steps: Vec::new() }
    }

    fn tick(&mut self) {
        self.steps.push(self.last.elapsed().as_secs_f64());
        if self.steps.len() == RUNS + UNCOUNTED {
            self.print();
        }
        self.last = Instant::now();
    }

    fn print(&mut self) {
        let Self { name, what, device, .. } = self;
        let mut steps = self.steps.split_off(UNCOUNTED);
        steps.sort_by(f64::total_cmp);
        let memory = device
            .memory_pool_usage()
            .map_or_else(peak, |usage| format!("  reserved {} MiB", usage.bytes_reserved >> 20));
        println!("{name:<12} {what:<16} {:>7.3} s{memory}", steps[steps.len() / 2]);
    }
}

/// The most memory since the last call, on Linux.
fn peak() -> String {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return String::new() };
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    // What was the peak before does not count for the next.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    kib.map_or_else(String::new, |kib| format!("  peak {} MiB", kib >> 10))
}
