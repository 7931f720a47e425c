//! Scorers that are at hand together, of which any weighted sum guides.

use infalign_model::{LanguageModel, PrefixValues};

use super::scorer::check_weight;
use super::{LearnedScorer, PrefixScorer, WeightedScorers};
use crate::DecodeError;

/// Scorers that are loaded, and those of their rewards that count, with weights. Whoever decodes may take other weights.
#[derive(Default)]
pub struct ScorerSet {
    scorers: Vec<Loaded>,
    rewards: Vec<SetReward>,
}

/// A scorer in a set.
enum Loaded {
    /// A trained one.
    Learned {
        values: PrefixValues,
        /// Where states come from that are not those of the model that generates.
        trunk: Option<Box<dyn LanguageModel>>,
    },
    /// One of the caller's own, which has one reward.
    Own { name: String, scorer: Box<dyn PrefixScorer> },
}

/// A reward of a scorer in a set, both of which are there.
struct SetReward {
    /// Place of the scorer.
    scorer: usize,
    /// Index of the reward in it.
    head: usize,
    weight: f64,
}

impl Loaded {
    /// The names of its rewards.
    fn names(&self) -> Vec<&str> {
        match self {
            Self::Learned { values, .. } => {
                values.spec().heads.iter().map(|head| head.name.as_str()).collect()
            }
            Self::Own { name, .. } => vec![name.as_str()],
        }
    }

    /// The sum of its rewards' values times these weights, as a weight and a scorer.
    fn weighted(&self, weights: &[f64]) -> Result<(f64, Box<dyn PrefixScorer + '_>), DecodeError> {
        match self {
            Self::Learned { values, trunk } => {
                Ok((1.0, Box::new(LearnedScorer::new(values, trunk.as_deref(), weights)?)))
            }
            Self::Own { scorer, .. } => {
                let scorer: &dyn PrefixScorer = scorer.as_ref();
                Ok((weights.iter().sum(), Box::new(scorer)))
            }
        }
    }
}

impl ScorerSet {
    /// Adds a trained scorer, of which no reward counts yet; returns its place.
    ///
    /// - `trunk`: as [`LearnedScorer::new`] takes it.
    pub fn add(&mut self, values: PrefixValues, trunk: Option<Box<dyn LanguageModel>>) -> usize {
        self.scorers.push(Loaded::Learned { values, trunk });
        self.scorers.len() - 1
    }

    /// Adds a scorer of one's own, whose only reward has this name and does not count yet; returns its place.
    pub fn add_own(&mut self, name: impl Into<String>, scorer: Box<dyn PrefixScorer>) -> usize {
        self.scorers.push(Loaded::Own { name: name.into(), scorer });
        self.scorers.len() - 1
    }

    /// Adds a reward of the scorer at a place, by its index there, with the weight that it has unless another is asked for.
    ///
    /// # Errors
    /// [`DecodeError::Scorer`] for a scorer or a reward that is not there, [`DecodeError::Setting`] for a weight that is not finite.
    pub fn count(&mut self, scorer: usize, head: usize, weight: f64) -> Result<(), DecodeError> {
        let heads = self.scorers.get(scorer).map_or(0, |scorer| scorer.names().len());
        if head >= heads {
            let reason = format!(
                "there is no reward {head}, counted from 0, of a scorer at place {scorer}, which has {heads}"
            );
            return Err(DecodeError::Scorer { reason });
        }
        check_weight(weight)?;
        self.rewards.push(SetReward { scorer, head, weight });
        Ok(())
    }

