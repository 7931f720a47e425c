//! Reward transforms, procedures, and the exact KL and win-rate integrals of `infalign`, on plain numbers.
//!
#![doc = include_str!("../README.md")]
//!
//! # Modules
//! - [`procedure`]: how responses are produced at inference time, declared once as text;
//! - [`transform`]: the map Φ that CTRL applies to calibrated rewards;
//! - [`rank`]: how a decoder responds to rank, known or estimated;
//! - [`continuous`]: KL and inference-time win rates of the policy that Φ leads to;
//! - [`mod@frontier`]: win rate against KL over all β;
//! - [`optimal`]: the Φ of greatest win rate for its KL, solved for any N;
//! - [`discrete`]: the same, exactly, for finitely many outcomes with atoms and ties;
//! - [`beta`]: the KL coefficient.

pub mod beta;
mod composed;
pub mod continuous;
pub mod discrete;
mod error;
pub mod frontier;
mod numerics;
pub mod optimal;
mod parse;
pub mod procedure;
pub mod rank;
mod theory;
pub mod transform;

pub use beta::Beta;
pub use composed::Composed;
pub use continuous::{Tilt, beta_for_kl};
pub use discrete::{
    DiscreteOptimum, EmpiricalCalibration, Outcomes, Policies, Prompts, kl_divergence,
};
pub use error::TransformError;
pub use frontier::{FrontierPoint, best_of_n, frontier, optimal_frontier};
pub use infalign_stats as stats;
pub use optimal::{Curve, Optimum};
pub use procedure::Procedure;
pub use rank::{EstimatedTransform, RankDensity, RankEstimate};
pub use theory::Theory;
pub use transform::{Exponent, Function, Table, Transform};
