//! Prefix scorers for controlled decoding (arXiv 2310.17022, §2.2): values of the prefixes of responses under a base policy p.
//!
//! | method | loss of a prefix s = y₁ … yₜ of a response y | data |
//! |---|---|---|
//! | `cd-fudge` | ½ (V(s) − r(y))² | responses of p itself |
//! | `cd-q` | ½ (V(s) − v)², v = Σ_z p(z∣s)·V(sz) where y goes on, r(y) where it ends; v is a constant | responses of any origin, none that goes on where one of p would end |
//!
//! Both have V*(s) = E_p[r ∣ s] for their minimum, the value of the base and not of a better policy. The soft value
//! (1/λ)·log E_p[e^{λr} ∣ s], whose tilt is the optimum of E[r] − KL/λ over whole responses, is learned by its own losses:
//! of `cd-fudge` (e^{λ(r−V)} − λ(r−V) − 1)/λ², which the soft value minimises and which is ½ (V − r)² for small λ; of `cd-q` with
//! v = (1/λ)·log Σ_z p(z∣s)·e^{λV(sz)}.
//!
//! Departures from the paper: rewards are standardised for training; the head reads the state before a token and gives the values of all
//! tokens at once ([`ScorerModel`]), so that v takes one pass and not one for each token; the loss is summed over the tokens of a response
//! and divided by the mean length, so that its size does not depend on lengths.

mod data;
mod report;
mod trace;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use infalign_backend::precision::{POSITIVE, is_positive};
use infalign_model::{
    LanguageModel, ResponseBatch, ScorerModel, ScorerNet, Sequence, TransformerConfig,
};
use serde::{Deserialize, Serialize};

pub use data::{ScoredResponse, ScorerData};
pub use report::{LengthReport, ScorerReport, ValueBin};

use self::data::mean_length;
use self::trace::{Trace, Wanted, trace};
use crate::batches::{Batches, check_most};
use crate::best::BestCheckpoint;
use crate::checkpoint::state_error;
use crate::fit::{
    Fit, FitMetrics, Fitted, Trainable, Validate, check_counts, checkpoint_every, infallible,
};
use crate::moving_average::moved;
use crate::passes::{mean_gradient, mean_loss};
use crate::{OptimizerConfig, TrainError};

/// Folder of the target network in a checkpoint.
const TARGET: &str = "target";

/// Which loss a scorer is trained by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScorerMethod {
    /// Regression on the rewards of responses of the base.
    CdFudge,
    /// Bellman targets under the base's next-token probabilities.
    CdQ,
}

/// Settings of the training of a prefix scorer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScorerConfig {
    /// The loss.
    pub method: ScorerMethod,
    /// λ > 0 of the soft value; the expected reward, where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<f64>,
    /// Of CD-Q: how many of the most probable next tokens a target sums over; all, where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<usize>,
    /// Of CD-Q: the share of the way that the target network moves towards the scorer after a step, above 0 and at most 1; the scorer is its
    /// own target, where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_rate: Option<f64>,
    /// Width of the head's hidden layer.
    #[serde(default = "width")]
    pub width: usize,
    /// Optimiser steps.
    pub steps: usize,
    /// Responses of one step.
    pub examples_per_step: usize,
    /// Steps from one checkpoint to the next, at which validation responses are looked at.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: usize,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
}

fn width() -> usize {
    64
}

