//! RMSNorm by rows.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Rows, cubes, room, size, total, units};

/// Rows whose share of the weight's gradient is summed up by one cube.
const BLOCK: usize = 64;

#[cube(launch)]
fn norm<F: Float, W: Float>(
    x: &[F],
    weight: &[W],
    y: &mut [F],
    rows: u32,
    width: u32,
    stride: u32,
    epsilon: f32,
    #[comptime] units: usize,
    #[define(F, W)] _stored: [ElemType; 2],
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let width = width as usize;
    let (from, to) = (row * stride as usize, row * width);
    let mut shared = Shared::<[f32]>::new_slice(units);
    let mut squares = 0.0f32;
    let mut k = UNIT_POS as usize;
    while k < width {
        let number = f32::cast_from(x[from + k]);
        squares += number * number;
        k += units;
    }
    let mean = total(squares, &mut shared, units) / f32::cast_from(width as u32);
    let scale = 1.0f32 / (mean + epsilon).sqrt();
    let mut k = UNIT_POS as usize;
    while k < width {
        let number = f32::cast_from(x[from + k]) * scale * f32::cast_from(weight[k]);
        y[to + k] = F::cast_from(number);
        k += units;
    }
}

pub(super) fn forward(x: CubeTensor, weight: CubeTensor, epsilon: f32) -> CubeTensor {
    let (x, weight) = (Rows::of(x), Rows::of(weight));
    let y = room(&x.tensor, [x.count, x.width], x.tensor.dtype);
    let units = units(x.width);
    norm::launch(
        &y.client,
        cubes(x.count),
        CubeDim::new_1d(units as u32),
        x.arg(),
        weight.arg(),
        y.clone().into_buffer_arg(),
        size(x.count),
        size(x.width),
        size(x.stride),
        epsilon,
        units,
        [x.elem(), weight.elem()],
    );
    y
}

/// With s = 1 / √(mean(x²) + ε): s · (grad · weight − x · s² · mean(grad · weight · x)), and s.
#[cube(launch)]
fn norm_gradient(
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    dx: &mut [f32],
    scales: &mut [f32],
    rows: u32,
    width: u32,
    x_stride: u32,
    grad_stride: u32,
    epsilon: f32,
    #[comptime] units: usize,
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let width = width as usize;
    let (from, of_grad, to) = (row * x_stride as usize, row * grad_stride as usize, row * width);
    let mut shared = Shared::<[f32]>::new_slice(units);
    let mut squares = 0.0f32;
    let mut along = 0.0f32;
    let mut k = UNIT_POS as usize;
    while k < width {
        let number = x[from + k];
        squares += number * number;
        along += grad[of_grad + k] * weight[k] * number;
        k += units;
    }
    let count = f32::cast_from(width as u32);
    let mean = total(squares, &mut shared, units) / count;
    let along = total(along, &mut shared, units) / count;
    let scale = 1.0f32 / (mean + epsilon).sqrt();
    let mut k = UNIT_POS as usize;
    while k < width {
        let number = grad[of_grad + k] * weight[k] - x[from + k] * scale * scale * along;
        dx[to + k] = number * scale;
        k += units;
    }
    if UNIT_POS == 0 {
        scales[row] = scale;
    }
}

/// Σ grad · x · s over the rows of a block, for each column.
#[cube(launch)]
fn weight_gradient(
    x: &[f32],
    grad: &[f32],
    scales: &[f32],
    parts: &mut [f32],
    rows: u32,
    width: u32,
    x_stride: u32,
    grad_stride: u32,
    #[comptime] block: usize,
) {
    let (width, rows) = (width as usize, rows as usize);
    let first = (ABSOLUTE_POS / width) * block;
    if first >= rows {
        terminate!();
    }
    let column = ABSOLUTE_POS % width;
    let mut end = first + block;
    if end > rows {
        end = rows;
    }
    let mut sum = 0.0f32;
    let mut row = first;
    while row < end {
        let at = row * x_stride as usize + column;
        sum += grad[row * grad_stride as usize + column] * x[at] * scales[row];
        row += 1;
    }
    parts[ABSOLUTE_POS] = sum;
}

/// Gradients of x, and of the weight in parts `[blocks, width]` that are to be summed up.
pub(super) fn backward(
    x: CubeTensor,
    weight: CubeTensor,
    grad: CubeTensor,
    epsilon: f32,
) -> (CubeTensor, CubeTensor) {
    let [x, weight, grad] = [x, weight, grad].map(Rows::floats);
    let (rows, width) = (size(x.count), size(x.width));
    let (x_stride, grad_stride) = (size(x.stride), size(grad.stride));
    let dx = room(&x.tensor, [x.count, x.width], DType::F32);
    let scales = room(&x.tensor, [x.count], DType::F32);
    let units = units(x.width);
    norm_gradient::launch(
        &dx.client,
        cubes(x.count),
        CubeDim::new_1d(units as u32),
        x.arg(),
        weight.arg(),
        grad.arg(),
        dx.clone().into_buffer_arg(),
        scales.clone().into_buffer_arg(),
        rows,
        width,
        x_stride,
        grad_stride,
        epsilon,
        units,
    );
    let blocks = x.count.div_ceil(BLOCK);
    let parts = room(&x.tensor, [blocks, x.width], DType::F32);
    let (count, dim) = super::elementwise(blocks * x.width);
    weight_gradient::launch(
        &dx.client,
        count,
        dim,
        x.arg(),
        grad.arg(),
        scales.into_buffer_arg(),
        parts.clone().into_buffer_arg(),
        rows,
        width,
        x_stride,
        grad_stride,
        BLOCK,
    );
    (dx, parts)
}
