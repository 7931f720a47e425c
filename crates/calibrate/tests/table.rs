//! Calibration tables as a caller meets them: quantiles, refusals, and the file.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use infalign_calibrate::{
    CalibrateError, Calibration, CalibrationMeta, PromptKey, SCHEMA_VERSION, store,
};

fn meta() -> CalibrationMeta {
    CalibrationMeta {
        model_sha256: "ab".repeat(32),
        reward: "length".into(),
        tokenizer_sha256: "cd".repeat(32),
        template_sha256: String::new(),
        sampling: "temperature 1, at most 64 tokens".into(),
        seed: 7,
        quantiles: None,
    }
}

fn small() -> Calibration {
    let mut calibration = Calibration::new(meta());
    calibration.insert("second first", "second first", vec![2.0, -1.5, 2.0]).unwrap();
    calibration.insert("a ✓", "a ✓", vec![f32::MIN, f32::MAX, 0.0, -0.0]).unwrap();
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
        let text = format!("prompt {prompt}");
        calibration.insert(&text, &text, rewards).unwrap();
    }
    store::write_to(&calibration, std::fs::File::create(&path).unwrap()).unwrap();
    let read = store::read(&path).unwrap();
    assert_eq!(read, calibration);
    assert_eq!(read.meta(), &meta());
    assert_eq!(read.len(), 9_002);
    assert_eq!(read.rows()[0].id(), "second first");
    assert_eq!(read.row("second first").unwrap().values(), [-1.5, 2.0, 2.0]);
}

#[test]
fn an_empty_table_comes_back_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.parquet");
    std::fs::write(&path, bytes(&Calibration::new(meta()))).unwrap();
    assert!(store::read(&path).unwrap().is_empty());
}

#[test]
fn a_table_comes_back_from_bytes_and_refusals_call_them_by_their_name() {
    let whole = bytes(&small());
    assert_eq!(store::read_from(whole.clone(), "bucket/table").unwrap(), small());
    let damaged = store::read_from(whole[..whole.len() / 2].to_vec(), "bucket/table").unwrap_err();
    assert!(matches!(damaged, CalibrateError::Damaged { .. }));
    assert!(damaged.to_string().starts_with("`bucket/table` is not a complete"), "{damaged}");
}

#[test]
fn rows_are_found_by_the_hash_of_a_prompt_and_by_its_id() {
    let mut calibration = small();
    // printf 'second first' | sha256sum
    let hash = "ba3f5850358bf76531c9bc06adec7f54b2099455bfacea161e77d5a76fb98f3d";
    let key: PromptKey = hash.parse().unwrap();
    assert_eq!(key.to_string(), hash);
    assert_eq!(hash.to_uppercase().parse::<PromptKey>().unwrap(), key);
    assert_eq!(calibration.get_by_key(key), calibration.get("second first"));
    assert_eq!(calibration.get_by_key(PromptKey::of("b")), None);
    for bad in [&hash[1..], &format!("{hash}0"), &hash.replace('a', "g"), &"+f".repeat(32)] {
        let refused = bad.parse::<PromptKey>().unwrap_err().to_string();
        assert!(refused.contains(bad) && refused.contains("64 hexadecimal"), "{refused}");
    }
    assert_eq!(calibration.by_id().unwrap()["a ✓"].samples(), 4);
    calibration.insert("a ✓", "another text", vec![1.0, 2.0]).unwrap();
    let refused = calibration.by_id().unwrap_err().to_string();
    assert_eq!(refused, "several prompts have the id `a ✓`; look them up by their texts or keys");
}

#[test]
fn equal_tables_give_equal_bytes() {
    assert_eq!(bytes(&small()), bytes(&small()));
}

#[test]
fn ties_count_half_and_the_ends_stay_inside() {
    let calibration = small();
    let raw = |reward| calibration.row("second first").unwrap().raw_quantile(reward);
    assert_eq!(
        [raw(-9.0), raw(-1.5), raw(0.0), raw(2.0), raw(3.0)],
        [0.0, 0.5 / 3.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]
    );
    let smooth = |reward| calibration.quantile("second first", reward).unwrap();
    assert_eq!([smooth(-9.0), smooth(2.0), smooth(3.0)], [0.125, 0.625, 0.875]);
    assert_eq!(calibration.row("a ✓").unwrap().raw_quantile(-0.0), 0.5);
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
        calibration.insert("x", "x", (0..64).map(|_| reward(scale)).collect()).unwrap();
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
    calibration.insert("plain", "plain", rewards.clone()).unwrap();
    calibration.insert("mapped", "mapped", mapped).unwrap();
    for reward in rewards {
        let plain = calibration.quantile("plain", reward).unwrap();
        assert_eq!(calibration.quantile("mapped", 3.0 * reward.exp() - 7.0).unwrap(), plain);
    }
}

