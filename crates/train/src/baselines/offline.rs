//! The trainer of all methods that learn from stored responses.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use infalign_model::{CausalLm, LoraConfig, ResponseBatch, Sequence};
use serde::{Deserialize, Serialize};

use super::bonbon::bonbon;
use super::dpo::dpo;
use super::ipo::ipo;
use super::reference::ReferenceLogProbs;
use super::sft::sft;
use crate::adapter::starting_policy;
use crate::batches::{Batches, check_most};
use crate::fit::{Fit, FitMetrics, check_counts, checkpoint_every};
use crate::passes::{column, mean_gradient};
use crate::{OptimizerConfig, TrainError};

/// Log-ratios of a pair that differ by less, in nats, are equal: the reference is scored pair by pair and the policy in batches, so that even
/// of equal models they differ by rounding.
const TIE: f64 = 1e-4;

/// Settings of training on stored responses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfflineConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Examples of one step: responses, or pairs.
    pub examples_per_step: usize,
    /// Steps from one checkpoint to the next.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: usize,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// A new adapter, which is trained in place of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

impl OfflineConfig {
    /// Refuses settings that are out of range.
    ///
    /// # Errors
    /// [`TrainError::Setting`] names the setting, its value and the range.
    pub fn check(&self) -> Result<(), TrainError> {
        self.optimizer.check()?;
        self.lora.as_ref().map_or(Ok(()), LoraConfig::check)?;
        check_counts(&[
            ("steps", self.steps),
            ("examples_per_step", self.examples_per_step),
            ("checkpoint_every", self.checkpoint_every),
        ])?;
        check_most(&[("examples_per_step", self.examples_per_step)])
    }
}

/// What a method learns from, and by which loss.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// Responses to imitate.
    Imitated(Vec<Sequence>),
    /// Pairs of responses.
    Compared(PairLoss, Vec<ResponsePair>),
}

/// The losses on pairs of responses.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum PairLoss {
    /// DPO with its β.
    Dpo(f64),
    /// IPO with its τ.
    Ipo(f64),
    /// BoNBoN; the first of a pair is the best, the second the worst of N.
    BonBon {
        /// N, at least 2.
        n: usize,
        /// α, in [0, 1].
        alpha: f64,
    },
}

/// Two responses to one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponsePair {
    /// Both with their prompt.
    pub responses: [Sequence; 2],
    /// log π_ref(y | x) of each, in nats; without them the trainer asks its reference when a step first needs them.
    pub reference: Option<[f64; 2]>,
    /// Probability that the first is preferred, in [0, 1].
    pub preference: f64,
}

/// Everything that training on stored responses needs.
pub struct OfflineTrainer<'a> {
    /// Settings.
    pub config: &'a OfflineConfig,
    /// What is learned from.
    pub stored: &'a Stored,
    /// π_ref, from which the policy starts. Of one with an adapter, the adapter alone is trained further.
    pub reference: &'a CausalLm,
    /// Seed of the run.
    pub seed: u64,
    /// Folder of the checkpoints.
    pub checkpoints: PathBuf,
}

impl OfflineTrainer<'_> {
    /// Trains from the newest checkpoint, or from the reference, to the last step, and returns the policy.
    ///
    /// - observe: called after every step; its error ends the run without a checkpoint of that step.
    /// - interrupted: when it becomes true, the run checkpoints after the current step and stops.
    ///
    /// # Errors
    /// [`TrainError::Data`] when there is nothing to learn from; [`TrainError::Interrupted`] and [`TrainError::Diverged`] name the
    /// checkpoint to go on from.
    pub fn run(
        &self,
        observe: &mut dyn FnMut(&FitMetrics) -> Result<(), TrainError>,
        interrupted: &AtomicBool,
    ) -> Result<CausalLm, TrainError> {
        let OfflineConfig { steps, examples_per_step, checkpoint_every, optimizer, lora } =
            self.config;
        self.config.check()?;
        if self.stored.len() == 0 {
            return Err(TrainError::Data("there are no stored responses to train on".into()));
        }
        let policy = starting_policy(self.reference, lora.as_ref(), self.seed)?;
        let batches = Batches::new(self.seed, self.stored.len(), *examples_per_step);
        let reference = ReferenceLogProbs::new(self.reference, self.stored.pairs());
        let seen = Seen::default();
        let gradient = |policy: &CausalLm, step| {
            let tokens = |index| self.stored.tokens(index);
            let loss = |policy: &CausalLm, pass: &[usize]| {
                self.stored.loss(policy, pass, &reference, &seen)
            };
            mean_gradient(policy, batches.indices(step), tokens, loss)
        };
        let mut observe = |step: &FitMetrics| observe(&self.stored.detailed(step, seen.taken()));
        let fit = Fit {
            optimizer,
            steps: *steps,
            checkpoints: &self.checkpoints,
            checkpoint_every: *checkpoint_every,
        };
        Ok(fit.run(policy, gradient, None, &mut observe, interrupted)?.model.valid())
    }
}

