//! Functions of numbers and of rows of numbers, written so that compilers turn them into vector instructions.
//!
//! They are inlined into what [`pulp::Arch::dispatch`] runs: only there are there vectors, and fused multiplication at any speed.

use pulp::{Arch, Simd, WithSimd};

/// Lanes of a sum over a row: a fixed number, so that the order of the terms does not depend on the machine.
const LANES: usize = 16;

/// Below this, e^x is 0.
const LEAST: f32 = -87.3;

/// e^x to about two units in the last place; 0 below −87.3.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5·2²³ rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    let vanishes = x < LEAST;
    let x = x.clamp(LEAST, 88.7);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // The same as an integer, from the bits: a conversion of numbers would not be done in vectors.
    let whole = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    // x − n·log 2, with log 2 in two parts of which the first is short.
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let terms = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let mut series = 0.0_f32;
    for term in terms {
        series = series.mul_add(r, term);
    }
    // n is at most 128: 2ⁿ in two factors stays within the range.
    let half = whole >> 1;
    let value = series * power_of_two(half) * power_of_two(whole - half);
    if vanishes { 0.0 } else { value }
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

/// tanh x.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// c·tanh(x/c), which keeps x within ±c.
#[inline(always)]
pub fn cap(row: &mut [f32], cap: Option<f32>) {
    if let Some(cap) = cap {
        for x in row {
            *x = cap * tanh(*x / cap);
        }
    }
}

/// The sum of `term` over a row.
#[inline(always)]
pub fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += term(*x);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|x| term(*x)).sum::<f32>()
}

/// What the logits of a row have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Partition {
    /// The greatest of them.
    pub largest: f32,
    /// Σ e^{(l − largest)·scale} of all logits l.
    pub total: f64,
}

impl Partition {
    /// log π of a token in nats, from its logit: at scale 1, and no number where a logit is none.
    pub fn log_prob(self, logit: f32) -> f32 {
        (f64::from(logit - self.largest) - self.total.ln()) as f32
    }
}

/// e^{(l − max)·scale} of every logit l into `weights`, with the greatest of the logits and the sum of the weights.
pub fn softmax_weights(logits: &[f32], scale: f32, weights: &mut Vec<f32>) -> Partition {
    weights.clear();
    weights.extend_from_slice(logits);
    Arch::new().dispatch(Weights { weights, scale })
}

struct Weights<'a> {
    weights: &'a mut [f32],
    scale: f32,
}

impl WithSimd for Weights<'_> {
    type Output = Partition;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Partition {
        let largest = largest(self.weights);
        for weight in self.weights.iter_mut() {
            *weight = exp((*weight - largest) * self.scale);
        }
        let mut sums = [0.0_f64; LANES];
        let chunks = self.weights.chunks_exact(LANES);
        let rest: f64 = chunks.remainder().iter().map(|weight| f64::from(*weight)).sum();
        for chunk in chunks {
            for (sum, weight) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(*weight);
            }
        }
        Partition { largest, total: sums.iter().sum::<f64>() + rest }
    }
}

/// The greatest of some numbers; −∞ of none.
#[inline(always)]
pub(crate) fn largest(row: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let mut most = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, greater);
    for chunk in chunks {
        for (most, x) in most.iter_mut().zip(chunk) {
            *most = greater(*x, *most);
        }
    }
    // By halves: one after the other, each would wait for the one before.
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            most[i] = greater(most[i], most[i + n]);
        }
        n /= 2;
    }
    greater(most[0], rest)
}

/// Turns scores into probabilities.
#[inline(always)]
pub fn softmax(scores: &mut [f32]) {
    let most = largest(scores);
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    // The last few as a whole vector, too: one by one, each takes as long.
    let mut last = [f32::NEG_INFINITY; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for score in chunks.as_flattened_mut() {
        *score = exp(*score - most);
    }
    for score in &mut last {
        *score = exp(*score - most);
    }
    rest.copy_from_slice(&last[..rest.len()]);
    let whole = 1.0 / sum(scores, |p| p);
    for p in scores.iter_mut() {
        *p *= whole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_the_library() {
        for k in -8_700..8_800 {
            let x = k as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 3e-7, "{x}: {} {exact}", exp(x));
        }
        assert!(exp(f32::NEG_INFINITY) == 0.0 && exp(0.0) == 1.0);
        for x in [-9.0, -0.3, 0.0, 1e-3, 2.0_f32] {
            assert!((tanh(x) - x.tanh()).abs() < 2e-7, "{x}");
        }
    }

    #[test]
    fn a_softmax_sums_to_one() {
        let mut scores: Vec<f32> = (0..37).map(|k| (k * k % 11) as f32).collect();
        let whole: f64 = scores.iter().map(|x| f64::from(*x).exp()).sum();
        let expected: Vec<f64> = scores.iter().map(|x| f64::from(*x).exp() / whole).collect();
        softmax(&mut scores);
        assert!(scores.iter().zip(expected).all(|(p, q)| (f64::from(*p) - q).abs() < 1e-7));
    }
}
