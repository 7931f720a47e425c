//! What a response is worth: the [`Reward`] trait, rules, learned reward models, and what is made of several rewards.
//!
#![doc = include_str!("../README.md")]
//!
//! Devices are those of [`backend`], which the cargo features compile in: `flex` (the CPU, default), `wgpu`, `cuda`, `cuda-nvrtc`, `autotune`.

mod answer;
mod cache_file;
mod cached;
mod config;
mod ensemble;
mod error;
mod log_length;
mod members;
mod model;
mod pointers;
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
pub use infalign_backend as backend;
pub use infalign_data as data;
pub use infalign_model::{ModelError, ModelFolder, SequenceClassifier, TabularProblem, Tokenizer};
pub use infalign_remote::{Patience, RemoteError};
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
    /// The reward of each (prompt, response) pair: as many as there are pairs, in their order, and finite. It never depends on the other pairs or on their order.
    ///
    /// # Errors
    /// [`RewardError`] when a response cannot be scored; a reward of one's own fails by [`RewardError::other`].
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError>;

    /// The answer that a response gives, which is what `majority` counts; none where it gives none. A reward that finds no answers within
    /// responses takes the whole of each.
    fn answer<'t>(&self, response: &'t str) -> Option<&'t str> {
        Some(response)
    }
}

/// The rewards of all pairs, by whichever reward: what a user of someone else's [`Reward`] relies on is looked at.
///
/// # Errors
/// Those of the reward; [`RewardError::NotScored`] for another number of rewards than of pairs, and [`RewardError::NotFinite`].
pub fn scored(reward: &dyn Reward, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
    let scores = reward.score(pairs)?;
    if scores.len() != pairs.len() {
        let last = pairs.get(scores.len()).or(pairs.last());
        let response = last.map_or(String::new(), |(_, response)| (*response).to_owned());
        return Err(RewardError::NotScored { response });
    }
    match scores.iter().zip(pairs).find(|(score, _)| !score.is_finite()) {
        Some((score, (_, response))) => {
            Err(RewardError::NotFinite { response: (*response).to_owned(), score: *score })
        }
        None => Ok(scores),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<f32>);

    impl Reward for Fixed {
        fn score(&self, _: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
            Ok(self.0.clone())
        }
    }

    #[test]
    fn a_reward_that_breaks_its_promise_is_refused() {
        let pairs = [("x", "a"), ("x", "b")];
        let of = |scores: &[f32]| scored(&Fixed(scores.to_vec()), &pairs);
        assert_eq!(of(&[1.0, 2.0]).unwrap(), [1.0, 2.0]);
        for (scores, named) in [(&[1.0][..], "b"), (&[1.0, 2.0, 3.0], "b"), (&[f32::NAN, 1.0], "a")]
        {
            let error = of(scores).unwrap_err().to_string();
            assert!(error.contains(&format!("{named:?}")), "{error}");
        }
    }
}
