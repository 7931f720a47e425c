//! RMSNorm by rows.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::ROWS;
use crate::functions::sum;

pub(super) fn forward(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let size = ROWS * weight.len();
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(size)
        .zip(x.par_chunks(size))
        .for_each(|(y, x)| Arch::new().dispatch(Forward { x, weight, epsilon, y }));
    y
}

/// Gradients of x and of the weight.
pub(super) fn backward(
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>) {
    let size = ROWS * weight.len();
    let mut dx = vec![0.0; x.len()];
    let parts: Vec<Vec<f32>> = dx
        .par_chunks_mut(size)
        .zip(x.par_chunks(size))
        .zip(grad.par_chunks(size))
        .map(|((dx, x), grad)| {
            let mut dw = vec![0.0; weight.len()];
            Arch::new().dispatch(Back { x, weight, grad, epsilon, dx, dw: &mut dw });
            dw
        })
        .collect();
    let mut dw = vec![0.0; weight.len()];
    for part in parts {
        dw.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    (dx, dw)
}

/// 1 / √(mean(x²) + ε).
#[inline(always)]
fn scale(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum(x, |x| x * x) / x.len() as f32 + epsilon).sqrt()
}

struct Forward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, weight, epsilon, y } = self;
        let width = weight.len();
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let scale = scale(x, epsilon);
            for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
                *y = x * scale * weight;
            }
        }
    }
}

struct Back<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    grad: &'a [f32],
    epsilon: f32,
    dx: &'a mut [f32],
    dw: &'a mut [f32],
}

impl WithSimd for Back<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, weight, grad, epsilon, dx, dw } = self;
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
        for ((x, grad), dx) in rows.zip(dx.chunks_exact_mut(width)) {
            let scale = scale(x, epsilon);
            for (((dx, x), grad), (weight, dw)) in
                dx.iter_mut().zip(x).zip(grad).zip(weight.iter().zip(dw.iter_mut()))
            {
                *dw += grad * x * scale;
                *dx = grad * weight * x;
            }
            // Σ grad · weight · x, whose terms stand in dx.
            let along = sum(dx, |term| term) * scale * scale / width as f32;
            for (((dx, x), grad), weight) in dx.iter_mut().zip(x).zip(grad).zip(weight) {
                *dx = scale * (grad * weight - x * along);
            }
        }
    }
}
