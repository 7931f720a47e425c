//! Attention of one token over the keys and values of its row.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::row::{KeysValues, POSITIONS, Row, Segment};
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
    fn with_simd<S: Simd>(self, _: S) {
        let Heads { heads, kv_heads, width, scale, score_cap, window } = *self.heads;
        let end = self.position + 1;
        let range = window.map_or(0, |window| end.saturating_sub(window))..end;
        let group = heads / kv_heads;
        for (head, query) in self.queries.chunks_exact_mut(width).enumerate() {
            let part = head / group * width..(head / group + 1) * width;
            self.scores.clear();
            for (segment, range) in within(self.row, range.clone()) {
                let layer = &segment.layers[self.layer];
                score(segment.capacity, layer, &part, range, query, self.scores);
            }
            for score in self.scores.iter_mut() {
                *score *= scale;
            }
            cap(self.scores, score_cap);
            softmax(self.scores);
            let mut done = 0;
            while done < width {
                let values = Values { row: self.row, layer: self.layer, range: range.clone() };
                let (first, out) = (part.start + done, &mut query[done..]);
                done += match width - done {
                    32.. => values.mix::<32>(kv_heads * width, first, self.scores, out),
                    16.. => values.mix::<16>(kv_heads * width, first, self.scores, out),
                    8.. => values.mix::<8>(kv_heads * width, first, self.scores, out),
                    _ => values.mix::<1>(kv_heads * width, first, self.scores, out),
                };
            }
        }
    }
}

/// The values of a row's positions in one block.
struct Values<'a> {
    row: &'a Row,
    layer: usize,
    range: Range<usize>,
}

impl Values<'_> {
    /// Σ p·v of the `N` components from `first` on, of values `[positions, stride]`; returns N.
    #[inline(always)]
    fn mix<const N: usize>(
        self,
        stride: usize,
        first: usize,
        probabilities: &[f32],
        out: &mut [f32],
    ) -> usize {
        let mut sums = [0.0_f32; N];
        let mut probabilities = probabilities;
        for (segment, range) in within(self.row, self.range) {
            let values = &segment.layers[self.layer].values;
            let values = &values[range.start * stride..range.end * stride];
            let (here, later) = probabilities.split_at(range.len());
            probabilities = later;
            for (p, value) in here.iter().zip(values.chunks_exact(stride)) {
                let value = &value[first..first + N];
                for i in 0..N {
                    sums[i] = p.mul_add(value[i], sums[i]);
                }
            }
        }
        out[..N].copy_from_slice(&sums);
        N
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

/// Appends the products of the query with the keys of `range`.
#[inline(always)]
fn score(
    capacity: usize,
    layer: &KeysValues,
    part: &Range<usize>,
    range: Range<usize>,
    query: &[f32],
    scores: &mut Vec<f32>,
) {
    let keys = &layer.keys[part.start * capacity..part.end * capacity];
    let mut place = range.start / POSITIONS * POSITIONS;
    while place < range.end {
        let mut sums = [0.0_f32; POSITIONS];
        for (column, q) in keys.chunks_exact(capacity).zip(query.iter()) {
            let column = &column[place..place + POSITIONS];
            for i in 0..POSITIONS {
                sums[i] = q.mul_add(column[i], sums[i]);
            }
        }
        let (from, to) = (range.start.max(place), range.end.min(place + POSITIONS));
        scores.extend_from_slice(&sums[from - place..to - place]);
        place += POSITIONS;
    }
}
