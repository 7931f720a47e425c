//! CTRL on the expected reward under a procedure, against the best policy for it, of a transformer whose every response can be enumerated.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking")]

mod enumerable;

use std::collections::BTreeMap;

use enumerable::training::{Cost, RLOO, train};
use enumerable::{Ordered, Problem, kl, probabilities, problem};
use infalign_reward::Reward;
use infalign_transform::Outcomes;

/// What a response adds to E\[max of four\] by its probability, but for a constant: 4 ∫ F(s)³ ds up to its reward.
fn gains_under_best_of_4(policy: &[f64], rewards: &[f64]) -> Vec<f64> {
    let mut levels = rewards.to_vec();
    levels.sort_by(f64::total_cmp);
    levels.dedup();
    let share = |level: f64| -> f64 {
        policy.iter().zip(rewards).filter(|(_, reward)| **reward <= level).map(|(q, _)| q).sum()
    };
    let rises: Vec<(f64, f64)> = levels
        .windows(2)
        .map(|pair| (pair[1], 4.0 * (pair[1] - pair[0]) * share(pair[0]).powi(3)))
        .collect();
    let gain = |reward: &f64| -> f64 {
        rises.iter().filter(|(upto, _)| upto <= reward).map(|(_, rise)| rise).sum()
    };
    rewards.iter().map(gain).collect()
}

/// What a response adds to the expected reward of a vote of three by its probability: each answer is worth what its responses are on average.
fn gains_under_majority_of_3(
    policy: &[f64],
    rewards: &[f64],
    answers: &[Option<&str>],
) -> Vec<f64> {
    const STEP: f64 = 1e-6;
    let by = |response: usize, step: f64| {
        let mut moved = policy.to_vec();
        moved[response] += step;
        expected_under_majority_of_3(&moved, rewards, answers)
    };
    let gain = |response| (by(response, STEP) - by(response, -STEP)) / (2.0 * STEP);
    (0..policy.len()).map(gain).collect()
}

/// By all that three responses may answer in their order. The probabilities need not add up to 1.
fn expected_under_majority_of_3(policy: &[f64], rewards: &[f64], answers: &[Option<&str>]) -> f64 {
    let mut of_answers: BTreeMap<Option<&str>, (f64, f64)> = BTreeMap::new();
    for ((q, reward), answer) in policy.iter().zip(rewards).zip(answers) {
        let (mass, worth) = of_answers.entry(*answer).or_default();
        (*mass, *worth) = (*mass + q, *worth + q * reward);
    }
    let all: Vec<(Option<&str>, (f64, f64))> = of_answers.into_iter().collect();
    let expected = |code: usize| {
        let drawn = [code / all.len().pow(2), code / all.len() % all.len(), code % all.len()];
        let drawn = drawn.map(|place| all[place]);
        let votes = |answer: Option<&str>| {
            drawn.iter().filter(|(other, _)| answer.is_some() && *other == answer).count()
        };
        let most = drawn.iter().map(|(answer, _)| votes(*answer)).max().unwrap();
        let kept = drawn.iter().find(|(answer, _)| votes(*answer) == most).unwrap();
        drawn.iter().map(|(_, (mass, _))| mass).product::<f64>() * kept.1.1 / kept.1.0
    };
    (0..all.len().pow(3)).map(expected).sum()
}

/// The policy of greatest expected reward less β KL, by damped steps towards π ∝ p e^{gain/β}.
fn best_by(reference: &[f64], beta: f64, gains: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let mut policy = reference.to_vec();
    for _ in 0..400 {
        let gains = gains(&policy);
        let most = gains.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let step = |((q, p), gain): ((&f64, &f64), &f64)| {
            q.powf(0.9) * (p * ((gain - most) / beta).exp()).powf(0.1)
        };
        let moved: Vec<f64> = policy.iter().zip(reference).zip(&gains).map(step).collect();
        let total: f64 = moved.iter().sum();
        policy = moved.into_iter().map(|q| q / total).collect();
    }
    policy
}

/// - `steps`: those of training. A majority's gradient has more noise of the other responses.
/// - `expected`: the expected reward under the procedure; `gains`: what each response adds to it by its probability, but for a constant.
///   Both of a policy, and of rewards in units of their spread.
fn the_expected_reward_reaches_its_optimum(
    problem: &Problem,
    (objective, beta, steps): (&str, f64, usize),
    expected: impl Fn(&[f64], &[f64]) -> f64,
    gains: impl Fn(&[f64], &[f64]) -> Vec<f64>,
) {
    let row = &problem.calibration.rows()[0];
    let unit = (row.moments().1 / (row.values().len() as f64 - 1.0)).sqrt();
    let rewards: Vec<f64> = problem.rewards.iter().map(|&r| f64::from(r) / unit).collect();
    let whole = |policy: &[f64]| -> Vec<f64> {
        let total: f64 = policy.iter().sum();
        policy.iter().map(|q| q / total).collect()
    };
    let reference = whole(&problem.reference);
    let value = |policy: &[f64]| expected(policy, &rewards) - beta * kl(policy, &reference);
    let optimum = best_by(&reference, beta, |policy| gains(policy, &rewards));
    let policy = train(problem, objective, &Cost::Beta(beta), (RLOO, steps), None);
    let policy = whole(&probabilities(&policy, &problem.prompt, &problem.responses));
    let (start, reached, best) = (value(&reference), value(&policy), value(&optimum));
    let distance = kl(&policy, &optimum);
    println!(
        "{objective}: start {start:.5}, reached {reached:.5}, optimum {best:.5}, {distance:.5} nats"
    );
    assert!(best > start + 0.05 && best >= reached - 1e-9, "the optimum is one");
    assert!((best - reached) / (best - start) <= 0.05 && distance <= 0.03);
}

#[test]
fn the_expected_reward_under_best_of_n_reaches_its_optimum() {
    let expected = |policy: &[f64], rewards: &[f64]| {
        let kept = Outcomes::new(policy.to_vec(), rewards.to_vec()).unwrap();
        let kept = kept.under(&"best-of:4".parse().unwrap()).unwrap();
        kept.iter().zip(rewards).map(|(q, r)| q * r).sum()
    };
    let of = ("reward:best-of:4", 0.5, 350);
    the_expected_reward_reaches_its_optimum(&problem(), of, expected, gains_under_best_of_4);
}

#[test]
fn the_expected_reward_under_a_majority_reaches_its_optimum() {
    let problem = problem();
    let answers: Vec<Option<&str>> =
        problem.texts.iter().map(|text| Ordered.answer(text)).collect();
    the_expected_reward_reaches_its_optimum(
        &problem,
        ("reward:majority:3", 0.5, 700),
        |policy, rewards| expected_under_majority_of_3(policy, rewards, &answers),
        |policy, rewards| gains_under_majority_of_3(policy, rewards, &answers),
    );
}
