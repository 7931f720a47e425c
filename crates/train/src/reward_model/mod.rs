//! Reward models: a scalar head trained on ratings by least squares, or on pairs by Bradley and Terry's likelihood.
//!
//! Margin and centring are those of TRL's reward trainer: a margin is subtracted from the difference of two scores before the likelihood,
//! and centring penalises the square of their sum, which the likelihood leaves free.

mod examples;
mod report;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use infalign_backend::precision::{NOT_NEGATIVE, is_not_negative};
use infalign_model::{LoraConfig, SequenceClassifier};
use serde::{Deserialize, Serialize};

pub use examples::{Examples, Pair};
pub use report::RewardModelReport;

use crate::adapter::adapter_uniforms;
use crate::batches::{Batches, check_most};
use crate::best::BestCheckpoint;
use crate::fit::{Fit, FitMetrics, Fitted, Validate, check_counts, checkpoint_every, infallible};
use crate::passes::mean_gradient;
use crate::{OptimizerConfig, TrainError};

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
    /// Steps from one checkpoint to the next, at which validation examples are looked at.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: usize,
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
        check_counts(&[
            ("steps", self.steps),
            ("examples_per_step", self.examples_per_step),
            ("checkpoint_every", self.checkpoint_every),
        ])?;
        check_most(&[("examples_per_step", self.examples_per_step)])?;
        for (key, value) in [("margin", self.margin), ("centring", self.centring)] {
            let valid = match training {
                Examples::Rated(_) if value != 0.0 => "left out for ratings: it is for pairs",
                _ if !is_not_negative(value) => NOT_NEGATIVE,
                _ => continue,
            };
            return Err(TrainError::setting(key, format!("{value:?}"), valid));
        }
        if training.is_empty() {
            let what = "a reward model needs examples to train on; hold out a smaller share, or give more data";
            return Err(TrainError::Data(what.into()));
        }
        Ok(())
    }
}

/// What a reward model is trained on.
#[derive(Clone, Copy)]
pub struct RewardModelData<'a> {
    /// What it learns from.
    pub training: &'a Examples,
    /// Examples whose loss chooses the checkpoint that is kept; the last is kept, where there are none.
    pub validation: Option<&'a Examples>,
}

/// Trains a classifier with one output, or its head and a new adapter, and returns it, with the checkpoint that validation examples chose.
///
/// - checkpoints: their folder; the newest is what training goes on from.
/// - observe: called after every step.
/// - interrupted: when it becomes true, training checkpoints after the current step and stops.
///
/// # Errors
/// As [`RewardModelConfig::check`]; [`TrainError::Interrupted`]; [`TrainError`] when a text does not fit the model or the loss is no number.
pub fn train_reward_model(
    mut model: SequenceClassifier,
    RewardModelData { training, validation }: RewardModelData<'_>,
    config: &RewardModelConfig,
    seed: u64,
    checkpoints: &Path,
    observe: &mut dyn FnMut(&FitMetrics),
    interrupted: &AtomicBool,
) -> Result<(SequenceClassifier, Option<BestCheckpoint>), TrainError> {
    config.check(training)?;
    if validation.is_some_and(Examples::is_empty) {
        let what = "no example chooses among the checkpoints; set a greater share aside for validation, or none";
        return Err(TrainError::Data(what.into()));
    }
    if let Some(lora) = &config.lora {
        model = model.with_new_adapter(lora.clone(), &mut adapter_uniforms(seed))?;
    }
    let batches = Batches::new(seed, training.len(), config.examples_per_step);
    let gradient = |model: &SequenceClassifier, step| {
        let loss = |model: &SequenceClassifier, pass: &[usize]| training.loss(model, pass, config);
        mean_gradient(model, batches.indices(step), |index| training.tokens(index), loss)
    };
    let RewardModelConfig { steps, checkpoint_every, optimizer, .. } = config;
    let fit = Fit { optimizer, steps: *steps, checkpoints, checkpoint_every: *checkpoint_every };
    let validate = validation.map(|examples| {
        move |model: &SequenceClassifier| examples.mean_loss(&model.valid(), config)
    });
    let validate = validate.as_ref().map(|loss| loss as &Validate<'_, SequenceClassifier>);
    let mut observe = infallible(observe);
    let Fitted { model, best, .. } =
        fit.run(model, gradient, validate, &mut observe, interrupted)?;
    Ok((model.valid(), best))
}
