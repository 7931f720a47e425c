//! What a response is worth: the [`Reward`] trait, rules, learned reward models, and what is made of several rewards.

mod answer;
mod cache_file;
mod cached;
mod config;
mod ensemble;
mod error;
mod log_length;
mod members;
mod model;
mod preference;
mod rated_words;
mod remote;
mod rules;
mod sequence;
mod stoppable;
mod sum;
mod tabular;
mod verdict;

pub use answer::Answer;
pub use cached::Cached;
pub use config::{ApiKeys, Part, Reads, RemoteConfig, RewardConfig};
pub use ensemble::{Ensemble, Pooling};
pub use error::RewardError;
pub use log_length::LogLength;
pub use model::RewardModel;
pub use preference::{Preference, PreferenceConfig, Shown};
pub use rated_words::RatedWords;
pub use remote::RemoteReward;
pub use rules::{Length, LengthUnit, Lexicon, Patterns};
pub use sequence::Sequence;
pub use stoppable::Stoppable;
pub use sum::WeightedSum;
pub use tabular::TabularReward;
pub use verdict::Verdict;

/// The reward r(x, y) of responses.
pub trait Reward: Send + Sync {
    /// The reward of each (prompt, response) pair, finite. It never depends on the other pairs or on their order.
    ///
    /// # Errors
    /// [`RewardError`] when a response cannot be scored.
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError>;
}
