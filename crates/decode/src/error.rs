//! The errors of this crate.

use infalign_model::ModelError;
use infalign_remote::RemoteError;
use infalign_reward::RewardError;
use infalign_transform::TransformError;

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
    /// Rejection has no reference rewards to rank a response among.
    #[error(
        "prompt {prompt}: there is no calibration of it, which says what rejection accepts: make the table for these prompts"
    )]
    NoRank {
        /// Id and first words of the prompt.
        prompt: String,
    },
    /// A prefix scorer does not go with the model, or with itself.
    #[error("the prefix scorer: {reason}")]
    Scorer {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The model or the tokenizer refused its input.
    #[error("prompt {prompt}: {source}")]
    Prompt {
        /// Id and first words of the prompt.
        prompt: String,
        /// What is wrong with it.
        source: ModelError,
    },
    /// Values of one tabular model for another of another shape.
    #[error(
        "the values are of a table of {letters} letters and D = {depth}, but the model has {model_letters} and D = {model_depth}; \
         a table can guide only one with the same letters and D"
    )]
    Shape {
        /// Letters of the table that the values come from.
        letters: usize,
        /// Its D.
        depth: usize,
        /// Letters of the model.
        model_letters: usize,
        /// Its D.
        model_depth: usize,
    },
    /// A prefix that the model can reach, but whose value is unknown.
    #[error(
        "there is no value for `{prefix}`, which the model can reach: add rows and rewards from there on to the table that gives the values"
    )]
    NoValue {
        /// The prefix or, where it ends with `$`, the response.
        prefix: String,
    },
    /// A weighted value that is beyond the range of numbers.
    #[error(
        "after `{prefix}` the value is {value:e}, and λ = {lambda:e} times it is beyond the range of numbers: take a smaller λ or weight"
    )]
    Overflow {
        /// The prefix, before the token that has the value.
        prefix: String,
        /// The weight of values.
        lambda: f64,
        /// The value.
        value: f64,
    },
    /// The batch failed that a response was part of.
    #[error("the batch that this response was part of failed: {reason}")]
    Batch {
        /// Why.
        reason: String,
    },
    /// The engine ended before the response.
    #[error("the engine has stopped, and what it had not finished is lost: start it again")]
    Stopped,
    /// It was broken off by whoever watches, cancels or interrupts.
    #[error("it was broken off before the responses to prompt {prompt} were there")]
    Cancelled {
        /// Id and first words of the first prompt without responses.
        prompt: String,
    },
    /// A server brought nothing that can be used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The distribution of a selection could not be computed.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The reward failed.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// A failure of a prefix scorer or a sampler from outside this crate.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl DecodeError {
    /// The error of a [`PrefixScorer`](crate::guided::PrefixScorer) or a [`Sampler`](crate::Sampler) of one's own, from whatever made it fail.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn the_failure_of_another_scorer_is_told_as_it_is() {
        let cause = ModelError::Empty { index: 3 };
        let prompt = DecodeError::Prompt { prompt: "p".into(), source: cause };
        let message = prompt.to_string();
        let error = DecodeError::other(prompt);
        assert_eq!(error.to_string(), message);
        assert!(error.source().unwrap().is::<ModelError>());
        assert!(matches!(error, DecodeError::Other(own) if own.is::<DecodeError>()));
    }
}
