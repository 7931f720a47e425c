//! What a calibration table was made from.

use serde::{Deserialize, Serialize};

use crate::error::CalibrateError;

/// Version of the table's layout; a file of another version is refused.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything that reference rewards depend on. Two tables of equal metadata and prompts are made of
/// samples of one distribution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationMeta {
    /// Layout of the table: [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// SHA-256 of the reference policy's weights, in hexadecimal.
    pub model_sha256: String,
    /// The reward: its name, and the SHA-256 of its weights where it has any.
    pub reward: String,
    /// SHA-256 of the tokenizer, in hexadecimal.
    pub tokenizer_sha256: String,
    /// How responses were sampled: temperature, top-p, length and seed, in words of the caller's.
    pub sampling: String,
    /// K, the responses sampled for a prompt.
    pub samples: usize,
}

impl CalibrationMeta {
    /// The fields as names and text, in the order in which they are stored.
    pub(crate) fn fields(&self) -> [(&'static str, String); 6] {
        [
            ("schema_version", self.schema_version.to_string()),
            ("model_sha256", self.model_sha256.clone()),
            ("reward", self.reward.clone()),
            ("tokenizer_sha256", self.tokenizer_sha256.clone()),
            ("sampling", self.sampling.clone()),
            ("samples", self.samples.to_string()),
        ]
    }

    /// Refuses metadata that differ from `expected` in any field.
    pub(crate) fn check(&self, expected: &CalibrationMeta) -> Result<(), CalibrateError> {
        for ((field, found), (_, expected)) in self.fields().into_iter().zip(expected.fields()) {
            if found != expected {
                return Err(CalibrateError::Mismatch { field, found, expected });
            }
        }
        Ok(())
    }
}
