//! Reward models: a scalar head trained on ratings by least squares, or on pairs by Bradley and Terry's likelihood.
//!
//! Margin and centring are those of TRL's reward trainer: a margin is subtracted from the difference of two scores before the likelihood,
//! and centring penalises the square of their sum, which the likelihood leaves free.

mod examples;
mod report;

use std::sync::atomic::AtomicBool;

use burn::optim::{GradientsAccumulator, GradientsParams};
use infalign_model::{CausalLm, LoraConfig, SequenceClassifier};
use serde::{Deserialize, Serialize};

pub use examples::{Examples, Pair};
pub use report::RewardModelReport;

use crate::adapter::adapter_uniforms;
use crate::batches::Batches;
use crate::fit::{backward, fit};
use crate::parallel::beside_each_other;
use crate::{OptimizerConfig, TrainError};

/// Padded tokens that one forward and backward pass takes at most (an example is never split).
const TOKENS_PER_PASS: usize = 4_096;

/// Settings of reward-model training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardModelConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Examples of one step: texts, or pairs.
    pub examples_per_step: usize,
    /// Subtracted from the difference of two scores, in nats, at least 0; a pair's own margin is added to it.
    #[serde(default)]
    pub margin: f64,
    /// Coefficient, at least 0, of the mean square of the sum of two scores.
    #[serde(default)]
    pub centring: f64,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// A new adapter, which is trained with the head in place of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

impl RewardModelConfig {
    /// Refuses settings that are out of range, or do not go with the examples.
    ///
    /// # Errors
    /// [`TrainError::Setting`] names the setting, its value and the range; [`TrainError::Data`] where there are no examples.
    pub fn check(&self, training: &Examples) -> Result<(), TrainError> {
        self.optimizer.check()?;
        self.lora.as_ref().map_or(Ok(()), LoraConfig::check)?;
        for (key, value) in [("steps", self.steps), ("examples_per_step", self.examples_per_step)] {
            if value == 0 {
                return Err(TrainError::Setting { key, value: "0".into(), valid: "at least 1" });
            }
        }
        for (key, value) in [("margin", self.margin), ("centring", self.centring)] {
            let valid = match training {
                Examples::Rated(_) if value != 0.0 => "left out for ratings: it is for pairs",
                _ if !(value >= 0.0 && value.is_finite()) => "at least 0",
                _ => continue,
            };
            return Err(TrainError::Setting { key, value: value.to_string(), valid });
        }
        if training.is_empty() {
            return Err(TrainError::Data("a reward model needs examples to train on".into()));
        }
        Ok(())
    }
}

/// Puts a scalar head on a language model and trains both, or the head and a new adapter; returns the classifier.
///
/// - observe: called after every step with the step, from 1, and its loss.
///
/// # Errors
/// As [`RewardModelConfig::check`]; [`TrainError`] when a text does not fit the model or the loss is no number.
pub fn train_reward_model(
    base: CausalLm,
    pad_token: u32,
    training: &Examples,
    config: &RewardModelConfig,
    seed: u64,
    observe: &mut dyn FnMut(usize, f64),
    interrupted: &AtomicBool,
) -> Result<SequenceClassifier, TrainError> {
    config.check(training)?;
    let mut model = SequenceClassifier::on(base, pad_token);
    if let Some(lora) = &config.lora {
        model = model.with_new_adapter(lora.clone(), &mut adapter_uniforms(seed))?;
    }
    let frame = model.train();
    let batches = Batches::new(seed, training.len(), config.examples_per_step);
    let net = fit(
        frame.net(),
        &config.optimizer,
        config.steps,
        |net, step| {
            let model = frame.clone().with_net(net.clone());
            gradient(&model, training, batches.indices(step), config)
        },
        observe,
        interrupted,
    )?;
    Ok(frame.with_net(net).valid())
}

/// The mean loss of some examples and its gradient.
///
/// Long texts take much memory, so examples of like length are put through the model in passes. These run beside each other and are
/// added up in their order, so that the number of threads does not change the sum.
fn gradient(
    model: &SequenceClassifier,
    training: &Examples,
    mut indices: Vec<usize>,
    config: &RewardModelConfig,
) -> Result<(f64, GradientsParams), TrainError> {
    indices.sort_by_key(|&index| training.tokens(index));
    let longest = indices.last().map_or(1, |&index| training.tokens(index));
    let passes: Vec<&[usize]> = indices.chunks((TOKENS_PER_PASS / longest).max(1)).collect();
    let pass = |index: usize| -> Result<_, TrainError> {
        // Leaves of its own: two backward passes at once through shared ones deadlock in burn's autodiff.
        let model = model.valid().train();
        let share = passes[index].len() as f64 / indices.len() as f64;
        let loss = training.loss(&model, passes[index], config)?;
        Ok(backward(loss.mul_scalar(share), &model.net()))
    };
    let net = model.net();
    let mut accumulator = GradientsAccumulator::new();
    let mut loss = 0.0;
    for result in beside_each_other(passes.len(), pass) {
        let (value, grads) = result?;
        accumulator.accumulate(&net, grads);
        loss += value;
    }
    Ok((loss, accumulator.grads()))
}
