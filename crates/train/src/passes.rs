//! The gradient of many examples, in passes that fit into memory.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use infalign_backend::is_cpu;
use infalign_model::{TOKENS_PER_PASS, runs};

use crate::TrainError;
use crate::fit::{Trainable, backward};
use crate::parallel::beside_each_other;

/// How many examples of at most `tokens` tokens one pass takes: at least 1.
pub(crate) fn per_pass(tokens: usize) -> usize {
    (TOKENS_PER_PASS / tokens.max(1)).max(1)
}

/// The sum of the gradients of passes 0, …, n − 1, and what else they found. It is taken in the order of the passes, so
/// that the number of threads does not change it, and as they end, so that few gradients stand beside it.
pub(crate) fn sum_gradients<M: Module, T: Send>(
    net: &M,
    n: usize,
    run: impl Fn(usize) -> Result<(T, GradientsParams), TrainError> + Sync,
) -> Result<(Vec<T>, GradientsParams), TrainError> {
    let mut accumulator = GradientsAccumulator::new();
    let mut found = Vec::with_capacity(n);
    let on_cpu = net.devices().iter().all(is_cpu);
    beside_each_other(on_cpu, n, run, |(part, grads)| {
        accumulator.accumulate(net, grads);
        found.push(part);
    })?;
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
    let (losses, grads) = sum_gradients(&model.net(), passes.len(), pass)?;
    Ok((losses.iter().sum(), grads))
}

/// The mean loss of examples 0, …, n − 1, each pass taking some of like length.
///
/// - tokens: length of an example.
/// - loss: mean loss of some examples.
pub(crate) fn mean_loss(
    device: &Device,
    n: usize,
    tokens: impl Fn(usize) -> usize,
    loss: impl Fn(&[usize]) -> Result<Tensor<1>, TrainError> + Sync,
) -> Result<f64, TrainError> {
    let mut indices: Vec<usize> = (0..n).collect();
    indices.sort_by_key(|&index| tokens(index));
    let passes = runs(&indices, |&index| tokens(index), TOKENS_PER_PASS);
    let sum = |index: usize| -> Result<f64, TrainError> {
        let mean = loss(passes[index])?.into_scalar::<f64>();
        Ok(mean * passes[index].len() as f64)
    };
    let mut sums = Vec::with_capacity(passes.len());
    beside_each_other(is_cpu(device), passes.len(), sum, |sum| sums.push(sum))?;
    Ok(sums.into_iter().sum::<f64>() / n as f64)
}

/// The sum of numbers of a response's tokens.
pub(crate) fn sum(tokens: &[f32]) -> f64 {
    tokens.iter().map(|&token| f64::from(token)).sum()
}

/// Numbers as a column, `[n, 1]`.
pub(crate) fn column(values: Vec<f32>, device: &Device) -> Tensor<2> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n, 1]), device)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::module::Param;

    use super::*;

    /// A model of one weight.
    #[derive(Clone)]
    struct Weight(Param<Tensor<1>>);

    impl Trainable for Weight {
        type Net = Param<Tensor<1>>;

        fn net(&self) -> Self::Net {
            self.0.clone()
        }

        fn stepped(self, net: Self::Net) -> Self {
            Self(net)
        }

        fn leaves(&self) -> Self {
            Self(self.0.valid().train())
        }

        fn save(&self, _dir: &Path) -> Result<(), TrainError> {
            Ok(())
        }

        fn load(&self, _dir: &Path) -> Result<Self, TrainError> {
            Ok(self.clone())
        }
    }

    #[test]
    fn passes_of_unequal_size_give_the_mean_of_all_examples() {
        let device = infalign_backend::device(None).unwrap();
        let weight = Weight(Param::from_tensor(Tensor::ones([1], &device))).leaves();
        // Example k loses k + 1 times the weight, which is 1.
        let loss = |model: &Weight, examples: &[usize]| {
            let total = examples.iter().map(|k| k + 1).sum::<usize>() as f64;
            Ok(model.0.val().mul_scalar(total / examples.len() as f64))
        };
        // All five in one pass; two, two and one.
        for tokens in [1, 1500] {
            let mean = mean_loss(&device, 5, |_| tokens, |pass| loss(&weight, pass)).unwrap();
            assert!((mean - 3.0).abs() < 1e-6, "{mean}");
            let found = mean_gradient(&weight, (0..5).collect(), |_| tokens, loss);
            let (loss, grads) = found.unwrap();
            let slope = grads.get::<1>(weight.0.id).unwrap().into_scalar::<f64>();
            assert!((loss - 3.0).abs() < 1e-6 && (slope - 3.0).abs() < 1e-6, "{loss}, {slope}");
        }
    }
}