#[test]
fn refusals_name_prompt_and_value() {
    let mut calibration = small();
    let text = |result: Result<(), CalibrateError>| result.unwrap_err().to_string();
    let nan = text(calibration.insert("n", "n", vec![1.0, f32::NAN]));
    assert_eq!(nan, "a reward of prompt `n` is NaN; rewards must be finite to have a rank");
    assert!(
        text(calibration.insert("n", "n", vec![1.0]))
            .starts_with("prompt `n` has 1 reference rewards")
    );
    assert!(
        text(calibration.insert("a ✓", "a ✓", vec![1.0, 2.0]))
            .starts_with("prompt `a ✓` is in the table")
    );
    assert_eq!(calibration.len(), 2);
    let unknown = calibration.quantile("b", 0.0).unwrap_err().to_string();
    assert!(unknown.starts_with("the prompt \"b\" is not among the 2 prompts"), "{unknown}");
    let asked = [("1", "b"), ("2", "a ✓"), ("3", "c")];
    let missing = calibration.check_holds(asked.into_iter()).unwrap_err().to_string();
    assert!(missing.starts_with("2 of 3 prompts") && missing.contains("`1`, `3`"), "{missing}");
    assert!(calibration.quantile("a ✓", f32::INFINITY).is_err());
}

#[test]
fn a_table_made_otherwise_is_refused_by_the_field() {
    let calibration = small();
    calibration.check(&meta()).unwrap();
    let other = CalibrationMeta { seed: 8, ..meta() };
    let message = calibration.check(&other).unwrap_err().to_string();
    assert!(message.contains("made with seed `7`, but the run has `8`"), "{message}");
    let other = CalibrationMeta { model_sha256: "00".into(), ..meta() };
    let message = calibration.check(&other).unwrap_err().to_string();
    assert!(message.contains("model_sha256"), "{message}");
}

#[test]
fn damaged_tables_never_panic() {
    common::check_damage(&bytes(&small()), store::read);
    let missing = store::read("no/such.parquet").unwrap_err();
    assert!(matches!(missing, CalibrateError::Open { .. }));
}

#[test]
fn another_schema_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.parquet");
    // The version stands in the metadata once, as text behind its key.
    let mut bytes = bytes(&small());
    let key = b"infalign.schema_version";
    let start = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    let digit = b'0' + SCHEMA_VERSION as u8;
    let place = start + bytes[start..].iter().position(|&byte| byte == digit).unwrap();
    for (version, told) in [
        (b'2', "its schema version is `2`, not 3; make it again"),
        (b'9', "its schema version is `9`, not 3; a newer infalign reads it"),
    ] {
        bytes[place] = version;
        std::fs::write(&path, &bytes).unwrap();
        let message = store::read(&path).unwrap_err().to_string();
        assert!(message.ends_with(told), "{message}");
    }
}

#[test]
fn more_rewards_of_a_prompt_join_those_that_are_there() {
    let mut calibration = small();
    calibration.extend("second first", "second first", vec![0.5]).unwrap();
    calibration.extend("new", "new", vec![1.0, 0.0]).unwrap();
    assert_eq!(calibration.row("second first").unwrap().values(), [-1.5, 0.5, 2.0, 2.0]);
    assert_eq!(calibration.row("new").unwrap().samples(), 2);
    assert!(calibration.extend("new", "new", vec![f32::NAN]).is_err());
    assert!(calibration.extend("newer", "newer", vec![1.0]).is_err());
    let mut compressed = calibration.compressed(2).unwrap();
    assert_eq!(compressed.row("second first").unwrap().samples(), 4);
    let refused = compressed.extend("new", "new", vec![3.0]).unwrap_err();
    assert!(matches!(refused, CalibrateError::Compressed));
    assert!(matches!(calibration.compressed(1), Err(CalibrateError::Quantiles(1))));
}

#[test]
fn compressed_tables_come_back_from_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quantiles.parquet");
    let compressed = small().compressed(5).unwrap();
    std::fs::write(&path, bytes(&compressed)).unwrap();
    assert_eq!(store::read(&path).unwrap(), compressed);
}

#[test]
fn shards_merge_and_conflicts_are_counted() {
    let (mut all, mut other) = (small(), Calibration::new(meta()));
    other.insert("a ✓", "a ✓", vec![0.0, -0.0, f32::MAX, f32::MIN]).unwrap();
    other.insert("third", "third", vec![1.0, 2.0]).unwrap();
    all.merge(&other).unwrap();
    assert_eq!(all.len(), 3);
    let mut conflicting = Calibration::new(meta());
    conflicting.insert("fourth", "fourth", vec![1.0, 2.0]).unwrap();
    conflicting.insert("third", "third", vec![1.0, 3.0]).unwrap();
    let message = all.merge(&conflicting).unwrap_err().to_string();
    assert!(message.starts_with("1 prompts have other rewards") && message.contains("`third`"));
    assert_eq!(all.len(), 3, "a refused merge changes nothing");
    let foreign = Calibration::new(CalibrationMeta { reward: "words".into(), ..meta() });
    assert!(matches!(all.merge(&foreign), Err(CalibrateError::Mismatch { field: "reward", .. })));
}

#[test]
fn equal_quantiles_of_other_numbers_of_samples_are_a_conflict() {
    let table = |samples| {
        let mut table = Calibration::new(CalibrationMeta { quantiles: Some(2), ..meta() });
        table.insert_quantiles("x", "x", samples, vec![1.0, 2.0]).unwrap();
        table
    };
    let mut all = table(8);
    all.merge(&table(8)).unwrap();
    assert!(matches!(all.merge(&table(9)), Err(CalibrateError::Conflict { count: 1, .. })));
}
