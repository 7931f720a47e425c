//! Evaluation: inference-time win rates against the reference under the same procedure, the KL that they cost, comparisons, tables, plots and
//! reports.
//!
//! [`table()`] is where stored [`Sampled`] responses become numbers; [`frontiers`] compares methods at the same KL.
//!
//! Devices are those of `infalign-backend`: a program that depends on this crate by itself depends on that one, too, whose features choose them.
//! Without it none is compiled in.

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
