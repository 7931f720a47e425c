//! Kernels take contiguous slices: this is where tensors become those, and the results tensors again.

use burn::backend::Flex;

use super::{FlexTensor, attention, floats, gate, log_probs, norm, rotation, tensor};
use crate::kernels::{AlignmentKernels, AttentionShape};

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

    fn attend(q: FlexTensor, k: FlexTensor, v: FlexTensor, shape: AttentionShape) -> FlexTensor {
        let [q, k, v] = [q, k, v].map(|tensor| tensor.to_contiguous());
        tensor(attention::forward(floats(&q), floats(&k), floats(&v), &shape), dims::<2>(&q))
    }

    fn attend_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        grad: FlexTensor,
        shape: AttentionShape,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [q, k, v, grad] = [q, k, v, grad].map(|tensor| tensor.to_contiguous());
        let given = [&q, &k, &v, &grad].map(floats);
        let [dq, dk, dv] = attention::backward(given, &shape);
        (tensor(dq, dims::<2>(&q)), tensor(dk, dims::<2>(&k)), tensor(dv, dims::<2>(&v)))
    }

    fn log_probs(hidden: FlexTensor, weight: FlexTensor, targets: Vec<u32>) -> FlexTensor {
        let rows = targets.len();
        tensor(log_probs::forward(&hidden, &weight, &targets), [rows, 1])
    }

    fn compare(
        ours: FlexTensor,
        our_weight: FlexTensor,
        theirs: FlexTensor,
        their_weight: FlexTensor,
        targets: Vec<u32>,
    ) -> FlexTensor {
        let rows = targets.len();
        let found = log_probs::compare([&ours, &our_weight], [&theirs, &their_weight], &targets);
        tensor(found, [rows, 3])
    }

    fn log_probs_backward(
        hidden: FlexTensor,
        weight: FlexTensor,
        targets: Vec<u32>,
        grad: FlexTensor,
    ) -> (FlexTensor, FlexTensor) {
        let grad = grad.to_contiguous();
        log_probs::backward(&hidden, &weight, &targets, floats(&grad))
    }
}