impl ScorerConfig {
    /// Refuses settings that are out of range, or have no effect.
    ///
    /// # Errors
    /// [`TrainError::Setting`] names the setting, its value and the range.
    pub fn check(&self) -> Result<(), TrainError> {
        self.optimizer.check()?;
        check_counts(&[
            ("width", self.width),
            ("children", self.children.unwrap_or(1)),
            ("steps", self.steps),
            ("examples_per_step", self.examples_per_step),
            ("checkpoint_every", self.checkpoint_every),
        ])?;
        check_most(&[("width", self.width), ("examples_per_step", self.examples_per_step)])?;
        let refuse = |key, value: String, valid| Err(TrainError::setting(key, value, valid));
        if let Some(soft) = self.soft.filter(|soft| !is_positive(*soft)) {
            return refuse("soft", format!("{soft:?}"), POSITIVE);
        }
        if let Some(rate) = self.target_rate.filter(|rate| !(is_positive(*rate) && *rate <= 1.0)) {
            let valid = "above 0, as a number of 32 bits, and at most 1";
            return refuse("target_rate", format!("{rate:?}"), valid);
        }
        if self.method == ScorerMethod::CdFudge {
            let valid = "left out with cd-fudge, which has no targets to sum up";
            if let Some(children) = self.children {
                return refuse("children", children.to_string(), valid);
            }
            if let Some(rate) = self.target_rate {
                return refuse("target_rate", rate.to_string(), valid);
            }
        }
        Ok(())
    }
}

/// Trains a prefix scorer and returns it, with the checkpoint that the validation responses chose.
///
/// - checkpoints: their folder; the newest is what training goes on from.
/// - observe: called after every step; the loss is in squared standard deviations of the rewards, summed over the heads.
/// - interrupted: when it becomes true, training checkpoints after the current step and stops.
///
/// # Errors
/// As [`ScorerConfig::check`]; [`TrainError::Data`] for responses that cannot be learned from; [`TrainError::Interrupted`]; [`TrainError`]
/// when a response does not fit the models or the loss is no number.
pub fn train_prefix_scorer(
    model: ScorerModel,
    data: &ScorerData<'_>,
    config: &ScorerConfig,
    seed: u64,
    checkpoints: &Path,
    observe: &mut dyn FnMut(&FitMetrics),
    interrupted: &AtomicBool,
) -> Result<(ScorerModel, Option<BestCheckpoint>), TrainError> {
    config.check()?;
    data.check(model.spec().heads.len())?;
    let training = Examples::new(&model, data.base, data.responses, config)?;
    let validation = match data.validation {
        [] => None,
        responses => Some(Examples::new(&model, data.base, responses, config)?),
    };
    let batches = Batches::new(seed, data.responses.len(), config.examples_per_step);
    let target = config.target_rate.map(|_| model.valid());
    let learning = Learning { model, target, rate: config.target_rate.unwrap_or(1.0) };
    let ScorerConfig { steps, checkpoint_every, optimizer, .. } = config;
    let fit = Fit { optimizer, steps: *steps, checkpoints, checkpoint_every: *checkpoint_every };
    let gradient = |learning: &Learning, step| training.gradient(learning, &batches.indices(step));
    let validate = validation
        .as_ref()
        .map(|examples| move |learning: &Learning| examples.mean_loss(&learning.model.valid()));
    let validate = validate.as_ref().map(|loss| loss as &Validate<'_, Learning>);
    let mut observe = infallible(observe);
    let Fitted { model: learned, best, .. } =
        fit.run(learning, gradient, validate, &mut observe, interrupted)?;
    Ok((learned.model.valid(), best))
}

/// The base's states of every response, where the scorer reads those; they do not change in training.
fn base_states(
    model: &ScorerModel,
    base: &dyn LanguageModel,
    responses: &[ScoredResponse],
) -> Result<Vec<Trace>, TrainError> {
    if model.trunk().is_some() {
        return Ok(Vec::new());
    }
    let sequences: Vec<&Sequence> = responses.iter().map(|one| &one.sequence).collect();
    let states = trace(base, &sequences, Wanted::States)?;
    let (hidden, first) = (model.spec().hidden, &responses[0].sequence);
    if states[0].len() != hidden * first.response().len() {
        return Err(TrainError::Data(format!(
            "the base has no states of width {hidden}: give the scorer a trunk of its own"
        )));
    }
    Ok(states)
}

/// Responses that a loss is taken of.
struct Examples<'a> {
    base: &'a dyn LanguageModel,
    responses: &'a [ScoredResponse],
    config: &'a ScorerConfig,
    /// Of the base, by response; none where the scorer has a trunk of its own.
    states: Vec<Trace>,
    mean_length: f64,
}

