//! J-BOND (Sessa et al., arXiv 2407.14622): the policy follows the best of 2 of an anchor, and the anchor follows the policy.
//!
//! At every step and prompt, y from the policy π and y′₁, y′₂ from the anchor π_a:
//! - forward KL to best-of-2 of the anchor: −log π(best of y′₁, y′₂);
//! - backward KL: a policy gradient of q(y) − log π(y)/π_a(y), where q(y) = −log 16 if both y′ have a greater reward than y, else 0. On
//!   average that is −log 16·(1 − p)² for y at the quantile p of the anchor, which stands in for log p: the two are equal at p = ½;
//! - regularisation: γ KL(π‖π_a), by the same policy gradient.
//!
//! The loss is (1 − j)·forward + j·backward + γ·KL. The anchor's weights then move by η towards the policy's, θ_a ← (1 − η) θ_a + η θ: best-of-2
//! again and again, so that the KL to the reference grows with the steps, and no N has to be chosen.
//! How it departs from the paper:
//! 1. Several responses of the policy to each prompt, compared with the same two of the anchor; the baseline is leave-one-out.
//! 2. Of equal rewards the first is the best, and one that equals the lesser of the anchor's is not below it: p = P(r(y′) ≤ r(y)).
//! 3. Of a policy with an adapter, the anchor's A and B move each by η, which is not quite the same as moving their product.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::optim::GradientsParams;
use infalign_backend::precision::{NOT_NEGATIVE, is_not_negative, is_positive};
use infalign_decode::{EncodedPrompt, Generator, Sampling};
use infalign_model::{CausalLm, LoraConfig, Sequence, Tokenizer, Transformer};
use infalign_reward::Reward;
use serde::{Deserialize, Serialize};

use super::offline::log_probs;
use crate::adapter::starting_policy;
use crate::batches::{Batches, check_prompts};
use crate::checkpoint::state_error;
use crate::fit::{Fit, FitMetrics, Trainable, check_counts, check_settings, checkpoint_every};
use crate::moving_average::moved;
use crate::passes::{column, mean_gradient, sum};
use crate::rollout::{Scored, check_sampling};
use crate::solver::check_group;
use crate::{OptimizerConfig, TrainError, leave_one_out};

/// Responses of the anchor to each prompt.
const ANCHORED: usize = 2;
/// Folder of the anchor in a checkpoint.
const ANCHOR: &str = "anchor";

/// Settings of J-BOND.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BondConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Prompts of one step.
    pub prompts_per_step: usize,
    /// Responses of the policy to each, at least 2.
    pub samples_per_prompt: usize,
    /// j, the share of the backward KL in Jeffreys' divergence, in [0, 1].
    #[serde(default = "half")]
    pub backward_share: f64,
    /// η, by which the anchor moves towards the policy at a step, in (0, 1].
    pub anchor_rate: f64,
    /// γ, the weight of KL(π‖π_anchor), at least 0.
    #[serde(default)]
    pub regularisation: f64,
    /// Steps from one checkpoint to the next.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: usize,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// A new adapter, which is trained in place of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

fn half() -> f64 {
    0.5
}

impl BondConfig {
    /// Refuses settings that are out of range.
    ///
    /// # Errors
    /// [`TrainError::Setting`] names the setting, its value and the range.
    pub fn check(&self) -> Result<(), TrainError> {
        self.optimizer.check()?;
        self.lora.as_ref().map_or(Ok(()), LoraConfig::check)?;
        check_counts(&[
            ("steps", self.steps),
            ("prompts_per_step", self.prompts_per_step),
            ("checkpoint_every", self.checkpoint_every),
        ])?;
        check_group(self.samples_per_prompt)?;
        let rate = self.anchor_rate;
        let shown = |value: f64| format!("{value:?}");
        check_settings([
            (
                "backward_share",
                shown(self.backward_share),
                (0.0..=1.0).contains(&self.backward_share),
                "between 0 and 1",
            ),
            (
                "anchor_rate",
                shown(rate),
                is_positive(rate) && rate <= 1.0,
                "above 0, as a number of 32 bits, and at most 1",
            ),
            (
                "regularisation",
                shown(self.regularisation),
                is_not_negative(self.regularisation),
                NOT_NEGATIVE,
            ),
        ])
    }

    /// R = j·(q − log π/π_a) − γ·log π/π_a of each of the policy's responses.
    fn rewards(&self, ours: &Scored, theirs: &Scored, ratios: &[f64]) -> Vec<f64> {
        let Self { samples_per_prompt, backward_share: j, regularisation, .. } = *self;
        let least = theirs.rewards.chunks(ANCHORED).map(|two| two[0].min(two[1]));
        let least = least.flat_map(|least| std::iter::repeat_n(least, samples_per_prompt));
        let of = |((&reward, least), ratio): ((&f32, f32), &f64)| {
            j * quantile_reward(reward, least) - (j + regularisation) * ratio
        };
        ours.rewards.iter().zip(least).zip(ratios).map(of).collect()
    }
}

