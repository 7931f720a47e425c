//! AdamW with clipping of the whole gradient's norm.

use std::f64::consts::PI;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamWState, AdaptiveMomentumState, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use infalign_backend::kernels::{AdamWStep, adamw, square_sum};
use infalign_backend::precision::{LIMIT, POSITIVE, is_limit, is_positive};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::fit::check_settings;

/// Settings of the optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    #[serde(default)]
    pub warmup_steps: usize,
    /// How the learning rate falls from its peak, which the first step after the warm-up has.
    #[serde(default)]
    pub decay: Decay,
    /// Share of the peak learning rate at which the decay would arrive one step after the last. At the last step, a linear one is at that share
    /// plus (1 − share)/(steps − warm-up steps).
    #[serde(default)]
    pub final_share: f64,
    /// β₂: weight of the past in the running mean of squared gradients, at least 0 and below 1.
    #[serde(default = "beta_2")]
    pub beta_2: f64,
    /// Decoupled weight decay, of every weight, norms and biases among them, as PyTorch's AdamW does; transformers' Trainer leaves those out.
    #[serde(default)]
    pub weight_decay: f32,
    /// Larger gradients are scaled to this Euclidean norm.
    #[serde(default = "max_grad_norm")]
    pub max_grad_norm: f64,
}

/// How a learning rate falls from its peak, by the share x of the decay that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// By as much at every step: share + (1 − share)·(1 − x), where the share is `final_share` and x goes from 0 at the peak to 1 one step
    /// after the last.
    #[default]
    Linear,
    /// Along half a cosine: share + (1 − share)·(1 + cos πx)/2.
    Cosine,
}

impl Decay {
    /// What is left of the way from the peak to the final share.
    ///
    /// - left: 1 − x, in [0, 1].
    fn height(self, left: f64) -> f64 {
        match self {
            Self::Linear => left,
            Self::Cosine => 0.5 * (1.0 - (PI * left).cos()),
        }
    }
}

fn beta_2() -> f64 {
    0.99
}

fn max_grad_norm() -> f64 {
    1.0
}

impl OptimizerConfig {
    /// Of a peak learning rate and nothing else: no warm-up, linear decay to 0, β₂ of 0.99, no weight decay, and gradients of norm 1 at most.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            warmup_steps: 0,
            decay: Decay::Linear,
            final_share: 0.0,
            beta_2: beta_2(),
            weight_decay: 0.0,
            max_grad_norm: max_grad_norm(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), TrainError> {
        let Self { learning_rate, final_share, beta_2, weight_decay, max_grad_norm, .. } = *self;
        let shown = |value: f64| format!("{value:?}");
        let is_share = (0.0..=1.0).contains(&final_share);
        check_settings([
            ("learning_rate", shown(learning_rate), is_positive(learning_rate), POSITIVE),
            ("max_grad_norm", shown(max_grad_norm), is_limit(max_grad_norm), LIMIT),
            ("final_share", shown(final_share), is_share, "between 0 and 1"),
            (
                "beta_2",
                shown(beta_2),
                (0.0..1.0).contains(&(beta_2 as f32)),
                "at least 0 and below 1, as a number of 32 bits",
            ),
            (
                "weight_decay",
                shown(f64::from(weight_decay)),
                (0.0..1.0).contains(&weight_decay),
                "at least 0 and below 1",
            ),
        ])
    }

    /// The learning rate of a step: linear warm-up to the peak, then the decay.
    ///
    /// - step: from 0; steps: those of the run.
    pub(crate) fn rate(&self, step: usize, steps: usize) -> f64 {
        let Self { learning_rate, warmup_steps: warmup, decay, final_share: floor, .. } = *self;
        if step < warmup {
            return learning_rate * ((step + 1) as f64 / (warmup + 1) as f64);
        }
        let left = (steps - step) as f64 / (steps - warmup).max(1) as f64;
        learning_rate * (floor + (1.0 - floor) * decay.height(left))
    }
}

/// AdamW as one kernel, with the state of burn's.
#[derive(Clone)]
struct FusedAdamW {
    beta_2: f32,
    weight_decay: f32,
}

impl burn::optim::Optimizer for FusedAdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        learning_rate: f64,
        weight: Tensor<D>,
        grad: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let (means, time) = match state {
            Some(AdamWState { momentum }) => {
                ([momentum.moment_1, momentum.moment_2], momentum.time)
            }
            None => ([grad.zeros_like(), grad.zeros_like()], 0),
        };
        let step = AdamWStep {
            beta_1: 0.9,
            beta_2: self.beta_2,
            epsilon: 1e-8,
            weight_decay: self.weight_decay,
            learning_rate: learning_rate as f32,
            time: time as i32 + 1,
        };
        let (weight, [moment_1, moment_2]) = adamw(weight, grad, means, step);
        let momentum =
            AdaptiveMomentumState { time: time + 1, moment_1, moment_2, max_moment_2: None };
        (weight, Some(AdamWState { momentum }))
    }

    fn to_device<const D: usize>(mut state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        state.momentum = state.momentum.to_device(device);
        state
    }
}

