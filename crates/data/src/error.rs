//! The error type of this crate.

use std::path::PathBuf;
use std::{fmt, io};

use parquet::errors::ParquetError;

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
    /// A row cannot be read or is not what it has to be.
    #[error("{path}, {place}: {problem}")]
    Row {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: Place,
        /// What is wrong and what to do, in full sentences.
        problem: String,
    },
    /// The file is damaged, or no Parquet file.
    #[error("{path} cannot be read as Parquet: {cause}. The file has to be whole.")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader answered.
        cause: ParquetError,
    },
    /// The Parquet file is compressed in a way that cannot be read.
    #[error(
        "{path} cannot be read as Parquet: it is compressed with {codec}. Write it with Snappy or Zstandard, or without compression."
    )]
    Codec {
        /// The file.
        path: PathBuf,
        /// The compression.
        codec: String,
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
    /// A JSON document stands where rows are read.
    #[error(
        "{path}: rows are read from JSON Lines, a file .jsonl with an object a line. Rename it where it has that; of one list of objects, write one a line \
         (`jq -c '.[]' FILE.json > FILE.jsonl`)."
    )]
    Document {
        /// The file.
        path: PathBuf,
    },
    /// A document of responses has not all of them.
    #[error(
        "{path} says that it is not `finished`: `infalign generate` ended before every prompt had its responses, and those that take longest \
         are missing, so that nothing can be said of all. Run it again to its end."
    )]
    Unfinished {
        /// The file.
        path: PathBuf,
    },
    /// A model's folder has no chat template.
    #[error(
        "{folder} has no chat template, neither chat_template.jinja nor `chat_template` in tokenizer_config.json, so that its model \
         cannot read messages. Give prompts as text, or a model that was trained for chats."
    )]
    NoChatTemplate {
        /// The folder.
        folder: PathBuf,
    },
    /// A chat template is malformed, or does what it may not.
    #[error("the chat template in {path} cannot be used: {problem}")]
    ChatTemplate {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the template's line.
        problem: String,
    },
    /// A chat template refuses a conversation.
    #[error("the chat template in {path} refuses the messages: {reason}")]
    RefusedByTemplate {
        /// The file.
        path: PathBuf,
        /// What it says.
        reason: String,
    },
    /// A conversation cannot be a prompt.
    #[error("{problem}")]
    Messages {
        /// What is wrong and what to do.
        problem: String,
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

/// Where a row stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line of text, the first one if the row takes several; counted from 1.
    Line(usize),
    /// A row of a table that has no lines; counted from 1.
    Row(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
        }
    }
}
