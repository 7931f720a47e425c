//! Calibration of rewards: from a reward to its quantile under the reference policy, prompt by prompt.
//!
//! Step 1 of CTRL (InfAlign, arXiv 2412.19792): offline, K responses a prompt are sampled from π_ref
//! and scored; [`Calibration`] keeps their sorted rewards. In training and evaluation, a response's
//! reward becomes u = C(x, y) in [0, 1], its mid-rank among them. u depends on the ordering of rewards
//! alone, so any strictly increasing change of the reward model's scale leaves it as it is.
//!
//! - [`table`]: the table and its quantiles;
//! - [`meta`]: what a table was made from, and whether it fits a run;
//! - [`store`]: the Parquet file.

mod error;
pub mod meta;
pub mod store;
pub mod table;

pub use error::CalibrateError;
pub use meta::{CalibrationMeta, SCHEMA_VERSION};
pub use table::Calibration;
