//! Controlled decoding: responses that values of prefixes guide while they are drawn (arXiv 2310.17022).
//!
//! [`GuidedGenerator`] draws them, in batches whose composition changes nothing: the candidates of a response draw from its own stream.
//! They share what the model has read, of the prompt and of the blocks that were kept. [`PrefixScorer`] is what guides: [`TabularScorer`]
//! exactly, [`LearnedScorer`] as trained, [`WeightedScorers`] by several rewards at once. [`ScorerSet`] holds what a program has loaded.
//!
//! Departures from the paper: `cd-token` may be limited to the most probable tokens, and says what that can have moved; a block that ends
//! with EOS competes by V of the complete response, which is what the scorer says of it and not the reward.

mod generator;
mod learned;
mod prefill;
mod scorer;
mod search;
mod set;
mod tilt;

pub use generator::{Candidate, GuidedGenerator};
pub use learned::LearnedScorer;
pub use scorer::{PrefixScorer, ScorerSession, TabularScorer, WeightedScorers};
pub use set::ScorerSet;
