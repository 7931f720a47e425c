//! Calibrated rewards that K sampled rewards give: their moments are those of the exact engine's reference.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say what they skip"
)]

use infalign_calibrate::{Calibration, CalibrationMeta, noisy_transform};
use serde_json::Value;

/// A number written as a fraction or a decimal.
fn number(value: &Value) -> f64 {
    let text = value.as_str().unwrap();
    match text.split_once('/') {
        Some((a, b)) => a.parse::<f64>().unwrap() / b.parse::<f64>().unwrap(),
        None => text.parse().unwrap(),
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

/// Numbers in [0, 1) from a fixed linear congruence.
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 11) as f64 / (1u64 << 53) as f64
}

/// One outcome's Ĉ among K rewards drawn from the problem, `repeats` times.
fn estimates(p: &[f64], rewards: &[f64], outcome: usize, k: usize, repeats: usize) -> Vec<f64> {
    let mut state = (k * 10 + outcome) as u64;
    let mut draw = || {
        let mut left = uniform(&mut state);
        let index = p.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        rewards[index.unwrap_or(p.len() - 1)] as f32
    };
    let mut estimate = || {
        let mut table = Calibration::new(CalibrationMeta::default());
        table.insert("x", "x", (0..k).map(|_| draw()).collect()).unwrap();
        table.row("x").unwrap().raw_quantile(rewards[outcome] as f32)
    };
    (0..repeats).map(|_| estimate()).collect()
}

#[test]
fn moments_are_those_of_the_reference() {
    let data = std::env::var("INFALIGN_DATA").ok().filter(|data| !data.is_empty());
    let Some(data) = data else {
        eprintln!(
            "SKIPPED toy_discrete.json: set INFALIGN_DATA to the data folder to compare with it"
        );
        return;
    };
    let text = std::fs::read_to_string(format!("{data}/../reference/toy_discrete.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let (p, rewards) = (numbers(&file["p_ref"]), numbers(&file["reward"]));
    // A table has 2 rewards or more.
    let rows = file["empirical_calibration"].as_array().unwrap().iter();
    let rows: Vec<_> = rows.filter(|row| row["K"].as_u64().unwrap() >= 2).collect();
    assert!(rows.len() >= 7);
    for row in rows {
        let (k, y) = (row["K"].as_u64().unwrap() as usize, row["y"].as_u64().unwrap() as usize);
        let estimates = estimates(&p, &rewards, y, k, 4_000);
        let check = |what: &str, expected: f64, f: &dyn Fn(f64) -> f64| {
            let n = estimates.len() as f64;
            let mean = estimates.iter().map(|c| f(*c)).sum::<f64>() / n;
            let spread = estimates.iter().map(|c| (f(*c) - mean).powi(2)).sum::<f64>() / (n - 1.0);
            let error = (mean - expected).abs();
            let allowed = 5.0 * (spread / n).sqrt() + 1e-6 * expected.abs();
            assert!(error <= allowed, "K = {k}, y = {y}, {what}: {mean} against {expected}");
        };
        let centre = number(&row["mean"]);
        check("mean", centre, &|c| c);
        check("variance", number(&row["var_exact"]), &|c| (c - centre).powi(2));
        for t in [5.0, -5.0, -10.0] {
            check(&format!("exp({t}C)"), number(&row[&format!("E_exp({t}C)")]), &|c| (t * c).exp());
        }
    }
}

#[test]
fn without_ties_the_noise_is_binomial() {
    // 2,000 equal steps of the reward stand for a continuous one.
    let (p, rewards): (Vec<f64>, Vec<f64>) = (0..2_000).map(|i| (5e-4, f64::from(i))).unzip();
    let phi = |u: f64| (5.0 * u).exp();
    for (outcome, k) in [(1_000, 8), (1_900, 32), (100, 16)] {
        let u = (outcome as f64 + 0.5) / 2_000.0;
        let smoothed = |c: f64| phi((k as f64 * c + 0.5) / (k as f64 + 1.0));
        let values: Vec<f64> =
            estimates(&p, &rewards, outcome, k, 4_000).into_iter().map(smoothed).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let expected = noisy_transform(phi, k, u);
        assert!((mean / expected - 1.0).abs() < 0.05, "K = {k}: {mean} against {expected}");
    }
}
