//! What the tests against reference files share.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "helpers of tests")]

use serde_json::Value;

/// Greatest relative error allowed against the reference.
const TOLERANCE: f64 = 1e-10;

/// A file of the reference folder, or a loud note and `None` where there is none.
pub(crate) fn reference(name: &str) -> Option<Value> {
    let data = std::env::var("INFALIGN_DATA").ok().filter(|data| !data.is_empty());
    let Some(data) = data else {
        eprintln!("SKIPPED {name}: set INFALIGN_DATA to the data folder to compare with it");
        return None;
    };
    let path = format!("{data}/../reference/{name}");
    let text =
        std::fs::read_to_string(&path).expect("the reference folder is beside the data folder");
    Some(serde_json::from_str(&text).expect("reference files are JSON"))
}

/// A number that the file writes as text, with more digits than fit.
pub(crate) fn number(row: &Value, key: &str) -> f64 {
    let text = row[key].as_str().expect("numbers are written as text");
    text.parse().expect("a decimal number")
}

/// Fails unless `got` is `expected` to the tolerance.
pub(crate) fn assert_close(what: &str, got: f64, expected: f64) {
    let error = (got / expected - 1.0).abs();
    assert!(error < TOLERANCE, "{what}: {got} against {expected}, relative error {error:.1e}");
}
