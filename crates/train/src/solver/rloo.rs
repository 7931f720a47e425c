//! REINFORCE leave-one-out (Ahmadian et al., arXiv 2402.14740): A_i = R_i less the mean of the other rewards of the same prompt.
//!
//! How it departs from the paper:
//! 1. The KL may be in the loss, exact or estimated; the paper has k1 in the reward, which is the default.
//! 2. Gradients are means over responses of sums over tokens, in units of J/β.
//!
//! With k1 in the reward, R is the same for every response of a prompt at the optimum, and the gradient's variance vanishes there. The exact
//! KL is mostly less noisy than k1 by itself, but k1's noise is what takes away that of Φ: in the enumerable case of `solver/tests.rs` the variance
//! of the whole gradient is the same for both at π_ref, 1.4 times as great with the exact KL after ten steps, 2.8 times after thirty, and 7
//! times near the optimum. So k1 in the reward is the default.

use serde::{Deserialize, Serialize};

use super::on_policy::OnPolicy;
use super::{KlEstimator, KlPlace, KlTerm, Learner, Solver, Task, check_group};
use crate::tally::Tally;
use crate::{TrainError, leave_one_out};

/// Settings of RLOO.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rloo {
    /// Where the KL is.
    #[serde(default)]
    pub kl: KlPlace,
    /// How it is estimated: k1 in the reward, exact in the loss where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_estimator: Option<KlEstimator>,
}

impl Rloo {
    pub(crate) fn check(&self, samples: usize) -> Result<(), TrainError> {
        check_group(samples)?;
        self.term().map(drop)
    }

    fn term(&self) -> Result<KlTerm, TrainError> {
        KlTerm::new(self.kl, self.kl_estimator, KlEstimator::Exact)
    }
}

impl Solver for Rloo {
    fn update(&mut self, learner: &mut Learner, task: &Task<'_>) -> Result<Tally, TrainError> {
        let group = task.rollout.samples;
        let of_pass = |responses: &[usize], penalties: &[f64]| {
            advantages(&task.rewards(responses, penalties), group)
        };
        let kl = self.term()?;
        OnPolicy { kl, length_normalised: false, group, advantages: of_pass, task }.step(learner)
    }
}

/// The advantages of whole groups.
fn advantages(rewards: &[f64], group: usize) -> Vec<f64> {
    rewards.chunks(group).flat_map(leave_one_out).collect()
}

#[cfg(test)]
mod tests {
    use super::advantages;

    #[test]
    fn the_others_are_those_to_the_same_prompt() {
        assert_eq!(advantages(&[0.0, 1.0, 10.0, 14.0], 2), [-1.0, 1.0, -4.0, 4.0]);
    }
}
