//! The optimiser's step, and the norm that it is clipped by.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::AdamWStep;

/// Numbers that a thread takes at a time.
const PART: usize = 1 << 14;

/// The weight after the step; the means are changed where they stand.
pub(super) fn step(
    weight: &[f32],
    grad: &[f32],
    mean: &mut [f32],
    mean_square: &mut [f32],
    step: AdamWStep,
) -> Vec<f32> {
    let mut stepped = vec![0.0; weight.len()];
    let given = weight.par_chunks(PART).zip(grad.par_chunks(PART));
    let means = mean.par_chunks_mut(PART).zip(mean_square.par_chunks_mut(PART));
    stepped.par_chunks_mut(PART).zip(given).zip(means).for_each(
        |((stepped, (weight, grad)), (mean, mean_square))| {
            Arch::new().dispatch(Step { weight, grad, mean, mean_square, stepped, step });
        },
    );
    stepped
}

struct Step<'a> {
    weight: &'a [f32],
    grad: &'a [f32],
    mean: &'a mut [f32],
    mean_square: &'a mut [f32],
    stepped: &'a mut [f32],
    step: AdamWStep,
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { weight, grad, mean, mean_square, stepped, step } = self;
        let AdamWStep { beta_1, beta_2, epsilon, weight_decay, learning_rate, time } = step;
        let kept = 1.0 - learning_rate * weight_decay;
        let rate = learning_rate / (1.0 - beta_1.powi(time));
        let correction = 1.0 / (1.0 - beta_2.powi(time));
        let means = mean.iter_mut().zip(mean_square);
        for (((stepped, weight), grad), (mean, mean_square)) in
            stepped.iter_mut().zip(weight).zip(grad).zip(means)
        {
            *mean = beta_1 * *mean + (1.0 - beta_1) * grad;
            *mean_square = beta_2 * *mean_square + (1.0 - beta_2) * grad * grad;
            let root = (*mean_square * correction).sqrt() + epsilon;
            *stepped = weight * kept - rate * *mean / root;
        }
    }
}

/// Σ x², of sums over parts of one length.
pub(super) fn square_sum(x: &[f32]) -> f32 {
    let parts: Vec<f32> =
        x.par_chunks(PART).map(|x| Arch::new().dispatch(SquareSum { x })).collect();
    parts.into_iter().map(f64::from).sum::<f64>() as f32
}

struct SquareSum<'a> {
    x: &'a [f32],
}

impl WithSimd for SquareSum<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        crate::functions::sum(self.x, |x| x * x)
    }
}
