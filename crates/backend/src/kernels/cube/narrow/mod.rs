//! Products of few rows with large matrices, as a step of generation has them.
//!
//! Such a product is as fast as the matrix is read, which takes all of the device; burn's products cut the result up into tiles as large as for many rows, of
//! which there are too few for that. Here tiles are small. And a step of generation has hundreds of them, each of which takes the processor some time to
//! launch: so products of the same rows are launched as one, and what follows a product is done where its numbers are.

mod tiles;

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Rows, gate::gate_of, room, size};
use tiles::{
    COLUMNS, PARTS, ROWS, Sizes, SizesLaunch, UNITS, VECTOR, place, room_for_sums, tile, within,
};

/// Tiles beyond which products on tensor cores are faster, unless all are of the same rows.
const MOST_TILES: usize = 1_000;

/// A tile of x · weight, which begins at column `first`.
#[cube]
fn write_tile<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    y: &mut [F],
    shared: &mut Shared<[f32]>,
    first: usize,
    sizes: &Sizes,
    #[comptime] turned: bool,
) {
    let sums = tile::<F, N>(x, weight, shared, first, sizes, turned);
    #[unroll]
    for part in 0..PARTS {
        let (row, column) = place(first, part);
        if within(row, column, sizes) {
            y[row * sizes.outputs as usize + column] = F::cast_from(sums[part]);
        }
    }
}

/// x · weight: a cube takes a tile.
#[cube(launch)]
fn narrow<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    y: &mut [F],
    sizes: Sizes,
    #[comptime] turned: bool,
    #[define(F)] _stored: ElemType,
) {
    let first = CUBE_POS_X as usize * COLUMNS;
    let mut shared = room_for_sums();
    write_tile::<F, N>(x, weight, y, &mut shared, first, &sizes, turned);
}

/// onto + x · weight: a cube takes a tile.
#[cube(launch)]
fn narrow_onto<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    onto: &[F],
    y: &mut [F],
    sizes: Sizes,
    onto_stride: u32,
    #[comptime] turned: bool,
    #[define(F)] _stored: ElemType,
) {
    let first = CUBE_POS_X as usize * COLUMNS;
    let mut shared = room_for_sums();
    let sums = tile::<F, N>(x, weight, &mut shared, first, &sizes, turned);
    #[unroll]
    for part in 0..PARTS {
        let (row, column) = place(first, part);
        if within(row, column, &sizes) {
            let before = f32::cast_from(onto[row * onto_stride as usize + column]);
            y[row * sizes.outputs as usize + column] = F::cast_from(before + sums[part]);
        }
    }
}

/// silu(x · gate) · (x · up): a cube takes a tile of both products.
#[cube(launch)]
fn narrow_gated<F: Float, N: Size>(
    x: &[Vector<F, N>],
    gate: &[Vector<F, N>],
    up: &[Vector<F, N>],
    y: &mut [F],
    sizes: Sizes,
    #[comptime] turned: bool,
    #[define(F)] _stored: ElemType,
) {
    let first = CUBE_POS_X as usize * COLUMNS;
    let mut shared = room_for_sums();
    let gates = tile::<F, N>(x, gate, &mut shared, first, &sizes, turned);
    let ups = tile::<F, N>(x, up, &mut shared, first, &sizes, turned);
    #[unroll]
    for part in 0..PARTS {
        let (row, column) = place(first, part);
        if within(row, column, &sizes) {
            y[row * sizes.outputs as usize + column] =
                F::cast_from(gate_of(gates[part]) * ups[part]);
        }
    }
}

/// x · q, x · k and x · v: a cube takes a tile of one of them.
#[cube(launch)]
fn narrow_three<F: Float, N: Size>(
    x: &[Vector<F, N>],
    q: &[Vector<F, N>],
    k: &[Vector<F, N>],
    v: &[Vector<F, N>],
    y_q: &mut [F],
    y_k: &mut [F],
    y_v: &mut [F],
    sizes_q: Sizes,
    sizes_k: Sizes,
    sizes_v: Sizes,
    #[comptime] turned: bool,
    #[define(F)] _stored: ElemType,
) {
    let first = CUBE_POS_X as usize * COLUMNS;
    // One for all: which of them is computed the device cannot know beforehand.
    let mut shared = room_for_sums();
    let end_q = (sizes_q.outputs as usize).div_ceil(COLUMNS) * COLUMNS;
    let end_k = end_q + (sizes_k.outputs as usize).div_ceil(COLUMNS) * COLUMNS;
    if first < end_q {
        write_tile::<F, N>(x, q, y_q, &mut shared, first, &sizes_q, turned);
    } else if first < end_k {
        write_tile::<F, N>(x, k, y_k, &mut shared, first - end_q, &sizes_k, turned);
    } else {
        write_tile::<F, N>(x, v, y_v, &mut shared, first - end_k, &sizes_v, turned);
    }
}

/// A weight as the kernels read it: row by row, or column by column where it lies `turned`.
struct Matrix {
    rows: Rows,
    inputs: usize,
    outputs: usize,
    turned: bool,
}

impl Matrix {
    /// Where it lies so that vectors of it can be read.
    fn of(weight: &CubeTensor) -> Option<Self> {
        let (shape, strides) = (weight.meta.shape(), weight.meta.strides());
        if shape.num_dims() != 2 {
            return None;
        }
        let [inputs, outputs] = shape.dims();
        let turned = strides[0] == 1 && outputs > 1;
        let mut weight = weight.clone();
        if turned {
            weight.meta.swap(0, 1);
        }
        let whole = inputs.is_multiple_of(VECTOR) && outputs.is_multiple_of(VECTOR);
        let rows = Rows::of(weight);
        (whole && aligned(&rows)).then_some(Self { rows, inputs, outputs, turned })
    }

