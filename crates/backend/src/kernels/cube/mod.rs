//! The kernels on GPUs, written once in CubeCL for CUDA and wgpu.
//!
//! A cube, which is a block of units that share memory, takes a row where a row has to be summed up; else each unit takes a number. Numbers are
//! read and written as they are stored, f32 or bf16, and computed with in f32. Kernels sum up in an order that sizes alone decide.
//!
//! Places of numbers are counted in 32 bits.

mod adamw;
mod attention;
mod backend;
mod cached;
mod draw;
mod gate;
mod large;
mod log_probs;
mod narrow;
mod norm;
mod product;
mod rotation;

pub(super) use cached::{CachedAttention, WIDEST_HEAD};
pub(super) use draw::Drawing;
pub(super) use product::JointProducts;
use product::product;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::{
    kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype, tensor::CubeTensor,
};
use cubecl::prelude::*;

/// Units of a cube where each takes a number of its own.
const UNITS: usize = 256;

/// Less than any score, since WGSL has no −∞.
const LEAST: f32 = -3.0e38;

/// Cubes of two dimensions, since some devices allow no more than 65,535 in one.
fn cubes(count: usize) -> CubeCount {
    let across = count.clamp(1, 32_768);
    CubeCount::Static(across as u32, count.div_ceil(across) as u32, 1)
}

/// A unit for each of `count` numbers.
fn elementwise(count: usize) -> (CubeCount, CubeDim) {
    (cubes(count.div_ceil(UNITS)), CubeDim::new_1d(UNITS as u32))
}

/// Units that share a row: a power of two, since they sum up in pairs.
fn units(width: usize) -> usize {
    width.next_power_of_two().clamp(32, UNITS)
}

/// A size as kernels take it.
fn size(number: usize) -> u32 {
    let size = u32::try_from(number).unwrap_or(u32::MAX);
    assert!(size < u32::MAX, "kernels count in 32 bits, and {number} is more");
    size
}

/// How a tensor's numbers are stored.
fn stored(tensor: &CubeTensor) -> ElemType {
    dtype_to_storage_type(tensor.dtype)
}

/// A tensor as rows of its last dimension, which lie at one distance from each other.
struct Rows {
    tensor: CubeTensor,
    count: usize,
    width: usize,
    stride: usize,
}

impl Rows {
    /// Copies where rows do not lie so.
    fn of(tensor: CubeTensor) -> Self {
        let (shape, strides) = (tensor.meta.shape().to_vec(), tensor.meta.strides().to_vec());
        let rank = shape.len();
        let width = shape[rank - 1];
        let count = shape[..rank - 1].iter().product();
        // Dimensions of one row are nowhere; of the others each has to begin where the one within it ends.
        let outer: Vec<usize> = (0..rank - 1).filter(|&d| shape[d] != 1).collect();
        let even = outer.windows(2).all(|d| strides[d[0]] == strides[d[1]] * shape[d[1]]);
        let stride = outer.last().map_or(width, |&d| strides[d]);
        if even && (strides[rank - 1] == 1 || width == 1) && stride >= width {
            return Self { tensor, count, width, stride };
        }
        Self { tensor: into_contiguous(tensor), count, width, stride: width }
    }

    fn arg(&self) -> BufferArg {
        size(self.count * self.stride);
        self.tensor.clone().into_buffer_arg()
    }

    /// Whether every row begins at a multiple of so many bytes, as reading several numbers at once needs.
    fn aligned(&self, bytes: usize) -> bool {
        let offset = self.tensor.handle.offset_start.unwrap_or(0) as usize;
        offset.is_multiple_of(bytes)
            && (self.stride * self.tensor.dtype.size()).is_multiple_of(bytes)
    }

    fn elem(&self) -> ElemType {
        stored(&self.tensor)
    }

    /// The same of what has gradients, which is f32.
    fn floats(tensor: CubeTensor) -> Self {
        assert_eq!(tensor.dtype, DType::F32, "gradients are of f32");
        Self::of(tensor)
    }
}

/// Room on the device of `like`, row after row without gaps.
fn room(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
}

/// The sum of a number of each of a cube's units, the same in all of them.
#[cube]
fn total(value: f32, shared: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(units.ilog2()) {
        let half = comptime!(units >> (step + 1));
        if unit < half {
            let other = shared[unit + half];
            shared[unit] += other;
        }
        sync_cube();
    }
    let sum = shared[0];
    sync_cube();
    sum
}

/// The greatest of a number of each of a cube's units.
#[cube]
fn greatest(value: f32, shared: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(units.ilog2()) {
        let half = comptime!(units >> (step + 1));
        if unit < half {
            let other = shared[unit + half];
            if other > shared[unit] {
                shared[unit] = other;
            }
        }
        sync_cube();
    }
    let most = shared[0];
    sync_cube();
    most
}