impl<'a> Examples<'a> {
    fn new(
        model: &ScorerModel,
        base: &'a dyn LanguageModel,
        responses: &'a [ScoredResponse],
        config: &'a ScorerConfig,
    ) -> Result<Self, TrainError> {
        let states = base_states(model, base, responses)?;
        Ok(Self { base, responses, config, states, mean_length: mean_length(responses) })
    }

    /// The mean loss of all responses, by what came of them.
    fn mean_loss(&self, model: &ScorerModel) -> Result<f64, TrainError> {
        let loss =
            |examples: &[usize]| Ok(self.fudge(model, examples, &self.pass(model, examples)?));
        let tokens = |index: usize| self.responses[index].sequence.tokens.len();
        mean_loss(&model.head().device(), self.responses.len(), tokens, loss)
    }

    fn gradient(
        &self,
        learning: &Learning,
        chosen: &[usize],
    ) -> Result<(f64, GradientsParams), TrainError> {
        let sequence = |place: usize| &self.responses[chosen[place]].sequence;
        let distributions = match self.config.method {
            ScorerMethod::CdFudge => Vec::new(),
            ScorerMethod::CdQ => {
                let sequences: Vec<&Sequence> = (0..chosen.len()).map(sequence).collect();
                trace(self.base, &sequences, Wanted::Probabilities(self.config.children))?
            }
        };
        let loss = |learning: &Learning, pass: &[usize]| {
            let examples: Vec<usize> = pass.iter().map(|&place| chosen[place]).collect();
            let p = pass.iter().filter_map(|&place| distributions.get(place));
            self.loss(learning, &examples, &p.collect::<Vec<_>>())
        };
        let places = (0..chosen.len()).collect();
        mean_gradient(learning, places, |place| sequence(place).tokens.len(), loss)
    }

    /// The mean loss of some examples by the method.
    fn loss(
        &self,
        learning: &Learning,
        examples: &[usize],
        distributions: &[&Trace],
    ) -> Result<Tensor<1>, TrainError> {
        let pass = self.pass(&learning.model, examples)?;
        match self.config.method {
            ScorerMethod::CdFudge => Ok(self.fudge(&learning.model, examples, &pass)),
            ScorerMethod::CdQ => {
                let targets = self.bellman(learning, examples, &pass, distributions)?;
                let gap = pass.gap(&learning.model, targets);
                Ok(self.mean(gap.square().mul_scalar(0.5), examples))
            }
        }
    }

    /// The mean loss of some examples by what came of them.
    fn fudge(&self, model: &ScorerModel, examples: &[usize], pass: &Pass) -> Tensor<1> {
        let gap = pass.gap(model, self.returns(model, examples, pass));
        let losses = match self.config.soft {
            Some(soft) => self.linex(model, gap, soft),
            None => gap.square().mul_scalar(0.5),
        };
        self.mean(losses, examples)
    }

    /// The mean over some examples of their losses `[tokens, heads]`, summed, over the mean length.
    fn mean(&self, losses: Tensor<2>, examples: &[usize]) -> Tensor<1> {
        // A mean times a count: a full sum is not reproducible on every backend.
        let terms = losses.shape().num_elements() as f64;
        losses.mean().mul_scalar(terms / (examples.len() as f64 * self.mean_length))
    }

    /// (e^{λg} − λg − 1)/λ² of gaps g = r − V `[rows, heads]`, λ in units of each head.
    fn linex(&self, model: &ScorerModel, gap: Tensor<2>, soft: f64) -> Tensor<2> {
        let heads = &model.spec().heads;
        let lambda: Vec<f32> = heads.iter().map(|head| (soft * head.scale) as f32).collect();
        let lambda = TensorData::new(lambda, [1, heads.len()]);
        let lambda = Tensor::<2>::from_data(lambda, &gap.device());
        linex(gap * lambda.clone()) / lambda.square()
    }

