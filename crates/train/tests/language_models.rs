//! Language models learn what there is to learn.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod words;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use infalign_model::{CausalLm, Sequence, TransformerConfig};
use infalign_train::{
    FitMetrics, LanguageModelConfig, OptimizerConfig, TrainError, train_language_model,
};
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
    let config =
        LanguageModelConfig { steps: 300, texts_per_step: 8, checkpoint_every: 300, optimizer };
    let (dir, run_on) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let trained = train_language_model(model, &texts, &config, 1, dir.path(), &mut |_| (), &run_on);
    let (trained, _) = trained.unwrap();
    let log_probs = trained.log_probs(&texts).unwrap();
    for text in log_probs {
        let total: f64 = text.iter().map(|&l| f64::from(l)).sum();
        assert!((total + std::f64::consts::LN_2).abs() < 0.05, "{total} nats");
    }
}

/// Whatever each pass holds of them: of texts of up to 1,000 tokens one takes four, and another the rest.
#[test]
fn a_step_is_of_all_tokens_of_its_texts() {
    let (model, _) = base();
    let context = 1024;
    let config = TransformerConfig::llama(model.config().vocab_size, 16, 24, 2, 2, context);
    let (mut seed, device) = (1_u32, model.device());
    let mut weight = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) as f32 / 65_536.0 - 0.5
    };
    let model = CausalLm::random(config, &mut weight, &device).unwrap();
    let text = |length: usize| Sequence {
        tokens: (0..length).map(|place| place as u32 * 7 % 5).collect(),
        prompt_length: 1,
    };
    let texts = [9, 1000, 40, 700, 1000, 300].map(text);
    let tokens: Vec<f32> = model.log_probs(&texts).unwrap().concat();
    let expected = -tokens.iter().map(|&l| f64::from(l)).sum::<f64>() / tokens.len() as f64;
    let config = LanguageModelConfig {
        steps: 1,
        texts_per_step: 6,
        checkpoint_every: 1,
        optimizer: optimizer(),
    };
    let (dir, run_on) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let trained = train_language_model(model, &texts, &config, 1, dir.path(), &mut |_| (), &run_on);
    let (_, step) = trained.unwrap();
    assert!((step.loss - expected).abs() < 1e-5, "{} and not {expected}", step.loss);
}

#[test]
fn the_learning_rate_warms_up_and_decays() {
    let (model, tokenizer) = base();
    let texts = [Sequence { tokens: tokenizer.encode("a b").unwrap(), prompt_length: 1 }];
    let optimizer =
        OptimizerConfig { learning_rate: 1e-3, warmup_steps: 1, final_share: 0.2, ..optimizer() };
    let config =
        LanguageModelConfig { steps: 4, texts_per_step: 1, checkpoint_every: 4, optimizer };
    let (dir, run_on) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let mut rates = Vec::new();
    let mut observe = |step: &FitMetrics| rates.push(step.learning_rate);
    train_language_model(model, &texts, &config, 1, dir.path(), &mut observe, &run_on).unwrap();
    // 1/2, 1, 0.2 + 0.8·2/3 and 0.2 + 0.8·1/3 of the peak.
    for (rate, expected) in rates.iter().zip([5e-4, 1e-3, 7.333_333_333e-4, 4.666_666_667e-4]) {
        assert!((rate - expected).abs() < 1e-12, "{rates:?}");
    }
    assert_eq!(rates.len(), 4);
}

#[test]
fn nothing_to_learn_from_is_refused() {
    let (model, _) = base();
    let stop = AtomicBool::new(false);
    let config = LanguageModelConfig {
        steps: 0,
        texts_per_step: 1,
        checkpoint_every: 1,
        optimizer: optimizer(),
    };
    let dir = tempfile::tempdir().unwrap();
    let result = train_language_model(model, &[], &config, 1, dir.path(), &mut |_| (), &stop);
    let error = result.unwrap_err();
    assert!(error.to_string().contains("steps is 0"), "{error}");
}

#[test]
fn a_resumed_training_gives_the_same_language_model() {
    let (model, tokenizer) = base();
    let sequence =
        |text: &str| Sequence { tokens: tokenizer.encode(text).unwrap(), prompt_length: 1 };
    let texts: Vec<Sequence> = (0..10).map(|i| sequence(&words::text(i))).collect();
    let config = LanguageModelConfig {
        steps: 7,
        texts_per_step: 3,
        checkpoint_every: 3,
        optimizer: optimizer(),
    };
    let [whole, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let train = |dir: &Path, stop_after: usize| {
        let stop = AtomicBool::new(false);
        let mut observe =
            |step: &FitMetrics| stop.store(step.step == stop_after, Ordering::Relaxed);
        train_language_model(model.clone(), &texts, &config, 1, dir, &mut observe, &stop)
    };
    let (expected, last) = train(whole.path(), 0).unwrap();
    let stop = train(stopped.path(), 5);
    assert!(matches!(stop, Err(TrainError::Interrupted { step: 5, .. })), "{stop:?}");
    // The second time there is nothing left to do but to tell the last loss.
    for _ in 0..2 {
        let (resumed, resumed_last) = train(stopped.path(), 0).unwrap();
        assert_eq!(resumed.log_probs(&texts).unwrap(), expected.log_probs(&texts).unwrap());
        assert_eq!(resumed_last, last);
    }
}
