//! What is written down of a training's steps: `metrics.jsonl`, a line a step, and the same for TensorBoard.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use infalign_record::RecordError;
use infalign_record::atomic::{bring_to_disk, write_atomic};
use infalign_record::folder::STEPS;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tensorboard::Events;
use crate::files::whole_lines;
use crate::interrupt;
use crate::resume::Damaged;

/// Folder of a training's checkpoints, beside what is written down of its steps.
pub(super) const CHECKPOINTS: &str = "checkpoints";

/// The open files of a training. What an interrupted run wrote past its last checkpoint is cut off, since those steps are done again.
pub(super) struct Metrics {
    lines: Lines,
    events: Events,
    /// Folder of the events.
    shown: PathBuf,
}

impl Metrics {
    /// Opens the files in a method's folder.
    ///
    /// - steps_done: steps of which there is a checkpoint.
    ///
    /// # Errors
    /// [`Damaged`] where the lines of those steps are not all there, and when a file cannot be read or written.
    pub(super) fn open(folder: &Path, steps_done: usize) -> Result<Self> {
        let path = folder.join(STEPS);
        let kept = OfSteps::read(&path, steps_done)?;
        if !kept.steps.iter().copied().eq((1..=steps_done).map(Some)) {
            let what = format!(
                "it does not have a line for each of the {steps_done} steps that are done, in their order"
            );
            // Without checkpoints the steps are done again, and written down.
            let damaged = Damaged::beside(&path, &folder.join(CHECKPOINTS));
            return Err(anyhow!(what).context(damaged));
        }
        let lines = Lines::behind(&path, &kept.lines)?;
        let shown = folder.join("tensorboard");
        let events = Events::begin(&shown, steps_done)
            .with_context(|| format!("cannot write into {}", shown.display()))?;
        Ok(Self { lines, events, shown })
    }

    /// Writes down a step: an object with `step` and numbers.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn append(&mut self, step: &impl Serialize) -> Result<(), RecordError> {
        self.lines.append(step)?;
        self.show("", step)
    }

    /// Shows numbers to TensorBoard alone, each under `prefix` and its key.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn show(&mut self, prefix: &str, step: &impl Serialize) -> Result<(), RecordError> {
        let Ok(Value::Object(numbers)) = serde_json::to_value(step) else { return Ok(()) };
        self.events.append(prefix, &numbers).map_err(|cause| cannot_write(&self.shown, cause))
    }

    /// Brings the lines to the disk.
    ///
    /// # Errors
    /// When they cannot be.
    pub(super) fn sync(&self) -> Result<(), RecordError> {
        self.lines.sync()
    }
}

/// Whether a checkpoint may follow a step, before which what is written down of it has to be on the disk.
///
/// - every: steps from one checkpoint to the next; steps: of the whole training.
pub(super) fn is_kept(step: usize, every: usize, steps: usize) -> bool {
    step.is_multiple_of(every) || step == steps || interrupt::asked()
}

/// A file of lines of JSON that grows with the work.
pub(crate) struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// Opens a file for more lines behind those that it has. A last one that was cut off is taken out.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or cannot be written.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::behind(path, &whole_lines(path)?)
    }

    /// Opens a file for lines of further steps behind those of the first `steps_done`; not each of these needs to have one.
    ///
    /// # Errors
    /// As [`Lines::open`], and [`Damaged`] where one of those is none of a step, or of a step before that of the last.
    pub(super) fn of_steps(path: &Path, steps_done: usize) -> Result<Self> {
        let OfSteps { steps, lines } = OfSteps::read(path, steps_done)?;
        if steps.contains(&None) || !steps.is_sorted() {
            let what = format!("{} has lines that are of no step or in disorder", path.display());
            return Err(anyhow!(what).context(Damaged::at(path)));
        }
        Self::behind(path, &lines)
    }

    /// Opens a file for more lines behind these.
    fn behind(path: &Path, lines: &[u8]) -> Result<Self> {
        write_atomic(path, |file| file.write_all(lines))?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path: path.into(), file })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// When it cannot be written. Nothing may be written after it: a part of it may be there.
    pub(crate) fn append(&mut self, line: &impl Serialize) -> Result<(), RecordError> {
        let line = serde_json::to_string(line).map_err(std::io::Error::from);
        let written = line.and_then(|line| self.file.write_all(format!("{line}\n").as_bytes()));
        written.map_err(|cause| cannot_write(&self.path, cause))
    }

    /// Brings what was appended to the disk.
    ///
    /// # Errors
    /// When it cannot be.
    pub(super) fn sync(&self) -> Result<(), RecordError> {
        bring_to_disk(&self.path, &self.file)
    }

    /// A file that takes nothing.
    #[cfg(test)]
    #[cfg(target_os = "linux")]
    pub(crate) fn on_a_full_disk() -> Self {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        Self { path, file }
    }
}

