//! Training: language models on texts, reward models on ratings or pairs, and policies by CTRL.
//!
#![doc = include_str!("../README.md")]
//!
//! # Types
//! [`CtrlTrainer`] is the project's heart: reinforcement learning on the transformed calibrated reward. [`train_language_model`] and
//! [`train_reward_model`] make what it starts from; [`train_prefix_scorer`] makes what controlled decoding needs; [`baselines`] are the methods that it is compared with.
//!
//! Devices are those of [`backend`], which the cargo features compile in: `flex` (the CPU, default), `wgpu`, `cuda`, `cuda-nvrtc`, `autotune`.

mod adapter;
mod advantage;
pub mod baselines;
mod batches;
mod best;
mod calibrator;
mod checkpoint;
mod controller;
mod ctrl;
mod error;
mod fit;
mod language_model;
mod memory_need;
mod metrics;
mod moving_average;
mod objective;
mod optimizer;
mod optimum;
mod parallel;
mod partition;
mod passes;
mod prefix_scorer;
mod pseudo_values;
mod reference_rewards;
mod reward_model;
mod rollout;
mod solver;
mod tally;
mod theory;

pub use advantage::leave_one_out;
pub use best::BestCheckpoint;
pub use calibrator::Calibrator;
pub use ctrl::{CtrlConfig, CtrlTrainer, Keep};
pub use error::TrainError;
pub use fit::{FitMetrics, fitted_steps};
pub use infalign_backend as backend;
pub use infalign_calibrate as calibrate;
pub use infalign_decode as decode;
pub use infalign_model as model;
pub use infalign_record as record;
pub use infalign_reward as reward;
pub use infalign_stats as stats;
pub use infalign_transform as transform;
pub use language_model::{LanguageModelConfig, train_language_model};
pub use memory_need::MemoryNeed;
pub use metrics::StepMetrics;
pub use objective::Objective;
pub use optimizer::{Decay, OptimizerConfig};
pub use optimum::{Enumeration, ExactWinRate, Nearness};
pub use prefix_scorer::{
    LengthReport, ScoredResponse, ScorerConfig, ScorerData, ScorerMethod, ScorerReport, ValueBin,
    train_prefix_scorer,
};
pub use reference_rewards::{Filled, ReferenceRewards};
pub use reward_model::{
    Examples, Pair, RewardModelConfig, RewardModelData, RewardModelReport, train_reward_model,
};
pub use solver::{
    Grpo, KlEstimator, KlPlace, Ppo, Regression, Reinforce, Rloo, RolloutSource, SolverConfig,
};
pub use theory::in_theory;
