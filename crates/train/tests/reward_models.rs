//! Reward models learn what there is to learn, are read back as what was saved, and score a text alone.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod words;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use infalign_model::{CausalLm, LoraConfig, SequenceClassifier, Tokenizer};
use infalign_reward::{Reads, Reward, RewardModel};
use infalign_stats::{clustered_wilson_interval, wilson_interval};
use infalign_train::{
    BestCheckpoint, Examples, FitMetrics, Pair, RewardModelConfig, RewardModelData,
    RewardModelReport, TrainError, fitted_steps, train_reward_model,
};
use serde_json::{Value, json};
use words::{base, optimizer, rating, text};

fn config() -> RewardModelConfig {
    RewardModelConfig {
        steps: 300,
        examples_per_step: 32,
        margin: 0.0,
        centring: 0.0,
        checkpoint_every: 1000,
        optimizer: optimizer(),
        lora: None,
    }
}

fn lora() -> LoraConfig {
    let config = json!({ "r": 8, "lora_alpha": 16, "target_modules": "all-linear" });
    serde_json::from_value(config).unwrap()
}

fn rated(tokenizer: &Tokenizer, range: Range<u64>) -> Examples {
    let texts = range.map(|i| (tokenizer.encode(&text(i)).unwrap(), rating(&text(i))));
    Examples::Rated(texts.collect())
}

fn paired(tokenizer: &Tokenizer, range: Range<u64>) -> Examples {
    let pairs =
        range.map(|i| (text(2 * i), text(2 * i + 1))).filter(|(a, b)| rating(a) != rating(b));
    let pairs = pairs.map(|(a, b)| if rating(&a) > rating(&b) { (a, b) } else { (b, a) });
    let encode = |text: &str| tokenizer.encode(text).unwrap();
    let pair = |(prompt, (a, b)): (usize, (String, String))| Pair {
        better: encode(&a),
        worse: encode(&b),
        margin: 0.0,
        prompt,
    };
    Examples::Paired(pairs.enumerate().map(pair).collect())
}

/// Trains on the words' base model, or on the one given.
fn train(
    (base, tokenizer): (CausalLm, Tokenizer),
    training: &Examples,
    config: &RewardModelConfig,
) -> Result<SequenceClassifier, TrainError> {
    let (dir, stop) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let model = SequenceClassifier::on(base, tokenizer.pad());
    let data = RewardModelData { training, validation: None };
    train_reward_model(model, data, config, 1, dir.path(), &mut |_| (), &stop)
        .map(|(model, _)| model)
}

fn texts(tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    (0..20).map(|i| tokenizer.encode(&text(i)).unwrap()).collect()
}

#[test]
fn ratings_are_learned_and_survive_saving() {
    let (base, tokenizer) = base();
    let mut losses = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    let (model, best) = train_reward_model(
        SequenceClassifier::on(base, tokenizer.pad()),
        RewardModelData { training: &rated(&tokenizer, 0..800), validation: None },
        &config(),
        1,
        dir.path(),
        &mut |step| losses.push(step.loss),
        &AtomicBool::new(false),
    )
    .unwrap();
    assert_eq!(best, None);
    assert!(losses[290..].iter().sum::<f64>() < 0.1 * losses[..10].iter().sum::<f64>());
    let report = RewardModelReport::measure(&model, &rated(&tokenizer, 800..1000)).unwrap();
    assert!(report.correlation.unwrap() > 0.95 && report.accuracy.estimate > 0.9, "{report:?}");
    assert!(report.examples == 200 && report.pairs <= 100 && report.log_loss.is_none());
    assert_eq!(report.prompts, None);
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path()).unwrap();
    let again =
        SequenceClassifier::load(dir.path(), &infalign_backend::device(None).unwrap()).unwrap();
    let texts = texts(&tokenizer);
    assert_eq!(model.scores(&texts).unwrap(), again.scores(&texts).unwrap());
    let json = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    assert!(json.contains("LlamaForSequenceClassification") && json.contains("LABEL_0"), "{json}");
}

