//! Learned scorers that are at hand together, of which any weighted sum guides.

use infalign_model::{LanguageModel, PrefixValues};

use super::{LearnedScorer, PrefixScorer, WeightedScorers};
use crate::DecodeError;

/// Scorers that are loaded, and those of their rewards that count, with weights. Whoever decodes may take other weights.
#[derive(Default)]
pub struct ScorerSet {
    loaded: Vec<Loaded>,
    rewards: Vec<SetReward>,
}

/// A scorer that is loaded.
struct Loaded {
    values: PrefixValues,
    /// Where states come from that are not those of the model that generates.
    trunk: Option<Box<dyn LanguageModel>>,
}

/// A reward of a scorer in a set.
struct SetReward {
    /// Place of the scorer.
    scorer: usize,
    /// Index of the reward in it.
    head: usize,
    weight: f64,
}

impl ScorerSet {
    /// Adds a scorer, of which no reward counts yet; returns its place.
    ///
    /// - `trunk`: as [`LearnedScorer::new`] takes it.
    pub fn add(&mut self, values: PrefixValues, trunk: Option<Box<dyn LanguageModel>>) -> usize {
        self.loaded.push(Loaded { values, trunk });
        self.loaded.len() - 1
    }

    /// Adds a reward of the scorer at a place, by its index there, with the weight that it has unless another is asked for.
    pub fn count(&mut self, scorer: usize, head: usize, weight: f64) {
        self.rewards.push(SetReward { scorer, head, weight });
    }

    /// Whether no reward counts.
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }

    /// The names of the rewards, in the order in which they were added.
    pub fn names(&self) -> Vec<&str> {
        let name = |one: &SetReward| {
            let heads = &self.loaded[one.scorer].values.spec().heads;
            heads.get(one.head).map_or("", |head| head.name.as_str())
        };
        self.rewards.iter().map(name).collect()
    }

    /// Their weights, unless others are asked for.
    pub fn weights(&self) -> Vec<f64> {
        self.rewards.iter().map(|one| one.weight).collect()
    }

    /// The sum of the rewards' values times these weights. A scorer none of whose rewards has a weight is not run.
    ///
    /// # Errors
    /// [`DecodeError::Scorer`] where all weights are 0, and [`DecodeError::Setting`] for one that is not finite.
    pub fn weighted(&self, weights: &[f64]) -> Result<WeightedScorers<'_>, DecodeError> {
        let mut parts: Vec<(f64, Box<dyn PrefixScorer + '_>)> = Vec::new();
        for (place, Loaded { values, trunk }) in self.loaded.iter().enumerate() {
            let mut of_heads = vec![0.0; values.spec().heads.len()];
            for (one, weight) in self.rewards.iter().zip(weights) {
                if one.scorer == place {
                    of_heads[one.head] += weight;
                }
            }
            if of_heads.iter().any(|weight| *weight != 0.0) {
                let scorer = LearnedScorer::new(values, trunk.as_deref(), &of_heads)?;
                parts.push((1.0, Box::new(scorer)));
            }
        }
        WeightedScorers::new(parts)
    }
}
