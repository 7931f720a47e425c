//! The kernels on the CPU: loops over rows, in vector instructions of whatever machine runs them, on all cores.

mod adamw;
mod attention;
mod backend;
mod gate;
mod log_probs;
mod matrix;
mod norm;
mod rotation;

use burn::backend::{Flex, tensor::FloatTensor};
use burn::tensor::TensorData;

/// A tensor of this backend.
type FlexTensor = FloatTensor<Flex>;

/// Rows that a thread takes at a time. Sums over rows are made of sums over as many, whatever the number of threads.
const ROWS: usize = 64;

/// The numbers of a contiguous tensor.
fn floats(tensor: &FlexTensor) -> &[f32] {
    match tensor.as_slice() {
        Some(numbers) => numbers,
        None => {
            unreachable!("the tensors of this workspace are f32, and this one was made contiguous")
        }
    }
}

fn tensor<const D: usize>(numbers: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(numbers, shape))
}

/// A tensor whose storage holds its numbers in order and nothing else: the tensor itself where that is so.
fn compact(tensor: FlexTensor) -> FlexTensor {
    let whole = tensor.as_slice::<f32>().is_some_and(|x| x.len() == tensor.storage::<f32>().len());
    if whole { tensor } else { tensor.to_contiguous() }
}
