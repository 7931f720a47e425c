//! One optimiser step from one rollout, by advantages of whole responses.

use burn::optim::GradientsParams;
use infalign_model::CausalLm;

use super::passes::{Passes, cut};
use super::{KlTerm, Learner, Task};
use crate::TrainError;
use crate::passes::sum;
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
        let (grads, tally) = self.gradient(&learner.policy)?;
        tally.check(self.task.step, &self.task.reference.device())?;
        learner.step(grads);
        Ok(tally)
    }

    /// The gradient of −J/β, in passes of bounded size.
    pub(crate) fn gradient(
        &self,
        policy: &CausalLm,
    ) -> Result<(GradientsParams, Tally), TrainError> {
        let lengths = self.task.rollout.sequences.iter().map(|sequence| sequence.tokens.len());
        let rows = cut(lengths, self.group);
        if rows < self.group {
            return self.by_parts_of_groups(policy);
        }
        self.by_whole_groups(policy, rows)
    }

    /// Advantages are found in the passes that differentiate, of `rows` responses each.
    pub(crate) fn by_whole_groups(
        &self,
        policy: &CausalLm,
        rows: usize,
    ) -> Result<(GradientsParams, Tally), TrainError> {
        let numbers = self.task.rollout.numbers();
        let passes = self.task.passes(policy, self.kl, self.length_normalised);
        passes.gradient_by(rows, &numbers, &|seen| {
            spread((self.advantages)(seen.responses, &seen.penalties), seen.lengths)
        })
    }

    /// Where the KL is taken off the reward, all is read before: no pass sees all that the advantages of a response depend on.
    fn by_parts_of_groups(
        &self,
        policy: &CausalLm,
    ) -> Result<(GradientsParams, Tally), TrainError> {
        let numbers = self.task.rollout.numbers();
        let passes = self.task.passes(policy, self.kl, self.length_normalised);
        let gradient = |passes: &Passes<'_>, penalties: &[f64]| {
            let advantages = (self.advantages)(&numbers, penalties);
            passes.gradient(&numbers, &|seen| {
                let own = seen.responses.iter().map(|&i| advantages[i]).collect();
                spread(own, seen.lengths)
            })
        };
        if !self.kl.is_penalty() {
            return gradient(&passes, &vec![0.0; numbers.len()]);
        }
        let (observed, mut tally) = passes.observe()?;
        let penalties: Vec<f64> = observed.penalties.iter().map(|tokens| sum(tokens)).collect();
        tally.penalty = penalties.iter().sum();
        let reference = passes.reference.filter(|_| self.kl.is_in_loss());
        let (grads, _) = gradient(&Passes { reference, ..passes }, &penalties)?;
        Ok((grads, tally))
    }
}

/// The advantage of each response at each of its tokens.
fn spread(advantages: Vec<f64>, lengths: &[usize]) -> Vec<f64> {
    let responses = advantages.into_iter().zip(lengths);
    responses.flat_map(|(a, &length)| std::iter::repeat_n(a, length)).collect()
}

impl Task<'_> {
    /// Passes over its rollout, beside the reference.
    pub(crate) fn passes<'p>(
        &'p self,
        policy: &'p CausalLm,
        kl: KlTerm,
        length_normalised: bool,
    ) -> Passes<'p> {
        let (reference, rollout) = (Some(self.reference), self.rollout);
        Passes { policy, reference, rollout, kl, length_normalised }
    }

    /// R = Φ/β less what the KL takes off, of some responses.
    pub(crate) fn rewards(&self, responses: &[usize], penalties: &[f64]) -> Vec<f64> {
        let phi = responses.iter().map(|&i| self.rollout.transformed[i]);
        phi.zip(penalties).map(|(phi, penalty)| phi / self.beta - penalty).collect()
    }
}
