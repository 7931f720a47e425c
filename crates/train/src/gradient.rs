//! The policy gradient of one rollout, and the divergence measured on the way.

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Tensor, TensorData, activation::log_softmax};
use infalign_model::{CausalLm, ResponseBatch, Sequence};

use crate::parallel::beside_each_other;
use crate::rollout::Rollout;
use crate::{StepMetrics, TrainError, leave_one_out};

/// Padded tokens that one forward and backward pass takes at most (one prompt's responses are never split).
const TOKENS_PER_PASS: usize = 4_096;

/// The gradient of −mean_i A_i log π(y_i | x_i), with A the leave-one-out advantages of R = Φ/β − log π(y | x)/π_ref(y | x).
///
/// Log-probabilities are summed over a response's tokens, the one that ended it included. Both models are run once. Passes run beside each
/// other and are added up in their order, so that the number of threads does not change the sum.
pub(crate) fn policy_gradient(
    policy: &CausalLm,
    reference: &CausalLm,
    rollout: &Rollout,
    samples: usize,
    beta: f64,
) -> Result<(GradientsParams, Divergence), TrainError> {
    let longest = rollout.sequences.iter().map(|s| s.tokens.len()).max().unwrap_or(1);
    let rows = samples * (TOKENS_PER_PASS / (longest * samples)).max(1);
    let passes = Passes { policy, reference, samples, beta, n: rollout.sequences.len() };
    let parts: Vec<_> =
        rollout.sequences.chunks(rows).zip(rollout.transformed.chunks(rows)).collect();
    let mut accumulator = GradientsAccumulator::new();
    let mut divergence = Divergence::default();
    for result in beside_each_other(parts.len(), |index| passes.run(parts[index].0, parts[index].1))
    {
        let (grads, part) = result?;
        accumulator.accumulate(policy.net(), grads);
        divergence.merge(&part);
    }
    Ok((accumulator.grads(), divergence))
}

/// What all passes of one gradient share.
struct Passes<'a> {
    policy: &'a CausalLm,
    reference: &'a CausalLm,
    samples: usize,
    beta: f64,
    /// Responses of the whole rollout.
    n: usize,
}

impl Passes<'_> {
    /// The share of some prompts' responses, given their transformed rewards.
    fn run(
        &self,
        sequences: &[Sequence],
        phi: &[f64],
    ) -> Result<(GradientsParams, Divergence), TrainError> {
        let batch =
            ResponseBatch::new(sequences, self.reference.config(), &self.reference.device())?;
        // Leaves of its own: two backward passes at once through shared ones deadlock in burn's autodiff.
        let policy = self.policy.valid().train();
        let ours = log_softmax(policy.response_logits(&batch), 1);
        let theirs = log_softmax(self.reference.response_logits(&batch), 1);
        let picked = ours.clone().gather(1, batch.targets.clone());
        let log_ratios =
            (picked.clone().inner() - theirs.clone().gather(1, batch.targets)).into_data();
        let ratios = sums(log_ratios.iter::<f32>(), &batch.lengths);
        let mut divergence = Divergence { kl_k1: ratios.iter().sum(), ..Divergence::default() };
        divergence.add(ours.inner(), theirs);
        let rewards: Vec<f64> =
            phi.iter().zip(&ratios).map(|(phi, ratio)| phi / self.beta - ratio).collect();
        let advantages = rewards.chunks(self.samples).flat_map(leave_one_out);
        let weights: Vec<f32> = advantages
            .zip(&batch.lengths)
            .flat_map(|(a, &length)| std::iter::repeat_n((-a / self.n as f64) as f32, length))
            .collect();
        let n_tokens = weights.len();
        let weights = Tensor::<2>::from_data(
            TensorData::new(weights, [n_tokens, 1]),
            &self.reference.device(),
        );
        let loss = (picked * weights).mean().mul_scalar(n_tokens as f64);
        Ok((GradientsParams::from_grads(loss.backward(), policy.net()), divergence))
    }
}

/// Sums of consecutive runs of the given lengths.
fn sums(mut values: impl Iterator<Item = f32>, lengths: &[usize]) -> Vec<f64> {
    lengths.iter().map(|&length| values.by_ref().take(length).map(f64::from).sum()).collect()
}

/// How far the policy is from the reference, summed over a step's response tokens.
#[derive(Default)]
pub(crate) struct Divergence {
    kl: f64,
    entropy: f64,
    tokens: usize,
    kl_k1: f64,
}

impl Divergence {
    /// Adds the exact next-token KL and entropy of `[tokens, vocabulary]` log-probabilities.
    fn add(&mut self, policy: Tensor<2>, reference: Tensor<2>) {
        let tokens = policy.dims()[0];
        let probabilities = policy.clone().exp();
        let total = |x: Tensor<2>| x.sum_dim(1).mean().into_scalar::<f64>() * tokens as f64;
        self.kl += total(probabilities.clone() * (policy.clone() - reference));
        self.entropy -= total(probabilities * policy);
        self.tokens += tokens;
    }

    fn merge(&mut self, other: &Self) {
        self.kl += other.kl;
        self.entropy += other.entropy;
        self.tokens += other.tokens;
        self.kl_k1 += other.kl_k1;
    }

    /// The step's diagnostics.
    pub(crate) fn metrics(
        &self,
        step: usize,
        rollout: &Rollout,
        beta: f64,
        grad_norm: f64,
        learning_rate: f64,
    ) -> StepMetrics {
        let n = rollout.sequences.len() as f64;
        StepMetrics {
            step,
            kl: self.kl / n,
            kl_k1: self.kl_k1 / n,
            reward_raw: rollout.raw.iter().map(|&r| f64::from(r)).sum::<f64>() / n,
            reward_calibrated: rollout.calibrated.iter().sum::<f64>() / n,
            reward_transformed: rollout.transformed.iter().sum::<f64>() / n,
            beta,
            entropy: self.entropy / self.tokens as f64,
            response_length: self.tokens as f64 / n,
            grad_norm,
            learning_rate,
        }
    }
}
