//! Checkpoints of a training: the newest complete one is what a resumed run starts from.

use std::path::{Path, PathBuf};

use infalign_record::atomic::{clear, write_dir_atomic};
use infalign_record::folder::{MANIFEST, files};
use infalign_record::hash::sha256_file;
use infalign_record::manifest::{self, Manifest};
use infalign_reward::RewardError;
use rayon::prelude::*;
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
    let path = of_step(dir, step);
    write_folder(&path, |temporary| {
        save(temporary)?;
        optimizer.save(&optimizer_path(temporary))?;
        write_state(temporary, state)
    })?;
    remove(older.iter().filter(|old| **old != path));
    Ok(path)
}

/// What ends a training whose reward was told to stop: with the checkpoint of the steps done, which is saved unless it is there. Where none is
/// done, there is nothing to keep.
pub(crate) fn stopped(
    dir: &Path,
    step: usize,
    save: impl FnOnce() -> Result<PathBuf, TrainError>,
) -> TrainError {
    if step == 0 {
        return RewardError::Stopped.into();
    }
    let there = of_step(dir, step);
    let kept = if there.exists() { Ok(there) } else { save() };
    match kept {
        Ok(dir) => TrainError::Interrupted { step, dir },
        Err(error) => error,
    }
}

/// Where the checkpoint of a step is.
fn of_step(dir: &Path, step: usize) -> PathBuf {
    dir.join(format!("step-{step:06}"))
}

/// Writes a folder whole or not at all, the digests of its files included.
pub(crate) fn write_folder(
    path: &Path,
    save: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let dir = path.parent().unwrap_or(path);
    std::fs::create_dir_all(dir).map_err(|source| state_error(dir, source))?;
    write_dir_atomic::<TrainError>(path, |temporary| {
        save(temporary)?;
        Ok(manifest::write(temporary, &Manifest::new())?)
    })
}

/// Removes older checkpoints.
fn remove<'a>(older: impl Iterator<Item = &'a PathBuf>) {
    for old in older {
        // Only tidying: a folder that stays is older than the newest and never read.
        let _ = std::fs::remove_dir_all(old);
    }
}

/// The newest complete checkpoint of `DIR`, if there is one.
pub(crate) fn newest(dir: &Path) -> Option<PathBuf> {
    list(dir).pop()
}

/// The newest complete checkpoint of `DIR`, if there is one, to go on from: its files are those that were written. Older ones, whose removal was
/// cut short, are removed, and one that was being replaced is put back.
///
/// # Errors
/// As [`check`] and [`clear`].
pub(crate) fn intact(dir: &Path) -> Result<Option<PathBuf>, TrainError> {
    if dir.exists() {
        clear(dir)?;
    }
    let mut all = list(dir);
    let Some(path) = all.pop() else { return Ok(None) };
    check(&path)?;
    remove(all.iter());
    Ok(Some(path))
}

/// Refuses a folder whose files are not those that [`write_folder`] wrote.
///
/// # Errors
/// [`TrainError::State`] names the file that is another, is no plain file, or was not there.
pub(crate) fn check(folder: &Path) -> Result<(), TrainError> {
    // Before any is read: a link may lead to what never ends.
    let here = files(folder).map_err(|error| state_error(folder, error))?;
    let written = manifest::read(folder)
        .map_err(|error| state_error(folder, format!("its digests cannot be read ({error})")))?;
    if written.is_empty() {
        return Err(state_error(folder, "its list of digests is empty"));
    }
    let now: Vec<_> = written.par_iter().map(|(name, _)| sha256_file(&folder.join(name))).collect();
    for ((name, digest), now) in written.iter().zip(now) {
        let file = folder.join(name);
        if now.map_err(|error| state_error(&file, error))? != *digest {
            return Err(state_error(&file, "it is not as it was written, by its SHA-256"));
        }
    }
    // Systems leave files there whose names begin with a dot.
    let is_ours = |name: &&String| *name != MANIFEST && !name.starts_with('.');
    match here.iter().filter(is_ours).find(|name| !written.contains_key(*name)) {
        Some(name) => Err(state_error(&folder.join(name), "it was not written with the others")),
        None => Ok(()),
    }
}

/// Reads a checkpoint's state.
pub(crate) fn load_state<S: DeserializeOwned>(checkpoint: &Path) -> Result<S, TrainError> {
    read_json(&state_path(checkpoint))
}

/// Writes a checkpoint's state.
pub(crate) fn write_state(checkpoint: &Path, state: &impl Serialize) -> Result<(), TrainError> {
    write_json(&state_path(checkpoint), state)
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
        let path = written(dir.path(), 7);
        assert_eq!(intact(dir.path()).unwrap(), Some(path.clone()));
        std::fs::write(path.join("model.json"), "\"weightz\"").unwrap();
        let message = intact(dir.path()).unwrap_err().to_string();
        assert!(message.contains("model.json") && message.contains("SHA-256"), "{message}");
        assert!(message.contains("checkpoints, with all that is in it"), "{message}");
    }

    fn written(dir: &Path, step: usize) -> PathBuf {
        let config: OptimizerConfig = serde_json::from_str(r#"{"learning_rate": 0.1}"#).unwrap();
        let save = |folder: &Path| write_json(&folder.join("model.json"), &"weights");
        write(dir, step, &Optimizer::new(&config), &step, save).unwrap()
    }

    #[test]
    fn a_checkpoint_has_the_files_that_are_listed_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), 7);
        let error = || intact(dir.path()).unwrap_err().to_string();
        std::fs::write(path.join("more.json"), "{}").unwrap();
        assert!(error().contains("more.json is no file of a checkpoint"), "{}", error());
        std::fs::remove_file(path.join("more.json")).unwrap();
        let list = std::fs::read_to_string(path.join(MANIFEST)).unwrap();
        let without_state = |line: &&str| !line.ends_with("state.json");
        let cut: Vec<&str> = list.lines().filter(without_state).collect();
        std::fs::write(path.join(MANIFEST), cut.join("\n")).unwrap();
        assert!(error().contains("state.json is no file of a checkpoint"), "{}", error());
        std::fs::write(path.join(MANIFEST), "").unwrap();
        assert!(error().contains("its list of digests is empty"), "{}", error());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_what_never_ends_is_refused_unread() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(dir.path(), 7).join("model.json");
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        let message = intact(dir.path()).unwrap_err().to_string();
        assert!(message.contains("model.json") && message.contains("symbolic link"), "{message}");
    }

    #[test]
    fn the_best_one_is_there_again_after_a_kill_while_it_was_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let best = dir.path().join("best");
        let newest = written(dir.path(), 7);
        write_folder(&best, |folder| write_json(&folder.join("model.json"), &"weights")).unwrap();
        std::fs::rename(&best, dir.path().join(".best.old")).unwrap();
        assert_eq!(intact(dir.path()).unwrap(), Some(newest));
        check(&best).unwrap();
    }

    #[test]
    fn an_older_checkpoint_whose_removal_was_cut_short_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let older = dir.path().join("step-000003");
        let newest = written(dir.path(), 7);
        std::fs::create_dir(&older).unwrap();
        std::fs::write(older.join("model.json"), "\"weights\"").unwrap();
        assert_eq!(intact(dir.path()).unwrap(), Some(newest));
        assert!(!older.exists());
    }
}
