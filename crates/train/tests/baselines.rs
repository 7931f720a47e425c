//! The baselines against their closed-form optima, on a transformer whose every response can be enumerated; and resumed bit for bit.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod enumerable;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use enumerable::{LENGTH, Ordered, Problem, kl, probabilities, problem};
use infalign_calibrate::CalibrationMeta;
use infalign_calibrate::rollouts::{ReferenceResponse, Rollouts};
use infalign_decode::{EncodedPrompt, Sampling, Stream};
use infalign_model::CausalLm;
use infalign_reward::{Reward, RewardError};
use infalign_train::baselines::{
    BondConfig, BondTrainer, Labels, OfflineConfig, OfflineTrainer, PairLoss, ResponsePair, Stored,
    best_of_n, best_worst_pairs, pairs, target_gap,
};
use infalign_train::{FitMetrics, OptimizerConfig, TrainError};
use infalign_transform::Beta;
use infalign_transform::discrete::Outcomes;

/// Stored responses: each of the enumerated ones in proportion to its probability.
const STORED: usize = 160_000;
/// By what rewards are divided, so that e^r is of order one.
const UNIT: f32 = 40.0;
const N: usize = 4;

fn optimizer(learning_rate: f64) -> OptimizerConfig {
    OptimizerConfig { warmup_steps: 10, max_grad_norm: 5.0, ..OptimizerConfig::new(learning_rate) }
}

fn config() -> OfflineConfig {
    OfflineConfig {
        steps: 300,
        examples_per_step: 256,
        checkpoint_every: 1000,
        optimizer: optimizer(5e-3),
        lora: None,
    }
}

impl Problem {
    /// The reward of each response as this file has it.
    fn scaled(&self) -> Vec<f64> {
        self.rewards.iter().map(|reward| f64::from(reward / UNIT)).collect()
    }

    fn outcomes(&self) -> Outcomes {
        let total: f64 = self.reference.iter().sum();
        let probabilities = self.reference.iter().map(|p| p / total).collect();
        Outcomes::new(probabilities, self.scaled()).unwrap()
    }

    /// Responses in proportion to their probabilities, in random order.
    fn rollouts(&self) -> Rollouts {
        let mut drawn: Vec<usize> = Vec::new();
        for (index, p) in self.reference.iter().enumerate() {
            drawn.extend(std::iter::repeat_n(index, (p * STORED as f64).round() as usize));
        }
        let order = Stream::new(3, "order", "", 0).permutation(drawn.len());
        let response = |place: usize| {
            let index = drawn[place];
            let tokens = self.responses[index].clone();
            let share = (self.reference[index].ln() / tokens.len() as f64) as f32;
            let log_probs = vec![share; tokens.len()];
            ReferenceResponse { tokens, log_probs, reward: self.rewards[index] / UNIT }
        };
        let responses: Vec<_> = order.into_iter().map(response).collect();
        let mut rollouts = Rollouts::new(CalibrationMeta::default(), responses.len());
        rollouts.insert("p", &self.prompt.text, responses).unwrap();
        rollouts
    }

    /// Probabilities of every response after training on stored ones.
    fn train(&self, stored: &Stored) -> Vec<f64> {
        let dir = tempfile::tempdir().unwrap();
        let trainer = OfflineTrainer {
            config: &config(),
            stored,
            reference: &self.model,
            seed: 1,
            checkpoints: dir.path().to_path_buf(),
        };
        let policy = trainer.run(&mut |_| Ok(()), &AtomicBool::new(false)).unwrap();
        probabilities(&policy, &self.prompt, &self.responses)
    }
}

