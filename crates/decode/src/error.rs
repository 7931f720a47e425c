//! The errors of this crate.

use infalign_model::ModelError;
use infalign_reward::RewardError;

/// Why generation failed or was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A sampling setting is out of range.
    #[error("{key} is {value}, but it must be {valid}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: f64,
        /// The valid range, in words.
        valid: &'static str,
    },
    /// The procedure has no decoder here, or not without a reward.
    #[error("`{procedure}` cannot be decoded: {reason}")]
    Procedure {
        /// The procedure.
        procedure: String,
        /// What is missing.
        reason: &'static str,
    },
    /// The model or the tokenizer refused its input.
    #[error("prompt `{prompt}`: {source}")]
    Prompt {
        /// Id of the prompt.
        prompt: String,
        /// What is wrong with it.
        source: ModelError,
    },
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The reward failed.
    #[error(transparent)]
    Reward(#[from] RewardError),
}
