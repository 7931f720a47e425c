//! The optimum against values computed with 50 digits, and over the whole range of its arguments.
//!
//! The values lie in `reference/continuous_optimal.json` beside the folder that `INFALIGN_DATA` names.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

mod common;

use common::{assert_close, number, reference};
use infalign_transform::{
    Beta, Optimum, Procedure, RankDensity, Tilt, Transform, TransformError, beta_for_kl,
};
use serde_json::Value;

fn procedure(row: &Value) -> Procedure {
    let name = if row["proc"] == "BoN" { "best-of" } else { "worst-of" };
    format!("{name}:{}", row["N"]).parse().unwrap()
}

#[test]
fn every_row_at_a_given_beta() {
    let Some(file) = reference("continuous_optimal.json") else { return };
    for row in file["fixed_beta"].as_array().unwrap() {
        let procedure = procedure(row);
        let optimum = Optimum::new(&procedure, Beta::new(number(row, "beta")).unwrap()).unwrap();
        let what = format!("{procedure} at β = {}", row["beta"]);
        assert_close(&what, optimum.win_rate, number(row, "W"));
        assert_close(&what, optimum.kl, number(row, "KL"));
        assert_close(&what, optimum.objective, number(row, "objective"));
        assert!(optimum.residual < 1e-12, "{what}: residual {}", optimum.residual);
        assert_curve(&what, &optimum, &row["curve"]);
    }
}

fn assert_curve(what: &str, optimum: &Optimum, expected: &Value) {
    let column = |key: &str| -> Vec<f64> {
        let values = expected[key].as_array().unwrap();
        values.iter().map(|value| value.as_str().unwrap().parse().unwrap()).collect()
    };
    let curve = optimum.curve(&column("u"));
    for (k, u) in curve.u.iter().enumerate() {
        let (cdf, phi) = (column("F")[k], column("Phi_minus_Phi(1)")[k]);
        assert!((curve.cdf[k] - cdf).abs() < 1e-12, "{what}, F({u}): {} for {cdf}", curve.cdf[k]);
        assert!((curve.phi[k] - phi).abs() < 1e-11, "{what}, Φ({u}): {} for {phi}", curve.phi[k]);
    }
}

#[test]
fn every_row_at_a_given_kl() {
    let Some(file) = reference("continuous_optimal.json") else { return };
    for row in file["fixed_KL"].as_array().unwrap() {
        let procedure = procedure(row);
        let optimum = Optimum::for_kl(&procedure, number(row, "KL")).unwrap();
        let what = format!("{procedure} at KL = {}", row["KL"]);
        assert_close(&what, optimum.beta.get(), number(row, "beta"));
        assert_close(&what, optimum.win_rate, number(row, "W"));
    }
}

fn at(procedure: &str, beta: f64) -> Optimum {
    Optimum::new(&procedure.parse().unwrap(), Beta::new(beta).unwrap()).unwrap()
}

#[test]
fn the_certificate_holds_over_the_whole_range() {
    for n in [2, 3, 4, 32, 1_000, 10_000] {
        for name in ["best-of", "worst-of"] {
            for beta in [1e6, 1e3, 10.0, 1.0, 0.1, 1e-2, 1e-4, 1e-8, 1e-20] {
                let optimum = at(&format!("{name}:{n}"), beta);
                let what = format!("{name}:{n} at β = {beta:e}");
                assert!(optimum.residual < 1e-12, "{what}: residual {}", optimum.residual);
                assert!((0.5..=1.0).contains(&optimum.win_rate) && optimum.kl > 0.0, "{what}");
            }
        }
    }
}

#[test]
fn quadrature_of_the_transform_finds_the_same_kl_and_win_rate() {
    for procedure in ["best-of:2", "best-of:32", "best-of:10000", "worst-of:3", "worst-of:1000"] {
        for beta in [100.0, 1.0, 0.05, 1e-4] {
            let optimum = at(procedure, beta);
            let transform: Transform = format!("optimal:{procedure},beta={beta}").parse().unwrap();
            let tilt = Tilt::new(&transform, optimum.beta).unwrap();
            let what = format!("{procedure} at β = {beta}");
            assert_close(&what, tilt.kl(), optimum.kl);
            assert_close(&what, tilt.win_rate_under(&optimum.rank), optimum.win_rate);
            assert!((tilt.cdf(0.7) - optimum.cdf(0.7)).abs() < 1e-11, "{what}");
        }
    }
}