/// π ∝ π_ref·exp(x), normalised.
fn tilted(reference: &[f64], exponents: impl Iterator<Item = f64>) -> Vec<f64> {
    let weights: Vec<f64> = reference.iter().zip(exponents).map(|(p, x)| p * x.exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// That a policy is as near to its optimum as `tolerance` nats, by the divergence that its method minimises: that of imitation is
/// KL(π*‖π), since responses that the optimum hardly ever gives are not among those imitated.
fn assert_reached(
    what: &str,
    problem: &Problem,
    policy: &[f64],
    optimum: &[f64],
    imitated: bool,
    tolerance: f64,
) {
    let distance = if imitated { kl(optimum, policy) } else { kl(policy, optimum) };
    let moved = kl(optimum, &problem.reference);
    println!("{what}: {distance:.5} nats from the optimum, which is {moved:.3} from the reference");
    assert!(moved > 0.05, "the problem is worth solving: {moved}");
    assert!(distance < tolerance, "{what}: {distance} nats from the optimum");
}

#[test]
fn dpo_on_labels_of_bradley_and_terry_reaches_the_tilt_by_the_reward() {
    let problem = problem();
    let pairs =
        pairs(&problem.rollouts(), std::slice::from_ref(&problem.prompt), Labels::BradleyTerry)
            .unwrap();
    let beta = 0.8;
    let policy = problem.train(&Stored::Compared(PairLoss::Dpo(beta), pairs));
    let optimum = tilted(&problem.reference, problem.scaled().into_iter().map(|r| r / beta));
    assert_reached("DPO", &problem, &policy, &optimum, false, 0.01);
}

#[test]
fn ipo_reaches_the_tilt_by_the_calibrated_reward() {
    let problem = problem();
    let pairs =
        pairs(&problem.rollouts(), std::slice::from_ref(&problem.prompt), Labels::Reward).unwrap();
    let tau = 0.25;
    let policy = problem.train(&Stored::Compared(PairLoss::Ipo(tau), pairs));
    let optimum = problem.outcomes().tilt(&"identity".parse().unwrap(), Beta::new(tau).unwrap());
    assert_reached("IPO", &problem, &policy, &optimum, false, 0.01);
}

#[test]
fn imitating_the_best_of_n_reaches_the_best_of_n_distribution() {
    let problem = problem();
    let best = best_of_n(&problem.rollouts(), std::slice::from_ref(&problem.prompt), N).unwrap();
    let policy = problem.train(&Stored::Imitated(best));
    let optimum = problem.outcomes().under(&format!("best-of:{N}").parse().unwrap()).unwrap();
    assert_reached("best-of-4 SFT", &problem, &policy, &optimum, true, 0.015);
}

/// The policy that minimises BoNBoN's loss on the pairs, found in f64 without a network: one logit a response, by gradient descent.
fn bonbon_optimum(problem: &Problem, ends: &[(usize, usize)], alpha: f64) -> Vec<f64> {
    let (ends_len, mut shares) = (ends.len() as f64, BTreeMap::new());
    ends.iter().for_each(|ends| *shares.entry(*ends).or_insert(0.0) += 1.0 / ends_len);
    let shares: Vec<((usize, usize), f64)> = shares.into_iter().collect();
    let mut log_ratios = vec![0.0; problem.reference.len()];
    let mut steepest = f64::INFINITY;
    for _ in 0..20_000 {
        let policy = tilted(&problem.reference, log_ratios.iter().copied());
        // d(−log π(best))/d log-ratio = π − 1{best}, and h is a difference of log-ratios.
        let mut slopes: Vec<f64> = policy.iter().map(|p| alpha * p).collect();
        for &((best, worst), share) in &shares {
            let error = log_ratios[best] - log_ratios[worst] - target_gap(N);
            slopes[best] += share * (2.0 * (1.0 - alpha) * error - alpha);
            slopes[worst] -= share * 2.0 * (1.0 - alpha) * error;
        }
        steepest = slopes.iter().map(|slope: &f64| slope.abs()).fold(0.0, f64::max);
        let steps = log_ratios.iter_mut().zip(slopes).zip(&problem.reference);
        steps.for_each(|((x, slope), p)| *x -= 0.2 * slope / p.max(1e-3));
    }
    assert!(steepest < 1e-6, "the minimum is found: {steepest}");
    tilted(&problem.reference, log_ratios.into_iter())
}

#[test]
fn bonbon_reaches_the_minimum_of_its_loss_and_comes_near_the_best_of_n() {
    let problem = problem();
    let pairs =
        best_worst_pairs(&problem.rollouts(), std::slice::from_ref(&problem.prompt), N).unwrap();
    let place =
        |response: &[u32]| problem.responses.iter().position(|known| known == response).unwrap();
    let ends: Vec<(usize, usize)> = pairs
        .iter()
        .map(|pair| (place(pair.responses[0].response()), place(pair.responses[1].response())))
        .collect();
    let best_of_n = problem.outcomes().under(&format!("best-of:{N}").parse().unwrap()).unwrap();
    let alpha = 0.9;
    let policy = problem.train(&Stored::Compared(PairLoss::BonBon { n: N, alpha }, pairs));
    let optimum = bonbon_optimum(&problem, &ends, alpha);
    assert_reached("BoNBoN, α 0.9", &problem, &policy, &optimum, false, 0.02);
    let near = kl(&policy, &best_of_n);
    println!("BoNBoN, α 0.9: KL to best-of-4 {near:.3}");
    assert!(near < 0.5 * kl(&best_of_n, &problem.reference), "{near}");
}

fn bond_config() -> BondConfig {
    BondConfig {
        steps: 400,
        prompts_per_step: 64,
        samples_per_prompt: 8,
        backward_share: 1.0,
        anchor_rate: 1e-9,
        regularisation: 0.0,
        checkpoint_every: 1000,
        optimizer: optimizer(5e-3),
        lora: None,
    }
}

/// Trains by J-BOND, and stops after `stop_after` steps.
fn bond(
    problem: &Problem,
    config: &BondConfig,
    checkpoints: &Path,
    stop_after: usize,
) -> Result<CausalLm, TrainError> {
    bond_by(&Ordered, problem, config, checkpoints, stop_after)
}

/// The same by a reward.
fn bond_by(
    reward: &dyn Reward,
    problem: &Problem,
    config: &BondConfig,
    checkpoints: &Path,
    stop_after: usize,
) -> Result<CausalLm, TrainError> {
    let stop = AtomicBool::new(false);
    // The same prompt many times, under names of their own, so that their draws differ.
    let named = |i: usize| EncodedPrompt { id: i.to_string(), ..problem.prompt.clone() };
    let prompts: Vec<EncodedPrompt> = (0..config.prompts_per_step).map(named).collect();
    let trainer = BondTrainer {
        config,
        prompts: &prompts,
        reference: &problem.model,
        tokenizer: &problem.tokenizer,
        reward,
        sampling: Sampling { max_tokens: LENGTH, ..Sampling::default() },
        batch: 256,
        seed: 1,
        checkpoints: checkpoints.to_path_buf(),
    };
    let mut observe = |step: &FitMetrics| {
        stop.store(step.step == stop_after, Ordering::Relaxed);
        Ok(())
    };
    trainer.run(&mut observe, &stop)
}

/// Probabilities after a whole run of J-BOND.
fn bonded(problem: &Problem, config: &BondConfig) -> Vec<f64> {
    let dir = tempfile::tempdir().unwrap();
    let policy = bond(problem, config, dir.path(), 0).unwrap();
    probabilities(&policy, &problem.prompt, &problem.responses)
}

#[test]
fn bond_with_an_anchor_at_rest_reaches_what_each_divergence_asks_for() {
    let problem = problem();
    let forward = BondConfig { backward_share: 0.0, ..bond_config() };
    let best_of_two = problem.outcomes().under(&"best-of:2".parse().unwrap()).unwrap();
    let policy = bonded(&problem, &forward);
    // Some 25,000 responses of the anchor, each seen once.
    assert_reached("J-BOND, forward", &problem, &policy, &best_of_two, true, 0.025);

    // E q(y) = −log 16·P(r(y′) > r(y))², so that the optimum is π_ref·exp(E q/(1 + γ)).
    let gamma = 0.5;
    let backward = BondConfig { steps: 200, regularisation: gamma, ..bond_config() };
    let above = |reward: f32| -> f64 {
        let pairs = problem.rewards.iter().zip(&problem.reference);
        pairs.filter(|(other, _)| **other > reward).map(|(_, p)| p).sum()
    };
    let exponents = problem
        .rewards
        .iter()
        .map(|&reward| -(16_f64.ln()) * above(reward).powi(2) / (1.0 + gamma));
    let optimum = tilted(&problem.reference, exponents);
    let policy = bonded(&problem, &backward);
    assert_reached("J-BOND, backward", &problem, &policy, &optimum, false, 0.01);
}

#[test]
fn an_anchor_that_follows_leads_past_the_best_of_two() {
    let problem = problem();
    let mean = |policy: &[f64]| -> f64 {
        policy.iter().zip(problem.scaled()).map(|(p, reward)| p * reward).sum()
    };
    let best_of =
        |n: usize| problem.outcomes().under(&format!("best-of:{n}").parse().unwrap()).unwrap();
    let config = BondConfig { steps: 150, anchor_rate: 0.05, backward_share: 0.5, ..bond_config() };
    let reached = mean(&bonded(&problem, &config));
    println!("J-BOND: mean reward {reached:.3}, best-of-4 {:.3}", mean(&best_of(4)));
    assert!(reached > mean(&best_of(4)), "{reached}");
}

#[test]
fn resumed_baselines_give_the_same_policies() {
    let problem = problem();
    let pairs =
        pairs(&problem.rollouts(), std::slice::from_ref(&problem.prompt), Labels::Reward).unwrap();
    // As files give them, and so few that most come again at every step.
    let unscored = |pair: &ResponsePair| ResponsePair { reference: None, ..pair.clone() };
    let unscored: Vec<ResponsePair> = pairs.iter().take(300).map(unscored).collect();
    let [scored, unscored] =
        [pairs, unscored].map(|pairs| Stored::Compared(PairLoss::Ipo(0.5), pairs));
    let offline = OfflineConfig { steps: 7, checkpoint_every: 3, ..config() };
    let train_offline = |stored: &Stored, dir: &Path, stop_after: usize| {
        let stop = AtomicBool::new(false);
        let trainer = OfflineTrainer {
            config: &offline,
            stored,
            reference: &problem.model,
            seed: 1,
            checkpoints: dir.to_path_buf(),
        };
        let mut observe = |step: &FitMetrics| {
            stop.store(step.step == stop_after, Ordering::Relaxed);
            Ok(())
        };
        trainer.run(&mut observe, &stop)
    };
    let train_scored = |dir: &Path, stop_after: usize| train_offline(&scored, dir, stop_after);
    let train_unscored = |dir: &Path, stop_after: usize| train_offline(&unscored, dir, stop_after);
    let bond_config = BondConfig {
        steps: 7,
        prompts_per_step: 2,
        checkpoint_every: 3,
        anchor_rate: 0.2,
        ..bond_config()
    };
    let train_bond = |dir: &Path, stop_after: usize| bond(&problem, &bond_config, dir, stop_after);
    type Train<'a> = &'a dyn Fn(&Path, usize) -> Result<CausalLm, TrainError>;
    for train in [&train_scored as Train<'_>, &train_unscored, &train_bond] {
        let [whole, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let expected = train(whole.path(), 0).unwrap();
        let stop = train(stopped.path(), 5);
        let Err(TrainError::Interrupted { step: 5, .. }) = stop else { panic!("{stop:?}") };
        let resumed = train(stopped.path(), 0).unwrap();
        let all = |policy| probabilities(policy, &problem.prompt, &problem.responses);
        assert_eq!(all(&resumed), all(&expected));
        assert_ne!(all(&resumed), problem.reference);
    }
}

/// Told to stop at a call, counted from 0.
struct Stopping(AtomicUsize);

impl Reward for Stopping {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        match self.0.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(RewardError::Stopped),
            _ => Ordered.score(pairs),
        }
    }
}

#[test]
fn a_reward_that_is_stopped_costs_no_step_of_bond() {
    let (problem, dir) = (problem(), tempfile::tempdir().unwrap());
    let config = BondConfig { steps: 3, prompts_per_step: 2, ..bond_config() };
    // A step asks for the policy's responses, and for the anchor's.
    for (call, step) in [(5, 2), (1, 2)] {
        let reward = Stopping(AtomicUsize::new(call));
        let stop = bond_by(&reward, &problem, &config, dir.path(), 0);
        let Err(TrainError::Interrupted { step: found, .. }) = stop else { panic!("{stop:?}") };
        assert_eq!(found, step);
    }
    let resumed = bond(&problem, &config, dir.path(), 0).unwrap();
    let resumed = probabilities(&resumed, &problem.prompt, &problem.responses);
    assert_eq!(resumed, bonded(&problem, &config));
}

#[test]
fn settings_of_bond_that_do_nothing_are_refused() {
    bond_config().check().unwrap();
    for (config, told) in [
        (BondConfig { samples_per_prompt: 1, ..bond_config() }, "samples_per_prompt is 1, but"),
        (BondConfig { anchor_rate: 1e-50, ..bond_config() }, "anchor_rate is 1e-50"),
        (BondConfig { anchor_rate: 1.5, ..bond_config() }, "anchor_rate is 1.5"),
        (BondConfig { regularisation: 1e-50, ..bond_config() }, "regularisation is 1e-50"),
        (BondConfig { regularisation: 1e300, ..bond_config() }, "regularisation is 1e300"),
    ] {
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains(told), "{message}");
    }
}

#[test]
fn what_an_observer_cannot_take_ends_the_run_without_a_checkpoint_of_it() {
    let problem = problem();
    let best = best_of_n(&problem.rollouts(), std::slice::from_ref(&problem.prompt), N).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let trainer = OfflineTrainer {
        config: &OfflineConfig { steps: 4, checkpoint_every: 2, ..config() },
        stored: &Stored::Imitated(best),
        reference: &problem.model,
        seed: 1,
        checkpoints: dir.path().to_path_buf(),
    };
    let mut observe = |step: &FitMetrics| match step.step {
        4 => Err(TrainError::Data("the disk is full".into())),
        _ => Ok(()),
    };
    let error = trainer.run(&mut observe, &AtomicBool::new(false)).unwrap_err().to_string();
    assert_eq!(error, "the disk is full");
    assert_eq!(infalign_train::fitted_steps(dir.path()).unwrap(), 2);
}
