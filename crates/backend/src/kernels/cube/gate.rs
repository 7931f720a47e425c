//! SwiGLU's gate, number by number.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Rows, elementwise, room, size};

/// x · sigmoid(x).
#[cube]
pub(super) fn gate_of(x: f32) -> f32 {
    x / (1.0f32 + (-x).exp())
}

#[cube(launch)]
fn gated<F: Float>(
    gate: &[F],
    up: &[F],
    y: &mut [F],
    count: u32,
    width: u32,
    gate_stride: u32,
    up_stride: u32,
    #[define(F)] _stored: ElemType,
) {
    if ABSOLUTE_POS >= count as usize {
        terminate!();
    }
    let (row, column) = (ABSOLUTE_POS / width as usize, ABSOLUTE_POS % width as usize);
    let gate = f32::cast_from(gate[row * gate_stride as usize + column]);
    let up = f32::cast_from(up[row * up_stride as usize + column]);
    y[ABSOLUTE_POS] = F::cast_from(gate_of(gate) * up);
}

pub(super) fn forward(gate: CubeTensor, up: CubeTensor) -> CubeTensor {
    assert_eq!(gate.dtype, up.dtype, "the gate and what is gated are of one type");
    let (gate, up) = (Rows::of(gate), Rows::of(up));
    let y = room(&gate.tensor, [gate.count, gate.width], gate.tensor.dtype);
    let (count, dim) = elementwise(gate.count * gate.width);
    gated::launch(
        &y.client,
        count,
        dim,
        gate.arg(),
        up.arg(),
        y.clone().into_buffer_arg(),
        size(gate.count * gate.width),
        size(gate.width),
        size(gate.stride),
        size(up.stride),
        gate.elem(),
    );
    y
}

#[cube(launch)]
fn gated_gradient(
    gate: &[f32],
    up: &[f32],
    grad: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
    count: u32,
    width: u32,
    gate_stride: u32,
    up_stride: u32,
    grad_stride: u32,
) {
    if ABSOLUTE_POS >= count as usize {
        terminate!();
    }
    let (row, column) = (ABSOLUTE_POS / width as usize, ABSOLUTE_POS % width as usize);
    let gate = gate[row * gate_stride as usize + column];
    let up = up[row * up_stride as usize + column];
    let grad = grad[row * grad_stride as usize + column];
    let open = 1.0f32 / (1.0f32 + (-gate).exp());
    dgate[ABSOLUTE_POS] = grad * up * open * (1.0f32 + gate * (1.0f32 - open));
    dup[ABSOLUTE_POS] = grad * gate * open;
}

/// Gradients of the gate and of what is gated.
pub(super) fn backward(
    gate: CubeTensor,
    up: CubeTensor,
    grad: CubeTensor,
) -> (CubeTensor, CubeTensor) {
    let [gate, up, grad] = [gate, up, grad].map(Rows::floats);
    let outcome = || room(&gate.tensor, [gate.count, gate.width], gate.tensor.dtype);
    let (dgate, dup) = (outcome(), outcome());
    let (count, dim) = elementwise(gate.count * gate.width);
    gated_gradient::launch(
        &dgate.client,
        count,
        dim,
        gate.arg(),
        up.arg(),
        grad.arg(),
        dgate.clone().into_buffer_arg(),
        dup.clone().into_buffer_arg(),
        size(gate.count * gate.width),
        size(gate.width),
        size(gate.stride),
        size(up.stride),
        size(grad.stride),
    );
    (dgate, dup)
}
