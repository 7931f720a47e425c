//! CTRL for controlled decoding: a policy that is trained on the transform for blockwise decoding and decoded by it, against one that is trained
//! on the calibrated reward itself and decoded in the same way.
//!
//! Nothing is known of the decoder but what it returns: ranks of responses of the reference that it has decoded, from which the transform is
//! estimated. Both policies are trained to the same KL, and every response of both is enumerated under the decoder.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking")]

mod enumerable;

use std::sync::atomic::AtomicBool;

use enumerable::{LENGTH, Ordered, Problem, kl, probabilities, problem};
use infalign_decode::exact::{ExactDecoder, ResponseDistribution, Values, rank_estimate};
use infalign_decode::guided::{GuidedGenerator, TabularScorer};
use infalign_decode::{Generator, ProcedureDecoder, Sampling};
use infalign_model::TabularProblem;
use infalign_reward::TabularReward;
use infalign_train::{Calibrator, CtrlConfig, CtrlTrainer, Keep, Objective, OptimizerConfig};
use infalign_transform::{Beta, Composed, Transform};
use serde_json::{Map, Value, json};

/// What the policies are trained for and decoded by, guided by the values of the reference.
const PROCEDURE: &str = "cd-block:length=2,samples=4";
/// KL coefficient of the optimal transform, in win rate per nat.
const BETA: f64 = 0.2;
const RANKS: usize = 20_000;
const BINS: usize = 40;

/// The responses of the transformer as a table of next tokens, a letter a token; what is cut at [`LENGTH`] ends there.
fn tabular(problem: &Problem, probabilities: &[f64]) -> TabularProblem {
    let stops = problem.tokenizer.stops();
    let vocabulary = problem.model.config().vocab_size as u32;
    let letters: Vec<u32> = (0..vocabulary).filter(|token| !stops.contains(token)).collect();
    let letter = |token: &u32| {
        let place = letters.iter().position(|letter| letter == token)?;
        Some(char::from(b'a' + place as u8))
    };
    let texts: Vec<String> =
        problem.responses.iter().map(|tokens| tokens.iter().filter_map(letter).collect()).collect();
    let (mut rows, mut rewards) = (Map::new(), Map::new());
    let mass = |begins: &dyn Fn(&str) -> bool| -> f64 {
        let all = texts.iter().zip(probabilities);
        all.filter(|(text, _)| begins(text)).map(|(_, p)| p).sum()
    };
    for (text, reward) in texts.iter().zip(&problem.rewards) {
        rewards.insert(format!("{text}$"), json!(f64::from(*reward)));
        if text.len() == LENGTH {
            continue;
        }
        let whole = mass(&|other| other.starts_with(text.as_str()));
        let next = letters.iter().filter_map(letter);
        let mut row: Vec<f64> = next
            .map(|next| mass(&|other| other.starts_with(&format!("{text}{next}"))) / whole)
            .collect();
        row.push(mass(&|other| other == text) / whole);
        rows.insert(text.clone(), json!(row));
    }
    let table: Value = json!({ "D": LENGTH + 1, "p": rows, "r": rewards });
    TabularProblem::parse(&table.to_string(), "policy.json".as_ref()).unwrap()
}

/// The decoder on a policy, every response of it, guided by the values of the reference.
fn decoded(policy: &TabularProblem, values: &Values) -> ResponseDistribution {
    let Composed { selection, inner } = PROCEDURE.parse().unwrap();
    let exact = ExactDecoder::with_values(policy, values.clone()).unwrap().decode(inner).unwrap();
    exact.select(&selection, policy.rewards()).unwrap()
}

