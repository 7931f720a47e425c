//! Checkpoints of a training: the newest complete one is what a resumed run starts from.

use std::path::{Path, PathBuf};

use infalign_record::atomic::write_dir_atomic;
use infalign_record::hash::sha256_file;
use infalign_record::manifest::{self, Manifest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::TrainError;
use crate::optimizer::Optimizer;

/// Writes `DIR/step-NNNNNN` whole or not at all, the digests of its files included, then removes the older ones.
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
        write_json(&state_path(temporary), state)?;
        Ok(manifest::write(temporary, &Manifest::new())?)
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

/// The newest complete checkpoint of `DIR`, if there is one, to go on from: its files are those that were written.
///
/// # Errors
/// [`TrainError::State`] names the file that is another.
pub(crate) fn intact(dir: &Path) -> Result<Option<PathBuf>, TrainError> {
    let Some(path) = newest(dir) else { return Ok(None) };
    let written = manifest::read(&path)
        .map_err(|error| state_error(&path, format!("its digests cannot be read ({error})")))?;
    for (name, digest) in written {
        let file = path.join(name);
        if sha256_file(&file).map_err(|error| state_error(&file, error))? != digest {
            return Err(state_error(&file, "it is not as it was written, by its SHA-256"));
        }
    }
    Ok(Some(path))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OptimizerConfig;

    #[test]
    fn a_checkpoint_of_which_a_byte_was_flipped_is_not_gone_on_from() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(intact(dir.path()).unwrap(), None);
        let config: OptimizerConfig = serde_json::from_str(r#"{"learning_rate": 0.1}"#).unwrap();
        let save = |folder: &Path| write_json(&folder.join("model.json"), &"weights");
        let path = write(dir.path(), 7, &Optimizer::new(&config), &7, save).unwrap();
        assert_eq!(intact(dir.path()).unwrap(), Some(path.clone()));
        std::fs::write(path.join("model.json"), "\"weightz\"").unwrap();
        let message = intact(dir.path()).unwrap_err().to_string();
        assert!(message.contains("model.json") && message.contains("SHA-256"), "{message}");
    }
}
