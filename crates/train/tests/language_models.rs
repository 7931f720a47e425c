//! Language models learn what there is to learn.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod words;

use std::sync::atomic::AtomicBool;

use infalign_model::Sequence;
use infalign_train::{LanguageModelConfig, OptimizerConfig, train_language_model};
use words::{base, optimizer};

#[test]
fn a_language_model_reaches_the_entropy_of_its_texts() {
    let (model, tokenizer) = base();
    // After a coin's toss everything is settled: ln 2 nats over eight tokens.
    let texts: Vec<Sequence> = ["a b a b a b a", "c d c d c d c"]
        .map(|text| Sequence {
            tokens: tokenizer.encode(text).unwrap().into_iter().chain(tokenizer.end()).collect(),
            prompt_length: 1,
        })
        .to_vec();
    let optimizer = OptimizerConfig { learning_rate: 1e-2, ..optimizer() };
    let config = LanguageModelConfig { steps: 300, texts_per_step: 8, optimizer };
    let trained =
        train_language_model(model, &texts, &config, 1, &mut |_, _| (), &AtomicBool::new(false))
            .unwrap();
    let log_probs = trained.log_probs(&texts).unwrap();
    for text in log_probs {
        let total: f64 = text.iter().map(|&l| f64::from(l)).sum();
        assert!((total + std::f64::consts::LN_2).abs() < 0.05, "{total} nats");
    }
}

#[test]
fn nothing_to_learn_from_is_refused() {
    let (model, _) = base();
    let stop = AtomicBool::new(false);
    let config = LanguageModelConfig { steps: 0, texts_per_step: 1, optimizer: optimizer() };
    let error = train_language_model(model, &[], &config, 1, &mut |_, _| (), &stop).unwrap_err();
    assert!(error.to_string().contains("steps is 0"), "{error}");
}
