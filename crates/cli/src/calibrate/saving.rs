//! A table, or rollouts, in the making: written now and then, so that a killed process loses little.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use infalign_calibrate::{Calibration, store};
use infalign_decode::EncodedPrompt;
use infalign_reward::RewardError;
use infalign_train::{Filled, ReferenceRewards, TrainError};

use crate::locks::lock_file;
use crate::{files, interrupt};

/// The least time from one writing to the next.
const EVERY: Duration = Duration::from_secs(30);
/// How many times as long as a writing the work after it lasts, at least: files grow.
const PER_WRITING: u32 = 50;

/// What is called after every block of responses with what they were added to.
pub(crate) type Observe<'o, T> = &'o mut dyn FnMut(&T, &Filled) -> ControlFlow<()>;

/// Samples and scores what a table lacks, and writes it now and then and in the end. Ctrl-C ends it early.
///
/// - show: called with what has been done after every block.
///
/// # Errors
/// When sampling or scoring fails, or the table cannot be written; what was finished is in the table.
pub(crate) fn fill_table(
    rewards: &ReferenceRewards<'_>,
    prompts: &[EncodedPrompt],
    (table, path): (&mut Calibration, &Path),
    show: impl Fn(&Filled),
) -> Result<Filled> {
    let fill = |table: &mut Calibration, observe: Observe<'_, Calibration>| {
        rewards.fill(table, prompts, observe)
    };
    fill_stored((table, path), show, write, fill)
}

/// The same for whatever is filled and has a file.
///
/// - write: writes the file whole or not at all; fill: samples and scores what is lacking.
///
/// # Errors
/// As [`fill_table`]; what was finished is in the file.
pub(crate) fn fill_stored<T>(
    (stored, path): (&mut T, &Path),
    show: impl Fn(&Filled),
    write: impl Fn(&T, &Path) -> Result<()>,
    fill: impl FnOnce(&mut T, Observe<'_, T>) -> Result<Filled, TrainError>,
) -> Result<Filled> {
    let (mut due, mut failed, mut done) = (Instant::now() + EVERY, None, Filled::default());
    let mut observe = |stored: &T, filled: &Filled| {
        show(filled);
        done = *filled;
        let start = Instant::now();
        if start >= due {
            failed = write(stored, path).err();
            due = Instant::now() + pause(start.elapsed());
        }
        if failed.is_some() { ControlFlow::Break(()) } else { interrupt::flow() }
    };
    let filled = fill(stored, &mut observe);
    failed.map_or(Ok(()), Err)?;
    // Whatever happened: what was finished stays.
    write(stored, path)?;
    match filled {
        // As after a whole block.
        Err(TrainError::Reward(RewardError::Stopped)) if interrupt::asked() => Ok(done),
        filled => Ok(filled?),
    }
}

/// Time until a file is written again, after a writing that took so long.
fn pause(took: Duration) -> Duration {
    EVERY.max(PER_WRITING * took)
}

/// How many of the prompts, equal texts counting once, have as many rewards as that in a table, and how many there are.
pub(crate) fn filled(
    table: &Calibration,
    prompts: &[EncodedPrompt],
    samples: usize,
) -> (usize, usize) {
    let texts: HashSet<&str> = prompts.iter().map(|prompt| prompt.text.as_str()).collect();
    let is_filled = |text: &&&str| table.get(text).is_some_and(|row| row.samples() >= samples);
    (texts.iter().filter(is_filled).count(), texts.len())
}

/// A table that this process alone works on, by `.NAME.lock` beside it, which is removed at the end.
pub(crate) struct InHand {
    lock: PathBuf,
    _file: File,
}

impl InHand {
    /// Takes hold of a table, be it there or not.
    ///
    /// # Errors
    /// When another process works on it, or the lock cannot be written.
    pub(crate) fn take(table: &Path) -> Result<Self> {
        let what = table.display().to_string();
        let lock = table.with_file_name(lock_name(table));
        let file = lock_file(&lock, &what)?;
        Ok(Self { lock, _file: file })
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        // Best effort: a lock that is left hinders nobody.
        let _ = std::fs::remove_file(&self.lock);
    }
}

fn lock_name(table: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(table.file_name().unwrap_or_default());
    name.push(".lock");
    name
}

/// Writes a table whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(table: &Calibration, path: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    store::write_to(table, &mut bytes)?;
    files::write(path, bytes)
}

#[cfg(test)]
mod tests {
    use infalign_calibrate::CalibrationMeta;

    use super::*;

    #[test]
    fn what_takes_long_to_write_is_written_more_seldom() {
        let seconds = |took| pause(Duration::from_millis(took)).as_secs();
        assert_eq!([0, 600, 2_000].map(seconds), [30, 30, 100]);
    }

    #[test]
    fn equal_texts_count_once() {
        let mut table = Calibration::new(CalibrationMeta::default());
        table.insert("1", "a", vec![0.0, 2.0]).unwrap();
        let prompts = [("1", "a"), ("2", "a"), ("3", "b")].map(|(id, text)| EncodedPrompt {
            id: id.to_owned(),
            text: text.to_owned(),
            tokens: vec![1],
        });
        assert_eq!(filled(&table, &prompts, 2), (1, 2));
        assert_eq!(filled(&table, &prompts, 3), (0, 2));
    }
}
