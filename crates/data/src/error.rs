//! The error type of this crate.

use std::io;
use std::path::PathBuf;

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A grammar is malformed.
    #[error("the grammar cannot be used: {0}")]
    Grammar(String),
    /// The file cannot be opened.
    #[error("Cannot open {path}: {cause}. Check that the path is right and the file readable.")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system answered.
        cause: io::Error,
    },
    /// A line cannot be read or is not what it has to be.
    #[error("{path}, line {line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong and what to do, in full sentences.
        problem: String,
    },
    /// The file holds nothing of what was asked for.
    #[error("{path} holds no {what}. Give a file with at least one.")]
    Empty {
        /// The file.
        path: PathBuf,
        /// What was looked for, as a noun.
        what: &'static str,
    },
    /// The file's name does not tell how to read it.
    #[error("{path}: the name ends in none of {known}. Rename or convert the file.")]
    Format {
        /// The file.
        path: PathBuf,
        /// The endings that can be read.
        known: &'static str,
    },
    /// An argument is out of range.
    #[error("{name} is {value}; it has to be {range}.")]
    Argument {
        /// The argument.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: &'static str,
    },
}
