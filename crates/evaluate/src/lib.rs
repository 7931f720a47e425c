//! Evaluation: win rates of policies under the procedure that they will be used with, and what they cost.
//!
#![doc = include_str!("../README.md")]
//!
//! # Types
//! [`table()`] is where stored [`Sampled`] responses become numbers; [`frontiers`] compares methods at the same KL.
//!
//! Devices are those of [`backend`], which the cargo features compile in: `flex` (the CPU, default), `wgpu`, `cuda`, `cuda-nvrtc`, `autotune`.

mod checks;
mod contest;
mod divergence;
mod error;
mod evaluator;
mod figures;
mod frontier;
mod gain;
mod kl;
mod noise;
mod pairwise;
mod planning;
mod plot;
mod predicted;
pub mod report;
mod sampled;
mod statistics;
mod table;
#[cfg(test)]
mod test_samples;
mod text;

pub use checks::{Asked, check};
pub use contest::{Contest, choice, win_rates};
pub use divergence::{Estimate, Kl};
pub use error::EvaluateError;
pub use evaluator::{Drawing, Drawn, Evaluator};
pub use figures::{KL_AND_WIN_RATE, optimum_curve, win_rate_against_kl};
pub use frontier::{
    FrontierBand, Frontiers, Matched, MatchedComparison, NEAREST, Sweep, common_kl, frontiers,
};
pub use infalign_backend as backend;
pub use infalign_decode as decode;
pub use infalign_model as model;
pub use infalign_record as record;
pub use infalign_reward as reward;
pub use infalign_stats as stats;
pub use infalign_transform as transform;
pub use kl::{KlSample, kl_per_response};
pub use noise::{Noise, noise, recommended_samples};
pub use pairwise::{Pairwise, pairwise};
pub use planning::{Effect, Need, Planned, plan};
pub use plot::{Band, Curve, Figure, OPTIMUM, Panel, Point, draw_png, draw_svg};
pub use predicted::predicted_win_rate;
pub use sampled::{Judge, PromptText, Sampled, answers, score};
pub use statistics::{Intervals, Statistics};
pub use table::{
    Comparison, Entry, Equivalence, Judging, Label, Plan, Row, Table, decoders, table,
};
pub use text::{
    distinct, kl_text, percent, score_with_interval, text_comparisons, text_decoders, text_table,
    with_interval,
};
