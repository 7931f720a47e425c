//! The discrete engine against a toy problem computed with 50 digits and against plain enumeration.
//!
//! The toy lies in `reference/toy_discrete.json` beside the folder that `INFALIGN_DATA` names.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use common::{assert_close, number, reference};
use infalign_transform::{Beta, Outcomes, Procedure, TransformError};
use serde_json::Value;

/// A number or a fraction written as text.
fn fraction(value: &Value) -> f64 {
    let text = value.as_str().unwrap();
    let (above, below) = text.split_once('/').unwrap_or((text, "1"));
    above.parse::<f64>().unwrap() / below.parse::<f64>().unwrap()
}

fn fractions(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(fraction).collect()
}

fn beta(value: f64) -> Beta {
    Beta::new(value).unwrap()
}

fn procedure(text: &str) -> Procedure {
    text.parse().unwrap()
}

fn assert_all_close(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (k, (got, expected)) in got.iter().zip(expected).enumerate() {
        if *expected == 0.0 {
            assert!(got.abs() < 1e-15, "{what}, entry {k}: {got} for 0");
        } else {
            assert_close(&format!("{what}, entry {k}"), *got, *expected);
        }
    }
}

fn toy(file: &Value) -> Outcomes {
    Outcomes::new(fractions(&file["p_ref"]), fractions(&file["reward"])).unwrap()
}

#[test]
fn the_toy_under_every_procedure() {
    let Some(file) = reference("toy_discrete.json") else { return };
    let toy = toy(&file);
    assert_all_close("C", &toy.calibrated(), &fractions(&file["C_ref_exact"]));
    let mut rows = 0;
    for (name, row) in file["T_ref"].as_object().unwrap() {
        let text = name.replace("BoN", "best-of:").replace("WoN", "worst-of:");
        let taken = toy.under(&procedure(&text)).unwrap();
        assert_all_close(&text, &taken, &fractions(&row["num"]));
        assert_close(&text, toy.kl(&taken).unwrap(), number(row, "KL_vs_ref"));
        let won = toy.win_rate(&Procedure::Sample, &taken).unwrap();
        assert_close(&text, won, number(row, "winrate_vs_ref"));
        rows += 1;
    }
    for row in file["soft_best_of_n"].as_array().unwrap() {
        let text =
            format!("soft-best-of:{},temperature={}", row["n"], fraction(&row["lambda(temp)"]));
        let taken = toy.under(&procedure(&text)).unwrap();
        assert_all_close(&text, &taken, &fractions(&row["dist"]));
        assert_close(&text, toy.kl(&taken).unwrap(), number(row, "KL_vs_ref"));
        let mean: f64 = taken.iter().zip(toy.rewards()).map(|(p, r)| p * r).sum();
        assert_close(&text, mean, number(row, "E_reward"));
        rows += 1;
    }
    assert_eq!(rows, 4);
}

#[test]
fn the_optima_of_the_toy() {
    let Some(file) = reference("toy_discrete.json") else { return };
    let toy = toy(&file);
    let rows = file["optimum"].as_array().unwrap();
    assert_eq!(rows.len(), 15);
    for row in rows {
        let name = match row["proc"].as_str().unwrap() {
            "std" => "sample".to_owned(),
            "BoN" => format!("best-of:{}", row["N"]),
            _ => format!("worst-of:{}", row["N"]),
        };
        let best = toy.optimum(&procedure(&name), beta(number(row, "beta"))).unwrap();
        let what = format!("{name} at β = {}", row["beta"]);
        assert_all_close(&what, &best.policy, &fractions(&row["pi"]));
        assert_all_close(&what, &best.transform, &fractions(&row["R_minus_R0"]));
        assert_close(&what, best.win_rate, number(row, "W"));
        assert_close(&what, best.kl, number(row, "KL"));
        assert_close(&what, best.objective, number(row, "objective"));
        assert_eq!(Some(best.stationary_points as u64), row["n_stable_stationary_points"].as_u64());
        assert!(best.residual < 1e-13, "{what}: {}", best.residual);
    }
}

