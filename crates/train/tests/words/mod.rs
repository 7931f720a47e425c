//! A small random model over the words `a b c d`, and texts of these words, for tests.
#![allow(dead_code, reason = "each test file uses a part")]

use infalign_decode::Stream;
use infalign_model::{CausalLm, Tokenizer, TransformerConfig, write_word_tokenizer};
use infalign_train::OptimizerConfig;

pub(crate) fn optimizer() -> OptimizerConfig {
    OptimizerConfig { warmup_steps: 10, ..OptimizerConfig::new(3e-3) }
}

/// The model and its tokenizer.
pub(crate) fn base() -> (CausalLm, Tokenizer) {
    let dir = tempfile::tempdir().unwrap();
    let vocabulary = write_word_tokenizer(dir.path(), ["a b c d"].into_iter()).unwrap();
    let config = TransformerConfig::llama(vocabulary, 16, 32, 1, 2, 16);
    let tokenizer = Tokenizer::load(dir.path(), &config).unwrap();
    let mut normal = Stream::new(2, "weights", "", 0).normals(1);
    (
        CausalLm::random(config, &mut normal, &infalign_backend::device(None).unwrap()).unwrap(),
        tokenizer,
    )
}

/// Text number `index`: one to eight words.
pub(crate) fn text(index: u64) -> String {
    let mut stream = Stream::new(9, "texts", "", index);
    let words = 1 + (stream.uniform(0) * 8.0) as u64;
    (1..=words)
        .map(|i| ["a", "b", "c", "d"][(stream.uniform(i) * 4.0) as usize])
        .collect::<Vec<_>>()
        .join(" ")
}

/// What a reward model has to find out: how many a there are, less half the number of b.
pub(crate) fn rating(text: &str) -> f32 {
    text.split(' ')
        .map(|word| {
            if word == "a" {
                1.0
            } else if word == "b" {
                -0.5
            } else {
                0.0
            }
        })
        .sum()
}
