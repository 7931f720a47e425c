//! The gradient of many examples, in passes that fit into memory.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use infalign_backend::is_cpu;

use crate::TrainError;
use crate::fit::{Trainable, backward};
use crate::parallel::beside_each_other;

/// Padded tokens that one forward and backward pass takes at most (an example is never split).
pub(crate) const TOKENS_PER_PASS: usize = 4_096;

/// How many examples of at most `tokens` tokens one pass takes: at least 1.
pub(crate) fn per_pass(tokens: usize) -> usize {
    (TOKENS_PER_PASS / tokens.max(1)).max(1)
}

/// The sum of the gradients of passes 0, …, n − 1, and what else they found. It is taken in the order of the passes, so
/// that the number of threads does not change it.
pub(crate) fn in_order<M: Module, T: Send>(
    net: &M,
    n: usize,
    run: impl Fn(usize) -> Result<(T, GradientsParams), TrainError> + Sync,
) -> Result<(Vec<T>, GradientsParams), TrainError> {
    let mut accumulator = GradientsAccumulator::new();
    let mut found = Vec::with_capacity(n);
    let on_cpu = net.devices().iter().all(is_cpu);
    for result in beside_each_other(on_cpu, n, run) {
        let (part, grads) = result?;
        accumulator.accumulate(net, grads);
        found.push(part);
    }
    Ok((found, accumulator.grads()))
}

/// The mean loss of some examples and its gradient. Long texts take much memory, so a pass takes examples of like length.
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
    let passes: Vec<&[usize]> = indices.chunks(per_pass(longest)).collect();
    let pass = |index: usize| -> Result<_, TrainError> {
        let model = model.leaves();
        let share = passes[index].len() as f64 / indices.len() as f64;
        let loss = loss(&model, passes[index])?;
        Ok(backward(loss.mul_scalar(share), &model.net()))
    };
    let (losses, grads) = in_order(&model.net(), passes.len(), pass)?;
    Ok((losses.iter().sum(), grads))
}

/// Numbers as a column, `[n, 1]`.
pub(crate) fn column(values: Vec<f32>, device: &Device) -> Tensor<2> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n, 1]), device)
}