#[test]
fn pairs_are_learned_and_the_model_knows_how_well() {
    let (base, tokenizer) = base();
    let training = paired(&tokenizer, 0..800);
    let model = train((base, tokenizer.clone()), &training, &config()).unwrap();
    let report = RewardModelReport::measure(&model, &paired(&tokenizer, 800..1000)).unwrap();
    assert!(report.accuracy.estimate > 0.95 && report.correlation.is_none(), "{report:?}");
    assert!(report.accuracy.low < report.accuracy.estimate && report.accuracy.high <= 1.0);
    assert!(report.log_loss.unwrap() < 0.2, "{report:?}");
    assert_eq!(report.reliability.iter().map(|bin| bin.n).sum::<usize>(), report.pairs);
    let (first, last) = (report.reliability[0], report.reliability[report.reliability.len() - 1]);
    assert!(first.observed.estimate < 0.1 && last.observed.estimate > 0.9, "{report:?}");
}

#[test]
fn what_pairs_of_few_prompts_say_is_counted_by_prompt() {
    let (base, tokenizer) = base();
    let config = RewardModelConfig { steps: 60, ..config() };
    let model = train((base, tokenizer.clone()), &paired(&tokenizer, 0..200), &config).unwrap();
    let [high, low] = ["a a", "b"].map(|text| tokenizer.encode(text).unwrap());
    let scores = model.scores(&[high.clone(), low.clone()]).unwrap();
    let gap = f64::from(scores[0] - scores[1]);
    assert!(gap > 0.0, "{scores:?}");
    // Four pairs of each of three prompts; those of the third are in the wrong order.
    let measured = |prompt: fn(usize) -> usize| {
        let pair = |index: usize| {
            let (better, worse) = if index % 3 < 2 { (&high, &low) } else { (&low, &high) };
            let (better, worse) = (better.clone(), worse.clone());
            Pair { better, worse, margin: 0.0, prompt: prompt(index) }
        };
        let pairs = Examples::Paired((0..12).map(pair).collect());
        RewardModelReport::measure(&model, &pairs).unwrap()
    };
    let few = measured(|index| index % 3);
    assert_eq!((few.examples, few.pairs, few.prompts), (12, 12, Some(3)));
    let clusters = [(4.0, 4), (4.0, 4), (0.0, 4)];
    assert_eq!(few.accuracy, clustered_wilson_interval(&clusters, 0.95).unwrap());
    let loss = |gap: f64| (-gap).exp().ln_1p();
    let expected = (8.0 * loss(gap) + 4.0 * loss(-gap)) / 12.0;
    assert!((few.log_loss.unwrap() - expected).abs() < 1e-5, "{few:?}, not {expected}");
    // With a prompt of its own for each pair, they are independent trials.
    let many = measured(|index| index);
    assert_eq!(many.prompts, Some(12));
    assert_eq!(many.accuracy, wilson_interval(8.0, 12, 0.95).unwrap());
    assert!(few.accuracy.low < many.accuracy.low && many.accuracy.high < few.accuracy.high);
}

/// Scores of `a` and `b` after training on four pairs of them, of which three say that `a` is the better one.
fn contested(config: RewardModelConfig, margin: f32) -> [f32; 2] {
    let (base, tokenizer) = base();
    let [a, b] = ["a", "b"].map(|text| tokenizer.encode(text).unwrap());
    let pair = |better: &[u32], worse: &[u32]| Pair {
        better: better.to_vec(),
        worse: worse.to_vec(),
        margin,
        prompt: 0,
    };
    let pairs = vec![pair(&a, &b), pair(&a, &b), pair(&a, &b), pair(&b, &a)];
    let config = RewardModelConfig { examples_per_step: 4, ..config };
    let model = train((base, tokenizer), &Examples::Paired(pairs), &config).unwrap();
    model.scores(&[a, b]).unwrap().try_into().unwrap()
}