#[test]
fn no_other_transform_does_better_at_the_same_kl() {
    for procedure in ["sample", "best-of:4", "worst-of:4", "best-of:64"] {
        let procedure: Procedure = procedure.parse().unwrap();
        for kl in [1e-4, 0.1, 1.0, 3.0] {
            let best = Optimum::for_kl(&procedure, kl).unwrap();
            assert!((best.kl / kl - 1.0).abs() < 1e-10);
            for other in ["identity", "log", "exp:5", "exp:10", "exp:-10", "exp:40"] {
                let other: Transform = other.parse().unwrap();
                let beta = beta_for_kl(&other, kl).unwrap();
                let won = Tilt::new(&other, beta).unwrap().win_rate(&procedure).unwrap();
                assert!(won <= best.win_rate + 1e-12, "{procedure} at {kl}: {other} wins {won}");
            }
        }
    }
}

#[test]
fn known_limits() {
    // One response: the identity. Worst-of-N at small β: 1 − β/N.
    let (one, identity) =
        (at("best-of:1", 0.3), Tilt::new(&Transform::Identity, Beta::new(0.3).unwrap()).unwrap());
    assert_eq!((one.kl, one.cdf(0.4), one.phi(0.25)), (identity.kl(), identity.cdf(0.4), -0.75));
    for n in [2, 8, 10_000] {
        assert_close(
            "worst-of",
            at(&format!("worst-of:{n}"), 1e-3).win_rate,
            1.0 - 1e-3 / f64::from(n),
        );
    }
}

#[test]
fn what_has_no_optimum_says_so() {
    let beta = Beta::new(0.1).unwrap();
    let error = Optimum::new(&"cd-token:lambda=1".parse().unwrap(), beta).unwrap_err().to_string();
    assert!(error.starts_with("the win rate of `cd-token:lambda=1` depends on"), "{error}");
    for extreme in [1e-300, 1e300] {
        let result = Optimum::new(&"best-of:2".parse().unwrap(), Beta::new(extreme).unwrap());
        assert!(matches!(result, Err(TransformError::NoOptimum { .. })), "{extreme:e}");
    }
    let far = Optimum::for_kl(&"worst-of:100".parse().unwrap(), 50.0).unwrap_err();
    let TransformError::UnreachableKl { supremum, .. } = far else { panic!("{far}") };
    assert!(supremum > 1.0 && supremum < 50.0);
    let far = Optimum::for_kl(&"best-of:10000".parse().unwrap(), 100.0).unwrap_err();
    let TransformError::UnreachableKl { infimum, supremum, .. } = far else { panic!("{far}") };
    assert!(infimum < 1e-20 && (20.0..100.0).contains(&supremum), "{infimum:e} {supremum}");
    for text in
        ["optimal:best-of:4", "optimal:best-of:0,beta=1", "optimal:best-of:4,beta=-1", "optimal"]
    {
        assert!(text.parse::<Transform>().is_err(), "{text}");
    }
}

#[test]
fn a_kl_out_of_reach_is_told_with_both_ends() {
    for (procedure, kl) in [("best-of:4", 1e-40), ("best-of:4", 1e5), ("sample", 1e-40)] {
        let error = Optimum::for_kl(&procedure.parse().unwrap(), kl).unwrap_err();
        let TransformError::UnreachableKl { infimum, supremum, .. } = error else {
            panic!("{error}")
        };
        assert!(infimum < 1e-10 && supremum > 50.0, "{procedure} at {kl:e}: {infimum} {supremum}");
    }
}

/// Between two bends of Φ* log f may fall by hundreds of nats: the certificate has to resolve that.
#[test]
fn steps_are_certified_at_small_beta() {
    let rank = RankDensity::steps(&[0.0, 0.5, 1.0], &[1.0, 3.0]).unwrap();
    for beta in [1e-2, 1e-3, 5e-4, 1e-4] {
        let best = Optimum::under(&rank, Beta::new(beta).unwrap()).unwrap();
        assert!(best.residual < 1e-9, "β = {beta}: {:e}", best.residual);
    }
}
