//! Attention of one token over the keys and values of its row.

use std::ops::Range;

use pulp::{Simd, WithSimd, bytemuck};

use super::row::{Row, Segment};
use infalign_backend::functions::{cap, softmax};

/// How a block attends.
#[derive(Debug)]
pub(super) struct Heads {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) width: usize,
    /// What scores are multiplied by.
    pub(super) scale: f32,
    pub(super) score_cap: Option<f32>,
    /// Tokens that it looks back on, itself included.
    pub(super) window: Option<usize>,
}

/// softmax(cap(q·K · scale))·V for one token's queries `[heads * width]`, which are overwritten by the result.
///
/// Every score and every sum takes its terms in the order of the positions, wherever the segments of the row end.
pub(super) struct Attend<'a> {
    pub(super) heads: &'a Heads,
    pub(super) row: &'a Row,
    pub(super) layer: usize,
    /// The token's own; later ones that the row may hold are not looked at.
    pub(super) position: usize,
    pub(super) queries: &'a mut [f32],
    /// Room for the scores.
    pub(super) scores: &'a mut Vec<f32>,
}

impl WithSimd for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Heads { heads, kv_heads, width, scale, score_cap, window } = *self.heads;
        let end = self.position + 1;
        let range = window.map_or(0, |window| end.saturating_sub(window))..end;
        self.scores.clear();
        for (head, query) in self.queries.chunks_exact(width).enumerate() {
            let first = head / (heads / kv_heads) * width;
            for (segment, range) in within(self.row, range.clone()) {
                let keys = &segment.layers[self.layer].keys;
                let keys = &keys[first * segment.capacity..(first + width) * segment.capacity];
                score(simd, keys, segment.capacity, range, query, self.scores);
            }
        }
        for score in self.scores.iter_mut() {
            *score *= scale;
        }
        cap(self.scores, score_cap);
        for scores in self.scores.chunks_exact_mut(range.len()) {
            softmax(scores);
        }
        let values = Values { row: self.row, layer: self.layer, range, heads: self.heads };
        let mut done = 0;
        while done < width {
            done += match (width - done).div_ceil(S::F32_LANES) {
                4.. => values.mix::<S, 1, 4>(simd, done, self.scores, self.queries),
                2.. => values.mix::<S, 2, 2>(simd, done, self.scores, self.queries),
                _ => values.mix::<S, 4, 1>(simd, done, self.scores, self.queries),
            };
        }
    }
}

/// The values of a row's positions in one block.
struct Values<'a> {
    row: &'a Row,
    layer: usize,
    range: Range<usize>,
    heads: &'a Heads,
}

impl Values<'_> {
    /// Writes Σ p·v of the next components of every head, `H` heads and `V` vectors at a time; returns how many.
    ///
    /// - `first`: of the components.
    /// - `probabilities`: `[heads, positions]`.
    #[inline(always)]
    fn mix<S: Simd, const H: usize, const V: usize>(
        &self,
        simd: S,
        first: usize,
        probabilities: &[f32],
        out: &mut [f32],
    ) -> usize {
        let components = first..self.heads.width.min(first + V * S::F32_LANES);
        let together = self.heads.heads / H * H;
        for head in (0..together).step_by(H) {
            self.mix_heads::<S, H, V>(simd, head, components.clone(), probabilities, out);
        }
        for head in together..self.heads.heads {
            self.mix_heads::<S, 1, V>(simd, head, components.clone(), probabilities, out);
        }
        components.len()
    }

    /// The same of `H` heads, from `head` on. Where a head ends before the vectors do, components of the next are read and left.
    #[inline(always)]
    fn mix_heads<S: Simd, const H: usize, const V: usize>(
        &self,
        simd: S,
        head: usize,
        components: Range<usize>,
        probabilities: &[f32],
        out: &mut [f32],
    ) {
        let Heads { heads, kv_heads, width, .. } = *self.heads;
        let (stride, positions) = (kv_heads * width, self.range.len());
        let firsts: [usize; H] =
            std::array::from_fn(|h| (head + h) / (heads / kv_heads) * width + components.start);
        let mut later: [&[f32]; H] =
            std::array::from_fn(|h| &probabilities[(head + h) * positions..][..positions]);
        let mut sums = [[simd.splat_f32s(0.0); V]; H];
        for (segment, range) in within(self.row, self.range.clone()) {
            let values = &segment.layers[self.layer].values;
            let values = &values[range.start * stride..range.end * stride];
            let here = later.map(|later| &later[..range.len()]);
            later = later.map(|later| &later[range.len()..]);
            // Positions after which there is enough to fill the vectors.
            let whole = (values.len() + stride).saturating_sub(firsts[H - 1] + V * S::F32_LANES);
            let whole = range.len().min(whole / stride);
            for position in 0..whole {
                for h in 0..H {
                    let values = &values[position * stride + firsts[h]..][..V * S::F32_LANES];
                    let (values, _) = S::as_simd_f32s(values);
                    add(simd, here[h][position], values, &mut sums[h]);
                }
            }
            for position in whole..range.len() {
                for h in 0..H {
                    let mut last = [simd.splat_f32s(0.0); V];
                    let values = &values[position * stride + firsts[h]..][..components.len()];
                    bytemuck::cast_slice_mut(&mut last)[..values.len()].copy_from_slice(values);
                    add(simd, here[h][position], &last, &mut sums[h]);
                }
            }
        }
        for (out, sums) in out.chunks_exact_mut(width).skip(head).zip(&sums) {
            let sums: &[f32] = bytemuck::cast_slice(sums);
            out[components.clone()].copy_from_slice(&sums[..components.len()]);
        }
    }
}

