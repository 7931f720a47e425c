//! Checkpoints of a training: the newest complete one is what a resumed run starts from.

use std::path::{Path, PathBuf};

use infalign_record::atomic::write_dir_atomic;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::TrainError;
use crate::optimizer::Optimizer;

/// Writes `DIR/step-NNNNNN` whole or not at all, then removes the older ones.
///
/// - state: what [`load_state`] reads again.
/// - save: writes the model, and what else the training keeps.
pub(crate) fn write(
    dir: &Path,
    step: usize,
    optimizer: &Optimizer,
    state: &impl Serialize,
    save: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<PathBuf, TrainError> {
    let older = list(dir);
    let path = dir.join(format!("step-{step:06}"));
    std::fs::create_dir_all(dir).map_err(|source| state_error(dir, source))?;
    write_dir_atomic::<TrainError>(&path, |temporary| {
        save(temporary)?;
        optimizer.save(&optimizer_path(temporary))?;
        write_json(&state_path(temporary), state)
    })?;
    for old in older.iter().filter(|old| **old != path) {
        // Only tidying: a folder that stays is older than the newest and never read.
        let _ = std::fs::remove_dir_all(old);
    }
    Ok(path)
}

/// The newest complete checkpoint of `DIR`, if there is one.
pub(crate) fn newest(dir: &Path) -> Option<PathBuf> {
    list(dir).pop()
}

/// Reads a checkpoint's state.
pub(crate) fn load_state<S: DeserializeOwned>(checkpoint: &Path) -> Result<S, TrainError> {
    read_json(&state_path(checkpoint))
}

/// Reads a file of a checkpoint.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let text = std::fs::read_to_string(path).map_err(|error| state_error(path, error))?;
    serde_json::from_str(&text).map_err(|error| state_error(path, error))
}

/// Writes a file of a checkpoint.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let json = serde_json::to_vec_pretty(value).map_err(|error| state_error(path, error))?;
    std::fs::write(path, json).map_err(|error| state_error(path, error))
}

/// Where a checkpoint's optimiser state is.
pub(crate) fn optimizer_path(checkpoint: &Path) -> PathBuf {
    checkpoint.join("optimizer.bpk")
}

fn state_path(checkpoint: &Path) -> PathBuf {
    checkpoint.join("state.json")
}

/// Complete checkpoints, oldest first: a folder gets its final name only once it is whole.
fn list(dir: &Path) -> Vec<PathBuf> {
    let step =
        |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<usize>().ok();
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<(usize, PathBuf)> =
        entries.filter_map(|entry| Some((step(&entry.path())?, entry.path()))).collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

pub(crate) fn state_error(path: &Path, reason: impl std::fmt::Display) -> TrainError {
    TrainError::State { path: path.into(), reason: reason.to_string() }
}
