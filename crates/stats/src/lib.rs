//! Win rates, order statistics and intervals of rewards: the statistics of `infalign`, on plain numbers.
//!
#![doc = include_str!("../README.md")]
//!
//! # Modules
//! - [`quantile`]: the rank of one reward among the rewards of the reference policy;
//! - [`order`]: inference-time win rates from stored rewards, by U-statistics over subsets; [`plurality_weights`] is the same for votes, and a [`Choice`] is of either;
//! - [`cluster`]: means over prompts with Student t intervals, and paired differences;
//! - [`bootstrap`]: intervals of any function of such means, by resampling prompts;
//! - [`significance`]: tests of differences and of equivalence, and of many at once;
//! - [`plan`]: how many prompts and samples an effect needs to be seen;
//! - [`length`]: win rates at equal lengths;
//! - [`agreement`](mod@agreement): how far two judges agree.
//!
//! Besides: [`wilson_interval`] for the share of independent trials, [`clustered_wilson_interval`] for that of trials in clusters, [`of_share`] for means of few numbers near 0 or 1, [`reliability`](reliability()) for forecast probabilities against what
//! came true, and Pearson's [`correlation`](correlation()).
//!
//! Functions take the samples of one prompt, or one number a prompt; batching belongs to the caller.
//! Equal inputs give equal bits.

pub mod agreement;
pub mod bootstrap;
mod choice;
pub mod cluster;
mod correlation;
mod error;
pub mod length;
pub mod order;
pub mod plan;
mod plurality;
mod proportion;
pub mod quantile;
mod reliability;
pub mod significance;
mod soft;
#[cfg(test)]
mod testing;

pub use agreement::{Agreement, Outcome, agreement};
pub use bootstrap::Resamples;
pub use choice::Choice;
pub use cluster::{
    Interval, check_level, mean_and_standard_error, mean_interval, paired_difference,
};
pub use correlation::correlation;
pub use error::StatsError;
pub use length::{Lengths, length_controlled};
pub use order::{Kept, Selection, selection_weights, win_rate};
pub use plan::Spread;
pub use plurality::plurality_weights;
pub use proportion::{clustered_wilson_interval, of_share, wilson_interval};
pub use quantile::mid_rank;
pub use reliability::{ReliabilityBin, reliability};
pub use significance::{equivalence_test, holm, t_test};