/// Adds p·v.
#[inline(always)]
fn add<S: Simd>(simd: S, p: f32, values: &[S::f32s], sums: &mut [S::f32s]) {
    let p = simd.splat_f32s(p);
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = simd.mul_add_f32s(p, *value, *sum);
    }
}

/// The segments of a row that hold positions of `range`, with their own numbers of them.
#[inline(always)]
fn within(row: &Row, range: Range<usize>) -> impl Iterator<Item = (&Segment, Range<usize>)> {
    let mut before = 0;
    let segments = row.shared.iter().map(|shared| (shared.as_ref(), shared.length));
    // The row's own segment may hold positions that do not count yet.
    let segments = segments.chain(row.own.as_ref().map(|own| (own, own.capacity)));
    segments.filter_map(move |(segment, length)| {
        let start = before;
        before += length;
        let (from, to) = (range.start.max(start), range.end.min(before));
        (from < to).then(|| (segment, from - start..to - start))
    })
}

/// Appends the products of the query with the keys `[width, capacity]` of `range`.
#[inline(always)]
fn score<S: Simd>(
    simd: S,
    keys: &[f32],
    capacity: usize,
    range: Range<usize>,
    query: &[f32],
    scores: &mut Vec<f32>,
) {
    let mut place = range.start / S::F32_LANES * S::F32_LANES;
    while place < range.end {
        let (four, two, one);
        let products: &[f32] = match (range.end - place).div_ceil(S::F32_LANES) {
            4.. => {
                four = products::<S, 4>(simd, keys, capacity, place, query);
                bytemuck::cast_slice(&four)
            }
            2.. => {
                two = products::<S, 2>(simd, keys, capacity, place, query);
                bytemuck::cast_slice(&two)
            }
            _ => {
                one = products::<S, 1>(simd, keys, capacity, place, query);
                bytemuck::cast_slice(&one)
            }
        };
        let (from, to) = (range.start.max(place), range.end.min(place + products.len()));
        scores.extend_from_slice(&products[from - place..to - place]);
        place += products.len();
    }
}

/// Products of the query with the keys of `V` vectors of positions.
#[inline(always)]
fn products<S: Simd, const V: usize>(
    simd: S,
    keys: &[f32],
    capacity: usize,
    place: usize,
    query: &[f32],
) -> [S::f32s; V] {
    let mut sums = [simd.splat_f32s(0.0); V];
    for (column, q) in keys.chunks_exact(capacity).zip(query) {
        let (column, _) = S::as_simd_f32s(&column[place..place + V * S::F32_LANES]);
        let q = simd.splat_f32s(*q);
        for (sum, keys) in sums.iter_mut().zip(column) {
            *sum = simd.mul_add_f32s(q, *keys, *sum);
        }
    }
    sums
}