    /// Whether no reward counts.
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }

    /// The names of the rewards, in the order in which they were added.
    pub fn names(&self) -> Vec<&str> {
        self.rewards.iter().map(|one| self.scorers[one.scorer].names()[one.head]).collect()
    }

    /// Their weights, unless others are asked for.
    pub fn weights(&self) -> Vec<f64> {
        self.rewards.iter().map(|one| one.weight).collect()
    }

    /// The sum of the rewards' values times these weights. A scorer none of whose rewards has a weight is not run.
    ///
    /// # Errors
    /// [`DecodeError::Scorer`] for another number of weights than rewards, or where all are 0, and [`DecodeError::Setting`] for one that is not
    /// finite.
    pub fn weighted(&self, weights: &[f64]) -> Result<WeightedScorers<'_>, DecodeError> {
        let (rewards, given) = (self.rewards.len(), weights.len());
        if given != rewards {
            let reason = format!("the set has {rewards} rewards, but {given} weights are given");
            return Err(DecodeError::Scorer { reason });
        }
        let mut parts = Vec::new();
        for (place, scorer) in self.scorers.iter().enumerate() {
            let mut of_heads = vec![0.0; scorer.names().len()];
            for (one, weight) in self.rewards.iter().zip(weights) {
                if one.scorer == place {
                    of_heads[one.head] += weight;
                }
            }
            if of_heads.iter().any(|weight| *weight != 0.0) {
                parts.push(scorer.weighted(&of_heads)?);
            }
        }
        WeightedScorers::new(parts)
    }
}

#[cfg(test)]
mod tests {
    use infalign_model::TabularProblem;

    use super::*;
    use crate::exact::Values;
    use crate::guided::TabularScorer;

    /// The rewards `once` and `half`, both of a scorer that says 2 of `a` and 1 of the empty response.
    fn set() -> ScorerSet {
        let text = r#"{"D": 2, "p": {"": [0.5, 0, 0.5]}, "r": {"$": 1, "a$": 2}}"#;
        let problem = TabularProblem::parse(text, "one.json".as_ref()).unwrap();
        let scorer = TabularScorer::new(Values::of(&problem));
        let mut set = ScorerSet::default();
        for (name, weight) in [("once", 1.0), ("half", 0.5)] {
            let place = set.add_own(name, Box::new(scorer.clone()));
            set.count(place, 0, weight).unwrap();
        }
        set
    }

    #[test]
    fn scorers_of_ones_own_are_summed_by_the_weights_asked_for() {
        let set = set();
        assert_eq!((set.names(), set.weights()), (vec!["once", "half"], vec![1.0, 0.5]));
        for (weights, expected) in
            [([1.0, 0.5], [3.0, 1.5]), ([0.0, 2.0], [4.0, 2.0]), ([-1.0, 0.0], [-2.0, -1.0])]
        {
            let scorer = set.weighted(&weights).unwrap();
            // A scorer may go to another thread.
            let values = std::thread::scope(|scope| {
                let read = move || {
                    let (mut session, prompt): (_, &[u32]) = (scorer.session(2), &[]);
                    session.join(&[(prompt, 1)]).unwrap();
                    session.values(&[], &[&[0, 2]]).unwrap()
                };
                scope.spawn(read).join().unwrap()
            });
            assert_eq!(values, expected, "{weights:?}");
        }
    }

    #[test]
    fn rewards_that_are_not_there_and_other_numbers_of_weights_are_refused() {
        let mut set = set();
        for (scorer, head) in [(0, 1), (2, 0)] {
            let error = set.count(scorer, head, 1.0).unwrap_err();
            assert!(matches!(error, DecodeError::Scorer { .. }), "{error}");
        }
        let error = set.count(0, 0, f64::NAN).unwrap_err();
        assert!(matches!(error, DecodeError::Setting { .. }), "{error}");
        assert_eq!(set.names().len(), 2);
        for weights in [&[1.0][..], &[1.0; 3], &[0.0; 2], &[f64::INFINITY, 1.0]] {
            assert!(set.weighted(weights).is_err(), "{weights:?}");
        }
        set.count(1, 0, 2.0).unwrap();
        assert_eq!(set.names(), ["once", "half", "half"]);
        assert_eq!(set.weighted(&[0.0, 1.0, 2.0]).unwrap().greatest(), Some(6.0));
    }
}
