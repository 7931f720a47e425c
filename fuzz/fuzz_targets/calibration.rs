//! Damaged calibration tables and rollouts, and predictors of quantiles.
#![no_main]

use std::sync::LazyLock;

use infalign_calibrate::rollouts::{self, ReferenceResponse, Rollouts};
use infalign_calibrate::{Calibration, CalibrationMeta, QuantileHead, store};
use infalign_fuzz::{Folder, edited, with_caught_panics};
use libfuzzer_sys::fuzz_target;

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut table = Calibration::new(CalibrationMeta::default());
    for (prompt, rewards) in [("a", vec![0.5, 1.0, 2.0]), ("b", vec![-1.0, 0.0])] {
        table.insert(prompt, prompt, rewards).expect("finite rewards of a new prompt");
    }
    let mut bytes = Vec::new();
    store::write_to(&table, &mut bytes).expect("a writer that takes everything");
    bytes
});

static ROLLOUTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut stored = Rollouts::new(CalibrationMeta::default(), 2);
    for prompt in ["a", "b"] {
        let response =
            |reward| ReferenceResponse { tokens: vec![3, 1], log_probs: vec![-0.5, -1.5], reward };
        let responses = vec![response(0.0), response(1.0)];
        stored.insert(prompt, prompt, responses).expect("whole responses to a new prompt");
    }
    let mut bytes = Vec::new();
    rollouts::write_to(&stored, &mut bytes).expect("a writer that takes everything");
    bytes
});

fuzz_target!(|data: &[u8]| with_caught_panics(|| read(data)));

fn read(data: &[u8]) {
    match data.split_first() {
        Some((b'{', _)) => read_head(data),
        Some((b'r', edits)) => read_rollouts(&edited(&ROLLOUTS, edits)),
        _ => read_table(&edited(&TABLE, data)),
    }
}

fn read_table(bytes: &[u8]) {
    let folder = Folder::new();
    let Ok(table) = store::read(folder.write("calibration.parquet", bytes)) else { return };
    for row in table.rows() {
        let u = row.quantile(0.5);
        assert!(u > 0.0 && u < 1.0, "{u}");
    }
}

fn read_rollouts(bytes: &[u8]) {
    let folder = Folder::new();
    let Ok(stored) = rollouts::read(folder.write("rollouts.parquet", bytes)) else { return };
    for response in ["a", "b"].into_iter().filter_map(|prompt| stored.of(prompt).ok()).flatten() {
        assert!(response.reward.is_finite());
        assert_eq!(response.tokens.len(), response.log_probs.len());
    }
}

fn read_head(json: &[u8]) {
    let Ok(head) = serde_json::from_slice::<QuantileHead>(json) else { return };
    if head.is_whole(3) && head.width() == 2 {
        assert_eq!(head.quantiles(&[0.5, -1.0]).len(), 3);
    }
}
