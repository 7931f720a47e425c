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
        "`{procedure}` cannot be evaluated from stored samples: sample, best-of:N and worst-of:N can"
    )]
    Procedure {
        /// The procedure.
        procedure: String,
    },
    /// The samples were judged by the reward alone.
    #[error("the samples hold no scores of another judge: sample again with one")]
    NotJudged,
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
