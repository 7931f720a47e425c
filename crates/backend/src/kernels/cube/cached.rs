//! Attention over a cache of keys and values: new columns are written, rotated, and then looked at together with those that are there.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    LEAST, Rows, adamw::owned, cubes, elementwise, greatest, room, rotation::rotated, size, stored,
    total,
};
use crate::kernels::AttentionShape;

/// The widest head there is a kernel for.
pub(crate) const WIDEST_HEAD: usize = 256;
/// Numbers of a key that are read at once, where its width allows.
const VECTOR: usize = 4;

/// Attention over caches, on GPUs alone.
#[backend_extension(Cube)]
pub(crate) trait CachedAttention: Backend {
    /// The caches of keys and values with those of new tokens behind the filled columns, keys rotated; angles of width 0 rotate nothing.
    fn append(
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        filled: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// What the tokens whose keys were appended mix of the values, their queries rotated.
    fn mix_cached(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        starts: IntTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        at: (usize, AttentionShape),
    ) -> FloatTensor<Self>;
}

/// A unit writes one number of the new keys and one of the new values.
#[cube(launch)]
fn written<F: Float>(
    k: &[F],
    v: &[F],
    cos: &[f32],
    sin: &[f32],
    keys: &mut [F],
    values: &mut [F],
    count: u32,
    columns: u32,
    k_stride: u32,
    v_stride: u32,
    width: u32,
    time: u32,
    filled: u32,
    capacity: u32,
    half: u32,
    angles: u32,
    #[define(F)] _stored: ElemType,
) {
    if ABSOLUTE_POS >= count as usize {
        terminate!();
    }
    let (columns, width, time) = (columns as usize, width as usize, time as usize);
    let (row, column) = (ABSOLUTE_POS / columns, ABSOLUTE_POS % columns);
    let (text, token) = (row / time, row % time);
    let head = text * (columns / width) + column / width;
    let at = (head * capacity as usize + filled as usize + token) * width + column % width;
    let angle = (row % angles as usize) * half as usize;
    let from = row * k_stride as usize + column;
    let key = rotated::<F>(k, from, column % width, cos, sin, angle, half as usize, 1.0f32);
    keys[at] = F::cast_from(key);
    values[at] = v[row * v_stride as usize + column];
}

/// The first key that a token sees: not the padding before its text, nor what the window has left behind; padding sees itself.
#[cube]
fn first_seen<I: Int>(starts: &[I], text: usize, column: usize, window: usize) -> usize {
    let mut first = u32::cast_from(starts[text]) as usize;
    if column + 1 > first + window {
        first = column + 1 - window;
    }
    if first > column {
        first = column;
    }
    first
}

/// The score of the key whose vectors begin at `from`.
#[cube]
fn score<F: Float, N: Size>(
    query: &Shared<[f32]>,
    keys: &[Vector<F, N>],
    from: usize,
    cap: f32,
    #[comptime] width: usize,
    #[comptime] vector: usize,
) -> f32 {
    let mut score = 0.0f32;
    for d in 0..comptime!(width / vector) {
        let numbers = Vector::<f32, N>::cast_from(keys[from + d]);
        #[unroll]
        for k in 0..vector {
            score += query[d * vector + k] * numbers.extract(k);
        }
    }
    if cap > 0.0f32 {
        score = (score / cap).tanh() * cap;
    }
    score
}

/// What a unit mixes of as many keys as a cube has units: one number of every so many of them.
#[cube]
fn mix_of<F: Float>(
    weights: &Shared<[f32]>,
    values: &[F],
    from: usize,
    keys: usize,
    #[comptime] width: usize,
    #[comptime] units: usize,
) -> f32 {
    let lanes = comptime!(units / width);
    let (lane, place) = (UNIT_POS as usize / width, UNIT_POS as usize % width);
    let mut mix = 0.0f32;
    if lane < lanes {
        let mut k = lane;
        while k < keys {
            mix += weights[k] * f32::cast_from(values[from + k * width + place]);
            k += lanes;
        }
    }
    mix
}

/// Each cube mixes the values for one head of one token: it goes through the keys as many at a time as it has units, and keeps the greatest
/// score so far, the sum of the weights relative to it, and what they have mixed.
#[cube(launch)]
fn mixed<F: Float, I: Int, N: Size>(
    q: &[F],
    cos: &[f32],
    sin: &[f32],
    keys: &[Vector<F, N>],
    values: &[F],
    starts: &[I],
    y: &mut [F],
    count: u32,
    heads: u32,
    group: u32,
    stride: u32,
    time: u32,
    filled: u32,
    capacity: u32,
    window: u32,
    half: u32,
    angles: u32,
    scale: f32,
    cap: f32,
    #[comptime] width: usize,
    #[comptime] vector: usize,
    #[comptime] units: usize,
    #[define(F, I)] _stored: [ElemType; 2],
) {
    if CUBE_POS >= count as usize {
        terminate!();
    }
    let heads = heads as usize;
    let unit = UNIT_POS as usize;
    let (row, head) = (CUBE_POS / heads, CUBE_POS % heads);
    let (text, token) = (row / time as usize, row % time as usize);
    let end = filled as usize + token + 1;
    let kv_head = text * (heads / group as usize) + head / group as usize;
    let cached = kv_head * capacity as usize;

    let mut shared = Shared::<[f32]>::new_slice(units);
    let mut weights = Shared::<[f32]>::new_slice(units);
    let mut query = Shared::<[f32]>::new_slice(width);
    if unit < width {
        let from = row * stride as usize + head * width + unit;
        let angle = (row % angles as usize) * half as usize;
        query[unit] = scale * rotated::<F>(q, from, unit, cos, sin, angle, half as usize, 1.0f32);
    }
    sync_cube();

    let mut most = f32::new(LEAST);
    let mut sum = 0.0f32;
    let mut mix = 0.0f32;
    let mut begin = first_seen::<I>(starts, text, end - 1, window as usize);
    while begin < end {
        let mut keys_here = end - begin;
        if keys_here > units {
            keys_here = units;
        }
        let from = (cached + begin) * width;
        let mut own = f32::new(LEAST);
        if unit < keys_here {
            own = score::<F, N>(&query, keys, (from + unit * width) / vector, cap, width, vector);
        }
        let mut raised = greatest(own, &mut shared, units);
        if most > raised {
            raised = most;
        }
        let mut weight = 0.0f32;
        if unit < keys_here {
            weight = (own - raised).exp();
        }
        weights[unit] = weight;
        // Which also waits for all weights.
        let fresh = total(weight, &mut shared, units);
        let faded = (most - raised).exp();
        sum = sum * faded + fresh;
        mix = mix * faded + mix_of::<F>(&weights, values, from, keys_here, width, units);
        most = raised;
        sync_cube();
        begin += units;
    }
    shared[unit] = mix;
    sync_cube();
    if unit < width {
        let mut whole = 0.0f32;
        for lane in 0..comptime!(units / width) {
            whole += shared[lane * width + unit];
        }
        y[(row * heads + head) * width + unit] = F::cast_from(whole / sum);
    }
}

/// Angles as kernels take them: cosines and sines, the numbers of a row, and the rows.
struct Turn {
    cos: CubeTensor,
    sin: CubeTensor,
    half: usize,
    rows: usize,
}

impl Turn {
    fn by(cos: CubeTensor, sin: CubeTensor) -> Self {
        let [texts, time, half] = cos.meta.shape().dims();
        let [cos, sin] = [cos, sin].map(into_contiguous);
        Self { cos, sin, half, rows: texts * time }
    }
}

impl CachedAttention for CubeBackend {
    fn append(
        k: CubeTensor,
        v: CubeTensor,
        keys: CubeTensor,
        values: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
        filled: usize,
    ) -> (CubeTensor, CubeTensor) {
        let [keys, values] = [keys, values].map(owned);
        let ([k, v], turn) = ([k, v].map(Rows::of), Turn::by(cos, sin));
        assert_eq!(
            [k.elem(), v.elem()],
            [stored(&keys); 2],
            "what is cached is of the cache's type"
        );
        let [batch, _, capacity, width] = keys.meta.shape().dims();
        size(keys.meta.shape().num_elements());
        let (count, dim) = elementwise(k.count * k.width);
        written::launch(
            &keys.client,
            count,
            dim,
            k.arg(),
            v.arg(),
            turn.cos.into_buffer_arg(),
            turn.sin.into_buffer_arg(),
            keys.clone().into_buffer_arg(),
            values.clone().into_buffer_arg(),
            size(k.count * k.width),
            size(k.width),
            size(k.stride),
            size(v.stride),
            size(width),
            size(k.count / batch),
            size(filled),
            size(capacity),
            size(turn.half),
            size(turn.rows),
            k.elem(),
        );
        (keys, values)
    }

