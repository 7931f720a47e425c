//! Products of few rows with a large matrix, as a step of generation has them.
//!
//! Such a product is as fast as the matrix is read, which takes all of the device; burn's products cut the result up into tiles as large as for many rows, of
//! which there are too few for that. Here a cube has a tile of 16 rows and 16 columns, and its units share the inputs: each sums up over every
//! 32nd four of them, and in the end they add up what they have, in an order that is always the same.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Rows, room, size};

/// Rows of a tile.
const ROWS: usize = 16;
/// Units beside each other, of as many columns each as a vector has numbers.
const ACROSS: usize = 4;
/// Units that share the inputs of a tile.
const SLICES: usize = 32;
/// Numbers that are read at once.
const VECTOR: usize = 4;
/// Columns of a tile.
const COLUMNS: usize = ACROSS * VECTOR;
/// Sums of a unit's that are added up at once: as many as a cube has units for, divided by those that lie beside each other.
const AT_ONCE: usize = SLICES;
/// Tiles beyond which products on tensor cores are faster, unless all are of the same rows.
const MOST_TILES: usize = 1_000;

/// Four numbers of the matrix for each of four inputs and four columns, as numbers to compute with.
#[cube]
fn block<F: Float, N: Size>(
    weight: &[Vector<F, N>],
    input: usize,
    column: usize,
    stride: usize,
    #[comptime] turned: bool,
) -> Array<Vector<f32, N>> {
    let mut block = Array::<Vector<f32, N>>::new(VECTOR);
    #[unroll]
    for k in 0..VECTOR {
        let at = if comptime!(turned) {
            (column * VECTOR + k) * stride + input
        } else {
            (input * VECTOR + k) * stride + column
        };
        block[k] = Vector::cast_from(weight[at]);
    }
    block
}

/// Each cube takes a tile of the result. Places of x and the weight are those of vectors.
#[cube(launch)]
fn narrow<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    y: &mut [F],
    rows: u32,
    inputs: u32,
    outputs: u32,
    x_stride: u32,
    weight_stride: u32,
    #[comptime] turned: bool,
    #[define(F)] _stored: ElemType,
) {
    let (rows, outputs) = (rows as usize, outputs as usize);
    let unit = UNIT_POS as usize;
    let (across, slice) = (unit % ACROSS, unit / ACROSS);
    let first_row = CUBE_POS_Y as usize * ROWS;
    let first_column = CUBE_POS_X as usize * COLUMNS;
    // Of what lies beyond the edges something else is computed, and not written.
    let mut column = first_column / VECTOR + across;
    if column >= outputs / VECTOR {
        column = 0;
    }
    let mut sums = Array::<f32>::new(comptime!(ROWS * VECTOR));
    #[unroll]
    for k in 0..comptime!(ROWS * VECTOR) {
        sums[k] = 0.0f32;
    }
    let mut input = slice;
    while input < inputs as usize / VECTOR {
        let weights = block::<F, N>(weight, input, column, weight_stride as usize, turned);
        #[unroll]
        for r in 0..ROWS {
            let mut row = first_row + r;
            if row >= rows {
                row = rows - 1;
            }
            let numbers = Vector::<f32, N>::cast_from(x[row * x_stride as usize + input]);
            #[unroll]
            for c in 0..VECTOR {
                #[unroll]
                for k in 0..VECTOR {
                    let w = if comptime!(turned) {
                        weights[c].extract(k)
                    } else {
                        weights[k].extract(c)
                    };
                    sums[r * VECTOR + c] += numbers.extract(k) * w;
                }
            }
        }
        input += SLICES;
    }
    let mut shared = Shared::<[f32]>::new_slice(comptime!(AT_ONCE * SLICES * ACROSS));
    #[unroll]
    for part in 0..comptime!(ROWS * VECTOR / AT_ONCE) {
        #[unroll]
        for k in 0..AT_ONCE {
            shared[k * comptime!(SLICES * ACROSS) + unit] = sums[part * AT_ONCE + k];
        }
        sync_cube();
        let mut sum = 0.0f32;
        for k in 0..SLICES {
            // Each begins with another slice, so that they read from different banks.
            let from = (k + slice) % SLICES;
            sum += shared[slice * comptime!(SLICES * ACROSS) + from * ACROSS + across];
        }
        let sum_of = part * AT_ONCE + slice;
        let row = first_row + sum_of / VECTOR;
        let column = first_column + across * VECTOR + sum_of % VECTOR;
        if row < rows && column < outputs {
            y[row * outputs + column] = F::cast_from(sum);
        }
        sync_cube();
    }
}

/// x · weight, where this is the kernel for it: few tiles, and sizes and strides that vectors fit in.
pub(super) fn product(x: &CubeTensor, weight: &CubeTensor) -> Option<CubeTensor> {
    let (shape, strides) = (weight.meta.shape(), weight.meta.strides());
    // Rows that do not lie as such would have to be copied first.
    if shape.num_dims() != 2 || x.meta.strides()[1] != 1 {
        return None;
    }
    let ([inputs, outputs], rows) = (shape.dims(), x.meta.shape()[0]);
    let tiles = [outputs.div_ceil(COLUMNS), rows.div_ceil(ROWS)];
    if tiles[1] > 1 && tiles[0] * tiles[1] > MOST_TILES {
        return None;
    }
    let turned = strides[0] == 1 && outputs > 1;
    let mut weight = weight.clone();
    if turned {
        weight.meta.swap(0, 1);
    }
    let (x, weight) = (Rows::of(x.clone()), Rows::of(weight));
    let vectors = VECTOR * x.tensor.dtype.size();
    let whole = inputs.is_multiple_of(VECTOR) && outputs.is_multiple_of(VECTOR);
    if !(whole && x.aligned(vectors) && weight.aligned(vectors)) {
        return None;
    }
    let y = room(&x.tensor, [x.count, outputs], x.tensor.dtype);
    let tiles = tiles.map(size);
    narrow::launch(
        &y.client,
        CubeCount::Static(tiles[0], tiles[1], 1),
        CubeDim::new_1d((ACROSS * SLICES) as u32),
        VECTOR,
        x.arg(),
        weight.arg(),
        y.clone().into_buffer_arg(),
        size(x.count),
        size(inputs),
        size(outputs),
        size(x.stride / VECTOR),
        size(weight.stride / VECTOR),
        turned,
        x.elem(),
    );
    Some(y)
}