#[test]
fn the_transforms_of_the_toy() {
    let Some(file) = reference("toy_discrete.json") else { return };
    let toy = toy(&file);
    let rows = file["ctrl_transforms"].as_array().unwrap();
    assert_eq!(rows.len(), 10);
    for row in rows {
        // The file writes `exp(5)` for `exp:5`.
        let transform = &row["transform"].as_str().unwrap().replace('(', ":").replace(')', "");
        let tilted = toy.tilt(&transform.parse().unwrap(), beta(number(row, "beta")));
        assert_all_close(transform, &tilted, &fractions(&row["pi"]));
        assert_close(transform, toy.kl(&tilted).unwrap(), number(row, "KL"));
        let standard = toy.win_rate(&Procedure::Sample, &tilted).unwrap();
        assert_close(transform, standard, number(row, "W_std"));
        for n in [2, 4, 32] {
            for (column, name) in [("BoN", "best-of"), ("WoN", "worst-of")] {
                let won = toy.win_rate(&procedure(&format!("{name}:{n}")), &tilted).unwrap();
                assert_close(transform, won, number(row, &format!("{column}{n}")));
            }
        }
    }
}

#[test]
fn the_calibration_of_the_toy() {
    let Some(file) = reference("toy_discrete.json") else { return };
    let toy = toy(&file);
    let rows = file["empirical_calibration"].as_array().unwrap();
    assert_eq!(rows.len(), 14);
    for row in rows {
        let rollouts = usize::try_from(row["K"].as_u64().unwrap()).unwrap();
        let outcome = usize::try_from(row["y"].as_u64().unwrap()).unwrap();
        let estimate = toy.empirical_calibration(outcome, rollouts.try_into().unwrap()).unwrap();
        let what = format!("y = {outcome}, K = {rollouts}");
        assert_close(&what, estimate.mean(), fraction(&row["mean"]));
        assert_close(&what, estimate.variance(), fraction(&row["var_exact"]));
        for t in [5, 10, -5, -10] {
            let expected = number(row, &format!("E_exp({t}C)"));
            assert_close(&what, estimate.mean_exp(f64::from(t)), expected);
        }
        let zero = number(row, "P(Chat=0)");
        assert!((estimate.probability_of_zero() - zero).abs() <= 1e-12 * zero, "{what}");
    }
}

/// Every list of `length` indices below `count`.
fn tuples(count: usize, length: u32) -> impl Iterator<Item = Vec<usize>> {
    let digits = move |code: usize| (0..length).map(move |k| code / count.pow(k) % count).collect();
    (0..count.pow(length)).map(digits)
}

/// Probability that index j of `drawn` is what the procedure returns of these rewards.
fn chance(procedure: &Procedure, rewards: &[f64], drawn: &[usize], j: usize) -> f64 {
    let mine = rewards[drawn[j]];
    let weight = |z: f64| match *procedure {
        Procedure::SoftBestOf { temperature, .. } => ((z - mine) / temperature).exp(),
        Procedure::BestOf(_) if z > mine => f64::INFINITY,
        Procedure::WorstOf(_) if z < mine => f64::INFINITY,
        _ => f64::from(u8::from(z == mine)),
    };
    drawn.iter().map(|&z| weight(rewards[z])).sum::<f64>().recip()
}

/// T(π) as a sum over every way to draw N; also for π that do not sum to 1.
fn enumerated(procedure: &Procedure, rewards: &[f64], policy: &[f64]) -> Vec<f64> {
    let mut taken = vec![0.0; policy.len()];
    for drawn in tuples(policy.len(), procedure.samples() as u32) {
        let probability: f64 = drawn.iter().map(|&y| policy[y]).product();
        for j in 0..drawn.len() {
            taken[drawn[j]] += probability * chance(procedure, rewards, &drawn, j);
        }
    }
    taken
}

/// Four outcomes with a tie, out of order, and a policy on them.
const REWARDS: [f64; 4] = [0.5, -1.0, 2.0, 0.5];
const REFERENCE: [f64; 4] = [0.3, 0.4, 0.1, 0.2];
const POLICY: [f64; 4] = [0.25, 0.15, 0.35, 0.25];
const PROCEDURES: [&str; 7] = [
    "sample",
    "best-of:3",
    "worst-of:3",
    "soft-best-of:3,temperature=0.7",
    "soft-best-of:3,temperature=0.001",
    "soft-best-of:2,temperature=40",
    "soft-best-of:1,temperature=1",
];

