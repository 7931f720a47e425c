//! The folder of one run.
//!
//! A run's first file is `start.json`, on the disk before any work begins: a folder with a start
//! and no end is a run that was killed. It is also how a folder is known to be a run of ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::atomic::write_atomic;
use crate::folder::is_of_beginning;
use crate::hash::sha256_bytes;
use crate::{RecordError, clock};

/// The first file of a run.
pub const START_FILE: &str = "start.json";
const START_SCHEMA: &str = "start/1";

/// A folder that one run writes to. It exists as long as nobody deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

/// What `start.json` holds. A field whose value is unknown is absent.
#[derive(Debug, Serialize, Deserialize)]
struct Start {
    schema: String,
    /// UTC, RFC 3339.
    start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
}

impl RunDir {
    /// Makes a new folder `ROOT/2026-11-23T08-00-00Z-COMMAND-3f2a`: UTC start, command, and four
    /// hexadecimal digits that keep runs of the same second apart. `root` is made where missing.
    ///
    /// # Errors
    /// [`RecordError::CommandName`] unless `command` consists of `a-z`, `0-9` and `-`;
    /// [`RecordError::Io`] when a folder or `start.json` cannot be written.
    pub fn create(root: &Path, command: &str) -> Result<Self, RecordError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if command.is_empty() || !command.chars().all(allowed) {
            return Err(RecordError::CommandName { command: command.to_owned() });
        }
        fs::create_dir_all(root).map_err(RecordError::io("create the folder", root))?;
        loop {
            let start = clock::now();
            let path = root.join(name(start, command));
            match fs::create_dir(&path) {
                Ok(()) => return Self::begin(path, start, Some(command)),
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {} // take another name
                Err(cause) => return Err(RecordError::io("create the folder", &path)(cause)),
            }
        }
    }

    /// The folder `path` as a run: a run that is there is continued, a missing folder or one that
    /// holds no more than [`RunDir::check`] allows becomes a new one.
    ///
    /// # Errors
    /// [`RecordError::NotARun`] for a folder that holds anything else; [`RecordError::Io`] when
    /// it cannot be made, read, or written to.
    pub fn at(path: &Path) -> Result<Self, RecordError> {
        fs::create_dir_all(path).map_err(RecordError::io("create the folder", path))?;
        Self::check(path)?;
        if holds_a_run(path)? {
            return Ok(Self { path: path.to_path_buf() });
        }
        Self::begin(path.to_path_buf(), clock::now(), None)
    }

    /// Refuses a folder that holds anything but a run, or what a process leaves that was killed
    /// as it began one. Nothing is written.
    ///
    /// # Errors
    /// As [`RunDir::at`].
    pub fn check(path: &Path) -> Result<(), RecordError> {
        let mut entries = fs::read_dir(path).map_err(RecordError::io("read the folder", path))?;
        // Looked at first: a run that is begun meanwhile has its start before anything else.
        let is_free =
            entries.all(|entry| entry.is_ok_and(|entry| is_of_beginning(&entry.file_name())));
        if is_free || holds_a_run(path)? {
            return Ok(());
        }
        Err(RecordError::NotARun { path: path.to_path_buf() })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn begin(
        path: PathBuf,
        start: OffsetDateTime,
        command: Option<&str>,
    ) -> Result<Self, RecordError> {
        let start = Start {
            schema: START_SCHEMA.to_owned(),
            start: clock::rfc3339(start),
            command: command.map(str::to_owned),
        };
        write_atomic(&path.join(START_FILE), |file| Ok(serde_json::to_writer(file, &start)?))?;
        Ok(Self { path })
    }
}

fn holds_a_run(folder: &Path) -> Result<bool, RecordError> {
    let path = folder.join(START_FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            Ok(serde_json::from_slice(&bytes)
                .is_ok_and(|start: Start| start.schema == START_SCHEMA))
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(RecordError::io("read", &path)(cause)),
    }
}

/// The digits come from the clock's nanoseconds and the process id, so that two processes that
/// start within the same second seldom try the same name first.
fn name(start: OffsetDateTime, command: &str) -> String {
    let seed = format!("{}-{}", start.unix_timestamp_nanos(), std::process::id());
    let digits = &sha256_bytes(seed.as_bytes())[..4];
    format!("{}-{command}-{digits}", clock::rfc3339(start).replace(':', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_holds_start_command_and_four_digits() {
        let start = OffsetDateTime::from_unix_timestamp(1_795_420_800).unwrap();
        let name = name(start, "train");
        let digits = name.strip_prefix("2026-11-23T08-00-00Z-train-").unwrap();
        assert_eq!(digits.len(), 4);
        assert!(digits.chars().all(|c| c.is_ascii_hexdigit()));
    }

    #[test]
    fn runs_of_the_same_second_get_folders_of_their_own() {
        let root = tempfile::tempdir().unwrap();
        let runs_dir = root.path().join("runs");
        for _ in 0..50 {
            RunDir::create(&runs_dir, "train").unwrap();
        }
        assert_eq!(fs::read_dir(&runs_dir).unwrap().count(), 50);
    }

    #[test]
    fn the_start_file_is_there_from_the_beginning() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), "train").unwrap();
        let text = fs::read_to_string(run.path().join("start.json")).unwrap();
        let start: Start = serde_json::from_str(&text).unwrap();
        assert_eq!((start.schema.as_str(), start.command.as_deref()), ("start/1", Some("train")));
    }

    #[test]
    fn a_command_that_would_leave_the_folder_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for command in ["", "../train", "Train", "a b"] {
            RunDir::create(root.path(), command).unwrap_err();
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn at_makes_a_run_and_continues_it_without_touching_its_start() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/out");
        RunDir::at(&path).unwrap();
        fs::write(path.join("start.json"), r#"{"schema":"start/1","start":"then"}"#).unwrap();
        fs::write(path.join("results.json"), "{}").unwrap();
        assert_eq!(RunDir::at(&path).unwrap().path(), path);
        assert!(fs::read_to_string(path.join("start.json")).unwrap().contains("then"));
    }

    #[test]
    fn a_folder_that_macos_has_looked_at_is_empty() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(".DS_Store"), "x").unwrap();
        RunDir::at(root.path()).unwrap();
        assert!(root.path().join(START_FILE).exists());
    }

    #[test]
    fn a_folder_in_which_a_process_was_killed_as_it_began_a_run_is_empty() {
        let root = tempfile::tempdir().unwrap();
        for name in [".lock", ".part-x1"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        RunDir::check(root.path()).unwrap();
        assert!(!root.path().join(START_FILE).exists(), "nothing is written");
        RunDir::at(root.path()).unwrap();
        assert!(root.path().join(START_FILE).exists());
    }

    #[test]
    fn at_refuses_a_folder_of_somebody_elses() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.tex"), "").unwrap();
        let error = RunDir::at(root.path()).unwrap_err();
        assert!(matches!(error, RecordError::NotARun { .. }), "{error}");
        fs::write(root.path().join("start.json"), "{}").unwrap();
        RunDir::at(root.path()).unwrap_err();
        RunDir::at(&root.path().join("thesis.tex")).unwrap_err();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    }
}
