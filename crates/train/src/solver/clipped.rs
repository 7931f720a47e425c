//! Several optimiser steps from one rollout: the clipped surrogate of PPO (Schulman et al., arXiv 1707.06347).
//!
//! L = E[min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)] with ρ = π/π_old of a token. Since ∇ρ = ρ ∇log π, its gradient is ρ A ∇log π where the least is
//! the first, and 0 where it is the second and cut. Above 1, ε may be another, as in DAPO (arXiv 2503.14476).

use std::sync::atomic::{AtomicUsize, Ordering};

use infalign_backend::precision::{LIMIT, is_limit};
use infalign_decode::Stream;

use super::passes::Passes;
use super::{KlTerm, Learner, Task};
use crate::TrainError;
use crate::fit::check_settings;

/// How often a rollout is used.
pub(crate) struct Reuse {
    pub(crate) epochs: usize,
    pub(crate) minibatches: usize,
    /// ε; 0.2 where nothing is said.
    pub(crate) clip: Option<f64>,
    /// ε above 1; that below where nothing is said.
    pub(crate) clip_high: Option<f64>,
}

impl Reuse {
    fn clip(&self) -> f64 {
        self.clip.unwrap_or(0.2)
    }

    /// The ratios between which no gradient is cut.
    fn bounds(&self) -> [f64; 2] {
        [1.0 - self.clip(), 1.0 + self.clip_high.unwrap_or(self.clip())]
    }

    /// Whether there is one step, at which every ratio is 1.
    pub(crate) fn is_single(&self) -> bool {
        self.epochs == 1 && self.minibatches == 1
    }

    /// - responses: those of a rollout.
    pub(crate) fn check(&self, responses: usize) -> Result<(), TrainError> {
        const SINGLE: &str = "left out with one epoch and one minibatch: every ratio is 1 then";
        let shown = |given: Option<f64>| given.map_or("none".into(), |clip| format!("{clip:?}"));
        let (clip, clip_high) = (shown(self.clip), shown(self.clip_high));
        let share = self.clip() > 0.0 && self.clip() < 1.0;
        let has_effect = |given: Option<f64>| given.is_none() || !self.is_single();
        check_settings([
            ("solver.epochs", self.epochs.to_string(), self.epochs >= 1, "at least 1"),
            (
                "solver.minibatches",
                self.minibatches.to_string(),
                (1..=responses).contains(&self.minibatches),
                "at least 1, and at most the responses of a step",
            ),
            ("solver.clip", clip.clone(), share, "above 0 and below 1"),
            ("solver.clip", clip, has_effect(self.clip), SINGLE),
            ("solver.clip_high", clip_high.clone(), self.clip_high.is_none_or(is_limit), LIMIT),
            ("solver.clip_high", clip_high, has_effect(self.clip_high), SINGLE),
        ])
    }

    /// The responses of each optimiser step, each epoch in an order of its own.
    fn minibatches(&self, task: &Task<'_>) -> Vec<Vec<usize>> {
        let n = task.rollout.sequences.len();
        let stage = format!("minibatches-{}", task.step);
        let of_epoch = |epoch: usize| {
            let order = Stream::new(task.seed, &stage, "", epoch as u64).permutation(n);
            let border = |part: usize| part * n / self.minibatches;
            (0..self.minibatches)
                .map(|part| order[border(part)..border(part + 1)].to_vec())
                .collect::<Vec<_>>()
        };
        (0..self.epochs).flat_map(of_epoch).collect()
    }
}

/// A rollout as it was when it was drawn, and what its tokens are worth.
pub(crate) struct Surrogate<'a> {
    /// log π_old of every token of every response.
    pub(crate) old: Vec<Vec<f32>>,
    /// A of the same, in units of J/β.
    pub(crate) advantages: Vec<Vec<f64>>,
    pub(crate) kl: KlTerm,
    pub(crate) length_normalised: bool,
    pub(crate) task: &'a Task<'a>,
}

impl Surrogate<'_> {
    /// Takes the steps; returns the share of tokens whose gradient was cut.
    ///
    /// - beside: called with the responses of each step.
    pub(crate) fn improve(
        &self,
        learner: &mut Learner,
        reuse: &Reuse,
        beside: &mut dyn FnMut(&[usize]) -> Result<(), TrainError>,
    ) -> Result<f64, TrainError> {
        let (clipped, tokens) = (AtomicUsize::new(0), AtomicUsize::new(0));
        for responses in reuse.minibatches(self.task) {
            let passes = Passes {
                reference: self.kl.is_in_loss().then_some(self.task.reference),
                ..self.task.passes(&learner.policy, self.kl, self.length_normalised)
            };
            let (grads, _) = passes.gradient(&responses, &|seen| {
                let weights = self.weights(seen.responses, &seen.log_probs, reuse.bounds());
                let cut = weights.iter().filter(|weight| weight.is_none()).count();
                clipped.fetch_add(cut, Ordering::Relaxed);
                tokens.fetch_add(weights.len(), Ordering::Relaxed);
                weights.into_iter().map(Option::unwrap_or_default).collect()
            })?;
            learner.step(grads);
            beside(&responses)?;
        }
        Ok(clipped.into_inner() as f64 / tokens.into_inner() as f64)
    }

    /// ρ A of each token of some responses, none where it is cut.
    fn weights(
        &self,
        responses: &[usize],
        log_probs: &[f32],
        bounds: [f64; 2],
    ) -> Vec<Option<f64>> {
        let old = responses.iter().flat_map(|&i| &self.old[i]);
        let advantages = responses.iter().flat_map(|&i| &self.advantages[i]);
        let tokens = log_probs.iter().zip(old).zip(advantages);
        tokens.map(|((&new, &old), &a)| weight(f64::from(new - old).exp(), a, bounds)).collect()
    }
}

