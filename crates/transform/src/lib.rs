//! Reward transforms, procedures, and the exact KL and win-rate integrals of `infalign`, on plain numbers.
//!
#![doc = include_str!("../README.md")]
//!
//! # Modules
//! - [`procedure`]: how responses are produced at inference time, declared once as text;
//! - [`transform`]: the map Φ that CTRL applies to calibrated rewards;
//! - [`continuous`]: KL and inference-time win rates of the policy that Φ leads to;
//! - [`optimal`]: the Φ of greatest win rate for its KL, solved for any N;
//! - [`beta`]: the KL coefficient.

pub mod beta;
pub mod continuous;
mod error;
mod numerics;
pub mod optimal;
mod parse;
pub mod procedure;
mod soft;
pub mod transform;

pub use beta::Beta;
pub use continuous::{Tilt, beta_for_kl};
pub use error::TransformError;
pub use optimal::{Curve, Optimum};
pub use procedure::Procedure;
pub use transform::Transform;
