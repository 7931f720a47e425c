//! Kernels take contiguous slices: this is where tensors become those, and the results tensors again.

use burn::backend::Flex;
use burn::tensor::TensorData;

use super::matrix::{Matrix, product};
use super::{
    FlexTensor, adamw, attention, compact, floats, gate, log_probs, norm, rotation, tensor,
};
use crate::kernels::{AdamWStep, AlignmentKernels, AttentionShape};

fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

impl AlignmentKernels for Flex {
    fn rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f32) -> FlexTensor {
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        tensor(norm::forward(floats(&x), floats(&weight), epsilon), dims::<2>(&x))
    }

    fn rms_norm_backward(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        epsilon: f32,
    ) -> (FlexTensor, FlexTensor) {
        let [x, weight, grad] = [x, weight, grad].map(|tensor| tensor.to_contiguous());
        let (dx, dw) = norm::backward(floats(&x), floats(&weight), floats(&grad), epsilon);
        (tensor(dx, dims::<2>(&x)), tensor(dw, dims::<1>(&weight)))
    }

    fn gated_silu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let (gate, up) = (gate.to_contiguous(), up.to_contiguous());
        tensor(gate::forward(floats(&gate), floats(&up)), dims::<2>(&gate))
    }

    fn gated_silu_backward(
        gate: FlexTensor,
        up: FlexTensor,
        grad: FlexTensor,
    ) -> (FlexTensor, FlexTensor) {
        let [gate, up, grad] = [gate, up, grad].map(|tensor| tensor.to_contiguous());
        let (dgate, dup) = gate::backward(floats(&gate), floats(&up), floats(&grad));
        (tensor(dgate, dims::<2>(&gate)), tensor(dup, dims::<2>(&up)))
    }

    fn rotate(
        x: FlexTensor,
        cos: FlexTensor,
        sin: FlexTensor,
        width: usize,
        turn: f32,
    ) -> FlexTensor {
        let [x, cos, sin] = [x, cos, sin].map(|tensor| tensor.to_contiguous());
        let ([_, columns], [_, _, half]) = (dims(&x), dims(&cos));
        let sizes = rotation::Sizes { columns, width, half, turn };
        tensor(rotation::rotate(floats(&x), floats(&cos), floats(&sin), sizes), dims::<2>(&x))
    }

    fn attend(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        (shape, _): (AttentionShape, u64),
    ) -> FlexTensor {
        let [q, k, v] = [q, k, v].map(|tensor| tensor.to_contiguous());
        tensor(attention::forward(floats(&q), floats(&k), floats(&v), &shape), dims::<2>(&q))
    }

    fn attend_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        grad: FlexTensor,
        (shape, _): (AttentionShape, u64),
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [q, k, v, grad] = [q, k, v, grad].map(|tensor| tensor.to_contiguous());
        let given = [&q, &k, &v, &grad].map(floats);
        let [dq, dk, dv] = attention::backward(given, &shape);
        (tensor(dq, dims::<2>(&q)), tensor(dk, dims::<2>(&k)), tensor(dv, dims::<2>(&v)))
    }

    fn project(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        let ([rows, _], [_, columns]) = (dims(&x), dims(&weight));
        tensor(product(Matrix::of(&x), Matrix::of(&weight)), [rows, columns])
    }

    fn log_probs(hidden: FlexTensor, weight: FlexTensor, targets: Vec<u32>) -> FlexTensor {
        let found = log_probs::forward(Matrix::of(&hidden), Matrix::of(&weight), &targets);
        tensor(found, [targets.len(), 1])
    }

    fn log_probs_backward(
        hidden: FlexTensor,
        weight: FlexTensor,
        targets: Vec<u32>,
        grad: FlexTensor,
        wanted: [bool; 2],
    ) -> (FlexTensor, FlexTensor) {
        let (grad, dims) = (grad.to_contiguous(), [dims::<2>(&hidden), dims(&weight)]);
        let (hidden, weight) = (Matrix::of(&hidden), Matrix::of(&weight));
        let found = log_probs::backward(hidden, weight, &targets, floats(&grad), wanted);
        let [hidden, weight] = found;
        let gradient = |found: Option<Vec<f32>>, dims| match found {
            Some(numbers) => tensor(numbers, dims),
            None => tensor(Vec::new(), [0, 0]),
        };
        (gradient(hidden, dims[0]), gradient(weight, dims[1]))
    }

    fn compare(
        ours: FlexTensor,
        our_weight: FlexTensor,
        theirs: FlexTensor,
        their_weight: FlexTensor,
        targets: Vec<u32>,
    ) -> FlexTensor {
        let ours = [&ours, &our_weight].map(Matrix::of);
        let theirs = [&theirs, &their_weight].map(Matrix::of);
        tensor(log_probs::compare(ours, theirs, &targets), [targets.len(), 4])
    }

    fn adamw(
        weight: FlexTensor,
        grad: FlexTensor,
        mean: FlexTensor,
        mean_square: FlexTensor,
        step: AdamWStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (weight, grad) = (weight.to_contiguous(), grad.to_contiguous());
        let (mut mean, mut mean_square) = (compact(mean), compact(mean_square));
        let means = (mean.storage_mut(), mean_square.storage_mut());
        let stepped = adamw::step(floats(&weight), floats(&grad), means.0, means.1, step);
        let shape = weight.layout().shape().clone();
        (FlexTensor::from_data(TensorData::new(stepped, shape)), mean, mean_square)
    }

    fn square_sum(x: FlexTensor) -> FlexTensor {
        tensor(vec![adamw::square_sum(floats(&x.to_contiguous()))], [1])
    }
}
