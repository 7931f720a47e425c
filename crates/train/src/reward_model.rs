//! Reward models: a scalar head trained on ratings by least squares, or on pairs by Bradley and Terry's likelihood.

use std::sync::atomic::AtomicBool;

use burn::tensor::{Device, Tensor, TensorData, activation::log_sigmoid};
use infalign_model::{CausalLm, SequenceClassifier};
use serde::{Deserialize, Serialize};

use crate::batches::Batches;
use crate::fit::fit;
use crate::{OptimizerConfig, TrainError};

/// Settings of reward-model training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardModelConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Examples of one step: texts, or pairs.
    pub examples_per_step: usize,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
}

impl RewardModelConfig {
    /// Refuses settings that are out of range.
    ///
    /// # Errors
    /// [`TrainError::Setting`] names the setting, its value and the range.
    pub fn check(&self) -> Result<(), TrainError> {
        self.optimizer.check()?;
        for (key, value) in [("steps", self.steps), ("examples_per_step", self.examples_per_step)] {
            if value == 0 {
                return Err(TrainError::Setting { key, value: "0".into(), valid: "at least 1" });
            }
        }
        Ok(())
    }
}

/// What a reward model learns from; texts are tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Examples {
    /// Texts with their ratings: minimises (score − rating)².
    Rated(Vec<(Vec<u32>, f32)>),
    /// Pairs, the better text first: minimises −log σ(score of the better − score of the worse).
    Paired(Vec<(Vec<u32>, Vec<u32>)>),
}

/// Examples to learn from and examples to be measured on.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// To learn from.
    pub training: Examples,
    /// Held out.
    pub held_out: Examples,
}

/// How a reward model does on held-out examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardModelReport {
    /// Number of held-out examples.
    pub examples: usize,
    /// Share of held-out pairs in the right order: those given, or all pairs of consecutive texts with different ratings. Ties count ½.
    pub accuracy: f64,
    /// Correlation of score and rating; absent for pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<f64>,
}

impl Examples {
    fn len(&self) -> usize {
        match self {
            Self::Rated(texts) => texts.len(),
            Self::Paired(pairs) => pairs.len(),
        }
    }

    /// The mean loss of the examples with the given indices.
    fn loss(
        &self,
        model: &SequenceClassifier,
        indices: &[usize],
        device: &Device,
    ) -> Result<Tensor<1>, TrainError> {
        match self {
            Self::Rated(examples) => {
                let texts: Vec<&[u32]> =
                    indices.iter().map(|&i| examples[i].0.as_slice()).collect();
                let ratings: Vec<f32> = indices.iter().map(|&i| examples[i].1).collect();
                let ratings =
                    Tensor::from_data(TensorData::new(ratings, [indices.len(), 1]), device);
                Ok((model.forward(&texts)? - ratings).square().mean())
            }
            Self::Paired(pairs) => {
                let better = indices.iter().map(|&i| pairs[i].0.as_slice());
                let texts: Vec<&[u32]> =
                    better.chain(indices.iter().map(|&i| pairs[i].1.as_slice())).collect();
                let scores = model.forward(&texts)?;
                let n = indices.len();
                let gap = scores.clone().narrow(0, 0, n) - scores.narrow(0, n, n);
                Ok(log_sigmoid(gap).mean().neg())
            }
        }
    }

    fn report(&self, model: &SequenceClassifier) -> Result<RewardModelReport, TrainError> {
        let (pairs, correlation): (Vec<(f32, f32)>, _) = match self {
            Self::Rated(examples) => {
                let texts: Vec<Vec<u32>> = examples.iter().map(|(text, _)| text.clone()).collect();
                let scores = model.scores(&texts)?;
                let rated: Vec<(f32, f32)> =
                    scores.into_iter().zip(examples.iter().map(|(_, rating)| *rating)).collect();
                let ordered = rated.windows(2).filter(|w| w[0].1 != w[1].1);
                let pairs = ordered
                    .map(|w| if w[0].1 > w[1].1 { (w[0].0, w[1].0) } else { (w[1].0, w[0].0) })
                    .collect();
                (pairs, Some(correlation(&rated)))
            }
            Self::Paired(pairs) => {
                let (better, worse): (Vec<Vec<u32>>, Vec<Vec<u32>>) = pairs.iter().cloned().unzip();
                (model.scores(&better)?.into_iter().zip(model.scores(&worse)?).collect(), None)
            }
        };
        let right: f64 = pairs
            .iter()
            .map(|(a, b)| {
                if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                }
            })
            .sum();
        Ok(RewardModelReport {
            examples: self.len(),
            accuracy: right / pairs.len() as f64,
            correlation,
        })
    }
}

/// Puts a scalar head on a language model and trains both; returns the classifier and how it does on the examples held out.
///
/// - observe: called after every step with the step, from 1, and its loss.
///
/// # Errors
/// [`TrainError::Data`] when there are no examples; [`TrainError`] when a text does not fit the model or the loss is no number.
pub fn train_reward_model(
    base: CausalLm,
    pad_token: u32,
    data: &Dataset,
    config: &RewardModelConfig,
    seed: u64,
    observe: &mut dyn FnMut(usize, f64),
    interrupted: &AtomicBool,
) -> Result<(SequenceClassifier, RewardModelReport), TrainError> {
    config.check()?;
    if data.training.len() == 0 || data.held_out.len() == 0 {
        return Err(TrainError::Data(
            "a reward model needs examples to train on and examples held out".into(),
        ));
    }
    let device = base.device();
    let model = SequenceClassifier::on(base, pad_token).train();
    let batches = Batches::new(seed, data.training.len(), config.examples_per_step);
    let frame = model.clone();
    let net = fit(
        model.net(),
        &config.optimizer,
        config.steps,
        |net, step| {
            data.training.loss(
                &frame.clone().with_net(net.clone()),
                &batches.indices(step),
                &device,
            )
        },
        observe,
        interrupted,
    )?;
    let model = model.with_net(net).valid();
    let report = data.held_out.report(&model)?;
    Ok((model, report))
}

/// Pearson's correlation.
fn correlation(pairs: &[(f32, f32)]) -> f64 {
    let n = pairs.len() as f64;
    let mean =
        |pick: fn(&(f32, f32)) -> f32| pairs.iter().map(|p| f64::from(pick(p))).sum::<f64>() / n;
    let (ma, mb) = (mean(|p| p.0), mean(|p| p.1));
    let moment = |f: &dyn Fn(f64, f64) -> f64| {
        pairs.iter().map(|&(a, b)| f(f64::from(a) - ma, f64::from(b) - mb)).sum::<f64>()
    };
    moment(&|a, b| a * b) / (moment(&|a, _| a * a) * moment(&|_, b| b * b)).sqrt()
}
