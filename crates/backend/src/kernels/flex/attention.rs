//! Causal attention without the matrix of scores: a few queries at a time, whose scores stay in the nearest cache.
//!
//! Keys and values are turned so that tokens lie beside each other; every loop then runs along them in vectors. Going back, the scores are
//! computed again.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::functions::{exp, largest};
use crate::kernels::AttentionShape;

/// Tokens side by side in a vector.
const LANES: usize = 16;
/// Queries that are handled together, so that keys and values are loaded once for all of them.
const QUERIES: usize = 4;

/// One number for each lane.
type Lanes = [f32; LANES];

pub(super) fn forward(q: &[f32], k: &[f32], v: &[f32], shape: &AttentionShape) -> Vec<f32> {
    let mut out = vec![0.0; q.len()];
    let (of_queries, of_keys) = (q.len() / shape.batch, k.len() / shape.batch);
    let texts = q.par_chunks(of_queries).zip(k.par_chunks(of_keys).zip(v.par_chunks(of_keys)));
    out.par_chunks_mut(of_queries).zip(texts).for_each(|(out, (q, (k, v)))| {
        Arch::new().dispatch(Forward { q, k, v, shape, out });
    });
    out
}

/// Gradients of q, k and v, given those and the gradient of the result.
pub(super) fn backward([q, k, v, grad]: [&[f32]; 4], shape: &AttentionShape) -> [Vec<f32>; 3] {
    let mut found = [q, k, v].map(|of| vec![0.0; of.len()]);
    let (of_queries, of_keys) = (q.len() / shape.batch, k.len() / shape.batch);
    let [dq, dk, dv] = &mut found;
    let given = (q.par_chunks(of_queries), k.par_chunks(of_keys), v.par_chunks(of_keys))
        .into_par_iter()
        .zip(grad.par_chunks(of_queries));
    let gradients =
        (dq.par_chunks_mut(of_queries), dk.par_chunks_mut(of_keys), dv.par_chunks_mut(of_keys));
    gradients.into_par_iter().zip(given).for_each(|((dq, dk, dv), ((q, k, v), grad))| {
        Arch::new().dispatch(Back { q, k, v, grad, shape, dq, dk, dv });
    });
    found
}

/// The numbers of one head of a text, turned: `[width][tokens]`, in vectors, the last one filled up with zeros.
struct Turned {
    vectors: usize,
    numbers: Vec<Lanes>,
}

impl Turned {
    fn empty(tokens: usize, width: usize) -> Self {
        let vectors = tokens.div_ceil(LANES);
        Self { vectors, numbers: vec![[0.0; LANES]; vectors * width] }
    }

    /// Of rows of `columns` numbers, those that begin with `first`.
    #[inline(always)]
    fn of(rows: &[f32], columns: usize, first: usize, width: usize) -> Self {
        let mut turned = Self::empty(rows.len() / columns, width);
        for (at, rows) in rows.chunks(LANES * columns).enumerate() {
            for d in 0..width {
                let lanes = &mut turned.numbers[d * turned.vectors + at];
                for (lane, x) in lanes.iter_mut().zip(rows[first + d..].iter().step_by(columns)) {
                    *lane = *x;
                }
            }
        }
        turned
    }

    /// Writes them back where they came from.
    #[inline(always)]
    fn put(&self, rows: &mut [f32], columns: usize, first: usize, width: usize) {
        for (at, rows) in rows.chunks_mut(LANES * columns).enumerate() {
            for d in 0..width {
                let lanes = &self.numbers[d * self.vectors + at];
                for (x, lane) in rows[first + d..].iter_mut().step_by(columns).zip(lanes) {
                    *x = *lane;
                }
            }
        }
    }

    /// The d-th number of all tokens.
    #[inline(always)]
    fn row(&self, d: usize) -> &[Lanes] {
        &self.numbers[d * self.vectors..(d + 1) * self.vectors]
    }

