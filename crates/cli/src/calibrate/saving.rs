//! A table in the making, written now and then, so that a killed process loses little.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use infalign_calibrate::{Calibration, store};
use infalign_record::atomic::write_atomic;

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

/// Writes a table whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(table: &Calibration, path: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    store::write_to(table, &mut bytes)?;
    Ok(write_atomic(path, |file| file.write_all(&bytes))?)
}
