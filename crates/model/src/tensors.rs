//! Numbers into tensors, and out of them.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// Numbers of rows or columns as a tensor.
pub(crate) fn indices(numbers: &[usize], device: &Device) -> Tensor<1, Int> {
    let numbers: Vec<i32> = numbers.iter().map(|&number| number as i32).collect();
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), device)
}

/// The numbers of a tensor, one by one only where they are not f32 already.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let numbers = tensor.cast(DType::F32).into_data().try_into_vec();
    numbers.unwrap_or_else(|error| unreachable!("f32 were asked for: {error}"))
}