    #[inline(always)]
    fn row_mut(&mut self, d: usize) -> &mut [Lanes] {
        &mut self.numbers[d * self.vectors..(d + 1) * self.vectors]
    }
}

/// A few queries of one head, and what goes on along the keys.
struct Block {
    /// Number of the first query.
    first: usize,
    /// Queries; fewer than [`QUERIES`] at the end of a text.
    n: usize,
    /// Vectors of keys that one of them looks at.
    seen: Range<usize>,
}

impl Block {
    fn all(tokens: usize, window: Option<usize>) -> impl Iterator<Item = Self> {
        (0..tokens).step_by(QUERIES).map(move |first| {
            let n = QUERIES.min(tokens - first);
            let begin = window.map_or(0, |window| (first + 1).saturating_sub(window));
            Self { first, n, seen: begin / LANES..(first + n).div_ceil(LANES) }
        })
    }

    /// Some numbers of each query's row, times a factor: `[width][queries]`, 0 where there is no query.
    #[inline(always)]
    fn load(
        &self,
        rows: &[f32],
        columns: usize,
        head: Range<usize>,
        scale: f32,
        into: &mut [[f32; QUERIES]],
    ) {
        for query in 0..QUERIES {
            if query < self.n {
                let row = &rows[(self.first + query) * columns..][head.clone()];
                for (into, x) in into.iter_mut().zip(row) {
                    into[query] = x * scale;
                }
            } else {
                into.iter_mut().for_each(|into| into[query] = 0.0);
            }
        }
    }

    /// Products of the queries' numbers with those of the keys, for every key that is seen.
    #[inline(always)]
    fn products(&self, queries: &[[f32; QUERIES]], keys: &Turned, out: &mut [Vec<Lanes>; QUERIES]) {
        for at in self.seen.clone() {
            let mut products = [[0.0; LANES]; QUERIES];
            for (d, query) in queries.iter().enumerate() {
                let key = &keys.row(d)[at];
                for (product, query) in products.iter_mut().zip(query) {
                    for (product, key) in product.iter_mut().zip(key) {
                        *product = query.mul_add(*key, *product);
                    }
                }
            }
            for (out, product) in out.iter_mut().zip(products) {
                out[at] = product;
            }
        }
    }

    /// Turns scores into probabilities: of keys that are neither later nor out of the window.
    #[inline(always)]
    fn probabilities(&self, window: Option<usize>, scores: &mut [Vec<Lanes>; QUERIES]) {
        let mut sums = [[0.0; LANES]; QUERIES];
        for (query, (scores, sums)) in scores.iter_mut().zip(&mut sums).enumerate() {
            // Where there is no query, the last one stands in.
            let last = self.first + query.min(self.n - 1);
            let begin = window.map_or(0, |window| (last + 1).saturating_sub(window));
            let scores = scores[self.seen.clone()].as_flattened_mut();
            let offset = self.seen.start * LANES;
            let end = (last + 1 - offset).min(scores.len());
            scores[..begin.saturating_sub(offset).min(end)].fill(f32::NEG_INFINITY);
            scores[end..].fill(f32::NEG_INFINITY);
            let most = largest(scores);
            for scores in scores.chunks_exact_mut(LANES) {
                for (score, sum) in scores.iter_mut().zip(sums.iter_mut()) {
                    *score = exp(*score - most);
                    *sum += *score;
                }
            }
        }
        for (scores, whole) in scores.iter_mut().zip(totals(&sums)) {
            let scale = 1.0 / whole;
            for p in scores[self.seen.clone()].as_flattened_mut() {
                *p *= scale;
            }
        }
    }

