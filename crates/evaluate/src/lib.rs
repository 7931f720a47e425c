//! Evaluation: inference-time win rates against the reference under the same procedure, the KL that they cost, tables and plots.

mod error;
mod kl;
mod noise;
mod page;
mod plot;
mod sampled;
mod table;

pub use error::EvaluateError;
pub use kl::kl_per_response;
pub use noise::{Noise, noise, recommended_samples};
pub use page::Page;
pub use plot::{Curve, Figure, Panel, Point, draw_png, draw_svg};
pub use sampled::{Evaluator, Judge, Sampled};
pub use table::{
    Comparison, Kl, Label, Row, compare, predicted_win_rate, row, selection, text_table,
};
