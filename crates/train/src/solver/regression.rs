//! Closed-form regression: the policy is fitted to the optimum, which is known, its normalisation included.
//!
//! At the optimum log π/π_ref = Φ(u)/β − log Z. Since u is what it is under π_ref whatever the reward, Z is a number that the calibration
//! table tells in the mean over tables (see `partition.rs`), and no baseline has to be estimated. The loss is
//! ½ (log π(y)/π_ref(y) − Φ/β + log Z)², as a mean over responses, in the manner of QRPO (arXiv 2507.08068).
//!
//! How it departs from the paper:
//! 1. Z is that of the rewards as the trainer sees them, smoothed ranks and atoms included, not the integral of the continuous limit. It is
//!    so in the mean over tables of K rewards; for the one table of a prompt log Z is off, for `exp:10` at half a nat with a standard
//!    deviation of 0.26 for K = 16, 0.17 for 64 and 0.12 for 128.
//! 2. `rollouts = "policy"`: responses come from π at every step, and only the square is differentiated, not what they were drawn from. Its
//!    gradient is then that of −J/β, with log Z as the baseline: RLOO whose baseline is known.
//! 3. `rollouts = "reference"`: responses are stored ones of π_ref, as the paper's offline data. No weights are needed, since the loss is 0
//!    at the same policy whatever responses it is a mean over, as far as log Z is right (see 1); but what π_ref seldom says is seldom
//!    corrected, and what is not among the stored responses never is: store many.
//!
//! In the second mode the metrics of a step are means over π_ref's responses, weighted by π/π_ref so that they speak of π: precise near π_ref
//! and noisy far from it. The entropy is that after π_ref's prefixes, without weights.

use infalign_decode::EncodedPrompt;
use serde::{Deserialize, Serialize};

use super::on_policy::OnPolicy;
use super::{KlTerm, Learner, Solver, Task};
use crate::objective::Pointwise;
use crate::partition::log_partition;
use crate::tally::Tally;
use crate::{Calibrator, Objective, TrainError};

/// Settings of the regression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {
    /// Where responses come from.
    #[serde(default = "policy")]
    pub rollouts: RolloutSource,
}

/// Where responses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutSource {
    /// The policy, anew at every step.
    Policy,
    /// The reference policy, whose responses are stored: each time that a prompt comes up, the next of them.
    Reference,
}

fn policy() -> RolloutSource {
    RolloutSource::Policy
}

impl Solver for Regression {
    fn update(&mut self, learner: &mut Learner, task: &Task<'_>) -> Result<Tally, TrainError> {
        let log_z = log_partitions(task)?;
        let samples = task.rollout.samples;
        let advantages = |responses: &[usize], penalties: &[f64]| {
            less_log_z(&task.rewards(responses, penalties), responses, &log_z, samples)
        };
        let kl = KlTerm::Reward;
        OnPolicy { kl, length_normalised: false, group: 1, advantages, task }.step(learner)
    }
}

/// R − log Z of its prompt, of some responses.
fn less_log_z(rewards: &[f64], responses: &[usize], log_z: &[f64], samples: usize) -> Vec<f64> {
    rewards.iter().zip(responses).map(|(reward, &i)| reward - log_z[i / samples]).collect()
}

/// Refuses an objective whose optimum is not known before the policy is.
pub(super) fn pointwise(objective: &Objective) -> Result<Pointwise<'_>, TrainError> {
    objective.pointwise().ok_or_else(|| TrainError::NotPointwise {
        objective: objective.to_string(),
        what: "solver \"regression\"",
        instead: "take another solver",
    })
}

/// log Z of each prompt.
fn log_partitions(task: &Task<'_>) -> Result<Vec<f64>, TrainError> {
    let Calibrator::Table(table) = task.scoring.calibrator else {
        return Err(TrainError::NeedsTable { what: "solver \"regression\"".into() });
    };
    let objective = pointwise(task.scoring.objective)?;
    let of = |prompt: &EncodedPrompt| {
        let scale = task.scoring.calibrator.scale(prompt, task.scoring.unit)?;
        let row = table.row(&prompt.text)?;
        Ok(log_partition(row, objective, scale, task.beta))
    };
    task.prompts.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::less_log_z;

    #[test]
    fn each_reward_is_less_the_log_z_of_its_own_prompt() {
        let of =
            |rewards: &[f64], responses: &[usize]| less_log_z(rewards, responses, &[0.5, 10.0], 2);
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0], &[0, 1, 2, 3]), [0.5, 1.5, -7.0, -6.0]);
        assert_eq!(of(&[2.0, 3.0], &[1, 2]), [1.5, -7.0], "in a pass that begins later");
    }
}