    /// Sums over the keys of weight times number, for each query: `out[d][query]`.
    #[inline(always)]
    fn mix(&self, weights: &[Vec<Lanes>; QUERIES], values: &Turned, out: &mut [[f32; QUERIES]]) {
        let weights = weights.each_ref().map(|weights| &weights[self.seen.clone()]);
        for (d, out) in out.iter_mut().enumerate() {
            let mut sums = [[0.0; LANES]; QUERIES];
            for (at, values) in values.row(d)[self.seen.clone()].iter().enumerate() {
                for (weights, sums) in weights.iter().zip(&mut sums) {
                    for ((sum, weight), value) in sums.iter_mut().zip(&weights[at]).zip(values) {
                        *sum = weight.mul_add(*value, *sum);
                    }
                }
            }
            *out = halved(&sums);
        }
    }

    /// Adds, to every key's numbers, the sums over the queries of weight times number.
    #[inline(always)]
    fn spread(
        &self,
        weights: &[Vec<Lanes>; QUERIES],
        queries: &[[f32; QUERIES]],
        onto: &mut Turned,
    ) {
        let weights = weights.each_ref().map(|weights| &weights[self.seen.clone()]);
        for (d, query) in queries.iter().enumerate() {
            for (at, onto) in onto.row_mut(d)[self.seen.clone()].iter_mut().enumerate() {
                // Copies, which nothing else can be thought to change.
                let (mut sums, query) = (*onto, *query);
                for (query, weights) in query.iter().zip(&weights) {
                    for (sum, weight) in sums.iter_mut().zip(&weights[at]) {
                        *sum = query.mul_add(*weight, *sum);
                    }
                }
                *onto = sums;
            }
        }
    }

    /// Writes numbers of the queries into their rows.
    #[inline(always)]
    fn store(
        &self,
        numbers: &[[f32; QUERIES]],
        scale: f32,
        rows: &mut [f32],
        columns: usize,
        head: Range<usize>,
    ) {
        for query in 0..self.n {
            let row = &mut rows[(self.first + query) * columns..][head.clone()];
            for (x, numbers) in row.iter_mut().zip(numbers) {
                *x = numbers[query] * scale;
            }
        }
    }
}

/// The sum of all lanes, by halves.
#[inline(always)]
fn total(mut lanes: Lanes) -> f32 {
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
        n /= 2;
    }
    lanes[0]
}

/// The sums of each query's lanes, by halves as [`total`] takes them: all queries' halves side by side.
#[inline(always)]
fn halved(sums: &[Lanes; QUERIES]) -> [f32; QUERIES] {
    let (mut eight, mut four) = ([0.0; 8 * QUERIES], [0.0; 4 * QUERIES]);
    let (mut two, mut one) = ([0.0; 2 * QUERIES], [0.0; QUERIES]);
    for (q, sums) in sums.iter().enumerate() {
        for i in 0..8 {
            eight[8 * q + i] = sums[i] + sums[i + 8];
        }
    }
    for q in 0..QUERIES {
        for i in 0..4 {
            four[4 * q + i] = eight[8 * q + i] + eight[8 * q + i + 4];
        }
    }
    for q in 0..QUERIES {
        for i in 0..2 {
            two[2 * q + i] = four[4 * q + i] + four[4 * q + i + 2];
        }
    }
    for q in 0..QUERIES {
        one[q] = two[2 * q] + two[2 * q + 1];
    }
    one
}

/// The sums of each query's lanes, one lane after the other: side by side, since in each every term waits for the one before.
#[inline(always)]
fn totals(sums: &[Lanes; QUERIES]) -> [f32; QUERIES] {
    let mut totals = [0.0; QUERIES];
    for lane in 0..LANES {
        for (total, sums) in totals.iter_mut().zip(sums) {
            *total += sums[lane];
        }
    }
    totals
}

/// Room for the scores of a block, or what becomes of them.
fn scores(tokens: usize) -> [Vec<Lanes>; QUERIES] {
    std::array::from_fn(|_| vec![[0.0; LANES]; tokens.div_ceil(LANES)])
}

