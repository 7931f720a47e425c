//! Prefix scorers reach the values of the base, on a table and on a transformer whose every response is known.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod enumerable;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use infalign_decode::Stream;
use infalign_decode::exact::Values;
use infalign_decode::guided::{LearnedScorer, PrefixScorer};
use infalign_model::{
    CausalLm, LanguageModel, ScoredReward, ScorerModel, ScorerSpec, Sequence, TabularProblem,
    TransformerConfig,
};
use infalign_train::{
    BestCheckpoint, FitMetrics, OptimizerConfig, ScoredResponse, ScorerConfig, ScorerData,
    ScorerMethod, ScorerReport, TrainError, train_prefix_scorer,
};

const TABLE: &str = r#"{"D": 3,
    "p": {"": [0.45, 0.35, 0.2], "a": [0.3, 0.5, 0.2], "b": [0.4, 0.25, 0.35],
          "aa": [0, 0, 1], "ab": [0, 0, 1], "ba": [0, 0, 1], "bb": [0, 0, 1]},
    "r": {"$": 0, "a$": 1, "b$": -1, "aa$": 0.5, "ab$": -0.5, "ba$": 1, "bb$": 2}}"#;

/// How near values have to come, as a share of the range of rewards.
const NEAR: f64 = 0.02;

fn config(method: ScorerMethod, steps: usize) -> ScorerConfig {
    ScorerConfig {
        method,
        soft: None,
        children: None,
        target_rate: None,
        width: 32,
        steps,
        examples_per_step: 40,
        checkpoint_every: 1_000,
        optimizer: OptimizerConfig {
            warmup_steps: 10,
            final_share: 0.01,
            ..OptimizerConfig::new(1e-2)
        },
    }
}

fn normals(seed: u64) -> impl FnMut() -> f32 {
    Stream::new(seed, "weights", "", 0).normals(1)
}

