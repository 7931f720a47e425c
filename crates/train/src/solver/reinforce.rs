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
        let reward = phi - task.beta * tally.penalty / task.rollout.sequences.len() as f64;
        let memory = self.config.baseline_memory;
        self.baseline = Some(memory * baseline + (1.0 - memory) * reward);
        Ok(tally)
    }

    fn save(&self, checkpoint: &Path) -> Result<(), TrainError> {
        write_json(&path(checkpoint), &self.baseline)
    }
}
