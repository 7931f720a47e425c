//! The discrete optimum on problems at random and at the ends of its range.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use infalign_transform::{Beta, DiscreteOptimum, Outcomes, Procedure, TransformError};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Numbers in [0, 1), the same for the same seed.
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn normalised(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    let weights: Vec<f64> = weights.collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// π_ref, each probability times e^{up to scale}.
fn perturbed(outcomes: &Outcomes, scale: f64, uniform: &mut Uniform) -> Vec<f64> {
    normalised(outcomes.probabilities().iter().map(|p| p * (scale * uniform.next()).exp()))
}

fn optimum(outcomes: &Outcomes, procedure: &str, beta: f64) -> DiscreteOptimum {
    outcomes.optimum(&procedure.parse().unwrap(), Beta::new(beta).unwrap()).unwrap()
}

fn objective(outcomes: &Outcomes, procedure: &Procedure, beta: f64, policy: &[f64]) -> f64 {
    outcomes.win_rate(procedure, policy).unwrap() - beta * outcomes.kl(policy).unwrap()
}

/// Two to eight outcomes, with ties and probabilities of 0.
fn any_outcomes() -> impl Strategy<Value = Outcomes> {
    let outcome = (-8.0..8.0f64, 0..10u8, 0..6u8);
    prop::collection::vec(outcome, 2..=8).prop_filter_map("all zero", |list| {
        let weight = |&(log, zero, _): &(f64, u8, u8)| if zero == 0 { 0.0 } else { log.exp() };
        let probabilities = normalised(list.iter().map(weight));
        Outcomes::new(probabilities, list.iter().map(|(_, _, r)| f64::from(*r)).collect()).ok()
    })
}

fn any_procedure() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("sample".to_owned()),
        (1..200usize).prop_map(|n| format!("best-of:{n}")),
        (1..200usize).prop_map(|n| format!("worst-of:{n}")),
        (1..200usize, -5.0..3.0f64)
            .prop_map(|(n, log)| format!("soft-best-of:{n},temperature={}", log.exp())),
        (1..200usize, 0.0..1.0f64)
            .prop_map(|(n, quantile)| format!("rejection:quantile={quantile},draws={n}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn nothing_beats_the_optimum(
        outcomes in any_outcomes(),
        procedure in any_procedure(),
        log_beta in 0.01f64.ln()..10f64.ln(),
        seed: u64,
    ) {
        let beta = log_beta.exp();
        let best = optimum(&outcomes, &procedure, beta);
        prop_assert!((best.policy.iter().sum::<f64>() - 1.0).abs() < 1e-14);
        prop_assert!(best.residual < 1e-10, "residual {}", best.residual);
        for (p, q) in best.policy.iter().zip(outcomes.probabilities()) {
            prop_assert!(*p >= 0.0 && (*q > 0.0 || *p == 0.0));
        }
        if procedure.starts_with("best-of") || procedure == "sample" {
            prop_assert_eq!(best.stationary_points, 1);
        }
        let procedure: Procedure = procedure.parse().unwrap();
        let own = objective(&outcomes, &procedure, beta, &best.policy);
        prop_assert!((own - best.objective).abs() < 1e-12 * (1.0 + beta));
        let mut uniform = Uniform(seed);
        for k in 0..200 {
            let rival = perturbed(&outcomes, [0.1, 1.0, 5.0, 30.0][k % 4], &mut uniform);
            let theirs = objective(&outcomes, &procedure, beta, &rival);
            prop_assert!(theirs <= best.objective + 1e-12, "a policy has {theirs}");
        }
        for transform in ["identity", "log", "exp:5", "exp:-5", "exp:10", "exp:-10"] {
            let transform = transform.parse().unwrap();
            for _ in 0..10 {
                let other = Beta::new((14.0 * uniform.next() - 6.0).exp()).unwrap();
                let tilted = outcomes.tilt(&transform, other);
                let theirs = objective(&outcomes, &procedure, beta, &tilted);
                prop_assert!(theirs <= best.objective + 1e-12, "{transform} has {theirs}");
            }
        }
    }

    /// E C = ½ under the reference policy, ties or none, and only the order of rewards counts.
    #[test]
    fn only_the_order_of_rewards_counts(outcomes in any_outcomes(), n in 1..50usize, log_beta in -3.0..2.0f64) {
        let (p, calibrated) = (outcomes.probabilities(), outcomes.calibrated());
        let mean: f64 = p.iter().zip(&calibrated).map(|(p, c)| p * c).sum();
        prop_assert!((mean - 0.5).abs() < 1e-14, "{mean}");
        let rewards = outcomes.rewards().iter().map(|r| (r - 2.0).powi(3)).collect();
        let other = Outcomes::new(p.to_vec(), rewards).unwrap();
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-14;
        prop_assert!(calibrated.iter().zip(&other.calibrated()).all(close));
        for procedure in [format!("best-of:{n}"), format!("worst-of:{n}")] {
            let beta = log_beta.exp();
            let [a, b] = [&outcomes, &other].map(|outcomes| optimum(outcomes, &procedure, beta));
            prop_assert!((a.kl - b.kl).abs() < 1e-11 && (a.win_rate - b.win_rate).abs() < 1e-12);
        }
    }
}

/// Damped iteration of the coupled equations from `policy`, or `None` where it does not settle.
fn iterated(
    outcomes: &Outcomes,
    procedure: &Procedure,
    beta: f64,
    policy: Vec<f64>,
) -> Option<Vec<f64>> {
    let mut policy = policy;
    for _ in 0..5_000 {
        let coupled = outcomes.coupled(procedure, &policy).unwrap();
        let top = coupled.iter().copied().fold(f64::MIN, f64::max);
        let tilt = |(p, value): (&f64, &f64)| p * ((value - top) / beta).exp();
        let step = normalised(outcomes.probabilities().iter().zip(&coupled).map(tilt));
        let moved = |(a, b): (&f64, &f64)| (a * b).sqrt();
        let next = normalised(policy.iter().zip(&step).map(moved));
        let change = |(a, b): (&f64, &f64)| (a - b).abs();
        if policy.iter().zip(&next).map(change).fold(0.0, f64::max) < 1e-14 {
            return Some(next);
        }
        policy = next;
    }
    None
}

/// The distinct ends of the iteration from 200 random starts.
fn ends(outcomes: &Outcomes, procedure: &Procedure, beta: f64) -> Vec<Vec<f64>> {
    let mut uniform = Uniform(1);
    let mut found: Vec<Vec<f64>> = Vec::new();
    for k in 0..200 {
        let start = perturbed(outcomes, [3.0, 30.0][k % 2], &mut uniform);
        let Some(end) = iterated(outcomes, procedure, beta, start) else { continue };
        let same = |other: &Vec<f64>| other.iter().zip(&end).all(|(a, b)| (a - b).abs() < 1e-8);
        if !found.iter().any(same) {
            found.push(end);
        }
    }
    found
}

#[test]
fn worst_of_n_may_have_two_maxima_and_the_better_one_is_returned() {
    let outcomes = Outcomes::new(vec![0.5, 0.3, 0.2], vec![0.0, 1.0, 2.0]).unwrap();
    let procedure: Procedure = "worst-of:16".parse().unwrap();
    // The one that gives up the worst outcome wins at the smaller β, the one near π_ref at the greater.
    for (beta, gives_up) in [(0.3, true), (0.8, false)] {
        let best = outcomes.optimum(&procedure, Beta::new(beta).unwrap()).unwrap();
        let found = ends(&outcomes, &procedure, beta);
        assert_eq!((best.stationary_points, found.len()), (2, 2), "β = {beta}");
        assert_eq!(best.policy[0] < 1e-3, gives_up, "{:?}", best.policy);
        let values = found.iter().map(|policy| objective(&outcomes, &procedure, beta, policy));
        let greatest = values.fold(f64::MIN, f64::max);
        assert!((best.objective - greatest).abs() < 1e-13, "{} {greatest}", best.objective);
    }
}

#[test]
fn every_maximum_that_iterations_find_is_counted() {
    let mut uniform = Uniform(7);
    for _ in 0..30 {
        let count = 2 + (6.0 * uniform.next()) as usize;
        let probabilities = normalised((0..count).map(|_| (8.0 * uniform.next()).exp()));
        let rewards = (0..count).map(|_| (5.0 * uniform.next()).floor()).collect();
        let outcomes = Outcomes::new(probabilities, rewards).unwrap();
        let (n, beta) = (2 + (20.0 * uniform.next()) as usize, (-4.0 * uniform.next()).exp());
        let text = format!("worst-of:{n}");
        let (best, found) =
            (optimum(&outcomes, &text, beta), ends(&outcomes, &text.parse().unwrap(), beta));
        assert!(found.len() <= best.stationary_points, "{outcomes:?} {text} {beta}");
    }
}

#[test]
fn the_range_of_n_and_beta_is_wide() {
    let mut uniform = Uniform(3);
    for count in [2, 7, 1_000] {
        let probabilities = normalised((0..count).map(|_| 0.1 + uniform.next()));
        let rewards = (0..count).map(|_| uniform.next()).collect();
        let outcomes = Outcomes::new(probabilities, rewards).unwrap();
        for n in [1, 2, 4, 100, 10_000] {
            for beta in [1e3, 1.0, 0.05, 1e-3] {
                for name in ["best-of", "worst-of"] {
                    let best = optimum(&outcomes, &format!("{name}:{n}"), beta);
                    let what = format!("{name}:{n}, {count} outcomes, β = {beta}");
                    assert!(best.residual < 1e-11, "{what}: residual {}", best.residual);
                    assert!(best.objective >= 0.5 - 1e-14 && best.kl >= 0.0, "{what}");
                }
            }
        }
    }
}

#[test]
fn soft_best_of_n_has_a_wide_range_too() {
    let mut uniform = Uniform(4);
    for count in [2, 7] {
        let probabilities = normalised((0..count).map(|_| 0.1 + uniform.next()));
        let rewards = (0..count).map(|_| uniform.next()).collect();
        let outcomes = Outcomes::new(probabilities, rewards).unwrap();
        for n in [1, 2, 4, 100, 10_000] {
            for beta in [1e3, 1.0, 0.05, 1e-3] {
                for temperature in [1e-3, 0.1, 10.0] {
                    let procedure = format!("soft-best-of:{n},temperature={temperature}");
                    let best = optimum(&outcomes, &procedure, beta);
                    assert!(best.objective >= 0.5 - 1e-13 && best.kl >= 0.0, "{procedure}, {beta}");
                }
            }
        }
    }
}

#[test]
fn beyond_the_range_there_is_an_answer_or_an_error() {
    let outcomes =
        Outcomes::new(vec![0.5, 0.3, 0.2 - 1e-12, 1e-12], vec![0.0, 1.0, 2.0, 3.0]).unwrap();
    for n in [1, 10_000, 1_000_000, 1_000_001, usize::MAX] {
        for beta in [f64::MIN_POSITIVE, 1e-300, 1e-15, 1e-6, 1.0, 1e300] {
            for name in ["best-of:N", "worst-of:N", "soft-best-of:N,temperature=0.1"] {
                let procedure: Procedure = name.replace('N', &n.to_string()).parse().unwrap();
                let result = outcomes.optimum(&procedure, Beta::new(beta).unwrap());
                let soft = name.starts_with("soft") && beta < 1e-3;
                if n == 1 || (n <= 1_000_000 && beta >= 1e-15 && !soft) {
                    assert!(result.is_ok(), "{procedure}, β = {beta:e}: {result:?}");
                }
                match result {
                    Ok(best) => assert!(best.residual <= 1e-10, "{procedure} {beta} {best:?}"),
                    Err(TransformError::NotConverged { .. }) => {}
                    Err(TransformError::TooMany(_)) => assert!(n > 1_000_000),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

#[test]
fn tiny_probabilities_keep_their_digits() {
    // Two outcomes sampled once: log-odds of log(q/p) + (C₂ − C₁)/β = log(q/p) + 500.
    let outcomes = Outcomes::new(vec![0.25, 0.75], vec![0.0, 1.0]).unwrap();
    let best = optimum(&outcomes, "sample", 1e-3);
    assert!((best.policy[0] / ((-500f64).exp() / 3.0) - 1.0).abs() < 1e-12, "{:?}", best.policy);
    // A reference that all but excludes the better outcome.
    let rare = Outcomes::new(vec![1.0, 1e-300], vec![0.0, 1.0]).unwrap();
    for procedure in ["sample", "best-of:8", "worst-of:8", "soft-best-of:8,temperature=0.1"] {
        let best = optimum(&rare, procedure, 1.0);
        assert!(
            best.policy[1] > 1e-301 && best.policy[1] < 1e-290,
            "{procedure} {:?}",
            best.policy
        );
    }
}

#[test]
fn equal_rewards_leave_nothing_to_optimise() {
    let outcomes = Outcomes::new(vec![0.2, 0.0, 0.8], vec![3.0; 3]).unwrap();
    for procedure in ["sample", "best-of:5", "worst-of:5", "soft-best-of:5,temperature=0.5"] {
        let best = optimum(&outcomes, procedure, 0.01);
        assert_eq!(best.policy, [0.2, 0.0, 0.8], "{procedure}");
        assert!((best.win_rate - 0.5).abs() < 1e-15 && best.kl == 0.0, "{procedure}");
        assert_eq!((best.stationary_points, best.transform), (1, vec![0.0; 3]), "{procedure}");
    }
}

#[test]
fn impossible_outcomes_change_nothing() {
    let rewards = vec![9.0, 0.0, 0.5, 1.0, -9.0, 2.0];
    let with = Outcomes::new(vec![0.0, 0.5, 0.0, 0.3, 0.0, 0.2], rewards).unwrap();
    let without = Outcomes::new(vec![0.5, 0.3, 0.2], vec![0.0, 1.0, 2.0]).unwrap();
    for procedure in ["best-of:6", "worst-of:6", "soft-best-of:6,temperature=0.3"] {
        let (a, b) = (optimum(&with, procedure, 0.1), optimum(&without, procedure, 0.1));
        for (k, place) in [1, 3, 5].into_iter().enumerate() {
            assert!((a.policy[place] - b.policy[k]).abs() < 1e-12, "{procedure}");
        }
        assert!((a.objective - b.objective).abs() < 1e-13, "{procedure}");
        assert!(a.transform.iter().all(|value| value.is_finite()), "{procedure}");
    }
    let tilted = with.tilt(&"log".parse().unwrap(), Beta::new(0.1).unwrap());
    assert!(tilted.iter().all(|p| p.is_finite()) && tilted[0] == 0.0 && tilted[4] == 0.0);
}

#[test]
fn soft_best_of_n_lies_between_sampling_and_best_of_n() {
    let outcomes = Outcomes::new(vec![0.4, 0.3, 0.2, 0.1], vec![0.0, 1e6, 1e6 + 1.0, 1e9]).unwrap();
    // Gaps of at least 10,000 temperatures are as good as ranks.
    let cold = optimum(&outcomes, "soft-best-of:5,temperature=0.0001", 0.05);
    let ranks = optimum(&outcomes, "best-of:5", 0.05);
    let hot = optimum(&outcomes, "soft-best-of:5,temperature=1e20", 0.05);
    let sampled = optimum(&outcomes, "sample", 0.05);
    for (a, b) in [(cold, ranks), (hot, sampled)] {
        for (p, q) in a.policy.iter().zip(&b.policy) {
            assert!((p - q).abs() < 1e-10, "{:?} {:?}", a.policy, b.policy);
        }
    }
}
