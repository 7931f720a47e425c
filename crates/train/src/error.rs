//! The errors of this crate.

use std::path::PathBuf;

use infalign_calibrate::CalibrateError;
use infalign_decode::DecodeError;
use infalign_model::ModelError;
use infalign_record::RecordError;
use infalign_reward::RewardError;
use infalign_stats::StatsError;
use infalign_transform::TransformError;

/// Why training was refused, stopped or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting is out of range.
    #[error("{key} is {value}, but it must be {valid}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is valid, in words.
        valid: &'static str,
    },
    /// Neither a target KL nor β is given, or both are.
    #[error(
        "give target_kl, the KL to reach, or beta, the fixed coefficient: one of them, not both"
    )]
    KlOrBeta,
    /// The loss or its gradient is no longer a number.
    #[error(
        "training diverged at step {step}: {what} is {value}; the last good checkpoint is {checkpoint}; begin a new run with a lower learning_rate"
    )]
    Diverged {
        /// The step, from 1.
        step: usize,
        /// What went wrong.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The newest checkpoint, or that there is none.
        checkpoint: String,
    },
    /// What responses are drawn by is not what they are trained by.
    #[error(
        "at step {step} the sampler and the trainer disagree by {gap} nats about the probability of a token: what is sampled is not the policy that is trained, which is a fault of this program or of the device's arithmetic"
    )]
    Sampler {
        /// The step, from 1.
        step: usize,
        /// The greatest difference.
        gap: f64,
    },
    /// What ranks in a group do not tell is needed.
    #[error(
        "{what} needs the calibration table, the reference's rewards of each prompt: give calibration.samples or calibration.table in place of calibration.group"
    )]
    NeedsTable {
        /// The solver or the objective.
        what: String,
    },
    /// A win rate or an expected reward under a procedure that does more than select.
    #[error(
        "{objective} cannot be told from responses of the policy: give a procedure that keeps one of several, sample, best-of:N, worst-of:N or soft-best-of:N,temperature=τ, or in reward: alone majority:N"
    )]
    NotASelection {
        /// The objective.
        objective: String,
    },
    /// Responses have no reward of their own.
    #[error(
        "the objective {objective} belongs to the policy's responses together, and {what} needs a reward of each alone: {instead}"
    )]
    NotPointwise {
        /// The objective.
        objective: String,
        /// What does not go with it.
        what: &'static str,
        /// What to take in its place.
        instead: &'static str,
    },
    /// The best policy is to be kept, which u within groups does not tell.
    #[error(
        "keep = \"best\" goes by the mean of Φ(u), which calibration.group = true makes the same for every policy: calibrate by a table (calibration.samples or calibration.table), or take keep = \"last\""
    )]
    BestOfGroups,
    /// The user asked to stop.
    #[error("stopped after step {step}; the checkpoint is in {dir}")]
    Interrupted {
        /// Steps done.
        step: usize,
        /// Folder of the checkpoint.
        dir: PathBuf,
    },
    /// The data cannot be trained on.
    #[error("{0}")]
    Data(String),
    /// An optimiser state could not be written or read.
    #[error("cannot {action} the optimiser state {path}: {reason}")]
    Optimizer {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file of a checkpoint is damaged.
    #[error(
        "{path} is no file of a checkpoint to go on from: {reason}; delete the folder of the training's checkpoints, with all that is in it, to begin this training anew"
    )]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The calibration table does not serve.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// Generation failed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The reward failed.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// A statistic could not be computed.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// The transform or the target KL is not possible.
    #[error(transparent)]
    Transform(#[from] TransformError),
}

impl TrainError {
    pub(crate) fn setting(
        key: &'static str,
        value: impl Into<String>,
        valid: &'static str,
    ) -> Self {
        Self::Setting { key, value: value.into(), valid }
    }
}
