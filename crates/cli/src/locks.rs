//! What one process works on at a time.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result, bail};
use infalign_record::atomic::is_impossible;
use infalign_record::folder;

/// Takes hold of a run's folder for as long as the file is open.
///
/// # Errors
/// When another process is working on it, or the file cannot be written.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    lock_file(&dir.join(folder::LOCK), &format!("the run in {}", dir.display()))
}

/// Takes hold of what a file stands for, as long as the file is open.
///
/// - `what`: in words.
///
/// # Errors
/// As [`lock`].
pub(crate) fn lock_file(path: &Path, what: &str) -> Result<File> {
    // Another process may remove its own in the moment between opening it and taking it.
    for _ in 0..3 {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => return Ok(file),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(error)) if is_impossible(&error) => return Ok(file),
            Err(TryLockError::Error(error)) => {
                // Best effort: a lock that cannot be taken is of no use.
                let _ = std::fs::remove_file(path);
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
    bail!("another process is working on {what}")
}

/// Whether a path still leads to a file that was opened by it.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let id = |of: std::io::Result<std::fs::Metadata>| of.map(|of| (of.dev(), of.ino())).ok();
    let opened = id(file.metadata());
    opened.is_some() && opened == id(std::fs::metadata(path))
}

#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_lock_whose_file_is_another_by_now_is_not_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(folder::LOCK);
        let opened = File::create(&path).unwrap();
        assert!(is_at(&opened, &path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(&opened, &path));
        let held = lock(dir.path()).unwrap();
        opened.try_lock().unwrap();
        assert!(is_at(&held, &path) && !is_at(&opened, &path));
    }
}
