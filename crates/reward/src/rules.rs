//! Rewards that are rules: length, weighted words, weighted regular expressions. All of them read the response alone.

use std::collections::{BTreeMap, HashMap};

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{Reward, RewardError};

/// What a length counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LengthUnit {
    /// Unicode characters.
    Characters,
    /// Words between white space.
    Words,
}

impl LengthUnit {
    /// How many a text has.
    pub(crate) fn count(self, text: &str) -> usize {
        match self {
            Self::Characters => text.chars().count(),
            Self::Words => text.split_whitespace().count(),
        }
    }
}

/// The length of the response.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// What is counted.
    pub unit: LengthUnit,
}

impl Reward for Length {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        Ok(pairs.iter().map(|(_, response)| self.unit.count(response) as f32).collect())
    }
}

/// The sum of the weights of a response's words, each as often as it occurs, whatever their order: responses of the same words tie. Words are runs of letters, digits and apostrophes, in lower case.
#[derive(Clone, Debug)]
pub struct Lexicon {
    weights: HashMap<String, f32>,
}

impl Lexicon {
    /// A lexicon of words and their weights.
    ///
    /// # Errors
    /// [`RewardError`] for no words at all, a weight that is not finite, or an entry that is not one word.
    pub fn new(weights: &BTreeMap<String, f32>) -> Result<Self, RewardError> {
        check_weights("lexicon", weights)?;
        if let Some(entry) = weights.keys().find(|entry| words(entry).ne([entry.as_str()])) {
            return Err(RewardError::Word { entry: entry.clone() });
        }
        Ok(Self::of(weights.iter().map(|(word, weight)| (word.clone(), *weight)).collect()))
    }

    /// A lexicon of entries that are words, with weights that are finite.
    pub(crate) fn of(weights: HashMap<String, f32>) -> Self {
        Self { weights }
    }
}

impl Reward for Lexicon {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let weight = |word: String| self.weights.get(&word).map(|weight| f64::from(*weight));
        let score = |response| total(response, words(response).filter_map(weight));
        pairs.iter().map(|(_, response)| score(response)).collect()
    }
}

/// A regular expression.
pub(crate) fn compile(pattern: &str) -> Result<Regex, RewardError> {
    Regex::new(pattern).map_err(|error| RewardError::Pattern {
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    })
}

/// The sum over regular expressions of weight times number of matches that do not overlap.
#[derive(Clone, Debug)]
pub struct Patterns {
    weights: Vec<(Regex, f32)>,
}

impl Patterns {
    /// Regular expressions and their weights.
    ///
    /// # Errors
    /// [`RewardError`] for no patterns at all, a weight that is not finite, or a pattern that does not parse.
    pub fn new(weights: &BTreeMap<String, f32>) -> Result<Self, RewardError> {
        check_weights("patterns", weights)?;
        let weighted = |(pattern, weight): (&String, &f32)| Ok((compile(pattern)?, *weight));
        let weights = weights.iter().map(weighted).collect::<Result<_, RewardError>>()?;
        Ok(Self { weights })
    }
}

impl Reward for Patterns {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let score = |response| {
            let term = |(regex, weight): &(Regex, f32)| {
                f64::from(*weight) * regex.find_iter(response).count() as f64
            };
            total(response, self.weights.iter().map(term))
        };
        pairs.iter().map(|(_, response)| score(response)).collect()
    }
}

/// A sum in f64 rounded to f32: the order of the terms is lost in the rounding. Large weights may add up to more than f32 holds.
fn total(response: &str, terms: impl Iterator<Item = f64>) -> Result<f32, RewardError> {
    // Of no terms the sum is −0.
    let score = (terms.sum::<f64>() + 0.0) as f32;
    if score.is_finite() {
        return Ok(score);
    }
    Err(RewardError::NotFinite { response: response.to_owned(), score })
}

/// The words of a text, as a lexicon has them.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

fn check_weights(kind: &'static str, weights: &BTreeMap<String, f32>) -> Result<(), RewardError> {
    if weights.is_empty() {
        return Err(RewardError::Empty { kind, key: "weights" });
    }
    match weights.iter().find(|(_, weight)| !weight.is_finite()) {
        Some((entry, weight)) => Err(RewardError::Weight { entry: entry.clone(), weight: *weight }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(entries: &[(&str, f32)]) -> BTreeMap<String, f32> {
        entries.iter().map(|(entry, weight)| ((*entry).to_owned(), *weight)).collect()
    }

    fn score(reward: &dyn Reward, response: &str) -> f32 {
        reward.score(&[("good good good", response)]).unwrap()[0]
    }

    #[test]
    fn lengths_count_what_they_say() {
        assert_eq!(score(&Length { unit: LengthUnit::Characters }, "né e"), 4.0);
        assert_eq!(score(&Length { unit: LengthUnit::Words }, " two  words "), 2.0);
        assert_eq!(score(&Length { unit: LengthUnit::Words }, ""), 0.0);
    }

    #[test]
    fn a_lexicon_adds_the_words_of_the_response_alone() {
        let lexicon = Lexicon::new(&weights(&[("good", 1.5), ("don't", -1.0)])).unwrap();
        assert_eq!(score(&lexicon, "Good, GOOD goodness; don't"), 2.0);
        let lexicon =
            Lexicon::new(&weights(&[("a", 0.6), ("b", 1.0), ("c", 0.8), ("d", -4.5)])).unwrap();
        let orders =
            ["a b c d", "d c b a", "b d a c", "c a d b"].map(|order| score(&lexicon, order));
        assert!(orders.iter().all(|s| *s == orders[0]), "the same words tie: {orders:?}");
    }

    #[test]
    fn patterns_count_matches() {
        let patterns = Patterns::new(&weights(&[("aa", 2.0), (r"\d+", -0.5)])).unwrap();
        assert_eq!(score(&patterns, "aaaa 12 7"), 3.0);
    }

    #[test]
    fn a_sum_beyond_f32_is_refused() {
        let lexicon = Lexicon::new(&weights(&[("good", 3e38)])).unwrap();
        assert_eq!(score(&lexicon, "good"), 3e38);
        let message = lexicon.score(&[("", "good good")]).unwrap_err().to_string();
        assert!(message.contains("good good") && message.contains("inf"), "{message}");
        let patterns = Patterns::new(&weights(&[("a", -3e38)])).unwrap();
        assert!(patterns.score(&[("", "aa")]).is_err());
    }

    #[test]
    fn useless_rules_are_refused() {
        assert!(Lexicon::new(&BTreeMap::new()).is_err());
        assert!(
            Lexicon::new(&weights(&[("good", f32::NAN)])).unwrap_err().to_string().contains("good")
        );
        assert!(
            Lexicon::new(&weights(&[("Good", 1.0)]))
                .unwrap_err()
                .to_string()
                .contains("lower-case")
        );
        assert!(Patterns::new(&weights(&[("(", 1.0)])).unwrap_err().to_string().contains("`(`"));
    }
}
