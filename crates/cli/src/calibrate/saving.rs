//! A table in the making, written now and then, so that a killed process loses little.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use infalign_calibrate::{Calibration, store};
use infalign_record::atomic::write_atomic;

use crate::recording::lock_file;

/// Time from one writing to the next.
const EVERY: Duration = Duration::from_secs(30);

/// Writes a table to one path.
pub(crate) struct Saving<'a> {
    path: &'a Path,
    last: Instant,
    failed: Option<anyhow::Error>,
}

impl<'a> Saving<'a> {
    pub(crate) fn to(path: &'a Path) -> Self {
        Self { path, last: Instant::now(), failed: None }
    }

    /// Writes the table if it is time to, and says whether to go on.
    pub(crate) fn now_and_then(&mut self, table: &Calibration) -> bool {
        if self.last.elapsed() > EVERY {
            self.failed = write(table, self.path).err();
            self.last = Instant::now();
        }
        self.failed.is_none()
    }

    /// Writes the table as it is at the end.
    ///
    /// # Errors
    /// When it could not be written, now or before.
    pub(crate) fn finish(self, table: &Calibration) -> Result<()> {
        self.failed.map_or(Ok(()), Err)?;
        write(table, self.path)
    }
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
        // Another process may remove its own in the moment between opening it and taking it.
        for _ in 0..3 {
            let file = lock_file(&lock, &what)?;
            if lock.exists() {
                return Ok(Self { lock, _file: file });
            }
        }
        bail!("another process is working on {what}")
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
    Ok(write_atomic(path, |file| file.write_all(&bytes))?)
}