    /// Tokens and states of some examples, one after the other.
    fn pass(&self, model: &ScorerModel, examples: &[usize]) -> Result<Pass, TrainError> {
        let responses = examples.iter().map(|&example| &self.responses[example]);
        let sequences: Vec<&Sequence> = responses.map(|one| &one.sequence).collect();
        let tokens: Vec<u32> =
            sequences.iter().flat_map(|sequence| sequence.response().iter().copied()).collect();
        let lengths = sequences.iter().map(|sequence| sequence.response().len()).collect();
        let device = model.head().device();
        let Some(trunk) = model.trunk() else {
            let states: Vec<f32> =
                examples.iter().flat_map(|&i| self.states[i].iter().copied()).collect();
            let shape = [tokens.len(), model.spec().hidden];
            let states = Tensor::from_data(TensorData::new(states, shape), &device);
            return Ok(Pass { states, tokens, lengths, batch: None });
        };
        let config: &TransformerConfig = trunk.config();
        let batch = ResponseBatch::new(&sequences, config, &device)?;
        let states = trunk.response_hidden(&batch);
        Ok(Pass { states, tokens, lengths, batch: Some(batch) })
    }

    /// The standardised reward of each token's response, `[tokens, heads]`.
    fn returns(&self, model: &ScorerModel, examples: &[usize], pass: &Pass) -> Vec<f32> {
        let of = |(&example, &length): (&usize, &usize)| {
            let rewards = self.standardised(model, example);
            std::iter::repeat_n(rewards, length).flatten()
        };
        examples.iter().zip(&pass.lengths).flat_map(of).collect()
    }

    fn standardised(&self, model: &ScorerModel, example: usize) -> Vec<f32> {
        let rewards = self.responses[example].rewards.iter().zip(&model.spec().heads);
        rewards.map(|(r, head)| ((f64::from(*r) - head.mean) / head.scale) as f32).collect()
    }

    /// v of each token, `[tokens, heads]`: what the target network makes of the tokens that may come next, and the reward at the end.
    fn bellman(
        &self,
        learning: &Learning,
        examples: &[usize],
        pass: &Pass,
        distributions: &[&Trace],
    ) -> Result<Vec<f32>, TrainError> {
        let model = learning.target.as_ref().map_or_else(|| learning.model.valid(), Clone::clone);
        let heads = model.spec().heads.len();
        let states = match (&pass.batch, model.trunk()) {
            (Some(batch), Some(trunk)) => trunk.response_hidden(batch),
            _ => pass.states.clone(),
        };
        let p: Vec<f32> = distributions.iter().flat_map(|trace| trace.iter().copied()).collect();
        let shape = [pass.tokens.len(), model.spec().vocabulary];
        let p = Tensor::<2>::from_data(TensorData::new(p, shape), &states.device());
        // [heads][tokens]: the mean over the children of the prefix before each token.
        let means: Vec<Vec<f32>> = (0..heads)
            .map(|head| {
                let children = model.head().children(states.clone(), head);
                let lambda = self.config.soft.map(|soft| soft * model.spec().heads[head].scale);
                mean(p.clone(), children, lambda).into_data().iter::<f32>().collect()
            })
            .collect();
        let mut targets = Vec::with_capacity(pass.tokens.len() * heads);
        let mut first = 0;
        for (&example, &length) in examples.iter().zip(&pass.lengths) {
            for token in first + 1..first + length {
                targets.extend(means.iter().map(|mean| mean[token]));
            }
            targets.extend(self.standardised(&model, example));
            first += length;
        }
        Ok(targets)
    }
}

/// e^x − x − 1, by its series where the difference would lose its digits.
fn linex(x: Tensor<2>) -> Tensor<2> {
    let series = x.clone().square() * (x.clone() * (x.clone() / 24.0 + 1.0 / 6.0) + 0.5);
    let small = x.clone().abs().lower_elem(0.05);
    (x.clone().exp() - x - 1.0).mask_where(small, series)
}

/// Σ p·V, or (1/λ)·log Σ p·e^{λV} with the greatest value taken out: `[rows, 1]` of `[rows, vocabulary]`.
fn mean(p: Tensor<2>, values: Tensor<2>, lambda: Option<f64>) -> Tensor<2> {
    let Some(lambda) = lambda else { return (p * values).sum_dim(1) };
    // What cannot follow counts for nothing, however great its value.
    let absent = p.clone().equal_elem(0.0);
    let greatest = values.clone().mask_fill(absent.clone(), f32::NEG_INFINITY).max_dim(1);
    let weights = (values - greatest.clone()).mask_fill(absent, 0.0).mul_scalar(lambda).exp();
    greatest + (p * weights).sum_dim(1).log().div_scalar(lambda)
}

