//! Checkpoints of a training: the newest complete one is what a resumed run starts from.

use std::path::{Path, PathBuf};

use infalign_model::CausalLm;
use infalign_record::atomic::write_dir_atomic;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::controller::Controller;
use crate::optimizer::Optimizer;

/// What a checkpoint of CTRL holds besides weights and optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Steps done.
    pub(crate) step: usize,
    pub(crate) controller: Controller,
}

/// Writes a checkpoint of CTRL as [`write`] does.
pub(crate) fn save(
    dir: &Path,
    policy: &CausalLm,
    optimizer: &Optimizer,
    state: &State,
) -> Result<PathBuf, TrainError> {
    write(dir, state.step, optimizer, state, |folder| Ok(policy.save(folder)?))
}

/// Writes `DIR/step-NNNNNN` whole or not at all, then removes the older ones.
pub(crate) fn write(
    dir: &Path,
    step: usize,
    optimizer: &Optimizer,
    state: &impl Serialize,
    save_model: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<PathBuf, TrainError> {
    let older = list(dir);
    let path = dir.join(format!("step-{step:06}"));
    std::fs::create_dir_all(dir).map_err(|source| state_error(dir, source))?;
    write_dir_atomic::<TrainError>(&path, |temporary| {
        save_model(temporary)?;
        optimizer.save(&temporary.join("optimizer.bpk"))?;
        let json =
            serde_json::to_vec_pretty(state).map_err(|error| state_error(temporary, error))?;
        let file = temporary.join("state.json");
        std::fs::write(&file, json).map_err(|error| state_error(&file, error))
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
    let path = checkpoint.join("state.json");
    let text = std::fs::read_to_string(&path).map_err(|error| state_error(&path, error))?;
    serde_json::from_str(&text).map_err(|error| state_error(&path, error))
}

/// Where a checkpoint's optimiser state is.
pub(crate) fn optimizer_path(checkpoint: &Path) -> PathBuf {
    checkpoint.join("optimizer.bpk")
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

fn state_error(path: &Path, reason: impl std::fmt::Display) -> TrainError {
    TrainError::State { path: path.into(), reason: reason.to_string() }
}