/// AdamW (β₁ 0.9, ε 1e-8) with global-norm clipping.
pub(crate) struct Optimizer {
    adam: ModuleOptimizer,
    max_grad_norm: f64,
}

impl Optimizer {
    pub(crate) fn new(config: &OptimizerConfig) -> Self {
        let adam = FusedAdamW { beta_2: config.beta_2 as f32, weight_decay: config.weight_decay };
        Self { adam: adam.into(), max_grad_norm: config.max_grad_norm }
    }

    /// Takes one step; returns the module and the gradient's norm before clipping. A gradient that is not finite leaves the module as it is.
    pub(crate) fn step<M: Module>(
        &mut self,
        module: M,
        mut grads: GradientsParams,
        learning_rate: f64,
    ) -> (M, f64) {
        let norm = clip(&module, &mut grads, self.max_grad_norm);
        if !norm.is_finite() {
            return (module, norm);
        }
        (self.adam.step(learning_rate, module, grads), norm)
    }

    pub(crate) fn save(&self, path: &Path) -> Result<(), TrainError> {
        let fail =
            |reason: String| TrainError::Optimizer { action: "write", path: path.into(), reason };
        let bytes = self.adam.into_bytes().map_err(|error| fail(error.to_string()))?;
        std::fs::write(path, &bytes[..]).map_err(|error| fail(error.to_string()))
    }

    pub(crate) fn load(self, path: &Path) -> Result<Self, TrainError> {
        let fail =
            |reason: String| TrainError::Optimizer { action: "read", path: path.into(), reason };
        Ok(Self { adam: self.adam.load(path).map_err(|error| fail(error.to_string()))?, ..self })
    }
}

/// Scales a gradient to a norm where its own is finite and greater; returns its own.
fn clip<M: Module>(module: &M, grads: &mut GradientsParams, greatest: f64) -> f64 {
    let mut squares = SquaredNorm { grads, sums: Vec::new() };
    module.visit(&mut squares);
    let norm = squares.total().sqrt();
    if norm.is_finite() && norm > greatest {
        module.visit(&mut Scale { grads, factor: greatest / norm });
    }
    norm
}

/// Adds up the squares of all gradients.
struct SquaredNorm<'a> {
    grads: &'a GradientsParams,
    sums: Vec<Tensor<1>>,
}

impl SquaredNorm<'_> {
    /// Reads all sums at once: a GPU is waited for once, not once a gradient.
    fn total(self) -> f64 {
        if self.sums.is_empty() {
            return 0.0;
        }
        Tensor::cat(self.sums, 0).into_data().iter::<f64>().sum()
    }
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.sums.push(square_sum(grad));
        }
    }
}