/// Everything that a run of J-BOND needs.
pub struct BondTrainer<'a> {
    /// Settings.
    pub config: &'a BondConfig,
    /// Prompts to train on.
    pub prompts: &'a [EncodedPrompt],
    /// π_ref, from which policy and anchor start. Of one with an adapter, the adapter alone is trained further.
    pub reference: &'a CausalLm,
    /// The tokenizer of the reference.
    pub tokenizer: &'a Tokenizer,
    /// r.
    pub reward: &'a dyn Reward,
    /// How responses are sampled: at temperature 1 over the whole vocabulary, so that they come from the models themselves.
    pub sampling: Sampling,
    /// Largest number of responses generated together.
    pub batch: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Folder of the checkpoints.
    pub checkpoints: PathBuf,
}

impl BondTrainer<'_> {
    /// Trains from the newest checkpoint, or from the reference, to the last step, and returns the policy.
    ///
    /// - observe: called after every step; the loss is the mean of j·(log π/π_a − q) + γ·log π/π_a over the policy's responses.
    ///   Its error ends the run without a checkpoint of that step.
    /// - interrupted: when it becomes true, the run checkpoints after the current step and stops.
    ///
    /// # Errors
    /// As [`BondConfig::check`]; [`TrainError::Setting`] for sampling from anything but the models themselves, [`TrainError::Data`] for fewer prompts than a
    /// step takes; [`TrainError::Interrupted`] and [`TrainError::Diverged`] name the checkpoint to go on from.
    pub fn run(
        &self,
        observe: &mut dyn FnMut(&FitMetrics) -> Result<(), TrainError>,
        interrupted: &AtomicBool,
    ) -> Result<CausalLm, TrainError> {
        self.check()?;
        let policy = starting_policy(self.reference, self.config.lora.as_ref(), self.seed)?;
        let pair = Anchored { anchor: policy.valid(), policy, rate: self.config.anchor_rate };
        let fit = Fit {
            optimizer: &self.config.optimizer,
            steps: self.config.steps,
            checkpoints: &self.checkpoints,
            checkpoint_every: self.config.checkpoint_every,
        };
        let batches = Batches::new(self.seed, self.prompts.len(), self.config.prompts_per_step);
        let gradient = |pair: &Anchored, step| self.gradient(pair, step, &batches);
        Ok(fit.run(pair, gradient, None, observe, interrupted)?.model.policy.valid())
    }

    fn check(&self) -> Result<(), TrainError> {
        self.config.check()?;
        check_sampling(&self.sampling)?;
        check_prompts(self.prompts.len(), self.config.prompts_per_step)
    }

    fn gradient(
        &self,
        pair: &Anchored,
        step: usize,
        batches: &Batches,
    ) -> Result<(f64, GradientsParams), TrainError> {
        let prompts: Vec<EncodedPrompt> =
            batches.indices(step).into_iter().map(|i| self.prompts[i].clone()).collect();
        let samples = self.config.samples_per_prompt;
        let ours = self.sample(&pair.policy, &prompts, samples, &format!("bond-{step}"))?;
        let theirs =
            self.sample(&pair.anchor, &prompts, ANCHORED, &format!("bond-anchor-{step}"))?;
        let anchor = pair.anchor.log_probs(&ours.sequences)?;
        let ratios: Vec<f64> = ours
            .log_probs
            .iter()
            .zip(&anchor)
            .map(|(ours, theirs)| sum(ours) - sum(theirs))
            .collect();
        let rewards = self.config.rewards(&ours, &theirs, &ratios);
        let weighted = self.weighted(&ours, &theirs, &rewards);
        let loss = |policy: &CausalLm, pass: &[usize]| {
            let responses: Vec<&Sequence> = pass.iter().map(|&i| weighted[i].0).collect();
            let weights = pass.iter().map(|&i| weighted[i].1 as f32).collect();
            Ok((log_probs(policy, &responses)? * column(weights, &policy.device())).mean())
        };
        let tokens = |index: usize| weighted[index].0.tokens.len();
        let all = (0..weighted.len()).collect();
        let (_, grads) = mean_gradient(&pair.policy, all, tokens, loss)?;
        Ok((mean_loss(&rewards), grads))
    }

    /// Every response with its weight w: the loss has the gradient of the mean of w·log π.
    fn weighted<'r>(
        &self,
        ours: &'r Scored,
        theirs: &'r Scored,
        rewards: &[f64],
    ) -> Vec<(&'r Sequence, f64)> {
        let samples = self.config.samples_per_prompt;
        let prompts = (rewards.len() / samples) as f64;
        // The mean is over all responses, but each part is one over its own.
        let n = prompts * (samples as f64 + 1.0);
        let backward = -n / rewards.len() as f64;
        let forward = -(1.0 - self.config.backward_share) * n / prompts;
        let advantages = rewards.chunks(samples).flat_map(leave_one_out).map(|a| a * backward);
        let better = |two: &[f32]| usize::from(two[1] > two[0]);
        let best = theirs.rewards.chunks(ANCHORED).map(better);
        let best = theirs.sequences.chunks(ANCHORED).zip(best).map(|(two, best)| &two[best]);
        ours.sequences.iter().zip(advantages).chain(best.map(|best| (best, forward))).collect()
    }

    /// Responses of a model with their rewards.
    fn sample(
        &self,
        model: &CausalLm,
        prompts: &[EncodedPrompt],
        samples: usize,
        stage: &str,
    ) -> Result<Scored, TrainError> {
        let model = model.clone().for_inference();
        let (model, stops) = (model.as_ref(), self.tokenizer.stops());
        let generator = Generator::new(model, stops, &self.sampling, self.seed, stage, self.batch);
        Scored::sample(prompts, samples, &generator, self.tokenizer, self.reward)
    }
}

