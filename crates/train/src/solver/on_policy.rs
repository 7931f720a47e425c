//! One optimiser step from one rollout, by advantages of whole responses.

use super::passes::Passes;
use super::{KlTerm, Learner, Task};
use crate::TrainError;
use crate::tally::Tally;

/// What distinguishes the solvers that use a rollout once.
pub(crate) struct OnPolicy<'a, A> {
    pub(crate) kl: KlTerm,
    /// Whether each response counts the same, whatever its length, in place of each token.
    pub(crate) length_normalised: bool,
    /// Responses that are compared with each other.
    pub(crate) group: usize,
    /// Advantages in units of J/β, given the numbers of the responses, in whole groups, and what the KL takes off the reward of each.
    pub(crate) advantages: A,
    pub(crate) task: &'a Task<'a>,
}

impl<A: Fn(&[usize], &[f64]) -> Vec<f64> + Sync> OnPolicy<'_, A> {
    /// Takes the step.
    pub(crate) fn step(&self, learner: &mut Learner) -> Result<Tally, TrainError> {
        let passes = Passes {
            policy: &learner.policy,
            reference: Some(self.task.reference),
            rollout: self.task.rollout,
            kl: self.kl,
            length_normalised: self.length_normalised,
            group: self.group,
        };
        let (grads, tally) = passes.gradient(&self.task.rollout.numbers(), &|seen| {
            let advantages = (self.advantages)(seen.responses, &seen.penalties);
            let spread = advantages.iter().zip(seen.lengths);
            spread.flat_map(|(&a, &length)| std::iter::repeat_n(a, length)).collect()
        })?;
        tally.check(self.task.step, &self.task.reference.device())?;
        learner.step(grads);
        Ok(tally)
    }
}

impl Task<'_> {
    /// R = Φ/β less what the KL takes off, of some responses.
    pub(crate) fn rewards(&self, responses: &[usize], penalties: &[f64]) -> Vec<f64> {
        let phi = responses.iter().map(|&i| self.rollout.transformed[i]);
        phi.zip(penalties).map(|(phi, penalty)| phi / self.beta - penalty).collect()
    }
}