    fn mix_cached(
        q: CubeTensor,
        keys: CubeTensor,
        values: CubeTensor,
        starts: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
        (filled, shape): (usize, AttentionShape),
    ) -> CubeTensor {
        assert_eq!(q.dtype, keys.dtype, "queries and keys are of one type");
        let (q, turn) = (Rows::of(q), Turn::by(cos, sin));
        let capacity = keys.meta.shape()[2];
        size(keys.meta.shape().num_elements());
        let [keys, values, starts] = [keys, values, starts].map(into_contiguous);
        let y = room(&q.tensor, [q.count, q.width], q.tensor.dtype);
        let units = shape.width.next_power_of_two().max(128);
        let vector = if shape.width.is_multiple_of(VECTOR) { VECTOR } else { 1 };
        let elems = [q.elem(), stored(&starts)];
        mixed::launch(
            &y.client,
            cubes(q.count * shape.heads),
            CubeDim::new_1d(units as u32),
            vector,
            q.arg(),
            turn.cos.into_buffer_arg(),
            turn.sin.into_buffer_arg(),
            keys.into_buffer_arg(),
            values.into_buffer_arg(),
            starts.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            size(q.count * shape.heads),
            size(shape.heads),
            size(shape.heads / shape.kv_heads),
            size(q.stride),
            size(q.count / shape.batch),
            size(filled),
            size(capacity),
            shape.window.map_or(u32::MAX >> 1, size),
            size(turn.half),
            size(turn.rows),
            shape.scale,
            shape.cap.unwrap_or(0.0),
            shape.width,
            vector,
            units,
            elems,
        );
        y
    }
}
