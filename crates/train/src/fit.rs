//! The loop that supervised trainers share: batches, gradients, steps.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::optimizer::Optimizer;
use crate::schedule::linear;
use crate::{OptimizerConfig, TrainError};

/// The value of a loss and its gradient.
pub(crate) fn backward<M: Module>(loss: Tensor<1>, module: &M) -> (f64, GradientsParams) {
    let value = loss.clone().inner().into_scalar::<f64>();
    (value, GradientsParams::from_grads(loss.backward(), module))
}

/// Minimises a loss over `steps` steps; returns the module.
///
/// - gradient: the loss of a step, from 0, and its gradient.
/// - observe: given the step, from 1, and its loss.
pub(crate) fn fit<M: Module>(
    mut module: M,
    config: &OptimizerConfig,
    steps: usize,
    gradient: impl Fn(&M, usize) -> Result<(f64, GradientsParams), TrainError>,
    observe: &mut dyn FnMut(usize, f64),
    interrupted: &AtomicBool,
) -> Result<M, TrainError> {
    let mut optimizer = Optimizer::new(config);
    for step in 0..steps {
        let (value, grads) = gradient(&module, step)?;
        if !value.is_finite() {
            return Err(TrainError::Diverged {
                step: step + 1,
                what: "the loss",
                value,
                checkpoint: "none".into(),
            });
        }
        let learning_rate =
            config.learning_rate * linear(step, steps, config.warmup_steps, config.final_share);
        (module, _) = optimizer.step(module, grads, learning_rate);
        observe(step + 1, value);
        if interrupted.load(Ordering::Relaxed) && step + 1 < steps {
            return Err(TrainError::Stopped { step: step + 1, steps });
        }
    }
    Ok(module)
}
