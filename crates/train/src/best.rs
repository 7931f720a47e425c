//! The best checkpoint of a training, by the loss of examples that it does not learn from.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::checkpoint;

/// The checkpoint that a training ends with, where validation examples choose it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestCheckpoint {
    /// The optimiser step that it was made after.
    pub step: usize,
    /// Mean loss of the validation examples, the least of all checkpoints.
    pub validation_loss: f64,
}

impl std::fmt::Display for BestCheckpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step {} kept for its validation loss, {:.4}", self.step, self.validation_loss)
    }
}

/// Where the best checkpoint is.
fn folder(checkpoints: &Path) -> PathBuf {
    checkpoints.join("best")
}

/// Keeps a model, unless one of an equal or smaller loss is there. One of a later step is there only after a resumed training, which will
/// come to that step again.
pub(crate) fn keep(
    checkpoints: &Path,
    this: BestCheckpoint,
    save: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let folder = folder(checkpoints);
    if folder.exists() {
        let best: BestCheckpoint = checkpoint::load_state(&folder)?;
        if best.validation_loss <= this.validation_loss {
            return Ok(());
        }
    }
    checkpoint::write_folder(&folder, |folder| {
        save(folder)?;
        checkpoint::write_state(folder, &this)
    })
}

/// The best checkpoint and its folder, whose files are those that were written.
pub(crate) fn intact(checkpoints: &Path) -> Result<(BestCheckpoint, PathBuf), TrainError> {
    let folder = folder(checkpoints);
    checkpoint::check(&folder)?;
    Ok((checkpoint::load_state(&folder)?, folder))
}
