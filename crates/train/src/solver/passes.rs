//! Forward and backward passes over a rollout, cut to a bounded size.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use infalign_backend::in_order;
use infalign_model::{CausalLm, Compared, ResponseBatch, Sequence};

use super::KlTerm;
use super::kl::exact_kl;
use crate::TrainError;
use crate::fit::Trainable;
use crate::passes::{column, per_pass, sum_gradients};
use crate::rollout::Rollout;
use crate::tally::Tally;

/// How many responses one pass takes, at least one: whole groups, whose responses are compared with each other, or fewer than a group where one is
/// too large for a pass.
///
/// - lengths: of the responses with their prompts, in tokens.
pub(crate) fn cut(lengths: impl Iterator<Item = usize>, group: usize) -> usize {
    let rows = per_pass(lengths.max().unwrap_or(1));
    if rows < group { rows } else { rows - rows % group }
}

/// What all passes over a rollout share.
pub(crate) struct Passes<'a> {
    pub(crate) policy: &'a CausalLm,
    /// Left out where only log π is asked for.
    pub(crate) reference: Option<&'a CausalLm>,
    pub(crate) rollout: &'a Rollout,
    pub(crate) kl: KlTerm,
    /// Whether each response counts the same, whatever its length, in place of each token.
    pub(crate) length_normalised: bool,
}

/// What a pass has found of its responses, before anything is made of it.
pub(crate) struct Seen<'a> {
    /// Their numbers in the rollout.
    pub(crate) responses: &'a [usize],
    /// Their tokens.
    pub(crate) lengths: &'a [usize],
    /// log π of all their tokens.
    pub(crate) log_probs: Vec<f32>,
    /// What the KL takes off the reward of each, in nats.
    pub(crate) penalties: Vec<f64>,
}

/// A rollout token by token, a list for each response.
pub(crate) struct Observed {
    /// log π.
    pub(crate) log_probs: Vec<Vec<f32>>,
    /// What the KL takes off the reward, in nats.
    pub(crate) penalties: Vec<Vec<f32>>,
}

