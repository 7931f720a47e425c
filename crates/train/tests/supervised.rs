//! Reward models and language models learn what there is to learn, and are read back as what was saved.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::atomic::AtomicBool;

use infalign_decode::Stream;
use infalign_model::{
    CausalLm, Sequence, SequenceClassifier, Tokenizer, TransformerConfig, write_word_tokenizer,
};
use infalign_train::{
    Dataset, Examples, LanguageModelConfig, OptimizerConfig, RewardModelConfig,
    train_language_model, train_reward_model,
};

fn optimizer() -> OptimizerConfig {
    OptimizerConfig {
        learning_rate: 3e-3,
        warmup_steps: 10,
        final_share: 0.0,
        weight_decay: 0.0,
        max_grad_norm: 1.0,
    }
}

/// A small random model over the words `a b c d`, and its tokenizer.
fn base() -> (CausalLm, Tokenizer) {
    let dir = tempfile::tempdir().unwrap();
    let vocabulary = write_word_tokenizer(dir.path(), ["a b c d"].into_iter()).unwrap();
    let config = TransformerConfig::llama(vocabulary, 16, 32, 1, 2, 16);
    let tokenizer = Tokenizer::load(dir.path(), &config).unwrap();
    let mut stream = Stream::new(2, "weights", "", 0);
    let mut position = 0;
    let mut normal = || {
        position += 1;
        stream.normal(position) as f32
    };
    (
        CausalLm::random(config, &mut normal, &infalign_backend::device(None).unwrap()).unwrap(),
        tokenizer,
    )
}

/// Text number `index`: one to eight words.
fn text(index: u64) -> String {
    let mut stream = Stream::new(9, "texts", "", index);
    let words = 1 + (stream.uniform(0) * 8.0) as u64;
    (1..=words)
        .map(|i| ["a", "b", "c", "d"][(stream.uniform(i) * 4.0) as usize])
        .collect::<Vec<_>>()
        .join(" ")
}

/// What a reward model has to find out: how many a there are, less half the number of b.
fn rating(text: &str) -> f32 {
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

fn config() -> RewardModelConfig {
    RewardModelConfig { steps: 300, examples_per_step: 32, optimizer: optimizer() }
}

#[test]
fn ratings_are_learned_and_survive_saving() {
    let (base, tokenizer) = base();
    let rated = |range: std::ops::Range<u64>| {
        Examples::Rated(
            range.map(|i| (tokenizer.encode(&text(i)).unwrap(), rating(&text(i)))).collect(),
        )
    };
    let data = Dataset { training: rated(0..800), held_out: rated(800..1000) };
    let mut losses = Vec::new();
    let mut observe = |_, loss| losses.push(loss);
    let (model, report) = train_reward_model(
        base,
        tokenizer.pad(),
        &data,
        &config(),
        1,
        &mut observe,
        &AtomicBool::new(false),
    )
    .unwrap();
    assert!(losses[290..].iter().sum::<f64>() < 0.1 * losses[..10].iter().sum::<f64>());
    assert!(report.correlation.unwrap() > 0.95 && report.accuracy > 0.9, "{report:?}");
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path()).unwrap();
    let again =
        SequenceClassifier::load(dir.path(), &infalign_backend::device(None).unwrap()).unwrap();
    let texts: Vec<Vec<u32>> = (0..20).map(|i| tokenizer.encode(&text(i)).unwrap()).collect();
    assert_eq!(model.scores(&texts).unwrap(), again.scores(&texts).unwrap());
    let json = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    assert!(json.contains("LlamaForSequenceClassification") && json.contains("LABEL_0"), "{json}");
}

#[test]
fn pairs_are_learned() {
    let (base, tokenizer) = base();
    let encode = |text: &str| tokenizer.encode(text).unwrap();
    let paired = |range: std::ops::Range<u64>| {
        let pairs =
            range.map(|i| (text(2 * i), text(2 * i + 1))).filter(|(a, b)| rating(a) != rating(b));
        let ordered = pairs.map(|(a, b)| {
            if rating(&a) > rating(&b) {
                (encode(&a), encode(&b))
            } else {
                (encode(&b), encode(&a))
            }
        });
        Examples::Paired(ordered.collect())
    };
    let data = Dataset { training: paired(0..800), held_out: paired(800..1000) };
    let (_, report) = train_reward_model(
        base,
        tokenizer.pad(),
        &data,
        &config(),
        1,
        &mut |_, _| (),
        &AtomicBool::new(false),
    )
    .unwrap();
    assert!(report.accuracy > 0.95 && report.correlation.is_none(), "{report:?}");
}

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
    let (model, tokenizer) = base();
    let data =
        Dataset { training: Examples::Rated(Vec::new()), held_out: Examples::Rated(Vec::new()) };
    let stop = AtomicBool::new(false);
    let error = train_reward_model(
        model.clone(),
        tokenizer.pad(),
        &data,
        &config(),
        1,
        &mut |_, _| (),
        &stop,
    )
    .unwrap_err();
    assert!(error.to_string().contains("examples"), "{error}");
    let config = LanguageModelConfig { steps: 0, texts_per_step: 1, optimizer: optimizer() };
    let error = train_language_model(model, &[], &config, 1, &mut |_, _| (), &stop).unwrap_err();
    assert!(error.to_string().contains("steps is 0"), "{error}");
}
