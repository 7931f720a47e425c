//! Supervised training of a language model: the mean negative log-likelihood of texts.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::optim::GradientsParams;
use infalign_model::{CausalLm, ResponseBatch, Sequence};
use serde::{Deserialize, Serialize};

use crate::batches::{Batches, check_most};
use crate::fit::{
    Fit, FitMetrics, Fitted, Trainable, backward, check_counts, checkpoint_every, infallible,
};
use crate::passes::{per_pass, sum_gradients};
use crate::{OptimizerConfig, TrainError};

/// Settings of supervised training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageModelConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Texts of one step.
    pub texts_per_step: usize,
    /// Steps from one checkpoint to the next.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: usize,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
}

impl LanguageModelConfig {
    /// Refuses settings that are out of range.
    ///
    /// # Errors
    /// [`TrainError::Setting`] names the setting, its value and the range.
    pub fn check(&self) -> Result<(), TrainError> {
        self.optimizer.check()?;
        check_counts(&[
            ("steps", self.steps),
            ("texts_per_step", self.texts_per_step),
            ("checkpoint_every", self.checkpoint_every),
        ])?;
        check_most(&[("texts_per_step", self.texts_per_step)])
    }
}

/// Trains a model on tokenised texts and returns it with the last step's diagnostics, whose loss is in nats per token. Texts are drawn
/// epoch by epoch, each a permutation of its own.
///
/// - checkpoints: their folder; the newest is what training goes on from.
/// - observe: called after every step.
/// - interrupted: when it becomes true, training checkpoints after the current step and stops.
///
/// # Errors
/// [`TrainError::Data`] when there are no texts; [`TrainError::Interrupted`]; [`TrainError`] when a text does not fit the model or the loss
/// is no number.
pub fn train_language_model(
    model: CausalLm,
    texts: &[Sequence],
    config: &LanguageModelConfig,
    seed: u64,
    checkpoints: &Path,
    observe: &mut dyn FnMut(&FitMetrics),
    interrupted: &AtomicBool,
) -> Result<(CausalLm, FitMetrics), TrainError> {
    config.check()?;
    if texts.is_empty() {
        return Err(TrainError::Data("there are no texts to train on".into()));
    }
    let order = Batches::new(seed, texts.len(), config.texts_per_step);
    let gradient = |model: &CausalLm, step| {
        let batch: Vec<&Sequence> = order.indices(step).into_iter().map(|i| &texts[i]).collect();
        gradient(model, &batch)
    };
    let LanguageModelConfig { steps, checkpoint_every, optimizer, .. } = config;
    let fit = Fit { optimizer, steps: *steps, checkpoints, checkpoint_every: *checkpoint_every };
    let mut observe = infallible(observe);
    let Fitted { model, last, .. } = fit.run(model, gradient, None, &mut observe, interrupted)?;
    Ok((model.valid(), last))
}

/// The mean loss of a step's texts over all their tokens, and its gradient, in passes of bounded size.
fn gradient(model: &CausalLm, texts: &[&Sequence]) -> Result<(f64, GradientsParams), TrainError> {
    let longest = texts.iter().map(|text| text.tokens.len()).max().unwrap_or(1);
    let passes: Vec<&[&Sequence]> = texts.chunks(per_pass(longest)).collect();
    let learned =
        |texts: &[&Sequence]| texts.iter().map(|text| text.response().len()).sum::<usize>() as f64;
    let pass = |index: usize| -> Result<_, TrainError> {
        let model = model.leaves();
        let share = learned(passes[index]) / learned(texts);
        let batch = ResponseBatch::new(passes[index], model.config(), &model.device())?;
        let loss = model.response_log_probs(&batch).mean().neg();
        Ok(backward(loss.mul_scalar(share), model.net()))
    };
    let (losses, grads) = sum_gradients(model.net(), passes.len(), pass)?;
    Ok((losses.iter().sum(), grads))
}