/// What a file has of the first steps: all lines up to the last of one of those.
struct OfSteps {
    /// The step of each line; none of a line that tells none.
    steps: Vec<Option<usize>>,
    lines: Vec<u8>,
}

impl OfSteps {
    fn read(path: &Path, steps_done: usize) -> Result<Self> {
        #[derive(Deserialize)]
        struct Line {
            step: usize,
        }
        let mut lines = whole_lines(path)?;
        let each = || lines.split_inclusive(|byte| *byte == b'\n');
        let step = |line: &[u8]| Some(serde_json::from_slice::<Line>(line).ok()?.step);
        let mut steps: Vec<Option<usize>> = each().map(step).collect();
        let is_done = |step: &Option<usize>| step.is_some_and(|step| step <= steps_done);
        let n = steps.iter().rposition(is_done).map_or(0, |last| last + 1);
        let end: usize = each().take(n).map(<[u8]>::len).sum();
        steps.truncate(n);
        lines.truncate(end);
        Ok(Self { steps, lines })
    }
}

fn cannot_write(path: &Path, cause: std::io::Error) -> RecordError {
    RecordError::Io { action: "write", path: path.to_path_buf(), cause }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(steps: &[usize]) -> String {
        steps.iter().map(|step| format!("{}\n", json!({ "step": step }))).collect()
    }

    #[test]
    fn steps_go_on_behind_those_that_a_checkpoint_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(STEPS);
        // As an editor may have left it.
        std::fs::write(&path, format!("\u{feff}{}", lines(&[1, 2]))).unwrap();
        drop(Metrics::open(dir.path(), 2).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), lines(&[1, 2]));
        for past in ["", "{\"step\":3}\n{\"ste", "\0\0\0\n{\"step\":4}\n"] {
            std::fs::write(&path, lines(&[1, 2]) + past).unwrap();
            let mut metrics = Metrics::open(dir.path(), 2).unwrap();
            metrics.append(&json!({ "step": 3 })).unwrap();
            metrics.sync().unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), lines(&[1, 2, 3]), "{past:?}");
        }
    }

    #[test]
    fn a_step_that_is_done_and_has_no_line_is_told_with_what_to_delete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(STEPS);
        let cut = lines(&[1, 2, 3]).trim_end().to_owned();
        for text in [lines(&[1, 3]), lines(&[1, 2]), lines(&[1, 3, 2]), cut, "{\n".repeat(3)] {
            std::fs::write(&path, &text).unwrap();
            let error = Metrics::open(dir.path(), 3).map(drop).unwrap_err();
            assert!(error.is::<Damaged>(), "{error:#}");
            let error = format!("{error:#}");
            assert!(error.contains("metrics.jsonl cannot be used: put it back"), "{error}");
            assert!(
                error.contains("or delete ") && error.contains("checkpoints to begin"),
                "{error}"
            );
            assert!(error.contains("it does not have a line for each of the 3 steps"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "nothing is thrown away");
        }
        Metrics::open(dir.path(), 0).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn lines_of_some_steps_are_kept_by_their_steps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evaluations.jsonl");
        // Those of step 6 were given up.
        std::fs::write(&path, lines(&[2, 2, 4, 4, 8, 8])).unwrap();
        Lines::of_steps(&path, 7).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), lines(&[2, 2, 4, 4]));
        for text in [format!("{}x\n{}", lines(&[2]), lines(&[4])), lines(&[4, 2])] {
            std::fs::write(&path, text).unwrap();
            let error = Lines::of_steps(&path, 7).map(drop).unwrap_err();
            assert!(error.is::<Damaged>(), "{error:#}");
            Lines::of_steps(&path, 0).unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_line_that_cannot_be_written_is_told_at_once() {
        let error = Lines::on_a_full_disk().append(&1).unwrap_err().to_string();
        assert!(error.starts_with("cannot write /dev/full"), "{error}");
    }
}