fn win_rate_by_enumeration(procedure: &Procedure, policy: &[f64]) -> f64 {
    let ours = enumerated(procedure, &REWARDS, policy);
    let theirs = enumerated(procedure, &REWARDS, &REFERENCE);
    let beats = |y: usize, z: usize| {
        0.5 * f64::from(u8::from(REWARDS[y] > REWARDS[z]) + u8::from(REWARDS[y] >= REWARDS[z]))
    };
    tuples(4, 2).map(|pair| ours[pair[0]] * theirs[pair[1]] * beats(pair[0], pair[1])).sum()
}

#[test]
fn every_way_to_draw_gives_the_same_law_and_win_rate() {
    let reference = Outcomes::new(REFERENCE.to_vec(), REWARDS.to_vec()).unwrap();
    let policy = Outcomes::new(POLICY.to_vec(), REWARDS.to_vec()).unwrap();
    for text in PROCEDURES {
        let procedure = procedure(text);
        let taken = policy.under(&procedure).unwrap();
        for (got, exact) in taken.iter().zip(enumerated(&procedure, &REWARDS, &POLICY)) {
            assert!((got - exact).abs() < 1e-14, "{text}: {got} for {exact}");
        }
        let won = reference.win_rate(&procedure, &POLICY).unwrap();
        let exact = win_rate_by_enumeration(&procedure, &POLICY);
        assert!((won - exact).abs() < 1e-14, "{text}: {won} for {exact}");
    }
}

#[test]
fn the_coupled_transform_is_the_gradient_of_the_win_rate() {
    let reference = Outcomes::new(REFERENCE.to_vec(), REWARDS.to_vec()).unwrap();
    for text in PROCEDURES {
        let procedure = procedure(text);
        let coupled = reference.coupled(&procedure, &POLICY).unwrap();
        for y in 0..4 {
            // From the least reward to y, which stays on the simplex; cubic, so exact but for rounding.
            let moved = |step: f64| {
                let mut policy = POLICY;
                policy[y] += step;
                policy[1] -= step;
                win_rate_by_enumeration(&procedure, &policy)
            };
            let h = 1e-3;
            let slope =
                (8.0 * (moved(h) - moved(-h)) - moved(2.0 * h) + moved(-2.0 * h)) / (12.0 * h);
            assert!((coupled[y] - slope).abs() < 1e-12, "{text}, {y}: {} {slope}", coupled[y]);
        }
    }
}

#[test]
fn every_way_to_roll_out_gives_the_same_moments() {
    let outcomes = Outcomes::new(REFERENCE.to_vec(), REWARDS.to_vec()).unwrap();
    for rollouts in [1, 2, 5] {
        for (y, mine) in REWARDS.into_iter().enumerate() {
            let wins = |drawn: &[usize]| -> f64 {
                let win = |&z: &usize| match mine - REWARDS[z] {
                    gap if gap > 0.0 => 1.0,
                    0.0 => 0.5,
                    _ => 0.0,
                };
                drawn.iter().map(win).sum::<f64>() / f64::from(rollouts)
            };
            let mean = |f: &dyn Fn(f64) -> f64| -> f64 {
                let weigh = |drawn: Vec<usize>| -> f64 {
                    drawn.iter().map(|&z| REFERENCE[z]).product::<f64>() * f(wins(&drawn))
                };
                tuples(4, rollouts).map(weigh).sum()
            };
            let estimate =
                outcomes.empirical_calibration(y, (rollouts as usize).try_into().unwrap()).unwrap();
            let centre = mean(&|c| c);
            let pairs = [
                (estimate.mean(), centre),
                (estimate.variance(), mean(&|c| (c - centre).powi(2))),
                (estimate.mean_exp(2.5), mean(&|c| (2.5 * c).exp())),
                (estimate.mean_exp(-30.0), mean(&|c| (-30.0 * c).exp())),
                (estimate.probability_of_zero(), mean(&|c| f64::from(u8::from(c == 0.0)))),
            ];
            for (got, exact) in pairs {
                assert!(
                    (got - exact).abs() < 1e-12 * exact.max(1.0),
                    "{y}, {rollouts}: {got} {exact}"
                );
            }
        }
    }
}