impl Stored {
    /// Number of responses or pairs.
    fn len(&self) -> usize {
        match self {
            Self::Imitated(responses) => responses.len(),
            Self::Compared(_, pairs) => pairs.len(),
        }
    }

    /// The pairs, if it is they that are stored.
    fn pairs(&self) -> &[ResponsePair] {
        match self {
            Self::Imitated(_) => &[],
            Self::Compared(_, pairs) => pairs,
        }
    }

    /// Tokens of an example: those of the response and its prompt, or twice those of the pair's longer one.
    fn tokens(&self, index: usize) -> usize {
        match self {
            Self::Imitated(responses) => responses[index].tokens.len(),
            Self::Compared(_, pairs) => {
                2 * pairs[index].responses.iter().map(|s| s.tokens.len()).max().unwrap_or(0)
            }
        }
    }

    /// A step with what the numbers of its examples come to.
    fn detailed(&self, step: &FitMetrics, examples: Vec<(usize, [f64; 2])>) -> FitMetrics {
        let mean = |value: &dyn Fn(usize, [f64; 2]) -> f64| {
            let all = examples.iter().map(|(index, both)| value(*index, *both));
            all.sum::<f64>() / examples.len() as f64
        };
        match self {
            Self::Imitated(responses) => {
                let tokens = mean(&|index, _| responses[index].response().len() as f64);
                let loss_per_token = -mean(&|_, [log_prob, _]| log_prob) / tokens;
                FitMetrics { loss_per_token: Some(loss_per_token), ..step.clone() }
            }
            Self::Compared(_, pairs) => {
                // log π/π_ref of the preferred response and of the other.
                let ratios = |index: usize, [a, b]: [f64; 2]| {
                    if pairs[index].preference < 0.5 { [b, a] } else { [a, b] }
                };
                let gap = |index, both| ratios(index, both)[0] - ratios(index, both)[1];
                let right = |gap: f64| if gap.abs() < TIE { 0.5 } else { f64::from(gap > 0.0) };
                FitMetrics {
                    chosen: Some(mean(&|index, both| ratios(index, both)[0])),
                    rejected: Some(mean(&|index, both| ratios(index, both)[1])),
                    margin: Some(mean(&gap)),
                    accuracy: Some(mean(&|index, both| right(gap(index, both)))),
                    ..step.clone()
                }
            }
        }
    }

    /// The mean loss of the examples with the given indices, whose log-probabilities are noted.
    fn loss(
        &self,
        policy: &CausalLm,
        indices: &[usize],
        reference: &ReferenceLogProbs<'_>,
        seen: &Seen,
    ) -> Result<Tensor<1>, TrainError> {
        let (comparison, pairs) = match self {
            Self::Imitated(responses) => {
                let responses: Vec<&Sequence> = indices.iter().map(|&i| &responses[i]).collect();
                let log_probs = log_probs(policy, &responses)?;
                seen.note(indices, [&log_probs; 2], std::iter::repeat([0.0; 2]));
                return Ok(sft(log_probs));
            }
            Self::Compared(comparison, pairs) => (comparison, pairs),
        };
        let pairs: Vec<&ResponsePair> = indices.iter().map(|&i| &pairs[i]).collect();
        let theirs = indices.iter().map(|&i| reference.of(i)).collect::<Result<Vec<_>, _>>()?;
        let of = |side: usize| pairs.iter().map(move |pair| &pair.responses[side]);
        let both = log_probs(policy, &of(0).chain(of(1)).collect::<Vec<_>>())?;
        let n = pairs.len();
        let (first, second) = (both.clone().narrow(0, 0, n), both.narrow(0, n, n));
        seen.note(indices, [&first, &second], theirs.iter().copied());
        let device = policy.device();
        let theirs = theirs.iter().map(|[a, b]| (a - b) as f32).collect();
        let gaps = first.clone() - second - column(theirs, &device);
        let preferences = pairs.iter().map(|pair| pair.preference as f32).collect();
        let preferences = column(preferences, &device);
        Ok(match *comparison {
            PairLoss::Dpo(beta) => dpo(gaps, preferences, beta),
            PairLoss::Ipo(tau) => ipo(gaps, preferences, tau),
            PairLoss::BonBon { n, alpha } => bonbon(first, gaps, n, alpha),
        })
    }
}

