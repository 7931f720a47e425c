//! The error type of this crate.

use std::path::PathBuf;

use parquet::errors::ParquetError;

/// Why a calibration table could not be built, used, written or read.
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
        "prompt `{prompt_id}` is not among the {known} prompts of this calibration table; \
         calibrate on the prompts that the run uses"
    )]
    UnknownPrompt {
        /// The prompt asked for.
        prompt_id: String,
        /// How many prompts the table holds.
        known: usize,
    },
    /// A table that was made from something else than the run uses.
    #[error(
        "this calibration table was made with {field} `{found}`, but the run has `{expected}`; \
         calibrate again"
    )]
    Mismatch {
        /// The field of [`CalibrationMeta`](crate::CalibrationMeta) that differs.
        field: &'static str,
        /// Its value in the table.
        found: String,
        /// Its value in the run.
        expected: String,
    },
    /// The table could not be written.
    #[error("the calibration table could not be written: {0}")]
    Write(#[source] ParquetError),
    /// The file could not be opened.
    #[error("the calibration table `{path}` could not be opened: {source}", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not whole Parquet.
    #[error(
        "`{path}` is not a complete Parquet file: {source}; calibrate again or fetch it anew",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the Parquet reader said.
        source: ParquetError,
    },
    /// The file is Parquet, but not a calibration table of this version.
    #[error("`{path}` is not a calibration table of this version: {reason}", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is missing or different.
        reason: String,
    },
}