#[test]
fn margin_and_centring_lead_to_the_optima_worked_by_hand() {
    // ¾·σ(m − Δ) = ¼·σ(m + Δ): Δ = ln 3 for m = 0, and for m = 2 x = e^Δ solves k·x² − 2x − 3k = 0 with k = e⁻².
    let k = (-2.0_f32).exp();
    let wide = ((2.0 + (4.0 + 12.0 * k * k).sqrt()) / (2.0 * k)).ln();
    let close =
        |[a, b]: [f32; 2], expected: f32| assert!((a - b - expected).abs() < 0.05, "{a} {b}");
    close(contested(config(), 0.0), 3_f32.ln());
    let margin = contested(RewardModelConfig { margin: 2.0, ..config() }, 0.0);
    close(margin, wide);
    assert_eq!(contested(config(), 2.0), margin, "the margin of every pair is the same thing");
    // Centring does not touch the difference, which is what the likelihood decides.
    let [a, b] = contested(RewardModelConfig { centring: 0.1, ..config() }, 0.0);
    close([a, b], 3_f32.ln());
    assert!((a + b).abs() < 0.05, "{a} {b}");
}

/// A base model in a folder, as an adapter has to name it.
fn base_in(dir: &Path) -> (CausalLm, Tokenizer) {
    let (base, tokenizer) = base();
    base.save(dir).unwrap();
    tokenizer.save(dir).unwrap();
    (CausalLm::load(dir, &infalign_backend::device(None).unwrap()).unwrap(), tokenizer)
}

