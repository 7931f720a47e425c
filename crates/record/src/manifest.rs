//! `manifest-sha256.txt`: the digest of every file of a run, as `sha256sum -c` reads it.

use std::collections::BTreeMap;
use std::path::Path;
#[cfg(unix)]
use std::time::Duration;
use std::time::SystemTime;

use rayon::prelude::*;

use crate::RecordError;
use crate::atomic::write_atomic;
use crate::folder::{self, MANIFEST, refused, stays_inside};
use crate::hash::sha256_file;

/// Digest by path.
pub type Manifest = BTreeMap<String, String>;

/// Writes the manifest of all files that are there.
///
/// - `known`: digests that need not be computed again.
///
/// # Errors
/// As [`folder::files`], and when a file cannot be read or the manifest cannot be written.
pub fn write(folder: &Path, known: &Manifest) -> Result<(), RecordError> {
    write_of(folder, known, |_| true)
}

/// Writes the manifest of those files that may be named.
///
/// # Errors
/// As [`write()`].
pub(crate) fn write_of(
    folder: &Path,
    known: &Manifest,
    may_be_named: impl Fn(&str) -> bool,
) -> Result<(), RecordError> {
    let mut paths = folder::files(folder)?;
    paths.retain(|path| path != MANIFEST && may_be_named(path));
    let digests = digests(folder, &paths, known)?;
    let lines = paths.iter().zip(digests).map(|(path, digest)| format!("{digest}  {path}\n"));
    let text: String = lines.collect();
    write_atomic(&folder.join(MANIFEST), |file| file.write_all(text.as_bytes()))
}

/// The digests of files in a folder, in their order, several computed at once.
///
/// - `known`: those that need not be.
///
/// # Errors
/// The first in that order, of a file that cannot be read.
pub(crate) fn digests(
    folder: &Path,
    paths: &[String],
    known: &Manifest,
) -> Result<Vec<String>, RecordError> {
    let digest = |path: &String| match known.get(path) {
        Some(digest) => Ok(digest.clone()),
        None => sha256_file(&folder.join(path)),
    };
    let digests: Vec<Result<_, _>> = paths.par_iter().map(digest).collect();
    digests.into_iter().collect()
}

/// The digests that folders within a run have in manifests of their own, as checkpoints do: those of files that were not changed after the
/// manifest was written, when they were read last, as far as the system tells by a time that programs cannot set.
///
/// - `paths`: of the run's files.
pub(crate) fn of_parts(run: &Path, paths: &[String]) -> Manifest {
    let mut found = Manifest::new();
    let parts = paths.iter().filter_map(|path| path.strip_suffix(MANIFEST)?.strip_suffix('/'));
    for part in parts {
        let folder = run.join(part);
        // One that cannot be read says nothing.
        let Ok(written) = read(&folder) else { continue };
        let sealed = folder.join(MANIFEST).metadata().and_then(|data| data.modified()).ok();
        for (name, digest) in written {
            let changed = last_change(&folder.join(&name));
            if changed.is_some() && changed <= sealed {
                found.insert(format!("{part}/{name}"), digest);
            }
        }
    }
    found
}

/// When a file's bytes or its metadata were changed last.
#[cfg(unix)]
fn last_change(path: &Path) -> Option<SystemTime> {
    use std::os::unix::fs::MetadataExt;

    let data = path.metadata().ok()?;
    let seconds = Duration::from_secs(u64::try_from(data.ctime()).ok()?);
    let nanos = Duration::from_nanos(u64::try_from(data.ctime_nsec()).ok()?);
    Some(data.modified().ok()?.max(SystemTime::UNIX_EPOCH + seconds + nanos))
}

/// None where files have no time that programs cannot set.
#[cfg(not(unix))]
fn last_change(_: &Path) -> Option<SystemTime> {
    None
}

/// Reads the manifest.
///
/// # Errors
/// [`RecordError::Refused`] for a line that is none, a path that leads out of the folder or occurs twice; as [`folder::text`].
pub fn read(folder: &Path) -> Result<Manifest, RecordError> {
    let text = folder::text(folder, MANIFEST)?;
    let mut manifest = Manifest::new();
    for (line, number) in text.lines().zip(1..) {
        let wrong =
            |what: &str| Err(refused(&folder.join(MANIFEST), &format!("line {number} {what}")));
        let Some((digest, path)) = line.split_once("  ") else {
            return wrong("is not a digest, two spaces and a path");
        };
        if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return wrong("does not begin with a SHA-256");
        }
        if !stays_inside(path) {
            return wrong(&format!("names {path:?}, which leads out of the run"));
        }
        if manifest.insert(path.to_owned(), digest.to_owned()).is_some() {
            return wrong(&format!("names {path:?} again"));
        }
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_leaves_itself_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a b"), "abc").unwrap();
        for _ in 0..2 {
            write(folder.path(), &Manifest::new()).unwrap();
            let manifest = read(folder.path()).unwrap();
            assert_eq!(manifest.len(), 1);
            assert!(manifest["a b"].starts_with("ba7816bf"));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn sha256sum_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        std::fs::write(folder.path().join("b/c.txt"), "abc").unwrap();
        write(folder.path(), &Manifest::new()).unwrap();
        let check = || {
            let mut command = std::process::Command::new("sha256sum");
            command.args(["--check", "--strict", "--quiet", MANIFEST]).current_dir(folder.path());
            command.output().unwrap().status.success()
        };
        assert!(check());
        std::fs::write(folder.path().join("b/c.txt"), "abd").unwrap();
        assert!(!check());
    }

    #[test]
    fn lines_that_are_none_are_refused_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let digest = "a".repeat(64);
        for (text, needle) in [
            (format!("{digest}  a\n{digest} b\n"), "line 2 is not"),
            ("abc  a\n".to_owned(), "SHA-256"),
            (format!("{digest}  ../../etc/x\n"), "leads out"),
            (format!("{digest}  /etc/x\n"), "leads out"),
            (format!("{digest}  a\n{digest}  a\n"), "again"),
        ] {
            std::fs::write(folder.path().join(MANIFEST), text).unwrap();
            let error = read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(needle), "{error}");
        }
    }
}