    /// Tiles of a product of so many rows, across and down.
    fn tiles(&self, rows: usize) -> [usize; 2] {
        [self.outputs.div_ceil(COLUMNS), rows.div_ceil(ROWS)]
    }

    fn sizes(&self, x: &Rows) -> SizesLaunch {
        let [rows, inputs, outputs, x, weight] =
            [x.count, self.inputs, self.outputs, x.stride, self.rows.stride].map(size);
        SizesLaunch::new(rows, inputs, outputs, x, weight)
    }
}

fn aligned(rows: &Rows) -> bool {
    rows.aligned(VECTOR * rows.tensor.dtype.size())
}

/// x and weights, where these are the kernels for their products: few tiles, and sizes and strides that vectors fit in.
fn fitting<const N: usize>(
    x: &CubeTensor,
    weights: [&CubeTensor; N],
) -> Option<(Rows, [Matrix; N])> {
    // Rows that do not lie as such would have to be copied first.
    if x.meta.strides()[1] != 1 {
        return None;
    }
    let x = Rows::of(x.clone());
    let weights: Vec<Matrix> = weights.into_iter().map_while(Matrix::of).collect();
    let weights: [Matrix; N] = weights.try_into().ok()?;
    let few = |matrix: &Matrix| {
        let [across, down] = matrix.tiles(x.count);
        matrix.turned == weights[0].turned && (down == 1 || across * down <= MOST_TILES)
    };
    (aligned(&x) && weights.iter().all(few)).then_some((x, weights))
}

/// A cube for each tile.
fn cubes([across, down]: [usize; 2]) -> (CubeCount, CubeDim) {
    (CubeCount::Static(size(across), size(down), 1), CubeDim::new_1d(UNITS as u32))
}

fn results(x: &Rows, weight: &Matrix) -> CubeTensor {
    size(x.count * weight.outputs);
    room(&x.tensor, [x.count, weight.outputs], x.tensor.dtype)
}

/// x · weight, where this is the kernel for it.
pub(super) fn product(x: &CubeTensor, weight: &CubeTensor) -> Option<CubeTensor> {
    let (x, [weight]) = fitting(x, [weight])?;
    let y = results(&x, &weight);
    let (count, dim) = cubes(weight.tiles(x.count));
    narrow::launch(
        &y.client,
        count,
        dim,
        VECTOR,
        x.arg(),
        weight.rows.arg(),
        y.clone().into_buffer_arg(),
        weight.sizes(&x),
        weight.turned,
        x.elem(),
    );
    Some(y)
}

/// onto + x · weight, where this is the kernel for it.
pub(super) fn product_onto(
    x: &CubeTensor,
    weight: &CubeTensor,
    onto: &CubeTensor,
) -> Option<CubeTensor> {
    let (x, [weight]) = fitting(x, [weight])?;
    let onto = Rows::of(onto.clone());
    let y = results(&x, &weight);
    let (count, dim) = cubes(weight.tiles(x.count));
    narrow_onto::launch(
        &y.client,
        count,
        dim,
        VECTOR,
        x.arg(),
        weight.rows.arg(),
        onto.arg(),
        y.clone().into_buffer_arg(),
        weight.sizes(&x),
        size(onto.stride),
        weight.turned,
        x.elem(),
    );
    Some(y)
}

/// silu(x · gate) · (x · up), where this is the kernel for it.
pub(super) fn gated(x: &CubeTensor, gate: &CubeTensor, up: &CubeTensor) -> Option<CubeTensor> {
    let (x, [gate, up]) = fitting(x, [gate, up])?;
    if gate.rows.stride != up.rows.stride {
        return None;
    }
    let y = results(&x, &gate);
    let (count, dim) = cubes(gate.tiles(x.count));
    narrow_gated::launch(
        &y.client,
        count,
        dim,
        VECTOR,
        x.arg(),
        gate.rows.arg(),
        up.rows.arg(),
        y.clone().into_buffer_arg(),
        gate.sizes(&x),
        gate.turned,
        x.elem(),
    );
    Some(y)
}

/// x · q, x · k and x · v, where this is the kernel for them.
pub(super) fn products(x: &CubeTensor, weights: [&CubeTensor; 3]) -> Option<[CubeTensor; 3]> {
    let (x, [q, k, v]) = fitting(x, weights)?;
    let [y_q, y_k, y_v] = [&q, &k, &v].map(|weight| results(&x, weight));
    let across = [&q, &k, &v].map(|weight| weight.tiles(x.count)[0]);
    let (count, dim) = cubes([across.iter().sum(), q.tiles(x.count)[1]]);
    narrow_three::launch(
        &y_q.client,
        count,
        dim,
        VECTOR,
        x.arg(),
        q.rows.arg(),
        k.rows.arg(),
        v.rows.arg(),
        y_q.clone().into_buffer_arg(),
        y_k.clone().into_buffer_arg(),
        y_v.clone().into_buffer_arg(),
        q.sizes(&x),
        k.sizes(&x),
        v.sizes(&x),
        q.turned,
        x.elem(),
    );
    Some([y_q, y_k, y_v])
}