struct Scale<'a> {
    grads: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.grads.register(param.id, grad.mul_scalar(self.factor));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::module::{Module, Param};
    use burn::optim::GradientsParams;
    use burn::tensor::Tensor;

    use super::{Decay, Optimizer, OptimizerConfig, clip};

    /// Where a weight of 1 comes by some gradients, one after the other, at the peak learning rate.
    fn moved(config: &OptimizerConfig, grads: &[f32]) -> f64 {
        let device = infalign_backend::device(None).unwrap();
        let mut weight = Param::from_tensor(Tensor::<1>::ones([1], &device)).train();
        let mut optimizer = Optimizer::new(config);
        for &grad in grads {
            let mut grads = GradientsParams::new();
            grads.register(weight.id, Tensor::<1>::full([1], grad, &device));
            (weight, _) = optimizer.step(weight, grads, config.learning_rate);
        }
        weight.val().inner().into_scalar::<f64>()
    }

    #[test]
    fn steps_are_those_of_adamw_by_clipped_gradients() {
        let plain = OptimizerConfig::new(0.1);
        let decayed = OptimizerConfig { weight_decay: 0.1, ..plain.clone() };
        let unclipped = OptimizerConfig { max_grad_norm: 1e9, ..plain.clone() };
        for (what, found, expected) in [
            ("0.1·0.1 of the weight decays beside the step", moved(&decayed, &[0.5]), 0.89),
            ("a gradient of 100 counts as one of 1", moved(&plain, &[1.0, 100.0]), 0.8),
            // The second step is (0.29/0.19)/√(0.0499/0.0199) = 0.963875 of the first.
            ("moments have rates of their own", moved(&unclipped, &[1.0, 2.0]), 0.803_612_5),
        ] {
            assert!((found - expected).abs() < 1e-5, "{what}: {found}");
        }
    }

    #[test]
    fn the_rate_of_the_squares_is_that_of_the_settings() {
        // The second step is (0.29/0.19)/√(2.25/0.75) of the first, and with 0 (0.29/0.19)/√4.
        for (beta_2, expected) in [(0.5, 0.811_878_1), (0.0, 0.823_684_2)] {
            let config =
                OptimizerConfig { beta_2, max_grad_norm: 1e9, ..OptimizerConfig::new(0.1) };
            let found = moved(&config, &[1.0, 2.0]);
            assert!((found - expected).abs() < 1e-5, "{beta_2}: {found}");
        }
    }

    #[test]
    fn the_norm_is_that_of_the_gradients_of_all_weights() {
        let device = infalign_backend::device(None).unwrap();
        let weight = || Param::from_tensor(Tensor::<1>::ones([1], &device));
        let weights = [weight(), weight()];
        let mut grads = GradientsParams::new();
        for (weight, grad) in weights.iter().zip([3.0_f32, 4.0]) {
            grads.register(weight.id, Tensor::<1>::full([1], grad, &device));
        }
        let norm = clip(&weights, &mut grads, 1.0);
        assert!((norm - 5.0).abs() < 1e-6, "{norm}");
        for (weight, expected) in weights.iter().zip([0.6, 0.8]) {
            let found = grads.get::<1>(weight.id).unwrap().into_scalar::<f64>();
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
        }
    }

    #[test]
    fn the_learning_rate_rises_to_the_peak_and_falls_to_its_share() {
        let config =
            OptimizerConfig { warmup_steps: 4, final_share: 0.2, ..OptimizerConfig::new(1.0) };
        let rates: Vec<f64> = (0..10).map(|step| config.rate(step, 10)).collect();
        assert_eq!(rates[..5], [0.2, 0.4, 0.6, 0.8, 1.0]);
        assert!(rates[4..].windows(2).all(|w| w[0] > w[1]));
        assert!((rates[9] - (0.2 + 0.8 / 6.0)).abs() < 1e-12, "{}", rates[9]);
        assert_eq!(OptimizerConfig::new(0.5).rate(0, 1), 0.5);
    }

    #[test]
    fn a_cosine_falls_slowly_at_its_ends() {
        let config: OptimizerConfig = serde_json::from_value(serde_json::json!({
            "learning_rate": 1.0, "warmup_steps": 1, "decay": "cosine", "final_share": 0.2,
        }))
        .unwrap();
        assert_eq!(config.decay, Decay::Cosine);
        // 0.2 + 0.8·(1 + cos πx)/2 at x = 0, ¼, ½ and ¾, where the cosine is 1, √½, 0 and −√½.
        let expected = [0.5, 1.0, 0.882_842_712, 0.6, 0.317_157_288];
        for (step, expected) in expected.into_iter().enumerate() {
            let found = config.rate(step, 5);
            assert!((found - expected).abs() < 1e-8, "{step}: {found}");
        }
    }

    #[test]
    fn what_is_left_out_of_a_recipe_is_what_new_has() {
        let config: OptimizerConfig = serde_json::from_str(r#"{"learning_rate": 0.1}"#).unwrap();
        assert_eq!(OptimizerConfig::new(0.1), config);
    }

    #[test]
    fn a_learning_rate_is_one_that_steps_can_be_taken_with() {
        let checked = |learning_rate: f64| {
            let config: OptimizerConfig =
                serde_json::from_value(serde_json::json!({ "learning_rate": learning_rate }))
                    .unwrap();
            config.check().map_err(|error| error.to_string())
        };
        checked(1e-30).unwrap();
        for (learning_rate, shown) in [(1e300, "is 1e300,"), (1e-300, "is 1e-300,"), (0.0, "is 0")]
        {
            let message = checked(learning_rate).unwrap_err();
            assert!(message.contains(shown) && message.contains("32 bits"), "{message}");
        }
        let clipped: OptimizerConfig = serde_json::from_value(
            serde_json::json!({ "learning_rate": 0.1, "max_grad_norm": 1e-50 }),
        )
        .unwrap();
        let message = clipped.check().unwrap_err().to_string();
        assert!(message.contains("max_grad_norm is 1e-50"), "{message}");
    }

    #[test]
    fn squares_are_neither_forgotten_nor_kept_for_ever() {
        let checked = |beta_2: f64| OptimizerConfig { beta_2, ..OptimizerConfig::new(0.1) }.check();
        for fine in [0.0, 0.95, 0.999] {
            checked(fine).unwrap();
        }
        // The last is 1 in 32 bits.
        for bad in [-0.1, 1.0, f64::NAN, 0.999_999_999] {
            let message = checked(bad).unwrap_err().to_string();
            assert!(message.starts_with(&format!("beta_2 is {bad:?}, but")), "{message}");
        }
    }
}