/// The mean of −R.
fn mean_loss(rewards: &[f64]) -> f64 {
    -rewards.iter().sum::<f64>() / rewards.len() as f64
}

/// q, which stands in for the logarithm of the quantile of a reward, in nats.
///
/// - least: the lesser reward of two responses of the anchor.
fn quantile_reward(reward: f32, least: f32) -> f64 {
    if reward < least { -(16.0_f64.ln()) } else { 0.0 }
}

/// The policy with its anchor.
#[derive(Clone)]
struct Anchored {
    policy: CausalLm,
    anchor: CausalLm,
    /// η.
    rate: f64,
}

impl Trainable for Anchored {
    type Net = Transformer;

    fn net(&self) -> Transformer {
        self.policy.net().clone()
    }

    fn stepped(self, net: Transformer) -> Self {
        let policy = self.policy.with_net(net);
        let net = moved(self.anchor.net().clone(), policy.valid().net(), self.rate);
        let anchor = self.anchor.with_net(net);
        Self { policy, anchor, ..self }
    }

    fn leaves(&self) -> Self {
        Self { policy: self.policy.leaves(), ..self.clone() }
    }

    fn save(&self, dir: &Path) -> Result<(), TrainError> {
        self.policy.save(dir)?;
        let anchor = dir.join(ANCHOR);
        std::fs::create_dir(&anchor).map_err(|error| state_error(&anchor, error))?;
        Ok(self.anchor.save(&anchor)?)
    }

    fn load(&self, dir: &Path) -> Result<Self, TrainError> {
        let anchor = self.anchor.load_trained(&dir.join(ANCHOR))?.valid();
        Ok(Self { policy: self.policy.load_trained(dir)?.train(), anchor, rate: self.rate })
    }
}

#[cfg(test)]
mod tests {
    use super::{BondConfig, Scored, mean_loss, quantile_reward};

    #[test]
    fn the_reward_is_the_log_of_the_quantile_at_the_median() {
        // A response of the anchor's median loses to both of two with probability 1/4.
        let mean = 0.25 * quantile_reward(0.0, 1.0) + 0.75 * quantile_reward(0.0, -1.0);
        assert!((mean - 0.5_f64.ln()).abs() < 1e-12, "{mean}");
        assert_eq!(quantile_reward(1.0, 1.0), 0.0, "a tie is not below");
    }

    #[test]
    fn the_regularisation_weighs_the_kl_whatever_the_backward_share() {
        let config: BondConfig = serde_json::from_value(serde_json::json!({
            "steps": 1,
            "prompts_per_step": 1,
            "samples_per_prompt": 2,
            "backward_share": 0.5,
            "anchor_rate": 0.1,
            "regularisation": 0.2,
            "optimizer": { "learning_rate": 0.1 },
        }))
        .unwrap();
        let of = |rewards: [f32; 2]| Scored { rewards: rewards.into(), ..Scored::default() };
        // The first has q = 0, the second q = −ln 16, and both log π/π_a = 1.
        let found = config.rewards(&of([2.0, 0.0]), &of([3.0, 1.0]), &[1.0, 1.0]);
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-6;
        assert!(near(found[0], -0.7) && near(found[1], -2.086_294), "{found:?}");
        let loss = mean_loss(&found);
        assert!(near(loss, 1.393_147), "{loss}");
    }
}
