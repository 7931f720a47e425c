//! Calibration of rewards: from a reward to its quantile under the reference policy, prompt by prompt.
//!
#![doc = include_str!("../README.md")]
//!
//! # Modules
//! - [`store`]: the Parquet file of a table;
//! - [`rollouts`]: reference responses with rewards and log-probabilities, and their Parquet file;
//! - [`pit`]: whether fresh reference responses are uniform under a table;
//! - [`summary`]: what a table holds, in numbers.

mod columns;
mod error;
mod group;
mod key;
mod learn;
mod merge;
mod meta;
mod noise;
pub mod pit;
mod ridge;
pub mod rollouts;
mod row;
pub mod store;
pub mod summary;
mod table;

pub use error::CalibrateError;
pub use group::group_quantiles;
pub use key::PromptKey;
pub use learn::{HeadReport, QuantileHead};
pub use meta::{CalibrationMeta, SCHEMA_VERSION};
pub use noise::noisy_transform;
pub use row::Row;
pub use table::Calibration;
