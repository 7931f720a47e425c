//! What the passes over a rollout find besides gradients.

use burn::tensor::Device;
use infalign_model::Compared;

use crate::passes::sum;
use crate::rollout::Rollout;
use crate::{StepMetrics, TrainError};

/// Greatest difference, in nats, that is taken for rounding between what a response was drawn by and what it is trained by: more where factors
/// of products are rounded to ten bits of mantissa, here and there to other ones.
fn greatest_gap(device: &Device) -> f64 {
    if infalign_backend::has_exact_products(device) { 0.05 } else { 0.25 }
}

/// How far the policy is from the reference, summed over a rollout's tokens, and how its update went.
#[derive(Default)]
pub(crate) struct Tally {
    kl: f64,
    entropy: f64,
    tokens: usize,
    /// log π/π_ref of each response.
    pub(crate) log_ratios: Vec<f64>,
    kl_k1: f64,
    /// What the KL takes off the rewards.
    pub(crate) penalty: f64,
    /// Greatest |log π of the sampler − log π of the trainer| of a token.
    pub(crate) log_prob_gap: f64,
    /// Share of tokens whose gradient was cut.
    pub(crate) clip_fraction: f64,
    /// Loss of the value model, if there is one.
    pub(crate) value_loss: Option<f64>,
}

impl Tally {
    /// What one pass has found.
    ///
    /// - compared: the policy's distributions with the reference's.
    /// - log_ratios: of each response; log_prob_gap: the greatest of a token.
    pub(crate) fn new(compared: &Compared, log_ratios: Vec<f64>, log_prob_gap: f64) -> Self {
        let (kl, entropy) = (sum(&compared.kl), sum(&compared.entropy));
        Self { kl, entropy, tokens: compared.kl.len(), log_ratios, log_prob_gap, ..Self::default() }
    }

    /// The tallies of passes, put together in their order.
    pub(crate) fn of(parts: Vec<Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.kl += part.kl;
            all.entropy += part.entropy;
            all.tokens += part.tokens;
            all.kl_k1 += part.log_ratios.iter().sum::<f64>();
            all.penalty += part.penalty;
            all.log_prob_gap = all.log_prob_gap.max(part.log_prob_gap);
            all.log_ratios.extend(part.log_ratios);
        }
        all
    }

    /// Refuses to train by other probabilities than those that the responses were drawn by.
    pub(crate) fn check(&self, step: usize, device: &Device) -> Result<(), TrainError> {
        let gap = self.log_prob_gap;
        if gap > greatest_gap(device) {
            return Err(TrainError::Sampler { step: step + 1, gap });
        }
        Ok(())
    }

    /// The step's diagnostics, but for the time that it took.
    pub(crate) fn metrics(
        &self,
        step: usize,
        rollout: &Rollout,
        beta: f64,
        grad_norm: f64,
        learning_rate: f64,
    ) -> StepMetrics {
        let n = rollout.sequences.len() as f64;
        let mut metrics = StepMetrics {
            step,
            rollout: rollout.digest(),
            kl: self.kl / n,
            kl_k1: self.kl_k1 / n,
            reward_raw: rollout.raw.iter().map(|&r| f64::from(r)).sum::<f64>() / n,
            reward_calibrated: rollout.calibrated.iter().sum::<f64>() / n,
            reward_transformed: rollout.transformed.iter().sum::<f64>() / n,
            beta,
            entropy: self.entropy / self.tokens as f64,
            response_length: self.tokens as f64 / n,
            cut: rollout.cut.iter().copied().map(f64::from).sum::<f64>() / n,
            tokens: self.tokens,
            seconds: 0.0,
            clip_fraction: self.clip_fraction,
            value_loss: self.value_loss,
            log_prob_gap: self.log_prob_gap,
            grad_norm,
            learning_rate,
        };
        if rollout.of_reference {
            self.weigh(&mut metrics, rollout);
        }
        metrics
    }

    /// Puts means weighted by π/π_ref in place of those over π_ref's responses.
    fn weigh(&self, metrics: &mut StepMetrics, rollout: &Rollout) {
        let greatest = self.log_ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = self.log_ratios.iter().map(|r| (r - greatest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            weights.iter().zip(values).map(|(w, value)| w * value).sum::<f64>() / total
        };
        metrics.kl_k1 = mean(&mut self.log_ratios.iter().copied());
        metrics.kl = metrics.kl_k1;
        metrics.reward_raw = mean(&mut rollout.raw.iter().map(|&r| f64::from(r)));
        metrics.reward_calibrated = mean(&mut rollout.calibrated.iter().copied());
        metrics.reward_transformed = mean(&mut rollout.transformed.iter().copied());
        let lengths = rollout.sequences.iter().map(|s| s.response().len() as f64);
        metrics.response_length = mean(&mut lengths.into_iter());
        metrics.cut = mean(&mut rollout.cut.iter().copied().map(f64::from));
    }
}

