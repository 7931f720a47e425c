//! The continuous-language engine against values computed with 50 digits.
//!
//! They lie in `reference/continuous_transforms.json` beside the folder that `INFALIGN_DATA` names.
//! Their β is the raw one of sign(t)·e^{tu}, as everywhere in this crate.
#![allow(clippy::expect_used, reason = "helpers of tests")]

mod common;

use common::{assert_close, number, reference};
use infalign_transform::{Beta, Procedure, Tilt, Transform, beta_for_kl};
use serde_json::Value;

/// The files write `exp(5)` for `exp:5`.
fn transform(row: &Value) -> Transform {
    let name = row["transform"].as_str().expect("a name").replace('(', ":").replace(')', "");
    name.parse().expect("a known transform")
}

fn assert_win_rates(row: &Value, tilt: &Tilt) {
    let columns = [
        ("W_std", "sample"),
        ("BoN2", "best-of:2"),
        ("WoN2", "worst-of:2"),
        ("BoN4", "best-of:4"),
        ("WoN4", "worst-of:4"),
    ];
    for (column, procedure) in columns {
        let procedure: Procedure = procedure.parse().expect("a known procedure");
        let got = tilt.win_rate(&procedure).expect("acts on ranks");
        assert_close(&format!("{} {column}", row["transform"]), got, number(row, column));
    }
}

#[test]
fn every_row_at_a_given_beta() {
    let Some(file) = reference("continuous_transforms.json") else { return };
    for row in file["fixed_beta"].as_array().expect("a list") {
        let beta = Beta::new(number(row, "beta")).expect("positive");
        let tilt = Tilt::new(&transform(row), beta).unwrap();
        assert_close(&format!("{} KL", row["transform"]), tilt.kl(), number(row, "KL"));
        assert_win_rates(row, &tilt);
    }
}

#[test]
fn every_row_at_a_given_kl() {
    let Some(file) = reference("continuous_transforms.json") else { return };
    for row in file["fixed_KL"].as_array().expect("a list") {
        let transform = transform(row);
        let beta = beta_for_kl(&transform, number(row, "KL")).expect("reachable");
        assert_close(&format!("{} beta", row["transform"]), beta.get(), number(row, "beta"));
        assert_win_rates(row, &Tilt::new(&transform, beta).unwrap());
    }
}

#[test]
fn best_of_n_is_the_logarithm_at_one_over_n_minus_one() {
    let Some(file) = reference("continuous_transforms.json") else { return };
    for row in file["best_of_n"].as_array().expect("a list").iter().skip(1) {
        let n = row["n"].as_f64().expect("a number");
        let tilt =
            Tilt::new(&Transform::Log, Beta::new(1.0 / (n - 1.0)).expect("positive")).unwrap();
        assert_close("KL", tilt.kl(), number(row, "KL"));
        let won = tilt.win_rate(&Procedure::Sample).expect("acts on ranks");
        assert_close("win rate", won, number(row, "win_rate"));
    }
}