/// What a loss is computed from.
struct Pass {
    /// `[tokens, hidden]`: the state before each response token.
    states: Tensor<2>,
    tokens: Vec<u32>,
    lengths: Vec<usize>,
    /// For a trunk of its own.
    batch: Option<ResponseBatch>,
}

impl Pass {
    /// What the values `[tokens, heads]` lack to their targets.
    fn gap(&self, model: &ScorerModel, targets: Vec<f32>) -> Tensor<2> {
        let values = model.head().values(self.states.clone(), &self.tokens);
        let targets = TensorData::new(targets, values.dims());
        Tensor::<2>::from_data(targets, &values.device()) - values
    }
}

/// A scorer and what its targets come from.
#[derive(Clone)]
struct Learning {
    model: ScorerModel,
    target: Option<ScorerModel>,
    rate: f64,
}

impl Trainable for Learning {
    type Net = ScorerNet;

    fn net(&self) -> ScorerNet {
        self.model.net()
    }

    fn stepped(self, net: ScorerNet) -> Self {
        let model = self.model.with_net(net);
        let target = self.target.map(|target| {
            let net = moved(target.net(), &model.valid().net(), self.rate);
            target.with_net(net)
        });
        Self { model, target, ..self }
    }

    fn leaves(&self) -> Self {
        Self { model: self.model.valid().train(), ..self.clone() }
    }

    fn save(&self, dir: &Path) -> Result<(), TrainError> {
        self.model.save(dir)?;
        let Some(target) = &self.target else { return Ok(()) };
        let folder = dir.join(TARGET);
        std::fs::create_dir(&folder).map_err(|error| state_error(&folder, error))?;
        Ok(target.save(&folder)?)
    }

    fn load(&self, dir: &Path) -> Result<Self, TrainError> {
        let device = self.model.head().device();
        let load = |dir: &Path| ScorerModel::load(dir, &device);
        let target = self.target.as_ref().map(|_| load(&dir.join(TARGET))).transpose()?;
        let target = target.map(|target| target.valid());
        Ok(Self { model: load(dir)?.train(), target, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f32]) -> Tensor<2> {
        let device = infalign_backend::device(None).unwrap();
        Tensor::from_data(TensorData::new(values.to_vec(), [1, values.len()]), &device)
    }

    #[test]
    fn what_cannot_follow_does_not_drown_the_soft_value() {
        let mean = |p: &[f32], values: &[f32], lambda| {
            mean(row(p), row(values), Some(lambda)).into_scalar::<f64>()
        };
        // e^{−120} is 0 in f32.
        assert!(mean(&[0.6, 0.4, 0.0], &[0.0, 0.0, 6.0], 20.0).abs() < 1e-6);
        let expected = (0.6 * 0.5_f64.exp() + 0.4 * 1.5_f64.exp()).ln() / 0.5;
        assert!((mean(&[0.6, 0.4], &[1.0, 3.0], 0.5) - expected).abs() < 1e-5);
    }

    #[test]
    fn linex_and_its_slope_keep_their_digits_near_0() {
        for x in [-3.0, -0.051, -0.049, -1e-3, 1e-7, 0.01, 0.049, 0.051, 2.0_f64] {
            let point = row(&[x as f32]).autodiff().require_grad();
            let y = linex(point.clone());
            let grads = y.clone().sum().backward();
            let slope = point.grad(&grads).unwrap().into_scalar::<f64>();
            let near = |found: f64, exact: f64| (found - exact).abs() <= 1e-4 * exact.abs();
            assert!(near(y.into_scalar::<f64>(), x.exp_m1() - x), "value at {x}");
            assert!(near(slope, x.exp_m1()), "slope at {x}: {slope}");
        }
    }
}
