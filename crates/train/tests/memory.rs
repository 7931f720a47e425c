//! The memory of a training step: no matrix of all tokens by the whole vocabulary stands in it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking")]

use std::sync::atomic::AtomicBool;

use infalign_model::{CausalLm, Head, Sequence, TransformerConfig};
use infalign_train::{FitMetrics, LanguageModelConfig, train_language_model};

const VOCABULARY: usize = 128_000;

/// The most memory that this process has had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn a_large_vocabulary_fits() {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": VOCABULARY, "max_position_embeddings": 512,
        "tie_word_embeddings": false,
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let config = TransformerConfig::read(dir.path(), Head::CausalLm).unwrap();
    let mut state = 1_u32;
    // Of a size like normal numbers, and cheaper.
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as f32 / 32_768.0 - 1.0
    };
    let cpu = infalign_backend::device(Some(&"cpu".parse().unwrap())).unwrap();
    let model = CausalLm::random(config, &mut number, &cpu).unwrap();
    let text = |k: usize| Sequence {
        tokens: (0..512).map(|t| ((k * 7919 + t * 104_729) % VOCABULARY) as u32).collect(),
        prompt_length: 1,
    };
    let texts: Vec<Sequence> = (0..2).map(text).collect();
    let settings = serde_json::json!({
        "steps": 2, "texts_per_step": 2, "optimizer": { "learning_rate": 1e-3 },
    });
    let settings: LanguageModelConfig = serde_json::from_value(settings).unwrap();
    let (mut losses, mut most) = (Vec::new(), 0);
    let mut observe = |step: &FitMetrics| {
        losses.push(step.loss);
        most = peak();
    };
    let stop = AtomicBool::new(false);
    train_language_model(model, &texts, &settings, 1, dir.path(), &mut observe, &stop).unwrap();
    println!("peak {} MiB, losses {losses:?}", most >> 20);
    assert!(losses[1] < losses[0], "{losses:?}");
    // One more matrix of all tokens by the vocabulary would be half a gigabyte.
    assert!(most < 800_000_000, "peak {most} bytes");
}
