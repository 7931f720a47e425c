//! Rotary embeddings by halves.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::ROWS;

#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Numbers of a row: all heads.
    pub(super) columns: usize,
    /// Numbers of a head.
    pub(super) width: usize,
    /// Pairs that are rotated.
    pub(super) half: usize,
    /// 1, or −1 to rotate back.
    pub(super) turn: f32,
}

/// The rows of `cos` and `sin` are those of x, or are gone through again and again.
pub(super) fn rotate(x: &[f32], cos: &[f32], sin: &[f32], sizes: Sizes) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    let size = ROWS * sizes.columns;
    y.par_chunks_mut(size).zip(x.par_chunks(size)).enumerate().for_each(|(part, (y, x))| {
        Arch::new().dispatch(Rotate { x, cos, sin, first: part * ROWS, sizes, y });
    });
    y
}

struct Rotate<'a> {
    x: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    /// Number of the first row.
    first: usize,
    sizes: Sizes,
    y: &'a mut [f32],
}

impl WithSimd for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Sizes { columns, width, half, turn } = self.sizes;
        let angles = self.cos.len() / half;
        let rows = self.x.chunks_exact(columns).zip(self.y.chunks_exact_mut(columns));
        for (row, (x, y)) in rows.enumerate() {
            let at = (self.first + row) % angles * half;
            let (cos, sin) = (&self.cos[at..at + half], &self.sin[at..at + half]);
            for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
                let (first, rest) = x.split_at(half);
                let (second, rest) = rest.split_at(half);
                let (low, high) = y.split_at_mut(half);
                let (high, same) = high.split_at_mut(half);
                let pairs = first.iter().zip(second).zip(cos.iter().zip(sin));
                for ((low, high), ((first, second), (cos, sin))) in
                    low.iter_mut().zip(high).zip(pairs)
                {
                    let sin = sin * turn;
                    *low = first * cos - second * sin;
                    *high = second * cos + first * sin;
                }
                same.copy_from_slice(rest);
            }
        }
    }
}