#[cfg(test)]
mod tests {
    use infalign_model::Sequence;

    use super::*;

    #[test]
    fn the_kl_is_of_a_response_and_the_entropy_of_a_token() {
        let sequence = Sequence { tokens: vec![1, 2, 3], prompt_length: 1 };
        let rollout = Rollout { sequences: vec![sequence; 2], ..Rollout::default() };
        let tally = Tally { kl: 3.0, entropy: 2.0, tokens: 4, ..Tally::default() };
        let metrics = tally.metrics(1, &rollout, 0.1, 0.0, 0.0);
        assert_eq!((metrics.kl, metrics.entropy, metrics.response_length), (1.5, 0.5, 2.0));
    }

    /// KL, k1, raw, calibrated and transformed rewards, and the share that was cut, of a step of two responses in a pass each.
    fn means(log_ratios: [f64; 2], of_reference: bool) -> [f64; 6] {
        let sequence = Sequence { tokens: vec![1, 2, 3], prompt_length: 1 };
        let rollout = Rollout {
            sequences: vec![sequence; 2],
            raw: vec![1.0, 5.0],
            calibrated: vec![0.2, 0.6],
            transformed: vec![0.1, 0.9],
            cut: vec![true, false],
            of_reference,
            ..Rollout::default()
        };
        let pass =
            |ratio| Tally { kl: 2.0, tokens: 2, log_ratios: vec![ratio], ..Tally::default() };
        let tally = Tally::of(log_ratios.map(pass).into());
        let found = tally.metrics(1, &rollout, 0.1, 0.0, 0.0);
        let rewards = [found.reward_raw, found.reward_calibrated, found.reward_transformed];
        [found.kl, found.kl_k1, rewards[0], rewards[1], rewards[2], found.cut]
    }

    #[test]
    fn the_kl_and_rewards_are_means_as_the_policy_would_draw() {
        let plain = (means([5.0, -2.0], false), [2.0, 1.5, 3.0, 0.4, 0.5, 0.5]);
        // Of weights 0.9 and 0.1.
        let weighted =
            (means([9_f64.ln(), 0.0], true), [1.977_502_12, 1.977_502_12, 1.4, 0.24, 0.18, 0.9]);
        for (found, expected) in [plain, weighted] {
            let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(near, "{found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn tokens_count_whatever_their_responses_weigh() {
        let of = |length: usize| Sequence { tokens: vec![1; 1 + length], prompt_length: 1 };
        let rollout = Rollout {
            sequences: vec![of(10), of(30)],
            raw: vec![0.0; 2],
            calibrated: vec![0.5; 2],
            transformed: vec![0.5; 2],
            of_reference: true,
            ..Rollout::default()
        };
        let log_ratios = vec![9_f64.ln(), 0.0];
        let tally = Tally { tokens: 40, log_ratios, ..Tally::default() };
        let metrics = tally.metrics(1, &rollout, 0.1, 0.0, 0.0);
        assert!((metrics.response_length - 12.0).abs() < 1e-9, "{metrics:?}");
        assert_eq!(metrics.tokens, 40);
    }

    #[test]
    fn more_than_rounding_between_sampler_and_trainer_is_refused() {
        let cpu = infalign_backend::device(Some(&"cpu".parse().unwrap())).unwrap();
        let tally = |log_prob_gap| Tally { log_prob_gap, ..Tally::default() };
        assert!(tally(0.04).check(0, &cpu).is_ok());
        let refused = tally(0.06).check(0, &cpu);
        assert!(matches!(refused, Err(TrainError::Sampler { step: 1, gap }) if gap == 0.06));
    }
}