/// How often a decoded policy wins over the decoded reference, ties counted half.
fn win_rate(policy: &TabularProblem, reference: &TabularProblem, values: &Values) -> f64 {
    let [ours, theirs] = [policy, reference].map(|one| decoded(one, values));
    let all = |one: &ResponseDistribution| -> Vec<(f64, f64)> {
        let rewards = reference.rewards().iter().copied();
        one.probabilities().iter().copied().zip(rewards).filter(|(p, _)| *p > 0.0).collect()
    };
    let theirs = all(&theirs);
    let against = |reward: f64| -> f64 {
        let wins = |other: f64| {
            if reward > other { 1.0 } else { 0.5 * f64::from(u8::from(reward == other)) }
        };
        theirs.iter().map(|(p, other)| p * wins(*other)).sum()
    };
    all(&ours).iter().map(|(p, reward)| p * against(*reward)).sum()
}

/// The optimal transform for the decoder, from ranks of what it returns, and the KL of its optimum.
fn estimated(base: &TabularProblem, values: &Values) -> (Transform, f64) {
    let tokenizer = base.model().tokenizer().unwrap();
    let reward = TabularReward::new(base);
    let scorer = TabularScorer::new(values.clone());
    let sampling = Sampling { max_tokens: LENGTH + 1, ..Sampling::default() };
    let generator = Generator::new(base.model(), tokenizer.stops(), &sampling, 2, "ranks", 512);
    let Composed { selection, inner } = PROCEDURE.parse().unwrap();
    let guided = GuidedGenerator { generator, scorer: &scorer, procedure: inner, cancelled: None };
    let decoder = ProcedureDecoder::guided(selection, guided, &tokenizer, Some(&reward)).unwrap();
    let estimate = rank_estimate(&decoder, base, BINS, RANKS, 7).unwrap();
    let found = estimate.optimum(Beta::new(BETA).unwrap()).unwrap();
    (found.transform().unwrap(), found.optimum.kl)
}

/// The probability of every response under a policy that CTRL has trained to a KL.
fn train(problem: &Problem, objective: Transform, target: f64) -> Vec<f64> {
    let config = CtrlConfig {
        steps: 150,
        prompts_per_step: 1,
        samples_per_prompt: 128,
        target_kl: Some(target),
        beta: None,
        checkpoint_every: 1000,
        keep: Keep::Last,
        solver: serde_json::from_str(r#"{"kind": "rloo"}"#).unwrap(),
        optimizer: OptimizerConfig {
            warmup_steps: 10,
            max_grad_norm: 5.0,
            ..OptimizerConfig::new(1e-2)
        },
        lora: None,
    };
    let dir = tempfile::tempdir().unwrap();
    let trainer = CtrlTrainer {
        config: &config,
        objective: &Objective::Calibrated(objective),
        prompts: std::slice::from_ref(&problem.prompt),
        reference: &problem.model,
        tokenizer: &problem.tokenizer,
        reward: &Ordered,
        calibrator: Calibrator::Table(&problem.calibration),
        rollouts: None,
        sampling: Sampling { max_tokens: LENGTH, ..Sampling::default() },
        batch: 256,
        seed: 1,
        checkpoints: dir.path().to_path_buf(),
    };
    let policy = trainer.run(&mut |_, _| Ok(()), &AtomicBool::new(false)).unwrap();
    probabilities(&policy, &problem.prompt, &problem.responses)
}

#[test]
fn a_policy_trained_for_blockwise_decoding_beats_the_identity_under_it() {
    let problem = problem();
    let base = tabular(&problem, &problem.reference);
    let values = Values::of(&base);
    let (transform, target) = estimated(&base, &values);
    let [(ours, cost), (identity, same)] = [transform, Transform::Identity].map(|objective| {
        let policy = train(&problem, objective, target);
        let won = win_rate(&tabular(&problem, &policy), &base, &values);
        (won, kl(&policy, &problem.reference))
    });
    println!("{PROCEDURE}: {ours:.4} at {cost:.4} nats, the identity {identity:.4} at {same:.4}");
    assert!((cost / target - 1.0).abs() < 0.15 && (same / target - 1.0).abs() < 0.15);
    assert!(ours > identity + 0.08, "{ours} against {identity}");
}
