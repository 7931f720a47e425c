//! What is written down of a training's steps: `metrics.jsonl`, a line a step, and the same for TensorBoard.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use infalign_record::atomic::write_atomic;
use infalign_record::folder::STEPS;
use serde::Serialize;
use serde_json::Value;

use super::tensorboard::Events;

/// The open files of a training. What an interrupted run wrote past its last checkpoint is cut off, since those steps are done again.
pub(super) struct Metrics {
    lines: Lines,
    events: Events,
    failed: Option<std::io::Error>,
}

impl Metrics {
    /// Opens the files in a method's folder.
    ///
    /// - steps_done: steps of which there is a checkpoint.
    pub(super) fn open(folder: &Path, steps_done: usize) -> Result<Self> {
        let lines = Lines::open(&folder.join(STEPS), steps_done)?;
        let dir = folder.join("tensorboard");
        let events = Events::begin(&dir, steps_done)
            .with_context(|| format!("cannot write into {}", dir.display()))?;
        Ok(Self { lines, events, failed: None })
    }

    /// Writes down a step: an object with `step` and numbers.
    pub(super) fn append(&mut self, step: &impl Serialize) {
        self.lines.append(step);
        self.show("", step);
    }

    /// Shows numbers to TensorBoard alone, each under `prefix` and its key.
    pub(super) fn show(&mut self, prefix: &str, step: &impl Serialize) {
        let shown = match serde_json::to_value(step) {
            Ok(Value::Object(numbers)) => self.events.append(prefix, &numbers),
            _ => Ok(()),
        };
        self.failed = self.failed.take().or(shown.err());
    }

    /// Reports the first step that could not be written.
    pub(super) fn finish(self) -> Result<()> {
        self.lines.finish()?;
        self.failed.map_or(Ok(()), Err).context("cannot write the files for TensorBoard")
    }
}

/// A file of lines of JSON that grows with the work.
pub(crate) struct Lines {
    path: PathBuf,
    file: File,
    failed: Option<std::io::Error>,
}

impl Lines {
    /// Opens a file for more lines, and leaves the first `kept` of those that it has.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or cannot be written.
    pub(crate) fn open(path: &Path, kept: usize) -> Result<Self> {
        let kept: std::io::Result<Vec<String>> = match File::open(path) {
            Ok(file) => BufReader::new(file).lines().take(kept).collect(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let kept = kept.with_context(|| format!("cannot read {}", path.display()))?;
        write_atomic(path, |file| kept.iter().try_for_each(|line| writeln!(file, "{line}")))?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path: path.into(), file, failed: None })
    }

    /// Appends a line.
    pub(crate) fn append(&mut self, line: &impl Serialize) {
        let written = serde_json::to_string(line).map_err(std::io::Error::from);
        let written = written.and_then(|line| writeln!(self.file, "{line}"));
        self.failed = self.failed.take().or(written.err());
    }

    /// Reports the first line that could not be written.
    pub(crate) fn finish(self) -> Result<()> {
        self.failed
            .map_or(Ok(()), Err)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}
