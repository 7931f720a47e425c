//! The error type of this crate.

use std::path::PathBuf;

use parquet::errors::ParquetError;

/// Why a calibration table or rollouts could not be built, used, written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// A reward that is NaN or infinite.
    #[error("a reward of prompt `{prompt_id}` is {value}; rewards must be finite to have a rank")]
    NotFinite {
        /// The prompt.
        prompt_id: String,
        /// The reward.
        value: f32,
    },
    /// Too few reference rewards for a prompt.
    #[error(
        "prompt `{prompt_id}` has {found} reference rewards, but a quantile needs 2 or more; \
         sample more responses of the reference policy"
    )]
    TooFew {
        /// The prompt.
        prompt_id: String,
        /// How many rewards it has.
        found: usize,
    },
    /// A prompt that is in the table already.
    #[error("prompt `{0}` is in the table already; each prompt is calibrated once")]
    Duplicate(String),
    /// A prompt that the table does not hold.
    #[error(
        "the prompt {prompt:?} is not among the {known} prompts of this calibration table; \
         calibrate on the prompts that are used"
    )]
    UnknownPrompt {
        /// The beginning of the prompt asked for.
        prompt: String,
        /// How many prompts the table holds.
        known: usize,
    },
    /// A prompt that there are no rollouts of.
    #[error(
        "the prompt {prompt:?} is not among the {known} prompts of these rollouts; sample responses to all \
         prompts that are used"
    )]
    NoRollouts {
        /// The beginning of the prompt asked for.
        prompt: String,
        /// How many prompts there are.
        known: usize,
    },
    /// What is not the key of a prompt.
    #[error(
        "`{0}` is no key of a prompt; give the 64 hexadecimal digits of the SHA-256 of its text"
    )]
    Key(String),
    /// Two prompts with the same id.
    #[error("several prompts have the id `{0}`; look them up by their texts or keys")]
    SharedId(String),
    /// Prompts that the table does not hold.
    #[error(
        "{missing} of {count} prompts are not in this calibration table, the first with the ids \
         `{first}`; calibrate on these prompts too"
    )]
    Missing {
        /// How many are missing.
        missing: usize,
        /// How many were asked for.
        count: usize,
        /// Ids of the first of them.
        first: String,
    },
    /// Prompts of which two tables hold different rewards.
    #[error(
        "{count} prompts have other rewards in one table than in the other, the first with the ids \
         `{first}`; merge tables with different prompts, or with the same number of samples"
    )]
    Conflict {
        /// How many prompts differ.
        count: usize,
        /// Ids of the first of them.
        first: String,
    },
    /// A table whose rewards are no longer there one by one.
    #[error(
        "this calibration table holds quantiles in place of rewards, which are not enough for this; \
         take the table that it was made from"
    )]
    Compressed,
    /// Quantiles for a table whose rows are something else.
    #[error(
        "prompt `{prompt_id}` has {found} quantiles, but {}",
        .expected.map_or("this table holds rewards".to_owned(), |p| format!("the rows of this table have {p}"))
    )]
    Form {
        /// The prompt.
        prompt_id: String,
        /// How many quantiles it has.
        found: usize,
        /// How many the table's rows have; none for a table of rewards.
        expected: Option<usize>,
    },
    /// Too few quantiles to stand for a distribution, or more than it has digits.
    #[error("{0} quantiles cannot stand for the rewards of a prompt; take 2 to 65536")]
    Quantiles(usize),
    /// Too few prompts to learn from.
    #[error(
        "{used} prompts to fit to and {held_out} held out are too few to predict the quantiles of \
         others; calibrate on 50 prompts or more"
    )]
    TooFewPrompts {
        /// Prompts to fit to.
        used: usize,
        /// Prompts held out, chosen by their keys.
        held_out: usize,
    },
    /// Features that no head can be fitted to.
    #[error(
        "the features of prompt {0}, counted from 0, are missing, not finite, or of another length than \
         those before"
    )]
    Features(usize),
    /// Features of another model than a head was fitted to.
    #[error(
        "the model has {found} features of a prompt, but the calibrator was learned from {expected}"
    )]
    Width {
        /// How many there are.
        found: usize,
        /// How many there were.
        expected: usize,
    },
    /// Too few numbers for a diagnostic.
    #[error("there are no {0} to be looked at")]
    Nothing(&'static str),
    /// A table, or rollouts, made from something else than the run uses.
    #[error("{what} was made with {field} `{found}`, but the run has `{expected}`; make it again")]
    Mismatch {
        /// What was made, in words.
        what: &'static str,
        /// The field of [`CalibrationMeta`](crate::CalibrationMeta) that differs, or `samples`.
        field: &'static str,
        /// Its value there.
        found: String,
        /// Its value in the run.
        expected: String,
    },
    /// A response whose tokens, log-probabilities or number contradict the rollouts that it is to join.
    #[error("the rollouts of prompt `{prompt_id}` are refused: {reason}")]
    Rollouts {
        /// The prompt.
        prompt_id: String,
        /// What is wrong.
        reason: String,
    },
    /// The file could not be written.
    #[error("the Parquet file could not be written: {0}")]
    Write(#[source] ParquetError),
    /// The file could not be opened.
    #[error("`{path}` could not be opened: {source}", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not whole Parquet.
    #[error(
        "`{path}` is not a complete Parquet file: {source}; make it again or fetch it anew",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the Parquet reader said.
        source: ParquetError,
    },
    /// The file is Parquet, but not what it should be, or of another version.
    #[error("`{path}` is not {what} of this version: {reason}", path = path.display())]
    Foreign {
        /// What it should be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is missing or different.
        reason: String,
    },
}
