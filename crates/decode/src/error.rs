//! The errors of this crate.

use infalign_model::ModelError;
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
    /// The model or the tokenizer refused its input.
    #[error("prompt `{prompt}`: {source}")]
    Prompt {
        /// Id of the prompt.
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
    /// The address of a server, or the key for it, cannot be used.
    #[error("the server `{url}` cannot be asked: {reason}")]
    Server {
        /// The address as it was given.
        url: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A server could not be reached, took too long, or was out of order, at the last try as at those before.
    #[error(
        "{url} gave no answer at {tries} tries, at last because of: {reason}; check the address and that the server runs"
    )]
    NoAnswer {
        /// What was asked.
        url: String,
        /// How often.
        tries: u32,
        /// What went wrong the last time.
        reason: String,
    },
    /// A server refused a request, which it would refuse again.
    #[error("{url} refused the request with status {status}: {message}")]
    Refused {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server said.
        message: String,
    },
    /// A server's answer is not what was asked for.
    #[error("the answer of {url} cannot be used: `{field}` {reason}")]
    Answer {
        /// What was asked.
        url: String,
        /// The part of the answer.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The distribution of a selection could not be computed.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The reward failed.
    #[error(transparent)]
    Reward(#[from] RewardError),
}
