//! A step of AdamW, and the sum of a gradient's squares.

use burn::tensor::DType;
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{UNITS, cubes, elementwise, room, size, total};
use crate::kernels::AdamWStep;

/// Numbers whose squares one cube sums up.
const BLOCK: usize = 16 * UNITS;

#[cube(launch)]
fn stepped(
    weight: &mut [f32],
    grad: &[f32],
    mean: &mut [f32],
    mean_square: &mut [f32],
    count: u32,
    beta_1: f32,
    beta_2: f32,
    correction_1: f32,
    correction_2: f32,
    rate: f32,
    kept: f32,
    epsilon: f32,
) {
    let k = ABSOLUTE_POS;
    if k >= count as usize {
        terminate!();
    }
    let slope = grad[k];
    let first = mean[k] * beta_1 + slope * (1.0f32 - beta_1);
    let second = mean_square[k] * beta_2 + slope * slope * (1.0f32 - beta_2);
    let root = (second / correction_2).sqrt() + epsilon;
    weight[k] = weight[k] * kept - rate * (first / correction_1) / root;
    mean[k] = first;
    mean_square[k] = second;
}

/// The weight and both means after the step.
pub(super) fn step(
    [weight, grad, mean, mean_square]: [CubeTensor; 4],
    step: AdamWStep,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let AdamWStep { beta_1, beta_2, epsilon, weight_decay, learning_rate, time } = step;
    let [weight, mean, mean_square] = [weight, mean, mean_square].map(owned);
    let count = weight.meta.shape().num_elements();
    let (cubes, dim) = elementwise(count);
    stepped::launch(
        &weight.client,
        cubes,
        dim,
        weight.clone().into_buffer_arg(),
        into_contiguous(grad).into_buffer_arg(),
        mean.clone().into_buffer_arg(),
        mean_square.clone().into_buffer_arg(),
        size(count),
        beta_1,
        beta_2,
        1.0 - beta_1.powi(time),
        1.0 - beta_2.powi(time),
        learning_rate,
        1.0 - learning_rate * weight_decay,
        epsilon,
    );
    (weight, mean, mean_square)
}

/// The tensor without gaps between its rows, to be written on: a copy where somebody else holds it too.
pub(super) fn owned(tensor: CubeTensor) -> CubeTensor {
    let tensor = if tensor.can_mut() { tensor } else { tensor.copy() };
    into_contiguous(tensor)
}

#[cube(launch)]
fn squares(
    x: &[f32],
    parts: &mut [f32],
    count: u32,
    #[comptime] units: usize,
    #[comptime] block: usize,
) {
    let mut end = (CUBE_POS + 1) * block;
    if end > count as usize {
        end = count as usize;
    }
    let mut shared = Shared::<[f32]>::new_slice(units);
    let mut sum = 0.0f32;
    let mut k = CUBE_POS * block + UNIT_POS as usize;
    while k < end {
        sum += x[k] * x[k];
        k += units;
    }
    let sum = total(sum, &mut shared, units);
    if UNIT_POS == 0 && CUBE_POS < parts.len() {
        parts[CUBE_POS] = sum;
    }
}

/// Σ x² in parts that are to be summed up.
pub(super) fn square_sums(x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    let count = x.meta.shape().num_elements();
    let blocks = count.div_ceil(BLOCK);
    let parts = room(&x, [blocks], DType::F32);
    // Where the last block would end, too.
    size(blocks * BLOCK);
    squares::launch(
        &parts.client,
        cubes(blocks),
        CubeDim::new_1d(UNITS as u32),
        x.clone().into_buffer_arg(),
        parts.clone().into_buffer_arg(),
        size(count),
        UNITS,
        BLOCK,
    );
    parts
}
