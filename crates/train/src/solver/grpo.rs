//! GRPO, group-relative policy optimisation (DeepSeekMath, arXiv 2402.03300).
//!
//! A_i = (R_i − mean)/(std + 1e-4) within the responses of a prompt, std that of the population; clipped ratios where a rollout is used
//! more than once.
//!
//! How it departs from the paper:
//! 1. J is divided by β, as for the other solvers.
//! 2. With the KL in the reward, or exact in the loss, R = Φ − β times its share, and that is what is standardised.
//!
//! Its biases, each of which can be switched off:
//! 1. `scale_by_std`: dividing by the spread makes the KL cost σ β in place of β, where σ is the spread of Φ under the policy itself: the
//!    optimum is another one, and prompts differ in it. The β that a target KL begins with does not know of it.
//! 2. `length_normalised`: a mean over the tokens of each response weighs a token of a short response more; among bad responses it favours
//!    long ones. Switched off, as in Dr. GRPO (arXiv 2503.20783), every token weighs the same.
//! 3. `kl_estimator = "k3"`, its default, pulls along the gradient of the forward KL (see `solver/kl.rs`); `kl = "reward"` and `exact` do not.
//! 4. The mean includes the response itself, which scales the gradient of the reward by (G − 1)/G against a KL in the loss.

use serde::{Deserialize, Serialize};

use super::clipped::{Reuse, Surrogate};
use super::on_policy::OnPolicy;
use super::{KlEstimator, KlPlace, KlTerm, Learner, Solver, Task, check_group};
use crate::TrainError;
use crate::advantage::{centred, standardised};
use crate::passes::sum;
use crate::tally::Tally;

/// What is added to the standard deviation.
const EPSILON: f64 = 1e-4;

/// Settings of GRPO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grpo {
    /// Where the KL is.
    #[serde(default = "in_loss")]
    pub kl: KlPlace,
    /// How it is estimated: k3 in the loss, k1 in the reward where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_estimator: Option<KlEstimator>,
    /// Whether advantages are divided by the standard deviation of their group.
    #[serde(default = "yes")]
    pub scale_by_std: bool,
    /// Whether a response counts the same whatever its length, in place of each token.
    #[serde(default = "yes")]
    pub length_normalised: bool,
    /// Times that a rollout is gone through.
    #[serde(default = "one")]
    pub epochs: usize,
    /// Optimiser steps each time.
    #[serde(default = "one")]
    pub minibatches: usize,
    /// How far a ratio of new to old probability may move before its gradient is cut; 0.2 where a rollout is used more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// The same of a ratio that has risen, where it may move further, or less far, than one that has fallen; that of `clip` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_high: Option<f64>,
}

fn in_loss() -> KlPlace {
    KlPlace::Loss
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

impl Grpo {
    pub(crate) fn check(&self, prompts: usize, samples: usize) -> Result<(), TrainError> {
        check_group(samples)?;
        self.reuse().check(prompts.saturating_mul(samples))?;
        self.term().map(drop)
    }

    fn term(&self) -> Result<KlTerm, TrainError> {
        KlTerm::new(self.kl, self.kl_estimator, KlEstimator::K3)
    }

    fn reuse(&self) -> Reuse {
        let Self { epochs, minibatches, clip, clip_high, .. } = *self;
        Reuse { epochs, minibatches, clip, clip_high }
    }

    /// Advantages in units of J/β, from the rewards in the same units.
    fn advantages(&self, rewards: &[f64], samples: usize, beta: f64) -> Vec<f64> {
        let of_group = |rewards: &[f64]| {
            if !self.scale_by_std {
                return centred(rewards);
            }
            // The spread is that of the rewards in units of Φ.
            standardised(rewards, EPSILON / beta).iter().map(|a| a / beta).collect()
        };
        rewards.chunks(samples).flat_map(of_group).collect()
    }
}

impl Solver for Grpo {
    fn update(&mut self, learner: &mut Learner, task: &Task<'_>) -> Result<Tally, TrainError> {
        let (kl, samples, beta) = (self.term()?, task.rollout.samples, task.beta);
        let length_normalised = self.length_normalised;
        if self.reuse().is_single() {
            let advantages = |responses: &[usize], penalties: &[f64]| {
                self.advantages(&task.rewards(responses, penalties), samples, beta)
            };
            let step = OnPolicy { kl, length_normalised, group: samples, advantages, task };
            return step.step(learner);
        }
        let (old, mut tally) = task.passes(&learner.policy, kl, length_normalised).observe()?;
        tally.check(task.step, &task.reference.device())?;
        let penalties: Vec<f64> = old.penalties.iter().map(|tokens| sum(tokens)).collect();
        let rewards = task.rewards(&task.rollout.numbers(), &penalties);
        let advantages = self.advantages(&rewards, samples, beta);
        let spread = advantages.iter().zip(&old.log_probs);
        let advantages = spread.map(|(&a, tokens)| vec![a; tokens.len()]).collect();
        let surrogate = Surrogate { old: old.log_probs, advantages, kl, length_normalised, task };
        tally.clip_fraction = surrogate.improve(learner, &self.reuse(), &mut |_| Ok(()))?;
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::{Grpo, KlTerm};

    fn grpo(settings: &str) -> Grpo {
        serde_json::from_str(settings).unwrap()
    }

    #[test]
    fn advantages_are_within_prompts_and_standardised_in_units_of_phi() {
        let of = |settings| grpo(settings).advantages(&[0.0, 1.0, 10.0, 14.0], 2, 0.5);
        assert_eq!(of(r#"{"scale_by_std": false}"#), [-0.5, 0.5, -2.0, 2.0]);
        // In units of J/β the spreads are 0.5 and 2, and 1e-4 is 2e-4: 0.5/0.5002 and 2/2.0002, over β.
        let found = of("{}");
        let expected = [-1.999_200_320, 1.999_200_320, -1.999_800_020, 1.999_800_020];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-8), "{found:?}");
    }

    #[test]
    fn the_estimator_is_k3_where_nothing_else_is_said() {
        let of = |settings| grpo(settings).term().unwrap();
        assert_eq!(of("{}"), KlTerm::K3);
        assert_eq!(of(r#"{"kl": "reward"}"#), KlTerm::Reward);
    }
}
