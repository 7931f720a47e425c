//! The error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with the files of a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The operating system refused an operation on a file or folder.
    #[error("cannot {action} {path}: {cause}")]
    Io {
        /// What was tried, as a verb: "write", "create the folder".
        action: &'static str,
        /// The file or folder, under its final name.
        path: PathBuf,
        /// What the operating system answered.
        cause: io::Error,
    },
    /// The folder given for a run holds something else.
    #[error(
        "the folder {path} is not empty and holds no run of infalign (it has no valid \
         start.json). Give a new or empty folder, or one that a run was written to."
    )]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder of a run that is not to be trusted.
    #[error("{path} is refused: {reason}")]
    Refused {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What is expected of a replication cannot be.
    #[error("{key} is {value}: it has to be {range}")]
    Expect {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What may stand there.
        range: &'static str,
    },
    /// A file of a run holds a secret.
    #[error(
        "{path} holds {what}, which must not be recorded: take it out of the recipe or the input that it comes from, and \
         run again"
    )]
    Secret {
        /// The file.
        path: PathBuf,
        /// What it holds, without showing it.
        what: String,
    },
    /// A variable of the environment says something that a record cannot hold.
    #[error("{variable} is not {wanted}: give that, or unset it")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What it has to be.
        wanted: &'static str,
    },
    /// A run's command cannot be part of a folder name.
    #[error(
        "the command `{command}` cannot name a run folder: use lower-case ASCII letters, digits \
         and `-` only."
    )]
    CommandName {
        /// The command as given.
        command: String,
    },
}

impl RecordError {
    /// For `map_err`: ties an I/O error to what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { action, path: path.to_path_buf(), cause }
    }
}
