//! The gate of a feed-forward layer.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::functions::exp;

/// Numbers that a thread takes at a time.
const PART: usize = 1 << 14;

pub(super) fn forward(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; gate.len()];
    y.par_chunks_mut(PART)
        .zip(gate.par_chunks(PART).zip(up.par_chunks(PART)))
        .for_each(|(y, (gate, up))| Arch::new().dispatch(Forward { gate, up, y }));
    y
}

/// Gradients of the gate and of what it lets through.
pub(super) fn backward(gate: &[f32], up: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut dgate, mut dup) = (vec![0.0; gate.len()], vec![0.0; up.len()]);
    let given = gate.par_chunks(PART).zip(up.par_chunks(PART)).zip(grad.par_chunks(PART));
    dgate.par_chunks_mut(PART).zip(dup.par_chunks_mut(PART)).zip(given).for_each(
        |((dgate, dup), ((gate, up), grad))| {
            Arch::new().dispatch(Back { gate, up, grad, dgate, dup });
        },
    );
    (dgate, dup)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

struct Forward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((y, gate), up) in self.y.iter_mut().zip(self.gate).zip(self.up) {
            *y = gate * sigmoid(*gate) * up;
        }
    }
}

struct Back<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    grad: &'a [f32],
    dgate: &'a mut [f32],
    dup: &'a mut [f32],
}

impl WithSimd for Back<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let given = self.gate.iter().zip(self.up).zip(self.grad);
        for ((dgate, dup), ((gate, up), grad)) in self.dgate.iter_mut().zip(self.dup).zip(given) {
            let open = sigmoid(*gate);
            *dgate = grad * up * open * (1.0 + gate * (1.0 - open));
            *dup = grad * gate * open;
        }
    }
}