#[test]
fn moments_survive_extremes() {
    let outcomes = Outcomes::new(vec![0.5, 0.5, 0.0, 0.0], vec![0.0, 1.0, -1.0, 2.0]).unwrap();
    let many = |y, k: usize| outcomes.empirical_calibration(y, k.try_into().unwrap()).unwrap();
    // Below everything and above everything, Ĉ is 0 and 1 whatever is rolled out.
    assert_eq!((many(2, 7).mean_exp(1e5), many(2, 7).probability_of_zero()), (1.0, 1.0));
    assert_eq!((many(3, 7).mean_exp(-2.0), many(3, 7).probability_of_zero()), ((-2f64).exp(), 0.0));
    assert_close("E e^{tĈ}", many(0, 1).mean_exp(700.0), 0.5 * 350f64.exp());
    assert_eq!(many(1, 1).mean_exp(1e4), f64::INFINITY);
}

#[test]
fn refuses_what_is_no_distribution_and_says_why() {
    let error = |p: &[f64], r: &[f64]| Outcomes::new(p.to_vec(), r.to_vec()).unwrap_err();
    assert_eq!(
        error(&[0.5, 0.5], &[1.0]).to_string(),
        "2 probabilities for 1 rewards do not describe outcomes; give one of each for every outcome, \
         and at least one outcome"
    );
    assert!(matches!(error(&[], &[]), TransformError::OutcomeCount { .. }));
    assert_eq!(
        error(&[1.5, -0.5], &[0.0, 1.0]).to_string(),
        "probability 1 is -0.5; it must be a finite number of 0 or more"
    );
    assert!(matches!(error(&[f64::NAN], &[0.0]), TransformError::Probability { index: 0, .. }));
    let infinite = error(&[0.5, 0.5], &[0.0, f64::INFINITY]).to_string();
    assert_eq!(infinite, "reward 1 is inf; it must be finite");
    assert_eq!(error(&[0.5, 0.5 + 1e-8], &[0.0, 1.0]), TransformError::ProbabilitySum(1.0 + 1e-8));

    let pair = Outcomes::new(vec![0.5, 0.5 + 1e-10], vec![0.0, 1.0]).unwrap();
    assert_eq!(pair.probabilities().iter().sum::<f64>(), 1.0);
    let outside = pair.empirical_calibration(2, 4.try_into().unwrap()).unwrap_err();
    assert_eq!(outside, TransformError::NoOutcome { index: 2, count: 2 });
    for text in ["cd-token:lambda=1", "beam:width=1,branch=2,length=3"] {
        let refused = TransformError::NotByRank(text.to_owned());
        assert_eq!(pair.under(&procedure(text)), Err(refused.clone()));
        assert_eq!(pair.optimum(&procedure(text), beta(1.0)), Err(refused));
    }
    assert!(matches!(
        pair.win_rate(&Procedure::Sample, &[1.0]),
        Err(TransformError::OutcomeCount { probabilities: 1, rewards: 2 })
    ));
    assert!((pair.kl(&[0.0, 1.0]).unwrap() - 2f64.ln()).abs() < 1e-9);
}

/// Two outcomes at u = ¼ and ¾: π₁/π₀ = e^{(Φ(¾) − Φ(¼))/β}, however far Φ(1) is above both.
#[test]
fn steep_transforms_tilt_what_lies_far_below_their_top() {
    let coin = Outcomes::new(vec![0.5, 0.5], vec![1.0, 2.0]).unwrap();
    for t in [-200.0, -80.0, 10.0, 80.0, 120.0, 150.0, 200.0f64] {
        let gap = if t > 0.0 {
            (0.75 * t).exp() - (0.25 * t).exp()
        } else {
            (0.25 * t).exp() - (0.75 * t).exp()
        };
        let transform = format!("exp:{t}").parse().unwrap();
        for odds in [0.1, 1.4, 30.0] {
            let policy = coin.tilt(&transform, Beta::new(gap / odds).unwrap());
            assert_close(&format!("exp:{t}"), policy[1], 1.0 / (1.0 + f64::exp(-odds)));
        }
    }
    let sure = coin.tilt(&"exp:500".parse().unwrap(), Beta::new(1e-310).unwrap());
    assert_eq!(sure, [0.0, 1.0]);
}