/// log π/π_ref of both responses of each pair that was seen, by whichever thread; of a response to imitate, twice log π.
#[derive(Default)]
struct Seen(Mutex<Vec<(usize, [f64; 2])>>);

impl Seen {
    /// - reference: what is taken from the log-probabilities of each example.
    fn note(
        &self,
        indices: &[usize],
        log_probs: [&Tensor<2>; 2],
        reference: impl Iterator<Item = [f64; 2]>,
    ) {
        let numbers =
            |column: &Tensor<2>| column.clone().inner().into_data().iter::<f32>().collect();
        let [first, second]: [Vec<f32>; 2] = log_probs.map(numbers);
        let both = first.into_iter().zip(second).zip(reference);
        let both =
            both.map(|((first, second), [a, b])| [f64::from(first) - a, f64::from(second) - b]);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(indices.iter().copied().zip(both));
    }

    /// All of them in an order that the threads do not decide.
    fn taken(&self) -> Vec<(usize, [f64; 2])> {
        let mut seen = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        seen.sort_by_key(|(index, both)| (*index, both.map(f64::to_bits)));
        seen
    }
}

/// log π(y | x) of each response, summed over its tokens, in nats: `[responses, 1]`.
pub(super) fn log_probs(
    policy: &CausalLm,
    responses: &[&Sequence],
) -> Result<Tensor<2>, TrainError> {
    let batch = ResponseBatch::new(responses, policy.config(), &policy.device())?;
    let tokens = policy.response_log_probs(&batch);
    // Every response's tokens side by side, filled up with a zero that is put behind them all.
    let [n_tokens, _] = tokens.dims();
    let longest = batch.lengths.iter().copied().max().unwrap_or(0);
    let mut places = Vec::with_capacity(batch.lengths.len() * longest);
    let mut start = 0;
    for &length in &batch.lengths {
        places.extend((0..longest).map(|t| if t < length { start + t } else { n_tokens } as i32));
        start += length;
    }
    let n_places = places.len();
    let places = Tensor::from_data(TensorData::new(places, [n_places]), &policy.device());
    let tokens = Tensor::cat(vec![tokens, Tensor::zeros([1, 1], &policy.device())], 0);
    Ok(tokens.select(0, places).reshape([batch.lengths.len(), longest]).sum_dim(1))
}

#[cfg(test)]
pub(super) mod testing {
    use burn::tensor::Tensor;

    /// The gap of a response with log-ratio 0.3 to one with log-ratio −0.45.
    pub(in crate::baselines) const GAP: f64 = 0.75;

    pub(in crate::baselines) fn close(value: f64, expected: f64, tolerance: f64) {
        assert!((value - expected).abs() < tolerance, "{value} is not {expected}");
    }

    pub(in crate::baselines) fn column(values: &[f64]) -> Tensor<2> {
        let device = infalign_backend::device(None).unwrap();
        crate::passes::column(values.iter().map(|&value| value as f32).collect(), &device)
    }

    /// Compares the gradient of a loss of one number with its central differences.
    pub(in crate::baselines) fn losses_and_slopes(loss: impl Fn(Tensor<2>) -> Tensor<1>) {
        const STEP: f64 = 1e-2;
        for x in [-2.0, -0.1, 0.4, 3.0] {
            let at = |x: f64| loss(column(&[x])).into_scalar::<f64>();
            let point = column(&[x]).autodiff().require_grad();
            let grads = loss(point.clone()).backward();
            let slope = point.grad(&grads).unwrap().into_scalar::<f64>();
            close(slope, (at(x + STEP) - at(x - STEP)) / (2.0 * STEP), 1e-3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_that_differs_by_rounding_counts_half() {
        let pair = |preference| {
            let response = || Sequence { tokens: vec![1, 0], prompt_length: 1 };
            ResponsePair { responses: [response(), response()], reference: None, preference }
        };
        // Of the second pair, the second response is the preferred one.
        let stored = Stored::Compared(PairLoss::Dpo(0.1), vec![pair(1.0), pair(0.0)]);
        let accuracy = |first: f64, second: f64| {
            let examples = vec![(0, [first, 0.0]), (1, [second, 0.0])];
            stored.detailed(&FitMetrics::default(), examples).accuracy
        };
        assert_eq!(accuracy(3e-5, -3e-5), Some(0.5));
        assert_eq!(accuracy(-3e-5, 3e-5), Some(0.5));
        assert_eq!(accuracy(0.01, 3e-5), Some(0.75));
        assert_eq!(accuracy(0.01, -0.01), Some(1.0));
        assert_eq!(accuracy(-0.01, 0.01), Some(0.0));
    }
}
