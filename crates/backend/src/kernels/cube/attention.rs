//! Causal softmax of scores and its gradient, in place. The products are the library's.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{LEAST, Rows, cubes, greatest, size, total, units};

/// softmax(scale · scores) over the keys that a row's token sees: row r is of token r mod time, and sees itself and those before it, as far
/// back as the window goes.
#[cube(launch)]
fn causal<F: Float>(
    scores: &mut [F],
    rows: u32,
    keys: u32,
    stride: u32,
    time: u32,
    window: u32,
    scale: f32,
    #[comptime] units: usize,
    #[define(F)] _stored: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let from = row * stride as usize;
    let end = row % time as usize + 1;
    let mut first = 0usize;
    if end > window as usize {
        first = end - window as usize;
    }
    let mut shared = Shared::<[f32]>::new_slice(units);
    let mut most = f32::new(LEAST);
    let mut k = first + UNIT_POS as usize;
    while k < end {
        let score = f32::cast_from(scores[from + k]) * scale;
        if score > most {
            most = score;
        }
        k += units;
    }
    let most = greatest(most, &mut shared, units);
    let mut sum = 0.0f32;
    let mut k = first + UNIT_POS as usize;
    while k < end {
        sum += (f32::cast_from(scores[from + k]) * scale - most).exp();
        k += units;
    }
    let whole = 1.0f32 / total(sum, &mut shared, units);
    let mut k = UNIT_POS as usize;
    while k < keys as usize {
        let mut share = 0.0f32;
        if k >= first && k < end {
            share = (f32::cast_from(scores[from + k]) * scale - most).exp() * whole;
        }
        scores[from + k] = F::cast_from(share);
        k += units;
    }
}

/// Turns scores `[…, tokens, keys]` into shares.
pub(super) fn softmax(
    scores: CubeTensor,
    time: usize,
    window: Option<usize>,
    scale: f32,
) -> CubeTensor {
    let scores = Rows::of(scores);
    let units = units(scores.width);
    causal::launch(
        &scores.tensor.client,
        cubes(scores.count),
        CubeDim::new_1d(units as u32),
        scores.arg(),
        size(scores.count),
        size(scores.width),
        size(scores.stride),
        size(time),
        size(window.unwrap_or(time).min(time)),
        scale,
        units,
        scores.elem(),
    );
    scores.tensor
}

/// scale · shares · (grad − Σ shares · grad), in place of the gradient.
#[cube(launch)]
fn causal_gradient(
    shares: &[f32],
    grad: &mut [f32],
    rows: u32,
    keys: u32,
    share_stride: u32,
    grad_stride: u32,
    scale: f32,
    #[comptime] units: usize,
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let (from, to) = (row * share_stride as usize, row * grad_stride as usize);
    let mut shared = Shared::<[f32]>::new_slice(units);
    let mut sum = 0.0f32;
    let mut k = UNIT_POS as usize;
    while k < keys as usize {
        sum += shares[from + k] * grad[to + k];
        k += units;
    }
    let sum = total(sum, &mut shared, units);
    let mut k = UNIT_POS as usize;
    while k < keys as usize {
        grad[to + k] = scale * shares[from + k] * (grad[to + k] - sum);
        k += units;
    }
}

/// The gradient of scores, given the shares and their gradient.
pub(super) fn softmax_backward(shares: &CubeTensor, grad: CubeTensor, scale: f32) -> CubeTensor {
    let (shares, grad) = (Rows::floats(shares.clone()), Rows::floats(grad));
    let units = units(grad.width);
    causal_gradient::launch(
        &grad.tensor.client,
        cubes(grad.count),
        CubeDim::new_1d(units as u32),
        shares.arg(),
        grad.arg(),
        size(grad.count),
        size(grad.width),
        size(shares.stride),
        size(grad.stride),
        scale,
        units,
    );
    grad.tensor
}
