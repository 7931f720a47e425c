//! Win rates, order statistics and clustered intervals of rewards: the statistics of `infalign`, on plain numbers.
//!
#![doc = include_str!("../README.md")]
//!
//! # Modules
//! - [`quantile`]: the rank of one reward among the rewards of the reference policy;
//! - [`order`]: inference-time win rates from stored rewards, by U-statistics over subsets;
//! - [`cluster`]: means over prompts with Student t intervals, and paired differences.
//!
//! Functions take the samples of one prompt, or one number a prompt; batching belongs to the caller.
//! Equal inputs give equal bits.

pub mod cluster;
mod error;
pub mod order;
pub mod quantile;
#[cfg(test)]
mod testing;

pub use cluster::{Interval, mean_and_standard_error, mean_interval, paired_difference};
pub use error::StatsError;
pub use order::{Selection, expected_selected, win_rate};
pub use quantile::mid_rank;
