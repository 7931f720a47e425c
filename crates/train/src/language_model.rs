//! Supervised training of a language model: the mean negative log-likelihood of texts.

use std::sync::atomic::AtomicBool;

use burn::tensor::activation::log_softmax;
use infalign_model::{CausalLm, ResponseBatch, Sequence};
use serde::{Deserialize, Serialize};

use crate::batches::Batches;
use crate::fit::{backward, fit};
use crate::{OptimizerConfig, TrainError};

/// Settings of supervised training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageModelConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Texts of one step.
    pub texts_per_step: usize,
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
        for (key, value) in [("steps", self.steps), ("texts_per_step", self.texts_per_step)] {
            if value == 0 {
                return Err(TrainError::Setting { key, value: "0".into(), valid: "at least 1" });
            }
        }
        Ok(())
    }
}

/// Trains a model on tokenised texts and returns it. Texts are drawn epoch by epoch, each a permutation of its own.
///
/// - observe: called after every step with the step, from 1, and its loss in nats per token.
///
/// # Errors
/// [`TrainError::Data`] when there are no texts; [`TrainError`] when a text does not fit the model or the loss is no number.
pub fn train_language_model(
    model: CausalLm,
    texts: &[Sequence],
    config: &LanguageModelConfig,
    seed: u64,
    observe: &mut dyn FnMut(usize, f64),
    interrupted: &AtomicBool,
) -> Result<CausalLm, TrainError> {
    config.check()?;
    if texts.is_empty() {
        return Err(TrainError::Data("there are no texts to train on".into()));
    }
    let model = model.train();
    let device = model.device();
    let order = Batches::new(seed, texts.len(), config.texts_per_step);
    let frame = model.clone();
    let net = fit(
        model.net().clone(),
        &config.optimizer,
        config.steps,
        |net, step| {
            let batch: Vec<Sequence> =
                order.indices(step).into_iter().map(|i| texts[i].clone()).collect();
            let batch = ResponseBatch::new(&batch, frame.config(), &device)?;
            let logits = frame.clone().with_net(net.clone()).response_logits(&batch);
            Ok(backward(log_softmax(logits, 1).gather(1, batch.targets).mean().neg(), net))
        },
        observe,
        interrupted,
    )?;
    Ok(model.with_net(net).valid())
}
