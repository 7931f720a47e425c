//! What a calibration table was made from.

use serde::{Deserialize, Serialize};

use crate::error::CalibrateError;

/// Version of the table's layout and of what its metadata cover; a file of another version is refused.
pub const SCHEMA_VERSION: u32 = 3;

/// Everything that reference rewards depend on. Tables of equal metadata hold samples of one distribution, and an equal number of samples
/// of a prompt is then the same samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationMeta {
    /// SHA-256 of the reference policy, its weights and the settings that its numbers depend on, in hexadecimal.
    pub model_sha256: String,
    /// The reward: its settings, and the SHA-256 of the models and files in it.
    pub reward: String,
    /// SHA-256 of what the tokenizer's file says that encoding depends on, in hexadecimal.
    pub tokenizer_sha256: String,
    /// SHA-256 of the chat template, in hexadecimal; empty where prompts are texts.
    pub template_sha256: String,
    /// How responses were sampled: temperature, top-k, top-p, length and all tokens that end one, in words of the caller's.
    pub sampling: String,
    /// Seed of the draws.
    pub seed: u64,
    /// How many quantiles stand for the rewards of a prompt; absent where all rewards are there.
    pub quantiles: Option<usize>,
}

impl CalibrationMeta {
    /// The fields as names and text, in the order in which they are stored.
    pub(crate) fn fields(&self) -> [(&'static str, String); 7] {
        [
            ("model_sha256", self.model_sha256.clone()),
            ("reward", self.reward.clone()),
            ("tokenizer_sha256", self.tokenizer_sha256.clone()),
            ("template_sha256", self.template_sha256.clone()),
            ("sampling", self.sampling.clone()),
            ("seed", self.seed.to_string()),
            ("quantiles", self.quantiles.map_or("none".to_owned(), |count| count.to_string())),
        ]
    }

    /// Makes metadata of the stored fields.
    pub(crate) fn from_fields(
        text: impl Fn(&'static str) -> Result<String, String>,
    ) -> Result<Self, String> {
        let seed = text("seed")?;
        let quantiles = text("quantiles")?;
        let refused =
            |field: &str, value: &str| format!("its `{field}` is `{value}`, which is no number");
        Ok(Self {
            model_sha256: text("model_sha256")?,
            reward: text("reward")?,
            tokenizer_sha256: text("tokenizer_sha256")?,
            template_sha256: text("template_sha256")?,
            sampling: text("sampling")?,
            seed: seed.parse().map_err(|_| refused("seed", &seed))?,
            quantiles: match quantiles.as_str() {
                "none" => None,
                count => Some(count.parse().map_err(|_| refused("quantiles", count))?),
            },
        })
    }

    /// Refuses metadata that differ from `expected` in any field; `what` was made so.
    pub(crate) fn check(
        &self,
        expected: &CalibrationMeta,
        what: &'static str,
    ) -> Result<(), CalibrateError> {
        for ((field, found), (_, expected)) in self.fields().into_iter().zip(expected.fields()) {
            if found != expected {
                return Err(CalibrateError::Mismatch { what, field, found, expected });
            }
        }
        Ok(())
    }
}
