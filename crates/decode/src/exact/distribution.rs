//! A distribution over the complete responses of a tabular model, and what can be said of it.

use std::num::NonZeroUsize;

use infalign_model::{PrefixTree, TabularLm};
use infalign_transform::{Outcomes, Procedure, TransformError, kl_divergence};

use super::not_enumerated;
use crate::DecodeError;

/// Probabilities of complete responses, and those of the base policy p that they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseDistribution {
    tree: PrefixTree,
    /// By response, 0 wherever the base is 0.
    probabilities: Vec<f64>,
    base: Vec<f64>,
}

impl ResponseDistribution {
    pub(super) fn new(base: &TabularLm, probabilities: Vec<f64>) -> Self {
        Self { tree: base.tree(), probabilities, base: base.response_probabilities() }
    }

    /// The base policy itself.
    pub(super) fn of(base: &TabularLm) -> Self {
        Self::new(base, base.response_probabilities())
    }

    /// Replaces the probabilities by those that `map` makes of the possible responses' own and of `rewards`.
    pub(super) fn map_possible(
        mut self,
        rewards: &[f64],
        map: impl FnOnce(Vec<f64>, Vec<f64>) -> Result<Vec<f64>, TransformError>,
    ) -> Result<Self, DecodeError> {
        let possible = self.possible();
        let probabilities = possible.iter().map(|&i| self.probabilities[i]).collect();
        let mapped = map(probabilities, possible.iter().map(|&i| rewards[i]).collect())?;
        for (response, p) in possible.into_iter().zip(mapped) {
            self.probabilities[response] = p;
        }
        Ok(self)
    }

    /// The responses that the base policy can give.
    fn possible(&self) -> Vec<usize> {
        (0..self.base.len()).filter(|&response| self.base[response] > 0.0).collect()
    }

    /// The probability of each complete response by its number, `[size]`.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// One of several draws from this distribution, selected by reward: so procedures stand on top of one another, as the best of four
    /// blockwise decoded responses.
    ///
    /// # Errors
    /// [`DecodeError::Procedure`] for a procedure that is not a selection by reward, [`DecodeError::Transform`] for a possible response whose
    /// reward is not a number.
    pub fn select(self, procedure: &Procedure, rewards: &[f64]) -> Result<Self, DecodeError> {
        let selected = self.map_possible(rewards, |p, r| Outcomes::new(p, r)?.under(procedure));
        selected.map_err(|error| match error {
            DecodeError::Transform(TransformError::NotByRank(_)) => not_enumerated(procedure),
            error => error,
        })
    }

    pub(super) fn base(&self) -> &[f64] {
        &self.base
    }

    /// The text, such as `ab$`, and the probability of each response that the base policy can give, shorter ones first.
    pub fn responses(&self) -> impl Iterator<Item = (String, f64)> {
        let text = |response| (self.tree.response_text(response), self.probabilities[response]);
        self.possible().into_iter().map(text)
    }

    /// The expectation of a quantity of responses, such as the reward, `[size]`.
    pub fn expected(&self, quantity: &[f64]) -> f64 {
        let terms = self.probabilities.iter().zip(quantity).filter(|(p, _)| **p > 0.0);
        terms.map(|(p, value)| p * value).sum()
    }

    /// KL(π‖p) of whole responses, in nats, 0 or more.
    pub fn kl(&self) -> f64 {
        kl_divergence(&self.probabilities, &self.base)
    }

    /// The probability that a response has a greater reward than one of the base policy, ties counted half.
    ///
    /// # Errors
    /// [`DecodeError::Transform`] for a possible response whose reward is not a number.
    pub fn win_rate(&self, rewards: &[f64]) -> Result<f64, DecodeError> {
        let possible = self.possible();
        let base = possible.iter().map(|&i| self.base[i]).collect();
        let outcomes = Outcomes::new(base, possible.iter().map(|&i| rewards[i]).collect())?;
        let wins = possible.iter().zip(outcomes.calibrated());
        Ok(wins.map(|(&response, u)| self.probabilities[response] * u).sum())
    }

    /// The expected length in tokens, EOS included.
    pub fn expected_length(&self) -> f64 {
        self.expected_blocks(NonZeroUsize::MIN)
    }

    /// The expected number of blocks of `length` tokens, the last of which may be shorter: E⌈L/M⌉.
    pub fn expected_blocks(&self, length: NonZeroUsize) -> f64 {
        let blocks = |tokens: usize| tokens.div_ceil(length.get()) as f64;
        self.expected(&self.tree.lengths().into_iter().map(blocks).collect::<Vec<_>>())
    }
}
