//! Win rates, order statistics and intervals of rewards: the statistics of `infalign`, on plain numbers.
//!
#![doc = include_str!("../README.md")]
//!
//! # Modules
//! - [`quantile`]: the rank of one reward among the rewards of the reference policy;
//! - [`order`]: inference-time win rates from stored rewards, by U-statistics over subsets;
//! - [`cluster`]: means over prompts with Student t intervals, and paired differences.
//!
//! Besides: [`wilson_interval`] for the share of independent trials, [`reliability`](reliability()) for forecast probabilities against what
//! came true, and Pearson's [`correlation`](correlation()).
//!
//! Functions take the samples of one prompt, or one number a prompt; batching belongs to the caller.
//! Equal inputs give equal bits.

pub mod cluster;
mod correlation;
mod error;
pub mod order;
mod proportion;
pub mod quantile;
mod reliability;
#[cfg(test)]
mod testing;

pub use cluster::{Interval, mean_and_standard_error, mean_interval, paired_difference};
pub use correlation::correlation;
pub use error::StatsError;
pub use order::{Selection, expected_selected, win_rate};
pub use proportion::wilson_interval;
pub use quantile::mid_rank;
pub use reliability::{ReliabilityBin, reliability};
