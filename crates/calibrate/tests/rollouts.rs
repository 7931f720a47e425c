//! Rollouts come back from their file as they went in, and anything else is refused by a sentence.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use infalign_calibrate::rollouts::{ReferenceResponse, Rollouts, read, read_from, write_to};
use infalign_calibrate::{Calibration, CalibrationMeta, store};

fn meta() -> CalibrationMeta {
    CalibrationMeta { model_sha256: "ab".into(), seed: 7, ..CalibrationMeta::default() }
}

fn response(tokens: &[u32], reward: f32) -> ReferenceResponse {
    let log_probs = tokens.iter().map(|&token| -0.5 - (token % 7) as f32).collect();
    ReferenceResponse { tokens: tokens.to_vec(), log_probs, reward }
}

fn small() -> Rollouts {
    let mut rollouts = Rollouts::new(meta(), 2);
    rollouts
        .insert("a ✓", "first", vec![response(&[3, u32::MAX], 1.5), response(&[4], -0.0)])
        .unwrap();
    rollouts.insert("b", "second", vec![response(&[1, 2, 3], 0.0), response(&[1], 2.0)]).unwrap();
    rollouts
}

fn bytes(rollouts: &Rollouts) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_to(rollouts, &mut bytes).unwrap();
    bytes
}

#[test]
fn rollouts_come_back_from_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollouts.parquet");
    // More than a row group.
    let mut many = small();
    for index in 0..5000 {
        let (id, token) = (index.to_string(), index as u32);
        let responses = vec![response(&[token], 1.0), response(&[token, 2], index as f32)];
        many.insert(&id, &id, responses).unwrap();
    }
    for rollouts in [small(), many, Rollouts::new(meta(), 3)] {
        std::fs::write(&path, bytes(&rollouts)).unwrap();
        assert_eq!(read(&path).unwrap(), rollouts);
        assert_eq!(read_from(bytes(&rollouts), "rollouts").unwrap(), rollouts);
        assert_eq!(bytes(&rollouts), bytes(&rollouts));
    }
    let first = small();
    let responses = first.of("first").unwrap();
    assert_eq!(responses[0].log_prob(), -0.5 - 3.0 - 0.5 - f64::from(u32::MAX % 7));
    let error = first.of("third").unwrap_err().to_string();
    assert!(error.contains("\"third\" is not among the 2 prompts of these rollouts"), "{error}");
}

#[test]
fn what_contradicts_itself_is_refused_and_changes_nothing() {
    let mut rollouts = small();
    let refused =
        |result: Result<(), infalign_calibrate::CalibrateError>| result.unwrap_err().to_string();
    let one = refused(rollouts.insert("c", "third", vec![response(&[1], 0.0)]));
    assert!(one.contains("`c`") && one.contains("there are 1, not 2"), "{one}");
    let good = response(&[1], 0.0);
    let empty = refused(rollouts.insert("c", "third", vec![good.clone(), response(&[], 0.0)]));
    assert!(empty.contains("0 tokens"), "{empty}");
    let short = ReferenceResponse { log_probs: vec![-1.0, -1.0], ..good.clone() };
    let short = refused(rollouts.insert("c", "third", vec![good.clone(), short]));
    assert!(short.contains("1 tokens have 2 log-probabilities"), "{short}");
    let unlikely = ReferenceResponse { log_probs: vec![f32::NAN], ..good.clone() };
    let unlikely = refused(rollouts.insert("c", "third", vec![good.clone(), unlikely]));
    assert!(unlikely.contains("a log-probability is NaN"), "{unlikely}");
    let nan = vec![good.clone(), response(&[1], f32::NAN)];
    assert!(refused(rollouts.insert("c", "third", nan)).contains("NaN"));
    assert!(refused(rollouts.insert("c", "first", vec![good.clone(), good])).contains("already"));
    assert_eq!(rollouts, small());
}

#[test]
fn rollouts_of_something_else_are_refused() {
    small().check(&meta(), 2).unwrap();
    let other = CalibrationMeta { model_sha256: "cd".into(), ..meta() };
    let message = small().check(&other, 2).unwrap_err().to_string();
    assert!(message.contains("rollouts was made with model_sha256 `ab`"), "{message}");
    let message = small().check(&meta(), 4).unwrap_err().to_string();
    assert!(message.contains("samples `2`, but the run has `4`"), "{message}");
    // Neither file passes for the other.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.parquet");
    let mut table = Vec::new();
    store::write_to(&Calibration::new(meta()), &mut table).unwrap();
    std::fs::write(&path, table).unwrap();
    let message = read(&path).unwrap_err().to_string();
    assert!(
        message.contains("table.parquet") && message.contains("not a file of rollouts"),
        "{message}"
    );
    std::fs::write(&path, bytes(&small())).unwrap();
    let message = store::read(&path).unwrap_err().to_string();
    assert!(message.contains("is not a calibration table"), "{message}");
}

#[test]
fn damaged_rollouts_never_panic() {
    common::check_damage(&bytes(&small()), read);
}
