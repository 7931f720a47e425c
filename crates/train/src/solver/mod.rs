//! Solvers: ways from a rollout to a better policy, one file each.
//!
//! All maximise J/β = E[Φ]/β − KL(π‖π_ref). A solver is handed a rollout and takes one optimiser step or several; the optimiser, the
//! schedule, the checkpoints and β are the trainer's. [`on_policy`] is what those share that use a rollout once, [`clipped`] what those
//! share that use it again, [`passes`] what reads and differentiates one.

mod clipped;
mod gae;
mod grpo;
mod kl;
mod learner;
mod on_policy;
mod passes;
mod ppo;
mod regression;
mod reinforce;
mod rloo;
#[cfg(test)]
mod tests;

use std::path::Path;

use infalign_decode::EncodedPrompt;
use infalign_model::CausalLm;
use serde::{Deserialize, Serialize};

pub use grpo::Grpo;
pub(crate) use kl::KlTerm;
pub use kl::{KlEstimator, KlPlace};
pub(crate) use learner::Learner;
pub use ppo::Ppo;
pub use regression::{Regression, RolloutSource};
pub use reinforce::Reinforce;
pub use rloo::Rloo;

use crate::rollout::{Rollout, Scoring};
use crate::tally::Tally;
use crate::{Objective, OptimizerConfig, TrainError};

/// How a policy is improved, with the settings of that way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SolverConfig {
    /// REINFORCE leave-one-out.
    Rloo(Rloo),
    /// REINFORCE with a running mean as its baseline.
    Reinforce(Reinforce),
    /// Group-relative policy optimisation.
    Grpo(Grpo),
    /// Proximal policy optimisation.
    Ppo(Ppo),
    /// Regression of log π/π_ref on its value at the optimum.
    Regression(Regression),
}

impl Default for SolverConfig {
    fn default() -> Self {
        Self::Rloo(Rloo::default())
    }
}

/// What a solver works on: one rollout and what it is measured by.
pub(crate) struct Task<'a> {
    pub(crate) reference: &'a CausalLm,
    /// The prompts of the rollout.
    pub(crate) prompts: &'a [EncodedPrompt],
    pub(crate) rollout: &'a Rollout,
    pub(crate) scoring: &'a Scoring<'a>,
    pub(crate) beta: f64,
    pub(crate) seed: u64,
    /// From 0.
    pub(crate) step: usize,
}

/// A way to improve a policy.
pub(crate) trait Solver {
    /// Takes the optimiser steps that one rollout is good for; returns what was found on the way.
    fn update(&mut self, learner: &mut Learner, task: &Task<'_>) -> Result<Tally, TrainError>;

    /// Writes what a resumed run needs beside the policy into a checkpoint.
    fn save(&self, _checkpoint: &Path) -> Result<(), TrainError> {
        Ok(())
    }
}

impl SolverConfig {
    /// Refuses settings that are out of range, contradict each other, or do nothing.
    ///
    /// - prompts, samples: prompts of a step, and responses to each.
    pub(crate) fn check(&self, prompts: usize, samples: usize) -> Result<(), TrainError> {
        match self {
            Self::Rloo(config) => config.check(samples),
            Self::Reinforce(config) => config.check(),
            Self::Grpo(config) => config.check(prompts, samples),
            Self::Ppo(config) => config.check(prompts.saturating_mul(samples)),
            Self::Regression(_) => Ok(()),
        }
    }

    /// Refuses an objective that it cannot be used for.
    pub(crate) fn check_objective(&self, objective: &Objective) -> Result<(), TrainError> {
        match self {
            Self::Regression(_) => regression::pointwise(objective).map(drop),
            _ => Ok(()),
        }
    }

    /// Whether it needs the table of the reference's rewards, and cannot do with ranks in a group.
    pub fn needs_table(&self) -> bool {
        matches!(self, Self::Regression(_))
    }

    /// Whether it learns from stored responses of π_ref in place of the policy's own.
    pub fn learns_from_reference(&self) -> bool {
        matches!(self, Self::Regression(Regression { rollouts: RolloutSource::Reference }))
    }

    /// The solver before the first step, or as a checkpoint left it.
    pub(crate) fn begin(
        &self,
        reference: &CausalLm,
        optimizer: &OptimizerConfig,
        checkpoint: Option<&Path>,
    ) -> Result<Box<dyn Solver>, TrainError> {
        Ok(match self {
            Self::Rloo(config) => Box::new(config.clone()),
            Self::Reinforce(config) => Box::new(config.begin(checkpoint)?),
            Self::Grpo(config) => Box::new(config.clone()),
            Self::Ppo(config) => Box::new(config.begin(reference, optimizer, checkpoint)?),
            Self::Regression(config) => Box::new(config.clone()),
        })
    }
}

/// Refuses a group of one, in which nothing can be compared.
pub(crate) fn check_group(samples: usize) -> Result<(), TrainError> {
    if samples < 2 {
        let valid = "at least 2: each response is compared with the others to its prompt";
        return Err(TrainError::setting("samples_per_prompt", samples.to_string(), valid));
    }
    Ok(())
}
