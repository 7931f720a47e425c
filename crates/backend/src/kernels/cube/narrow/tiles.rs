//! What a cube computes of such a product: a tile of 16 rows and 16 columns.
//!
//! Its units share the inputs: each sums up over every 32nd four of them, and in the end they add up what they have, in an order that is always
//! the same.

use cubecl::prelude::*;

/// Rows of a tile.
pub(super) const ROWS: usize = 16;
/// Units beside each other, of as many columns each as a vector has numbers.
const ACROSS: usize = 4;
/// Units that share the inputs of a tile.
const SLICES: usize = 32;
/// Units of a cube.
pub(super) const UNITS: usize = ACROSS * SLICES;
/// Numbers that are read at once.
pub(super) const VECTOR: usize = 4;
/// Columns of a tile.
pub(super) const COLUMNS: usize = ACROSS * VECTOR;
/// Sums of a unit's that are added up at once: as many as a cube has units for, divided by those that lie beside each other.
const AT_ONCE: usize = SLICES;
/// Numbers of a tile that a unit has in the end.
pub(super) const PARTS: usize = ROWS * COLUMNS / UNITS;

/// Sizes of a product, and how far rows lie from each other, in numbers.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Sizes {
    pub(super) rows: u32,
    pub(super) inputs: u32,
    pub(super) outputs: u32,
    /// From one row of x to the next.
    pub(super) x: u32,
    /// From one row of the weight to the next, or from column to column where it lies turned.
    pub(super) weight: u32,
}

/// Room for what the units of a cube add up.
#[cube]
pub(super) fn room_for_sums() -> Shared<[f32]> {
    Shared::<[f32]>::new_slice(comptime!(AT_ONCE * UNITS))
}

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

/// What a unit has in the end of the tile that begins at column `first`: [`PARTS`] numbers, whose places [`place`] tells.
#[cube]
pub(super) fn tile<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    shared: &mut Shared<[f32]>,
    first: usize,
    sizes: &Sizes,
    #[comptime] turned: bool,
) -> Array<f32> {
    let unit = UNIT_POS as usize;
    let (across, slice) = (unit % ACROSS, unit / ACROSS);
    let first_row = CUBE_POS_Y as usize * ROWS;
    let (x_stride, weight_stride) = (sizes.x as usize / VECTOR, sizes.weight as usize / VECTOR);
    let rows = sizes.rows as usize;
    // Of what lies beyond the edges something else is computed, and not written.
    let mut column = first / VECTOR + across;
    if column >= sizes.outputs as usize / VECTOR {
        column = 0;
    }
    let mut sums = Array::<f32>::new(comptime!(ROWS * VECTOR));
    #[unroll]
    for k in 0..comptime!(ROWS * VECTOR) {
        sums[k] = 0.0f32;
    }
    let mut input = slice;
    while input < sizes.inputs as usize / VECTOR {
        let weights = block::<F, N>(weight, input, column, weight_stride, turned);
        #[unroll]
        for r in 0..ROWS {
            let mut row = first_row + r;
            if row >= rows {
                row = rows - 1;
            }
            let numbers = Vector::<f32, N>::cast_from(x[row * x_stride + input]);
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
    let mut whole = Array::<f32>::new(PARTS);
    #[unroll]
    for part in 0..PARTS {
        #[unroll]
        for k in 0..AT_ONCE {
            shared[k * UNITS + unit] = sums[part * AT_ONCE + k];
        }
        sync_cube();
        let mut sum = 0.0f32;
        for k in 0..SLICES {
            // Each begins with another slice, so that they read from different banks.
            let from = (k + slice) % SLICES;
            sum += shared[slice * UNITS + from * ACROSS + across];
        }
        whole[part] = sum;
        sync_cube();
    }
    whole
}

/// Row and column of one of a unit's numbers of a tile; they may lie beyond the edges.
#[cube]
pub(super) fn place(first: usize, part: usize) -> (usize, usize) {
    let unit = UNIT_POS as usize;
    let sum_of = part * AT_ONCE + unit / ACROSS;
    let row = CUBE_POS_Y as usize * ROWS + sum_of / VECTOR;
    (row, first + unit % ACROSS * VECTOR + sum_of % VECTOR)
}

/// Whether a place is one of the result's.
#[cube]
pub(super) fn within(row: usize, column: usize, sizes: &Sizes) -> bool {
    row < sizes.rows as usize && column < sizes.outputs as usize
}