impl Passes<'_> {
    /// The gradient of −Σ_t w_t log π(y_t) plus the KL's term in the loss, as a mean over the responses.
    ///
    /// - responses: numbers of responses of the rollout.
    /// - weigh: w of every token of a pass, taken as constants.
    pub(crate) fn gradient(
        &self,
        responses: &[usize],
        weigh: &(impl Fn(&Seen<'_>) -> Vec<f64> + Sync),
    ) -> Result<(GradientsParams, Tally), TrainError> {
        let rows = cut(self.lengths(responses), 1);
        self.gradient_by(rows, responses, weigh)
    }

    /// The same with `rows` responses a pass.
    pub(crate) fn gradient_by(
        &self,
        rows: usize,
        responses: &[usize],
        weigh: &(impl Fn(&Seen<'_>) -> Vec<f64> + Sync),
    ) -> Result<(GradientsParams, Tally), TrainError> {
        let parts: Vec<&[usize]> = responses.chunks(rows).collect();
        let n = responses.len() as f64;
        let run = |part: usize| self.run(parts[part], n, weigh);
        let (tallies, grads) = sum_gradients(self.policy.net(), parts.len(), run)?;
        Ok((grads, Tally::of(tallies)))
    }

    /// Reads the whole rollout without gradients.
    pub(crate) fn observe(&self) -> Result<(Observed, Tally), TrainError> {
        let policy = self.policy.valid();
        let numbers = self.rollout.numbers();
        let parts: Vec<&[usize]> = numbers.chunks(cut(self.lengths(&numbers), 1)).collect();
        let read = |part: &[usize]| -> Result<_, TrainError> {
            let batch = self.batch(part)?;
            let forward = Forward::new(&policy, self.reference, &batch);
            let log_ratios = forward.log_ratios();
            let tally = forward.tally(self.rollout, part, &log_ratios, &batch.lengths);
            let penalties = self.kl.penalties(&log_ratios, forward.exact_kl());
            let split = |values: &[f32]| split(values, &batch.lengths);
            Ok((split(&forward.log_probs), split(&penalties), tally))
        };
        let mut observed = Observed { log_probs: Vec::new(), penalties: Vec::new() };
        let mut tallies = Vec::new();
        for (log_probs, penalties, tally) in in_order(&policy.device(), parts, read)? {
            observed.log_probs.extend(log_probs);
            observed.penalties.extend(penalties);
            tallies.push(tally);
        }
        Ok((observed, Tally::of(tallies)))
    }

    fn lengths(&self, responses: &[usize]) -> impl Iterator<Item = usize> {
        responses.iter().map(move |&i| self.rollout.sequences[i].tokens.len())
    }

    fn batch(&self, responses: &[usize]) -> Result<ResponseBatch, TrainError> {
        let sequences: Vec<&Sequence> =
            responses.iter().map(|&i| &self.rollout.sequences[i]).collect();
        Ok(ResponseBatch::new(&sequences, self.policy.config(), &self.policy.device())?)
    }

    /// The share of some of the `n` responses.
    fn run(
        &self,
        responses: &[usize],
        n: f64,
        weigh: &(impl Fn(&Seen<'_>) -> Vec<f64> + Sync),
    ) -> Result<(Tally, GradientsParams), TrainError> {
        let batch = self.batch(responses)?;
        let policy = self.policy.leaves();
        let forward = Forward::new(&policy, self.reference, &batch);
        let log_ratios = forward.log_ratios();
        let mut tally = forward.tally(self.rollout, responses, &log_ratios, &batch.lengths);
        let penalties = self.kl.penalties(&log_ratios, forward.exact_kl());
        let seen = Seen {
            responses,
            lengths: &batch.lengths,
            log_probs: forward.log_probs.clone(),
            penalties: sums(&penalties, &batch.lengths),
        };
        tally.penalty = seen.penalties.iter().sum();
        let shares = shares(&batch.lengths, self.length_normalised);
        let weights = weigh(&seen).into_iter().zip(&shares);
        let weights = weights.map(|(w, share)| (-w * share / n) as f32).collect();
        let terms = self.reference.and_then(|reference| forward.loss(self.kl, &policy, reference));
        let tokens = shares.len();
        let device = self.policy.device();
        let mut loss = forward.picked * column(weights, &device);
        if let Some(terms) = terms {
            let shares = shares.iter().map(|share| (share / n) as f32).collect();
            loss = loss + terms * column(shares, &device);
        }
        let loss = loss.mean().mul_scalar(tokens as f64);
        Ok((tally, GradientsParams::from_grads(loss.backward(), policy.net())))
    }
}

/// What each token counts: 1, or its part of a response.
fn shares(lengths: &[usize], length_normalised: bool) -> Vec<f64> {
    let share = |length: usize| if length_normalised { 1.0 / length as f64 } else { 1.0 };
    lengths.iter().flat_map(|&length| std::iter::repeat_n(share(length), length)).collect()
}

/// What both models say of the tokens of a pass.
struct Forward {
    /// The policy's hidden states.
    hidden: Tensor<2>,
    /// log π of the tokens, `[tokens, 1]`.
    picked: Tensor<2>,
    /// The same numbers.
    log_probs: Vec<f32>,
    /// The reference's hidden states, and how its distributions compare.
    theirs: Option<(Tensor<2>, Compared)>,
}

impl Forward {
    fn new(policy: &CausalLm, reference: Option<&CausalLm>, batch: &ResponseBatch) -> Self {
        let hidden = policy.response_hidden(batch);
        let Some(reference) = reference else {
            let picked = policy.hidden_log_probs(hidden.clone(), batch);
            let log_probs = picked.clone().inner().into_data().iter::<f32>().collect();
            return Self { hidden, picked, log_probs, theirs: None };
        };
        let theirs = reference.response_hidden(batch);
        let plain = policy.valid();
        let compared = plain.compare(hidden.clone().inner(), reference, theirs.clone(), batch);
        let picked = policy.compared_log_probs(hidden.clone(), &compared, batch);
        let log_probs = compared.log_probs.clone();
        Self { hidden, picked, log_probs, theirs: Some((theirs, compared)) }
    }

    /// log π/π_ref of each token; nothing without a reference.
    fn log_ratios(&self) -> Vec<f32> {
        let Some((_, compared)) = &self.theirs else { return Vec::new() };
        let pairs = self.log_probs.iter().zip(&compared.their_log_probs);
        pairs.map(|(ours, theirs)| ours - theirs).collect()
    }

    /// The KL of each token's distributions; nothing without a reference.
    fn exact_kl(&self) -> &[f32] {
        self.theirs.as_ref().map_or(&[], |(_, compared)| &compared.kl)
    }

    /// The KL's term in the loss.
    fn loss(&self, kl: KlTerm, policy: &CausalLm, reference: &CausalLm) -> Option<Tensor<2>> {
        let (theirs, compared) = self.theirs.as_ref()?;
        if kl == KlTerm::Exact {
            let ours = policy.distributions(self.hidden.clone());
            return Some(exact_kl(ours, reference.distributions(theirs.clone())));
        }
        let theirs = column(compared.their_log_probs.clone(), &policy.device());
        kl.loss(self.picked.clone() - theirs)
    }

    fn tally(
        &self,
        rollout: &Rollout,
        responses: &[usize],
        log_ratios: &[f32],
        lengths: &[usize],
    ) -> Tally {
        let Some((_, compared)) = &self.theirs else { return Tally::default() };
        let sampled = responses.iter().flat_map(|&i| &rollout.log_probs[i]);
        let of_reference = rollout.of_reference;
        let sampler = if of_reference { &compared.their_log_probs } else { &self.log_probs };
        let gaps = sampler.iter().zip(sampled).map(|(a, b)| f64::from((a - b).abs()));
        let log_prob_gap = gaps.fold(0.0, f64::max);
        Tally::new(compared, sums(log_ratios, lengths), log_prob_gap)
    }
}

/// Consecutive runs of the given lengths.
fn split(values: &[f32], lengths: &[usize]) -> Vec<Vec<f32>> {
    let mut values = values.iter().copied();
    lengths.iter().map(|&length| values.by_ref().take(length).collect()).collect()
}

/// Sums of consecutive runs of the given lengths.
fn sums(values: &[f32], lengths: &[usize]) -> Vec<f64> {
    let mut values = values.iter().map(|&value| f64::from(value));
    lengths.iter().map(|&length| values.by_ref().take(length).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::{cut, shares};

    #[test]
    fn a_pass_is_of_whole_groups_as_far_as_they_fit() {
        let cut = |longest: usize, group| cut([1, longest].into_iter(), group);
        assert_eq!([cut(100, 1), cut(100, 8), cut(100, 40)], [40, 40, 40]);
        assert_eq!([cut(100, 16), cut(100, 21)], [32, 21]);
        // A group of 4,100 tokens or more is split, and a response is not.
        assert_eq!([cut(100, 41), cut(512, 256), cut(5_000, 1), cut(5_000, 4)], [40, 8, 1, 1]);
    }

    #[test]
    fn a_token_counts_by_itself_or_as_its_part_of_a_response() {
        assert_eq!(shares(&[1, 4], true), [1.0, 0.25, 0.25, 0.25, 0.25]);
        assert_eq!(shares(&[1, 2], false), [1.0; 3]);
    }
}
