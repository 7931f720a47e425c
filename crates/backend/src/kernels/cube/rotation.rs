//! Rotary position embeddings by halves.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Rows, elementwise, room, size};

/// The number at a place of a head, with the pairs (i, i + half) of the head's first 2·half numbers turned.
#[cube]
pub(super) fn rotated<F: Float>(
    x: &[F],
    from: usize,
    place: usize,
    cos: &[f32],
    sin: &[f32],
    angle: usize,
    half: usize,
    turn: f32,
) -> f32 {
    let mut number = f32::cast_from(x[from]);
    if place < half {
        let other = f32::cast_from(x[from + half]);
        number = number * cos[angle + place] - turn * sin[angle + place] * other;
    } else if place < 2 * half {
        let other = f32::cast_from(x[from - half]);
        let pair = angle + place - half;
        number = number * cos[pair] + turn * sin[pair] * other;
    }
    number
}

#[cube(launch)]
fn turned<F: Float>(
    x: &[F],
    cos: &[f32],
    sin: &[f32],
    y: &mut [F],
    count: u32,
    columns: u32,
    stride: u32,
    width: u32,
    half: u32,
    angles: u32,
    turn: f32,
    #[define(F)] _stored: ElemType,
) {
    if ABSOLUTE_POS >= count as usize {
        terminate!();
    }
    let (columns, half) = (columns as usize, half as usize);
    let (row, column) = (ABSOLUTE_POS / columns, ABSOLUTE_POS % columns);
    let (from, place) = (row * stride as usize + column, column % width as usize);
    // Angles of one text serve all.
    let angle = (row % angles as usize) * half;
    let number = rotated::<F>(x, from, place, cos, sin, angle, half, turn);
    y[ABSOLUTE_POS] = F::cast_from(number);
}

pub(super) fn rotate(
    x: CubeTensor,
    cos: CubeTensor,
    sin: CubeTensor,
    width: usize,
    turn: f32,
) -> CubeTensor {
    let x = Rows::of(x);
    let half = cos.meta.shape()[2];
    let [cos, sin] = [cos, sin].map(burn_cubecl::kernel::into_contiguous);
    let angles = cos.meta.shape()[0] * cos.meta.shape()[1];
    let y = room(&x.tensor, [x.count, x.width], x.tensor.dtype);
    let (count, dim) = elementwise(x.count * x.width);
    turned::launch(
        &y.client,
        count,
        dim,
        x.arg(),
        cos.into_buffer_arg(),
        sin.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        size(x.count * x.width),
        size(x.width),
        size(x.stride),
        size(width),
        size(half),
        size(angles),
        turn,
        x.elem(),
    );
    y
}
