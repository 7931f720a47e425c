//! REINFORCE (Williams 1992) with a baseline: A_i = R_i less the running mean of the rewards of earlier steps.
//!
//! How it departs from the paper:
//! 1. Gradients are averaged over a rollout, and the optimiser is AdamW.
//! 2. The baseline is one number for all prompts, the exponential mean of R β = Φ less β times the KL's share, in units of Φ, so that it
//!    stays where β is steered. It does not depend on the responses that it is taken off, so there is no bias. It cannot tell an easy prompt
//!    from a hard one, which RLOO's can: calibrated rewards have the same mean for every prompt under π_ref, raw ones do not.
//! 3. At the first step it is the mean of that step's own Φ, which takes 1/n off that step's gradient.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::on_policy::OnPolicy;
use super::{KlEstimator, KlPlace, KlTerm, Learner, Solver, Task};
use crate::TrainError;
use crate::checkpoint::{read_json, write_json};
use crate::tally::Tally;

/// Settings of REINFORCE with a baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reinforce {
    /// Where the KL is.
    #[serde(default)]
    pub kl: KlPlace,
    /// How it is estimated: k1 in the reward, exact in the loss where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_estimator: Option<KlEstimator>,
    /// Weight of the past in the running mean, at least 0 and below 1.
    #[serde(default = "baseline_memory")]
    pub baseline_memory: f64,
}

fn baseline_memory() -> f64 {
    0.9
}

impl Reinforce {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        if !(0.0..1.0).contains(&self.baseline_memory) {
            let memory = self.baseline_memory.to_string();
            let valid = "at least 0 and below 1";
            return Err(TrainError::setting("solver.baseline_memory", memory, valid));
        }
        self.term().map(drop)
    }

    fn term(&self) -> Result<KlTerm, TrainError> {
        KlTerm::new(self.kl, self.kl_estimator, KlEstimator::Exact)
    }

    /// The running mean after a step.
    ///
    /// - phi: mean Φ of the step; penalty: what the KL takes off the rewards of all its responses.
    fn next(&self, baseline: f64, phi: f64, penalty: f64, task: &Task<'_>) -> f64 {
        let reward = phi - task.beta * penalty / task.rollout.sequences.len() as f64;
        self.baseline_memory * baseline + (1.0 - self.baseline_memory) * reward
    }

    pub(crate) fn begin(&self, checkpoint: Option<&Path>) -> Result<WithBaseline, TrainError> {
        let baseline = checkpoint.map(|dir| read_json(&path(dir))).transpose()?.flatten();
        Ok(WithBaseline { config: self.clone(), baseline })
    }
}

/// Where a checkpoint holds the running mean.
fn path(checkpoint: &Path) -> PathBuf {
    checkpoint.join("baseline.json")
}

/// REINFORCE and its baseline.
pub(crate) struct WithBaseline {
    config: Reinforce,
    /// Absent before the first step.
    baseline: Option<f64>,
}

impl Solver for WithBaseline {
    fn update(&mut self, learner: &mut Learner, task: &Task<'_>) -> Result<Tally, TrainError> {
        let phi = &task.rollout.transformed;
        let phi = phi.iter().sum::<f64>() / phi.len() as f64;
        let baseline = self.baseline.unwrap_or(phi);
        let advantages = |responses: &[usize], penalties: &[f64]| {
            let rewards = task.rewards(responses, penalties);
            rewards.into_iter().map(|reward| reward - baseline / task.beta).collect()
        };
        let kl = self.config.term()?;
        let tally =
            OnPolicy { kl, length_normalised: false, group: 1, advantages, task }.step(learner)?;
        self.baseline = Some(self.config.next(baseline, phi, tally.penalty, task));
        Ok(tally)
    }

    fn save(&self, checkpoint: &Path) -> Result<(), TrainError> {
        write_json(&path(checkpoint), &self.baseline)
    }
}

#[cfg(test)]
mod tests {
    use infalign_model::Sequence;

    use super::{Reinforce, Task};
    use crate::rollout::Rollout;
    use crate::solver::tests::with_task;

    #[test]
    fn the_baseline_remembers_as_much_of_the_past_as_it_is_told() {
        with_task(|task| {
            let sequence = Sequence { tokens: vec![1, 0], prompt_length: 1 };
            let rollout = Rollout { sequences: vec![sequence; 2], ..Rollout::default() };
            let task = Task { rollout: &rollout, beta: 0.5, ..*task };
            // The step's own reward is 0.6 less 0.5 of 0.8/2.
            for (settings, expected) in [("{}", 0.22), (r#"{"baseline_memory": 0.5}"#, 0.3)] {
                let config: Reinforce = serde_json::from_str(settings).unwrap();
                let found = config.next(0.2, 0.6, 0.8, &task);
                assert!((found - expected).abs() < 1e-12, "{settings}: {found}");
            }
        });
    }
}