fn scored(name: &str, rewards: &[f32]) -> ScoredReward {
    let numbers: Vec<f64> = rewards.iter().map(|r| f64::from(*r)).collect();
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    let variance = numbers.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / numbers.len() as f64;
    ScoredReward {
        name: name.into(),
        mean,
        scale: variance.sqrt(),
        least: numbers.iter().copied().fold(f64::INFINITY, f64::min),
        greatest: numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

/// A scorer of its own trunk or of the base's states.
fn scorer(
    heads: Vec<ScoredReward>,
    trunk: Option<CausalLm>,
    vocabulary: usize,
    hidden: usize,
) -> ScorerModel {
    let spec = ScorerSpec {
        heads,
        vocabulary,
        hidden,
        width: if trunk.is_some() { 32 } else { 128 },
        own_trunk: trunk.is_some(),
        soft: None,
        base: "base".into(),
        base_sha256: String::new(),
    };
    let device = infalign_backend::device(None).unwrap();
    ScorerModel::new(spec, trunk, &mut normals(3), &device).unwrap()
}

fn train(
    model: ScorerModel,
    data: &ScorerData<'_>,
    config: &ScorerConfig,
    checkpoints: &Path,
) -> ScorerModel {
    let quiet = &mut |_: &FitMetrics| {};
    train_prefix_scorer(model, data, config, 1, checkpoints, quiet, &AtomicBool::new(false))
        .unwrap()
        .0
}

/// The value of every prefix with a token, for one head; `known` says which, by the response tokens before it.
fn values(
    model: &ScorerModel,
    base: &dyn LanguageModel,
    prompt: &[u32],
    known: impl Iterator<Item = Vec<u32>>,
    head: usize,
) -> Vec<f64> {
    let weights: Vec<f64> =
        (0..model.spec().heads.len()).map(|other| f64::from(u8::from(other == head))).collect();
    let (values, trunk) = model.clone().for_inference();
    let scorer = LearnedScorer::new(&values, trunk.as_deref(), &weights).unwrap();
    let of = |prefix: Vec<u32>| {
        let (last, before) = prefix.split_last().unwrap();
        let mut states = base.start(&[prompt], prefix.len()).unwrap();
        let mut session = scorer.session(prefix.len());
        session.join(&[(prompt, 1)]).unwrap();
        for token in before {
            session.push(&[*token]).unwrap();
            states.push(&[*token]).unwrap();
        }
        session.values(&states.states(), &[&[*last]]).unwrap()[0]
    };
    known.map(of).collect()
}

/// The table, a small transformer for its tokens, and every response as often as it is probable, or once.
struct Table {
    problem: TabularProblem,
    on_policy: Vec<ScoredResponse>,
    once: Vec<ScoredResponse>,
}

fn table() -> Table {
    let problem = TabularProblem::parse(TABLE, "t.json".as_ref()).unwrap();
    let tree = problem.model().tree();
    let responses = problem.model().responses().map(|(tokens, p)| {
        let number = tree.number(&tokens[..tokens.len() - 1]).unwrap();
        let rewards = vec![problem.rewards()[number] as f32];
        let tokens = [&[tree.eos()], tokens.as_slice()].concat();
        (ScoredResponse { sequence: Sequence { tokens, prompt_length: 1 }, rewards }, p)
    });
    let (once, p): (Vec<ScoredResponse>, Vec<f64>) = responses.unzip();
    let copies = once.iter().zip(&p);
    let on_policy = copies
        .flat_map(|(one, p)| std::iter::repeat_n(one.clone(), (p * 400.0).round() as usize))
        .collect();
    Table { problem, on_policy, once }
}

impl Table {
    fn scorer(&self) -> ScorerModel {
        let config = TransformerConfig::llama(3, 24, 48, 1, 2, 8);
        let device = infalign_backend::device(None).unwrap();
        let trunk = CausalLm::random(config, &mut normals(5), &device).unwrap();
        let rewards: Vec<f32> = self.on_policy.iter().map(|one| one.rewards[0]).collect();
        scorer(vec![scored("r", &rewards)], Some(trunk), 3, 24)
    }

    /// Greatest distance from the given values, over the prefixes that can be reached, as a share of the range of rewards.
    fn distance(&self, model: &ScorerModel, expected: &Values) -> f64 {
        let tree = self.problem.model().tree();
        let mut known = Vec::new();
        for (prefix, reach) in self.problem.model().reach().into_iter().enumerate() {
            let row = self.problem.model().next_probabilities(prefix).unwrap_or_default();
            for (token, p) in row.iter().enumerate().filter(|(_, p)| reach * **p > 0.0) {
                assert!(*p > 0.0);
                let value = expected.after(prefix, token as u32).unwrap();
                known.push(([tree.tokens(prefix), vec![token as u32]].concat(), value));
            }
        }
        let prefixes = known.iter().map(|(prefix, _)| prefix.clone());
        let found = values(model, self.problem.model(), &[tree.eos()], prefixes, 0);
        let gaps = found.iter().zip(&known).map(|(found, (_, value))| (found - value).abs());
        gaps.fold(0.0, f64::max) / 3.0
    }
}

#[test]
fn both_methods_reach_the_values_of_a_table() {
    let table = table();
    let dir = tempfile::tempdir().unwrap();
    let star = Values::of(&table.problem);
    let soft = Values::soft(&table.problem, 1.0).unwrap();
    let fudge = config(ScorerMethod::CdFudge, 400);
    let q = config(ScorerMethod::CdQ, 400);
    let cases = [
        ("fudge", &table.on_policy, fudge.clone(), &star),
        ("soft fudge", &table.on_policy, ScorerConfig { soft: Some(1.0), ..fudge }, &soft),
        // Whatever the responses come from: here from anything but the base.
        ("q", &table.once, q.clone(), &star),
        (
            "q with a target",
            &table.once,
            ScorerConfig { target_rate: Some(0.1), ..q.clone() },
            &star,
        ),
        (
            "q with all children named",
            &table.once,
            ScorerConfig { children: Some(3), ..q.clone() },
            &star,
        ),
        ("soft q", &table.once, ScorerConfig { soft: Some(1.0), ..q }, &soft),
    ];
    for (name, responses, config, expected) in cases {
        let data = ScorerData { base: table.problem.model(), responses, validation: &[] };
        let model = train(table.scorer(), &data, &config, &dir.path().join(name));
        let distance = table.distance(&model, expected);
        assert!(distance < NEAR, "{name}: {distance}");
    }
}

#[test]
fn with_one_child_a_value_is_that_of_the_most_probable_way_on() {
    let (table, dir) = (table(), tempfile::tempdir().unwrap());
    let data = ScorerData { base: table.problem.model(), responses: &table.once, validation: &[] };
    let config = ScorerConfig { children: Some(1), ..config(ScorerMethod::CdQ, 400) };
    let model = train(table.scorer(), &data, &config, dir.path());
    let prompt = [table.problem.model().tree().eos()];
    let prefixes = [vec![0], vec![1]].into_iter();
    let found = values(&model, table.problem.model(), &prompt, prefixes, 0);
    // "a" goes on as "ab" and "b" as "ba"; of all children they would have 0.1 and 0.55.
    for (found, expected) in found.into_iter().zip([-0.5, 1.0]) {
        assert!((found - expected).abs() < 3.0 * NEAR, "{found}, expected {expected}");
    }
}

/// V* of every prefix with a token that has some probability, by what is listed.
fn listed(problem: &enumerable::Problem, rewards: &[f32], least: f64) -> BTreeMap<Vec<u32>, f64> {
    let mut sums: BTreeMap<Vec<u32>, (f64, f64)> = BTreeMap::new();
    for ((response, p), reward) in problem.responses.iter().zip(&problem.reference).zip(rewards) {
        for length in 1..=response.len() {
            let sum = sums.entry(response[..length].to_vec()).or_default();
            *sum = (sum.0 + p, sum.1 + p * f64::from(*reward));
        }
    }
    let likely = sums.into_iter().filter(|(_, (p, _))| *p > least);
    likely.map(|(prefix, (p, sum))| (prefix, sum / p)).collect()
}

#[test]
fn two_rewards_are_learned_on_the_frozen_states_of_the_base() {
    let problem = enumerable::problem();
    let lengths: Vec<f32> = problem.responses.iter().map(|y| y.len() as f32).collect();
    let rewards = [&problem.rewards, &lengths];
    let responses: Vec<ScoredResponse> = problem
        .responses
        .iter()
        .enumerate()
        .map(|(i, y)| ScoredResponse {
            sequence: problem.prompt.followed_by(y),
            rewards: rewards.iter().map(|rewards| rewards[i]).collect(),
        })
        .collect();
    let copies = responses.iter().zip(&problem.reference);
    let on_policy: Vec<ScoredResponse> = copies
        .flat_map(|(one, p)| std::iter::repeat_n(one.clone(), (p * 10_000.0).round() as usize))
        .collect();
    let heads = ["order", "length"].into_iter().zip(rewards);
    let heads: Vec<ScoredReward> = heads.map(|(name, rewards)| scored(name, rewards)).collect();
    let vocabulary = problem.model.config().vocab_size;
    let dir = tempfile::tempdir().unwrap();
    let base = problem.model.clone().for_inference();
    for (name, method, responses) in
        [("fudge", ScorerMethod::CdFudge, &on_policy), ("q", ScorerMethod::CdQ, &responses)]
    {
        let data = ScorerData { base: base.as_ref(), responses, validation: &[] };
        let config = ScorerConfig { examples_per_step: 200, ..config(method, 500) };
        let new = scorer(heads.clone(), None, vocabulary, 24);
        let model = train(new, &data, &config, &dir.path().join(name));
        for (head, rewards) in rewards.iter().enumerate() {
            let expected = listed(&problem, rewards, 0.02);
            let prompt = &problem.prompt.tokens;
            let found = values(&model, base.as_ref(), prompt, expected.keys().cloned(), head);
            let range = heads[head].greatest - heads[head].least;
            let gaps = found.iter().zip(expected.values()).map(|(a, b)| (a - b).abs() / range);
            let worst = gaps.fold(0.0, f64::max);
            assert!(worst < NEAR, "{name}, {}: {worst}", heads[head].name);
        }
        let report = ScorerReport::measure(&model, data.base, responses, responses.len()).unwrap();
        assert_eq!(report.len(), 2);
        assert!(report[0].all.error < report[0].all.deviation, "{report:?}");
        assert!(report[0].all.accuracy.unwrap() > 0.6, "{report:?}");
        let last = report[1].by_length.last().unwrap();
        assert!(last.error < 0.1 && last.bias.abs() < 0.05, "all is known at the end: {last:?}");
        // What is written and read again is the same scorer.
        let folder = dir.path().join(format!("{name}-saved"));
        std::fs::create_dir(&folder).unwrap();
        model.save(&folder).unwrap();
        let device = infalign_backend::device(None).unwrap();
        let read = ScorerModel::load(&folder, &device).unwrap();
        assert_eq!(
            ScorerReport::measure(&read, data.base, responses, responses.len()).unwrap(),
            report
        );
    }
}

#[test]
fn a_training_that_is_taken_up_again_ends_with_the_same_bits() {
    let table = table();
    let dir = tempfile::tempdir().unwrap();
    let data = ScorerData { base: table.problem.model(), responses: &table.once, validation: &[] };
    let config = ScorerConfig {
        target_rate: Some(0.2),
        checkpoint_every: 4,
        ..config(ScorerMethod::CdQ, 12)
    };
    let weights = |model: &ScorerModel, name: &str| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        model.save(&folder).unwrap();
        let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
        [read("head.safetensors"), read("trunk/model.safetensors"), read("scorer.json")]
    };
    let whole = train(table.scorer(), &data, &config, &dir.path().join("whole"));
    let parts = dir.path().join("parts");
    let stop = AtomicBool::new(false);
    let mut observe = |step: &FitMetrics| stop.store(step.step == 6, Ordering::Relaxed);
    let stopped =
        train_prefix_scorer(table.scorer(), &data, &config, 1, &parts, &mut observe, &stop);
    assert!(matches!(stopped, Err(TrainError::Interrupted { step: 6, .. })));
    let resumed = train(table.scorer(), &data, &config, &parts);
    assert!(weights(&whole, "a") == weights(&resumed, "b"));
}

#[test]
fn validation_responses_choose_the_checkpoint_by_what_came_of_them() {
    let table = table();
    let dir = tempfile::tempdir().unwrap();
    // Rewards that say the opposite of those that are learned from.
    let turned = table
        .on_policy
        .iter()
        .map(|one| ScoredResponse { rewards: vec![-one.rewards[0]], ..one.clone() });
    let turned: Vec<ScoredResponse> = turned.collect();
    for method in [ScorerMethod::CdFudge, ScorerMethod::CdQ] {
        let config = ScorerConfig { checkpoint_every: 20, ..config(method, 60) };
        let data =
            ScorerData { base: table.problem.model(), responses: &table.once, validation: &turned };
        let mut losses = Vec::new();
        let mut observe = |step: &FitMetrics| {
            let of = |validation_loss| BestCheckpoint { step: step.step, validation_loss };
            losses.extend(step.validation_loss.map(of));
        };
        let folder = dir.path().join(format!("{method:?}"));
        let stop = AtomicBool::new(false);
        let (model, best) =
            train_prefix_scorer(table.scorer(), &data, &config, 1, &folder, &mut observe, &stop)
                .unwrap();
        assert_eq!(losses.iter().map(|one| one.step).collect::<Vec<_>>(), [20, 40, 60]);
        let least = losses.iter().min_by(|a, b| a.validation_loss.total_cmp(&b.validation_loss));
        assert_eq!(best.as_ref(), least);
        let loss = best.unwrap().validation_loss;
        assert!(
            loss < losses[2].validation_loss,
            "{method:?}: the last is not the best: {losses:?}"
        );
        let report = ScorerReport::measure(&model, data.base, &turned, 1).unwrap();
        let expected = 0.5 * (report[0].all.error / model.spec().heads[0].scale).powi(2);
        // Decoding has no values beyond the rewards that are known, so that some errors are smaller; sums round in single precision.
        let ratio = loss / expected;
        assert!((1.0 - 1e-5..1.01).contains(&ratio), "{method:?}: {loss} and {expected}");
    }
}

#[test]
fn settings_and_data_that_make_no_sense_are_refused() {
    let table = table();
    let dir = tempfile::tempdir().unwrap();
    let refused = |config: &ScorerConfig, responses: &[ScoredResponse]| {
        let data = ScorerData { base: table.problem.model(), responses, validation: &[] };
        let quiet = &mut |_: &FitMetrics| {};
        let model = table.scorer();
        let stop = AtomicBool::new(false);
        train_prefix_scorer(model, &data, config, 1, dir.path(), quiet, &stop)
            .err()
            .unwrap()
            .to_string()
    };
    let (fudge, q) = (config(ScorerMethod::CdFudge, 1), config(ScorerMethod::CdQ, 1));
    for (config, told) in [
        (ScorerConfig { children: Some(2), ..fudge.clone() }, "children is 2"),
        (ScorerConfig { target_rate: Some(0.5), ..fudge.clone() }, "target_rate is 0.5"),
        (ScorerConfig { target_rate: Some(0.0), ..q.clone() }, "target_rate is 0"),
        (ScorerConfig { target_rate: Some(1e-50), ..q.clone() }, "target_rate is 1e-50"),
        (ScorerConfig { soft: Some(0.0), ..q.clone() }, "soft is 0"),
        (ScorerConfig { soft: Some(-1.0), ..q.clone() }, "soft is -1"),
        (ScorerConfig { soft: Some(1e-300), ..q.clone() }, "soft is 1e-300"),
        (ScorerConfig { width: 0, ..q.clone() }, "width is 0"),
        (ScorerConfig { children: Some(0), ..q.clone() }, "children is 0"),
    ] {
        let message = refused(&config, &table.once);
        assert!(message.contains(told), "{message}");
    }
    assert!(refused(&q, &[]).contains("needs responses"));
    let empty = Sequence {
        prompt_length: table.once[0].sequence.tokens.len(),
        ..table.once[0].sequence.clone()
    };
    assert!(
        refused(&q, &[ScoredResponse { sequence: empty, ..table.once[0].clone() }])
            .contains("is empty")
    );
    let wrong = |rewards: Vec<f32>| vec![ScoredResponse { rewards, ..table.once[0].clone() }];
    assert!(refused(&q, &wrong(vec![])).contains("finite numbers"));
    assert!(refused(&q, &wrong(vec![f32::NAN])).contains("finite numbers"));
    // A table has no states that a scorer could read.
    let rewards: Vec<f32> = table.once.iter().map(|one| one.rewards[0]).collect();
    let stateless = scorer(vec![scored("r", &rewards)], None, 3, 24);
    let data = ScorerData { base: table.problem.model(), responses: &table.once, validation: &[] };
    let quiet = &mut |_: &FitMetrics| {};
    let stop = AtomicBool::new(false);
    let result = train_prefix_scorer(stateless, &data, &q, 1, dir.path(), quiet, &stop);
    assert!(result.err().unwrap().to_string().contains("trunk of its own"));
}