#[test]
fn an_adapter_and_the_head_learn_and_are_saved_in_pefts_form() {
    let (dir, saved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (base, tokenizer) = base_in(dir.path());
    let config = RewardModelConfig { lora: Some(lora()), ..config() };
    let training = paired(&tokenizer, 0..800);
    let model = train((base.clone(), tokenizer.clone()), &training, &config).unwrap();
    let report = RewardModelReport::measure(&model, &paired(&tokenizer, 800..1000)).unwrap();
    assert!(report.accuracy.estimate > 0.9, "{report:?}");
    model.save(saved.path()).unwrap();
    let settings = std::fs::read_to_string(saved.path().join("adapter_config.json")).unwrap();
    assert!(settings.contains("SEQ_CLS") && !saved.path().join("model.safetensors").exists());
    let weights = std::fs::read(saved.path().join("adapter_model.safetensors")).unwrap();
    assert!(String::from_utf8_lossy(&weights).contains("base_model.model.score.weight"));
    // What is read back, over the base as it was, is what was trained.
    let again =
        SequenceClassifier::load(saved.path(), &infalign_backend::device(None).unwrap()).unwrap();
    let texts = texts(&tokenizer);
    assert_eq!(model.scores(&texts).unwrap(), again.scores(&texts).unwrap());
}

/// Texts of prompt and response, of many lengths.
fn pairs() -> Vec<(String, String)> {
    (0..12).map(|i| (text(i), format!(" {}", text(100 + i)))).collect()
}

fn scores(model: &RewardModel, pairs: &[(String, String)]) -> Vec<f32> {
    let pairs: Vec<_> = pairs.iter().map(|(x, y)| (x.as_str(), y.as_str())).collect();
    model.score(&pairs).unwrap()
}

fn assert_close(a: &[f32], b: &[f32]) {
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(a.len() == b.len() && worst < 1e-5, "off by {worst}");
}

/// The tokenizer's file as libraries leave it that pad and cut to a length while they train.
fn set_padding(dir: &Path, direction: &str) {
    let path = dir.join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["padding"] = json!({
        "strategy": {"Fixed": 14}, "direction": direction, "pad_to_multiple_of": null,
        "pad_id": 2, "pad_type_id": 0, "pad_token": "</s>",
    });
    json["truncation"] = json!({
        "direction": direction, "max_length": 3, "strategy": "LongestFirst", "stride": 0,
    });
    std::fs::write(path, json.to_string()).unwrap();
}

#[test]
fn a_score_depends_on_the_text_alone() {
    let (dir, saved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let device = infalign_backend::device(None).unwrap();
    let (base, tokenizer) = base_in(dir.path());
    let pairs = pairs();
    for lora in [None, Some(lora())] {
        let config = RewardModelConfig { steps: 20, lora, ..config() };
        let training = rated(&tokenizer, 0..100);
        let model = train((base.clone(), tokenizer.clone()), &training, &config).unwrap();
        model.save(saved.path()).unwrap();
        tokenizer.save(saved.path()).unwrap();
        let load = || RewardModel::load(saved.path(), Reads::PromptAndResponse, &device).unwrap();
        let together = scores(&load(), &pairs);
        assert!(together.windows(2).all(|w| w[0] != w[1]), "the texts differ: {together:?}");
        // Alone, in another order, and beside neighbours that are longer.
        let alone: Vec<f32> =
            pairs.iter().flat_map(|pair| scores(&load(), std::slice::from_ref(pair))).collect();
        assert_close(&alone, &together);
        let reversed: Vec<_> = pairs.iter().rev().cloned().collect();
        let mut backwards = scores(&load(), &reversed);
        backwards.reverse();
        assert_close(&backwards, &together);
        let long = ("a b c d a b c".to_owned(), " d a b c d a b".to_owned());
        let beside = scores(&load(), &[pairs.as_slice(), &[long]].concat());
        assert_close(&beside[..pairs.len()], &together);
        // On whichever side its tokenizer says to pad, and wherever to cut.
        for direction in ["Left", "Right"] {
            set_padding(saved.path(), direction);
            assert_eq!(scores(&load(), &pairs), together);
        }
    }
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let (_, tokenizer) = base();
    let refused = |training: &Examples, config: RewardModelConfig| {
        train(base(), training, &config).unwrap_err().to_string()
    };
    let message = refused(&Examples::Rated(Vec::new()), config());
    assert!(message.contains("examples"), "{message}");
    let (ratings, pairs) = (rated(&tokenizer, 0..10), paired(&tokenizer, 0..10));
    let margin = |margin| RewardModelConfig { margin, ..config() };
    let message = refused(&ratings, margin(1.0));
    assert!(message.contains("margin is 1") && message.contains("for pairs"), "{message}");
    let message = refused(&pairs, margin(-1.0));
    assert!(message.contains("margin is -1.0, but it must be finite and at least 0"), "{message}");
    let message = refused(&pairs, RewardModelConfig { centring: f64::NAN, ..config() });
    assert!(message.contains("centring is NaN"), "{message}");
    let message = refused(&pairs, RewardModelConfig { centring: 1e-50, ..config() });
    assert!(message.contains("centring is 1e-50"), "{message}");
    let message = refused(&pairs, RewardModelConfig { steps: 0, ..config() });
    assert!(message.contains("steps is 0"), "{message}");
}

#[test]
fn a_resumed_training_gives_the_same_reward_model() {
    let folder = tempfile::tempdir().unwrap();
    let (base, tokenizer) = base_in(folder.path());
    let training = paired(&tokenizer, 0..200);
    for lora in [None, Some(lora())] {
        let config = RewardModelConfig { steps: 7, checkpoint_every: 3, lora, ..config() };
        let [whole, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let train = |dir: &Path, stop_after: usize| {
            let stop = AtomicBool::new(false);
            let mut observe =
                |step: &FitMetrics| stop.store(step.step == stop_after, Ordering::Relaxed);
            let model = SequenceClassifier::on(base.clone(), tokenizer.pad());
            let data = RewardModelData { training: &training, validation: None };
            train_reward_model(model, data, &config, 1, dir, &mut observe, &stop)
                .map(|(model, _)| model)
        };
        let expected = train(whole.path(), 0).unwrap();
        let stop = train(stopped.path(), 4);
        let Err(TrainError::Interrupted { step: 4, dir }) = stop else { panic!("{stop:?}") };
        assert!(dir.starts_with(stopped.path()) && dir.is_dir());
        let resumed = train(stopped.path(), 0).unwrap();
        let texts = texts(&tokenizer);
        assert_eq!(resumed.scores(&texts).unwrap(), expected.scores(&texts).unwrap());
        assert_eq!(fitted_steps(stopped.path()).unwrap(), 7);
    }
}

#[test]
fn validation_pairs_choose_the_checkpoint_also_of_a_resumed_training() {
    let folder = tempfile::tempdir().unwrap();
    let (base, tokenizer) = base_in(folder.path());
    let Examples::Paired(pairs) = paired(&tokenizer, 0..200) else { panic!("these are ratings") };
    // What is learned first is right, what is learned on then is the wrong way round.
    let wrong =
        pairs.iter().cloned().map(|pair| Pair { better: pair.worse, worse: pair.better, ..pair });
    let training = Examples::Paired(wrong.collect());
    let validation = paired(&tokenizer, 200..300);
    for lora in [None, Some(lora())] {
        let config = RewardModelConfig { steps: 11, checkpoint_every: 3, lora, ..config() };
        let [whole, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let mut seen = Vec::new();
        let mut train = |dir: &Path, stop_after: usize| {
            let stop = AtomicBool::new(false);
            let mut observe = |step: &FitMetrics| {
                stop.store(step.step == stop_after, Ordering::Relaxed);
                seen.extend(step.validation_loss.map(|loss| (step.step, loss)));
            };
            let data = RewardModelData { training: &training, validation: Some(&validation) };
            let model = SequenceClassifier::on(base.clone(), tokenizer.pad());
            train_reward_model(model, data, &config, 1, dir, &mut observe, &stop)
        };
        let (model, best) = train(whole.path(), 0).unwrap();
        let interrupted = train(stopped.path(), 7);
        assert!(matches!(interrupted, Err(TrainError::Interrupted { step: 7, .. })));
        let (resumed, again) = train(stopped.path(), 0).unwrap();
        // Without the best checkpoint, which may be gone, another would be taken for it.
        let cut = tempfile::tempdir().unwrap();
        assert!(train(cut.path(), 7).is_err());
        std::fs::remove_dir_all(cut.path().join("best")).unwrap();
        let message = train(cut.path(), 0).err().unwrap().to_string();
        assert!(message.contains("best"), "{message}");
        let steps = seen.iter().map(|(step, _)| *step);
        assert_eq!(steps.collect::<Vec<_>>(), [3, 6, 9, 11, 3, 6, 9, 11, 3, 6]);
        assert!(seen[..3].iter().is_sorted_by(|a, b| a.1 < b.1), "it only gets worse: {seen:?}");
        let (step, validation_loss) = seen[0];
        assert_eq!(best, Some(BestCheckpoint { step, validation_loss }));
        assert_eq!(again, best);
        let texts = texts(&tokenizer);
        assert_eq!(resumed.scores(&texts).unwrap(), model.scores(&texts).unwrap());
        // The model is the one that had this loss.
        let report = RewardModelReport::measure(&model, &validation).unwrap();
        let found = report.log_loss.unwrap();
        assert!((found - validation_loss).abs() < 1e-5, "{found} and {validation_loss}");
    }
}

#[test]
fn a_validation_without_examples_is_refused() {
    let (base, tokenizer) = base();
    let training = paired(&tokenizer, 0..10);
    let data =
        RewardModelData { training: &training, validation: Some(&Examples::Paired(Vec::new())) };
    let (dir, stop) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let model = SequenceClassifier::on(base, tokenizer.pad());
    let refused = train_reward_model(model, data, &config(), 1, dir.path(), &mut |_| (), &stop);
    let message = refused.err().unwrap().to_string();
    assert!(message.contains("no example chooses among the checkpoints"), "{message}");
}
