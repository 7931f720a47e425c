//! The errors of this crate.

use std::io;
use std::path::PathBuf;

use infalign_data::DataError;
use infalign_model::ModelError;
use infalign_remote::RemoteError;

/// Why a reward cannot be built or computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewardError {
    /// A rule without anything to look for, or a combination of nothing.
    #[error("a reward of kind `{kind}` needs at least one entry in `{key}`")]
    Empty {
        /// The kind of reward.
        kind: &'static str,
        /// What is empty.
        key: &'static str,
    },
    /// A weight that is not a finite number.
    #[error("the weight of `{entry}` is {weight}: it must be a finite number")]
    Weight {
        /// The word or pattern.
        entry: String,
        /// Its weight.
        weight: f32,
    },
    /// A setting is out of range.
    #[error("`{key}` is {value}, but it has to be {valid}")]
    Setting {
        /// The key.
        key: &'static str,
        /// Its value.
        value: f64,
        /// The valid range, in words.
        valid: &'static str,
    },
    /// Scoring was told to stop.
    #[error("scoring was stopped")]
    Stopped,
    /// More questions than may be asked.
    #[error(
        "`most_requests` is {most}, {asked} of them were made, and no answer is known to {questions} more questions: raise it, or compare \
         fewer pairs"
    )]
    Requests {
        /// The most that may be made.
        most: usize,
        /// How many were.
        asked: usize,
        /// What would have to be asked.
        questions: usize,
    },
    /// Not one answer of a judge of pairs is a verdict.
    #[error(
        "no answer of {url} to {questions} questions is A, B or C ({example}): look at what the model is told, by `criterion`, or take another \
         `model`; after mending the server itself, give another `cache`, since answers are kept"
    )]
    NoVerdict {
        /// What was asked.
        url: String,
        /// How many verdicts were wanted.
        questions: usize,
        /// One of the answers, or where they are from.
        example: String,
    },
    /// `k` without the pooling that it is for, or the pooling without it.
    #[error("`k` and `by = \"mean-minus-std\"` go together: give both or neither")]
    Deviation,
    /// A lexicon entry that no response can hold.
    #[error(
        "the lexicon entry `{entry}` is not one lower-case word of letters, digits and apostrophes"
    )]
    Word {
        /// The entry.
        entry: String,
    },
    /// A pattern that is not a regular expression.
    #[error("`{pattern}` is not a regular expression: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A reward that is not a finite number.
    #[error("the reward of the response {response:?} is {score}, which is no finite number")]
    NotFinite {
        /// The response.
        response: String,
        /// Its reward.
        score: f32,
    },
    /// A prompt that asks for no sequence.
    #[error(
        "the prompt {prompt:?} is not of the form `a,b:M,n`, four whole numbers with M at least 1, which a reward of kind `sequence` needs"
    )]
    NoSequence {
        /// The prompt.
        prompt: String,
    },
    /// A prompt without an answer.
    #[error(
        "the prompt {prompt:?} has no answer in the file of the reward of kind `answer`, which needs one for every prompt as the model reads it"
    )]
    NoAnswer {
        /// The prompt.
        prompt: String,
    },
    /// A file of a reward cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A response to which a table gives no reward.
    #[error(
        "the table of rewards has none for the response {response:?}; it holds letters only, and no EOS"
    )]
    NotInTable {
        /// The response.
        response: String,
    },
    /// An API key that is not there.
    #[error("the environment variable {variable} of `api_key_env` holds no key")]
    NoKey {
        /// The variable.
        variable: String,
    },
    /// A server that scores brought nothing that can be used.
    #[error(transparent)]
    Remote(RemoteError),
    /// A reward that gave fewer rewards than it was asked for.
    #[error("the response {response:?} was given to a reward that did not score it")]
    NotScored {
        /// The response.
        response: String,
    },
    /// The file of a cache cannot be used.
    #[error("cannot {action} the cache {path}: {cause}")]
    CacheFile {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system answered.
        cause: io::Error,
    },
    /// A line of a cache is damaged.
    #[error(
        "{path}, line {line}, is no entry of a cache, an object of `key`, a SHA-256, and `reward`, a number; delete the line or the file: \
         what it held is then scored again"
    )]
    CacheLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// The reward model refused its input.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A failure of a reward from outside this crate.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl From<RemoteError> for RewardError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Cancelled { .. } => Self::Stopped,
            error => Self::Remote(error),
        }
    }
}

impl RewardError {
    /// The error of a [`Reward`](crate::Reward) of one's own, from whatever made it fail.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}
