//! A tabular model with the rewards of its responses.

use super::TabularLm;
use crate::ModelError;

/// A tabular model p and the reward r of each of its complete responses. `TabularProblem::read` says how its file looks.
#[derive(Clone, Debug, PartialEq)]
pub struct TabularProblem {
    model: TabularLm,
    /// By response, NaN where a response of probability 0 has none.
    rewards: Vec<f64>,
}

impl TabularProblem {
    /// A model with rewards, one a response by its number, `[size]`. The reward of a response of probability 0 may be NaN.
    ///
    /// # Errors
    /// [`ModelError::Table`] for another number of rewards, or one that is missing or not finite.
    pub fn new(model: TabularLm, rewards: Vec<f64>) -> Result<Self, ModelError> {
        let refuse = |reason| ModelError::Table { name: "with these rewards".to_owned(), reason };
        Self::checked(model, rewards).map_err(refuse)
    }

    /// The same with the bare reason as its error.
    pub(super) fn checked(model: TabularLm, rewards: Vec<f64>) -> Result<Self, String> {
        let tree = model.tree();
        let (found, size) = (rewards.len(), tree.size());
        if found != size {
            return Err(format!("there are {found} rewards, but {size} responses: give one each"));
        }
        let pairs = rewards.iter().zip(model.response_probabilities());
        for (response, (reward, p)) in pairs.enumerate() {
            let text = || tree.response_text(response);
            if reward.is_infinite() {
                return Err(format!(
                    "the reward of `{}` is {reward}: give a finite number",
                    text()
                ));
            }
            if reward.is_nan() && p > 0.0 {
                let text = text();
                return Err(format!(
                    "`r` has no reward for `{text}`, whose probability is {p}: add it"
                ));
            }
        }
        Ok(Self { model, rewards })
    }

    /// The model.
    pub fn model(&self) -> &TabularLm {
        &self.model
    }

    /// The reward of each response by its number, `[size]`; NaN where a response of probability 0 has none.
    pub fn rewards(&self) -> &[f64] {
        &self.rewards
    }
}
