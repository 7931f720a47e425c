//! `manifest-sha256.txt`: the digest of every file of a run, as `sha256sum -c` reads it.

use std::collections::BTreeMap;
use std::path::Path;

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
    let mut text = String::new();
    let is_listed = |path: &String| path != MANIFEST && may_be_named(path);
    for path in folder::files(folder)?.into_iter().filter(is_listed) {
        let digest = match known.get(&path) {
            Some(digest) => digest.clone(),
            None => sha256_file(&folder.join(&path))?,
        };
        text += &format!("{digest}  {path}\n");
    }
    write_atomic(&folder.join(MANIFEST), |file| file.write_all(text.as_bytes()))
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