/// ρ A, or none where min(ρ A, clip(ρ) A) is cut.
fn weight(ratio: f64, advantage: f64, [least, greatest]: [f64; 2]) -> Option<f64> {
    let risen = advantage > 0.0 && ratio > greatest;
    let fallen = advantage < 0.0 && ratio < least;
    (!risen && !fallen).then_some(ratio * advantage)
}

#[cfg(test)]
mod tests {
    use infalign_model::Sequence;

    use super::{KlTerm, Learner, Reuse, Surrogate, Task, weight};
    use crate::optimizer::{Optimizer, OptimizerConfig};
    use crate::rollout::Rollout;
    use crate::solver::tests::{model, with_task};

    /// Steps of one epoch with these clip ranges.
    fn reuse(minibatches: usize, clip: Option<f64>, clip_high: Option<f64>) -> Reuse {
        Reuse { epochs: 1, minibatches, clip, clip_high }
    }

    #[test]
    fn a_ratio_is_cut_where_it_has_gone_far_enough_already() {
        let by = |ratio, advantage| weight(ratio, advantage, reuse(2, None, None).bounds());
        assert_eq!(by(1.1, 2.0), Some(2.2));
        assert_eq!((by(1.3, 2.0), by(0.7, -2.0)), (None, None));
        // On its way back, nothing holds it.
        assert_eq!((by(0.7, 2.0), by(1.3, -2.0)), (Some(1.4), Some(-2.6)));
        // Where there is no advantage, there is nothing to cut.
        assert_eq!((by(0.7, 0.0), by(1.3, 0.0)), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn a_ratio_above_1_has_a_bound_of_its_own() {
        let by = |clip, clip_high, ratio, advantage| {
            weight(ratio, advantage, reuse(2, clip, clip_high).bounds())
        };
        assert_eq!(
            (by(None, Some(0.5), 1.4, 2.0), by(None, Some(0.5), 1.6, 2.0)),
            (Some(2.8), None)
        );
        assert_eq!(
            (by(None, Some(0.5), 0.7, -2.0), by(None, Some(0.1), 0.9, -2.0)),
            (None, Some(-1.8))
        );
        assert_eq!((by(None, Some(0.1), 1.15, 2.0), by(Some(0.5), None, 1.6, 2.0)), (None, None));
        assert_eq!(by(Some(0.5), None, 1.4, 2.0), Some(2.8));
    }

    #[test]
    fn a_token_counts_by_its_new_probability_over_its_old_one() {
        with_task(|task| {
            let surrogate = Surrogate {
                old: vec![vec![-1.0], vec![-2.0, 0.0]],
                advantages: vec![vec![1.0], vec![-1.0, 2.0]],
                kl: KlTerm::Reward,
                length_normalised: false,
                task,
            };
            // Of the second response alone: ratios of 1 and 1.1.
            let found = surrogate.weights(&[1], &[-2.0, 1.1_f32.ln()], [0.8, 1.2]);
            let found: Vec<f64> = found.into_iter().map(|weight| weight.unwrap()).collect();
            assert!((found[0] + 1.0).abs() < 1e-6 && (found[1] - 2.2).abs() < 1e-6, "{found:?}");
        });
    }

    #[test]
    fn the_share_that_was_cut_is_of_the_tokens_of_all_steps() {
        with_task(|task| {
            let of = |tokens: &[u32]| Sequence { tokens: tokens.to_vec(), prompt_length: 1 };
            let sequences = vec![of(&[1, 0]), of(&[1, 2, 0])];
            // At a learning rate of 0, so that the policy stays what it is.
            let optimizer = Optimizer::new(&OptimizerConfig::new(0.1));
            let mut learner = Learner::new(model(1), optimizer);
            let mut old = learner.policy.valid().log_probs(&sequences).unwrap();
            old[0][0] -= 1.5_f32.ln();
            let rollout = Rollout { sequences, ..Rollout::default() };
            let task = &Task { rollout: &rollout, ..*task };
            let advantages = vec![vec![1.0], vec![1.0, 1.0]];
            let kl = KlTerm::Reward;
            let surrogate = Surrogate { old, advantages, kl, length_normalised: false, task };
            // A step for each response, in which 1 of 1 and 0 of 2 are cut, where a ratio of 1.5 is too far.
            for (clip_high, expected) in [(None, 1.0 / 3.0), (Some(0.6), 0.0)] {
                let reuse = reuse(2, None, clip_high);
                let found = surrogate.improve(&mut learner, &reuse, &mut |_| Ok(())).unwrap();
                assert!((found - expected).abs() < 1e-12, "{clip_high:?}: {found}");
            }
        });
    }

    #[test]
    fn each_epoch_goes_through_all_responses_in_an_order_of_its_own() {
        with_task(|task| {
            let parts = Reuse { epochs: 2, ..reuse(3, None, None) }.minibatches(task);
            let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
            assert_eq!(sizes, [13, 13, 14, 13, 13, 14]);
            let [first, second] = [&parts[..3], &parts[3..]].map(|parts| parts.concat());
            assert_ne!(first, second);
            for mut epoch in [first, second] {
                epoch.sort_unstable();
                assert_eq!(epoch, task.rollout.numbers());
            }
        });
    }
}
