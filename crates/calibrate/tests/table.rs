//! Calibration tables as a caller meets them: quantiles, refusals, and the file.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use infalign_calibrate::{CalibrateError, Calibration, CalibrationMeta, SCHEMA_VERSION, store};

fn meta() -> CalibrationMeta {
    CalibrationMeta {
        schema_version: SCHEMA_VERSION,
        model_sha256: "ab".repeat(32),
        reward: "length".into(),
        tokenizer_sha256: "cd".repeat(32),
        sampling: "temperature 1, at most 64 tokens, seed 7".into(),
        samples: 3,
    }
}

fn small() -> Calibration {
    let mut calibration = Calibration::new(meta());
    calibration.insert("second first", vec![2.0, -1.5, 2.0]).unwrap();
    calibration.insert("a ✓", vec![f32::MIN, f32::MAX, 0.0, -0.0]).unwrap();
    calibration
}

fn bytes(calibration: &Calibration) -> Vec<u8> {
    let mut bytes = Vec::new();
    store::write_to(calibration, &mut bytes).unwrap();
    bytes
}

/// Numbers in [0, 1) from a fixed linear congruence.
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1u64 << 24) as f32
}

#[test]
fn a_table_comes_back_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calibration.parquet");
    // More than one row group.
    let mut calibration = small();
    for prompt in 0..9_000 {
        let rewards = (0..2 + prompt % 5).map(|k| (prompt * k) as f32 * 0.1).collect();
        calibration.insert(&format!("prompt {prompt}"), rewards).unwrap();
    }
    store::write_to(&calibration, std::fs::File::create(&path).unwrap()).unwrap();
    let read = store::read(&path).unwrap();
    assert_eq!(read, calibration);
    assert_eq!(read.meta(), &meta());
    assert_eq!(read.len(), 9_002);
    assert_eq!(read.prompt_ids().next(), Some("second first"));
    assert_eq!(read.rewards("second first"), Some(&[-1.5, 2.0, 2.0][..]));
}

#[test]
fn an_empty_table_comes_back_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.parquet");
    std::fs::write(&path, bytes(&Calibration::new(meta()))).unwrap();
    assert!(store::read(&path).unwrap().is_empty());
}

#[test]
fn equal_tables_give_equal_bytes() {
    assert_eq!(bytes(&small()), bytes(&small()));
}

#[test]
fn ties_count_half_and_the_ends_stay_inside() {
    let calibration = small();
    let raw = |reward| calibration.raw_quantile("second first", reward).unwrap();
    assert_eq!(
        [raw(-9.0), raw(-1.5), raw(0.0), raw(2.0), raw(3.0)],
        [0.0, 0.5 / 3.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]
    );
    let smooth = |reward| calibration.quantile("second first", reward).unwrap();
    assert_eq!([smooth(-9.0), smooth(2.0), smooth(3.0)], [0.125, 0.625, 0.875]);
    assert_eq!(calibration.raw_quantile("a ✓", -0.0).unwrap(), 0.5);
}

#[test]
fn fresh_samples_of_the_reference_are_uniform() {
    // Skewed rewards, the same law for reference and fresh responses: u must not show the skew.
    let mut state = 5;
    let mut reward = |scale: f32| (scale * uniform(&mut state)).exp();
    let mut calibrated: Vec<f64> = Vec::new();
    for prompt in 0..400 {
        let mut calibration = Calibration::new(meta());
        let scale = 1.0 + prompt as f32 / 50.0;
        calibration.insert("x", (0..64).map(|_| reward(scale)).collect()).unwrap();
        calibrated.extend((0..10).map(|_| calibration.quantile("x", reward(scale)).unwrap()));
    }
    calibrated.sort_by(f64::total_cmp);
    let count = calibrated.len() as f64;
    let gap = |(i, u): (usize, &f64)| (u - (i as f64 + 0.5) / count).abs();
    let distance = calibrated.iter().enumerate().map(gap).fold(0.0, f64::max);
    assert!(distance < 0.04, "Kolmogorov distance {distance}");
}

#[test]
fn increasing_maps_of_the_reward_change_nothing() {
    let mut state = 9;
    let rewards: Vec<f32> = (0..50).map(|_| uniform(&mut state)).collect();
    let mapped = rewards.iter().map(|r| 3.0 * r.exp() - 7.0).collect();
    let mut calibration = Calibration::new(meta());
    calibration.insert("plain", rewards.clone()).unwrap();
    calibration.insert("mapped", mapped).unwrap();
    for reward in rewards {
        let plain = calibration.quantile("plain", reward).unwrap();
        assert_eq!(calibration.quantile("mapped", 3.0 * reward.exp() - 7.0).unwrap(), plain);
    }
}

#[test]
fn refusals_name_prompt_and_value() {
    let mut calibration = small();
    let text = |result: Result<(), CalibrateError>| result.unwrap_err().to_string();
    let nan = text(calibration.insert("n", vec![1.0, f32::NAN]));
    assert_eq!(nan, "a reward of prompt `n` is NaN; rewards must be finite to have a rank");
    assert!(
        text(calibration.insert("n", vec![1.0])).starts_with("prompt `n` has 1 reference rewards")
    );
    assert!(
        text(calibration.insert("a ✓", vec![1.0, 2.0])).starts_with("prompt `a ✓` is in the table")
    );
    assert_eq!(calibration.len(), 2);
    let unknown = calibration.quantile("b", 0.0).unwrap_err().to_string();
    assert!(unknown.starts_with("prompt `b` is not among the 2 prompts"));
    assert!(calibration.quantile("a ✓", f32::INFINITY).is_err());
}

#[test]
fn a_table_made_otherwise_is_refused_by_the_field() {
    let calibration = small();
    calibration.check(&meta()).unwrap();
    let other = CalibrationMeta { samples: 8, ..meta() };
    let message = calibration.check(&other).unwrap_err().to_string();
    assert!(message.contains("made with samples `3`, but the run has `8`"), "{message}");
    let other = CalibrationMeta { model_sha256: "00".into(), ..meta() };
    let message = calibration.check(&other).unwrap_err().to_string();
    assert!(message.contains("model_sha256"), "{message}");
}

#[test]
fn truncated_files_are_errors_that_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.parquet");
    let whole = bytes(&small());
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let message = store::read(&path).unwrap_err().to_string();
        assert!(message.contains("cut.parquet"), "{length}: {message}");
    }
    let missing = store::read(folder.path().join("none.parquet")).unwrap_err();
    assert!(matches!(missing, CalibrateError::Open { .. }));
}

#[test]
fn damaged_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.parquet");
    let whole = bytes(&small());
    for place in 0..whole.len() {
        for flip in [0x01, 0x55, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[place] ^= flip;
            std::fs::write(&path, &damaged).unwrap();
            if let Err(error) = store::read(&path) {
                assert!(error.to_string().contains("damaged.parquet"));
            }
        }
    }
}

#[test]
fn another_schema_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.parquet");
    let newer = CalibrationMeta { schema_version: 2, ..meta() };
    std::fs::write(&path, bytes(&Calibration::new(newer))).unwrap();
    let message = store::read(&path).unwrap_err().to_string();
    assert!(message.ends_with("its schema version is `2`, not 1"), "{message}");
}