/// One text.
struct Forward<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    shape: &'a AttentionShape,
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let AttentionShape { heads, kv_heads, width, scale, window, .. } = *self.shape;
        let (columns, key_columns) = (heads * width, kv_heads * width);
        let tokens = self.q.len() / columns;
        let mut weights = scores(tokens);
        let (mut query, mut mixed) = (vec![[0.0; QUERIES]; width], vec![[0.0; QUERIES]; width]);
        for kv_head in 0..kv_heads {
            let keys = Turned::of(self.k, key_columns, kv_head * width, width);
            let values = Turned::of(self.v, key_columns, kv_head * width, width);
            for head in heads / kv_heads * kv_head..heads / kv_heads * (kv_head + 1) {
                let head = head * width..(head + 1) * width;
                for block in Block::all(tokens, window) {
                    block.load(self.q, columns, head.clone(), scale, &mut query);
                    block.products(&query, &keys, &mut weights);
                    block.probabilities(window, &mut weights);
                    block.mix(&weights, &values, &mut mixed);
                    block.store(&mixed, 1.0, self.out, columns, head.clone());
                }
            }
        }
    }
}

/// One text, backwards.
struct Back<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    grad: &'a [f32],
    shape: &'a AttentionShape,
    dq: &'a mut [f32],
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

impl WithSimd for Back<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let AttentionShape { heads, kv_heads, width, scale, window, .. } = *self.shape;
        let (columns, key_columns) = (heads * width, kv_heads * width);
        let tokens = self.q.len() / columns;
        let (mut weights, mut slopes) = (scores(tokens), scores(tokens));
        let (mut query, mut grad) = (vec![[0.0; QUERIES]; width], vec![[0.0; QUERIES]; width]);
        let mut dquery = vec![[0.0; QUERIES]; width];
        for kv_head in 0..kv_heads {
            let first = kv_head * width;
            let keys = Turned::of(self.k, key_columns, first, width);
            let values = Turned::of(self.v, key_columns, first, width);
            let (mut dkeys, mut dvalues) =
                (Turned::empty(tokens, width), Turned::empty(tokens, width));
            for head in heads / kv_heads * kv_head..heads / kv_heads * (kv_head + 1) {
                let head = head * width..(head + 1) * width;
                for block in Block::all(tokens, window) {
                    block.load(self.q, columns, head.clone(), scale, &mut query);
                    block.load(self.grad, columns, head.clone(), 1.0, &mut grad);
                    block.products(&query, &keys, &mut weights);
                    block.probabilities(window, &mut weights);
                    block.spread(&weights, &grad, &mut dvalues);
                    block.products(&grad, &values, &mut slopes);
                    softmax_backward(&block, &weights, &mut slopes);
                    block.mix(&slopes, &keys, &mut dquery);
                    block.store(&dquery, scale, self.dq, columns, head.clone());
                    block.spread(&slopes, &query, &mut dkeys);
                }
            }
            dkeys.put(self.dk, key_columns, first, width);
            dvalues.put(self.dv, key_columns, first, width);
        }
    }
}

/// From gradients of probabilities to those of scores: p · (g − Σ p g).
#[inline(always)]
fn softmax_backward(
    block: &Block,
    weights: &[Vec<Lanes>; QUERIES],
    slopes: &mut [Vec<Lanes>; QUERIES],
) {
    for (weights, slopes) in weights.iter().zip(slopes) {
        let weights = weights[block.seen.clone()].as_flattened();
        let slopes = slopes[block.seen.clone()].as_flattened_mut();
        let mut sums = [0.0; LANES];
        for (weights, slopes) in weights.chunks_exact(LANES).zip(slopes.chunks_exact(LANES)) {
            for ((sum, weight), slope) in sums.iter_mut().zip(weights).zip(slopes) {
                *sum = weight.mul_add(*slope, *sum);
            }
        }
        let whole = total(sums);
        for (weight, slope) in weights.iter().zip(slopes) {
            *slope = weight * (*slope - whole);
        }
    }
}
