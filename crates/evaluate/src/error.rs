//! The errors of this crate.

use infalign_decode::DecodeError;
use infalign_model::ModelError;
use infalign_reward::RewardError;
use infalign_stats::StatsError;
use infalign_transform::TransformError;

/// Why an evaluation was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// The procedure does not act on ranks alone.
    #[error(
        "`{procedure}` cannot be evaluated from plain samples: sample, best-of:N, worst-of:N, soft-best-of:N and majority:N can; of others, give their own responses"
    )]
    Procedure {
        /// The procedure.
        procedure: String,
    },
    /// The samples were judged by the reward alone.
    #[error("the samples hold no scores of another judge: sample again with one")]
    NotJudged,
    /// The samples do not belong together.
    #[error(
        "the samples do not belong together: prompts, responses and rewards have to be as many, and at least one"
    )]
    Damaged,
    /// A reward that is no number.
    #[error(
        "a reward of the prompt `{prompt}` is {reward}; every reward has to be a finite number"
    )]
    NotFinite {
        /// The prompt's id.
        prompt: String,
        /// The reward.
        reward: f64,
    },
    /// Two sets of samples that cannot be compared prompt by prompt.
    #[error(
        "{first} and {second} have other prompts: {problem}; they can only be compared on the same prompts in the same order"
    )]
    Prompts {
        /// One of the two.
        first: String,
        /// The other.
        second: String,
        /// Where they differ.
        problem: String,
    },
    /// Samples that another procedure has made.
    #[error(
        "the responses of {method} are those of `{made}`, from which `{procedure}` cannot be evaluated: take `{made}`, or plain samples"
    )]
    MadeByOther {
        /// The method.
        method: String,
        /// What made them.
        made: String,
        /// What was asked for.
        procedure: String,
    },
    /// Fewer responses than a procedure looks at.
    #[error(
        "{method}, prompt `{prompt}`: `{procedure}` looks at {needed} responses, but there are {found}: give {needed} or more"
    )]
    Few {
        /// The method.
        method: String,
        /// The prompt's id.
        prompt: String,
        /// The procedure.
        procedure: String,
        /// Responses that it looks at.
        needed: usize,
        /// Responses that there are.
        found: usize,
    },
    /// Fewer responses than both halves of a plan's pilot take.
    #[error(
        "{method}, prompt `{prompt}`: a plan compares two halves of the responses, and {found} are fewer than `{procedure}` takes \
         twice: give {needed} or more"
    )]
    Halves {
        /// The method.
        method: String,
        /// The prompt's id.
        prompt: String,
        /// The procedure.
        procedure: String,
        /// Responses that it takes twice.
        needed: usize,
        /// Responses that there are.
        found: usize,
    },
    /// A prompt whose numbers could not be computed.
    #[error("{method}, prompt `{prompt}`: {source}")]
    Prompt {
        /// The method.
        method: String,
        /// The prompt's id.
        prompt: String,
        /// What was wrong.
        source: StatsError,
    },
    /// Measuring the KL was told to stop.
    #[error("measuring the KL was stopped")]
    Stopped,
    /// A plot could not be drawn.
    #[error("cannot draw the plot: {0}")]
    Plot(String),
    /// Generation failed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The reward failed.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// A statistic could not be computed.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// A prediction could not be computed.
    #[error(transparent)]
    Transform(#[from] TransformError),
}
