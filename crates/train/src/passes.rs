//! The gradient of many examples, in passes that fit into memory.

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;

use crate::TrainError;
use crate::fit::{Trainable, backward};
use crate::parallel::beside_each_other;

/// Padded tokens that one forward and backward pass takes at most (an example is never split).
const TOKENS_PER_PASS: usize = 4_096;

/// The mean loss of some examples and its gradient.
///
/// Long texts take much memory, so examples of like length are put through the model in passes. These run beside each other and are
/// added up in their order, so that the number of threads does not change the sum.
///
/// - tokens: length of an example.
/// - loss: mean loss of some examples.
pub(crate) fn mean_gradient<T: Trainable>(
    model: &T,
    mut indices: Vec<usize>,
    tokens: impl Fn(usize) -> usize,
    loss: impl Fn(&T, &[usize]) -> Result<Tensor<1>, TrainError> + Sync,
) -> Result<(f64, GradientsParams), TrainError> {
    indices.sort_by_key(|&index| tokens(index));
    let longest = indices.last().map_or(1, |&index| tokens(index));
    let passes: Vec<&[usize]> = indices.chunks((TOKENS_PER_PASS / longest).max(1)).collect();
    let pass = |index: usize| -> Result<_, TrainError> {
        let model = model.leaves();
        let share = passes[index].len() as f64 / indices.len() as f64;
        let loss = loss(&model, passes[index])?;
        Ok(backward(loss.mul_scalar(share), &model.net()))
    };
    let net = model.net();
    let mut accumulator = GradientsAccumulator::new();
    let mut total = 0.0;
    for result in beside_each_other(passes.len(), pass) {
        let (value, grads) = result?;
        accumulator.accumulate(&net, grads);
        total += value;
    }
    Ok((total, accumulator.grads()))
}
