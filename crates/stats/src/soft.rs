//! Soft best-of-N from stored rewards: one of N responses, drawn with probability ∝ e^{r/τ}, averaged over every subset of N.
//!
//! With w = e^{r/τ}, sample i is kept of a subset S with probability w_i/Σ_S w. Since 1/x = ∫₀^∞ e^{−sx} ds, the mean over all subsets that
//! hold i factors: with a_j(s) = e^{−s·w_j} and ē_k the elementary symmetric mean of degree k (the mean over all subsets of k of the product),
//!
//! weight_i = (N/M)·∫₀^∞ w_i·a_i·ē_{N−1}(a without a_i) ds.
//!
//! So no subset is formed here either. The means are built up from the left and from the right and joined at i, by sums of positive terms
//! alone. In x = log s every term of the integrand is a multiple of e^{x}·exp(−e^{x}) shifted by the sum of its subset, for which the trapezoid
//! rule with this step is exact to rounding: its error falls with e^{−π²/step}.

use std::ops::Sub;

use crate::StatsError;

/// Step in x = log s.
const STEP: f64 = 0.25;
/// log of what is nothing beside 1.
const NEGLIGIBLE: f64 = -39.0;
/// e^{−s·w} is nothing where s·w is this.
const VANISHES: f64 = 40.0;
/// The greatest difference of rewards, in units of τ.
const WIDEST: f64 = 10_000.0;

/// How likely each sample is to be kept of N of them, over all subsets of N: `[samples]`, summing to 1.
///
/// - `rewards`: finite, N or more.
///
/// Costs O(M·N·(200 + 4·spread/τ)), and O(M) where N is M: there is one subset.
///
/// # Errors
/// [`StatsError::Temperature`] for one that is not above 0, or so low that the rewards lie more than 10,000 of it apart.
pub(crate) fn weights(rewards: &[f64], n: usize, temperature: f64) -> Result<Vec<f64>, StatsError> {
    let greatest = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_weights: Vec<f64> = rewards.iter().map(|r| (r - greatest) / temperature).collect();
    let spread = -log_weights.iter().copied().fold(0.0, f64::min);
    if temperature.is_nan() || temperature <= 0.0 || spread.is_nan() || spread > WIDEST {
        return Err(StatsError::Temperature(temperature));
    }
    if n == rewards.len() {
        let shares: Vec<f64> = log_weights.iter().map(|log| log.exp()).collect();
        let sum: f64 = shares.iter().sum();
        return Ok(shares.iter().map(|share| share / sum).collect());
    }
    let mut subsets = Subsets::new(rewards.len(), n);
    let first = NEGLIGIBLE - (n as f64).ln();
    let last = (VANISHES / n as f64).ln() + spread;
    let mut weights = vec![0.0; rewards.len()];
    for node in 0..=((last - first) / STEP).ceil() as usize {
        let x = first + node as f64 * STEP;
        subsets.add_node(&log_weights, x, &mut weights);
    }
    let scale = STEP * n as f64 / rewards.len() as f64;
    weights.iter_mut().for_each(|weight| *weight *= scale);
    Ok(weights)
}

/// The place on which a uniform number in [0, 1) falls where each of N has its share, e^{r/τ}/Σ e^{r/τ}.
///
/// - `greatest`: the place of the greatest reward.
pub(crate) fn draw<R>(rewards: &[R], greatest: usize, temperature: f64, uniform: f64) -> usize
where
    R: Copy + Sub<Output = R> + Into<f64>,
{
    let weight = |reward: &R| -> f64 {
        let below: f64 = (*reward - rewards[greatest]).into();
        (below / temperature).exp()
    };
    let target = uniform * rewards.iter().map(weight).sum::<f64>();
    let mut mass = 0.0;
    let passes = |reward: &R| {
        mass += weight(reward);
        mass > target
    };
    rewards.iter().position(passes).unwrap_or(greatest)
}

/// Elementary symmetric means of one node, with room for them.
struct Subsets {
    n: usize,
    /// `[samples, n]`: the share of the subsets of N − 1 of all but i that have k elements before i.
    shares: Vec<f64>,
    /// `[samples]`: e^{−s·w}.
    factors: Vec<f64>,
    /// `[samples + 1, n]`: ē_k of the first so many.
    before: Vec<f64>,
    /// `[n]`: ē_k of those after i.
    after: Vec<f64>,
}

impl Subsets {
    fn new(m: usize, n: usize) -> Self {
        let mut log_factorials = vec![0.0; m + 1];
        for i in 1..=m {
            log_factorials[i] = log_factorials[i - 1] + (i as f64).ln();
        }
        let log_choose = |of: usize, k: usize| -> f64 {
            if k > of {
                return f64::NEG_INFINITY;
            }
            log_factorials[of] - log_factorials[k] - log_factorials[of - k]
        };
        let mut shares = vec![0.0; m * n];
        for (i, shares) in shares.chunks_exact_mut(n).enumerate() {
            for (k, share) in shares.iter_mut().enumerate() {
                let ways = log_choose(i, k) + log_choose(m - 1 - i, n - 1 - k);
                *share = (ways - log_choose(m - 1, n - 1)).exp();
            }
            let sum: f64 = shares.iter().sum();
            shares.iter_mut().for_each(|share| *share /= sum);
        }
        Self {
            n,
            shares,
            factors: vec![0.0; m],
            before: vec![0.0; (m + 1) * n],
            after: vec![0.0; n],
        }
    }

    /// Adds the integrand at s = e^x, times s, to every weight.
    fn add_node(&mut self, log_weights: &[f64], x: f64, weights: &mut [f64]) {
        let (n, m) = (self.n, log_weights.len());
        for (factor, log_weight) in self.factors.iter_mut().zip(log_weights) {
            *factor = (-(x + log_weight).exp()).exp();
        }
        self.before[0] = 1.0;
        for i in 0..m {
            let (done, next) = self.before.split_at_mut((i + 1) * n);
            next[..n].copy_from_slice(&done[i * n..]);
            extend(&mut next[..n], i + 1, self.factors[i]);
        }
        self.after.fill(0.0);
        self.after[0] = 1.0;
        for i in (0..m).rev() {
            let before = &self.before[i * n..(i + 1) * n];
            let shares = &self.shares[i * n..(i + 1) * n];
            let terms = shares.iter().zip(before).zip(self.after.iter().rev());
            let others: f64 = terms.map(|((share, before), after)| share * before * after).sum();
            let exponent = x + log_weights[i] - (x + log_weights[i]).exp();
            weights[i] += exponent.exp() * others;
            extend(&mut self.after, m - i, self.factors[i]);
        }
    }
}

/// ē_k of `count` elements, the last of which is `factor`, in place of those of the others: (1 − k/count)·ē_k + (k/count)·factor·ē_{k−1}.
fn extend(means: &mut [f64], count: usize, factor: f64) {
    for k in (1..means.len().min(count + 1)).rev() {
        let share = k as f64 / count as f64;
        means[k] = (1.0 - share) * means[k] + share * factor * means[k - 1];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SplitMix;
    use crate::{Selection, selection_weights};

    /// By forming every subset.
    fn enumerated(rewards: &[f64], n: usize, temperature: f64) -> Vec<f64> {
        let mut weights = vec![0.0; rewards.len()];
        let mut count = 0.0;
        for mask in (0..1u32 << rewards.len()).filter(|mask| mask.count_ones() as usize == n) {
            let subset: Vec<usize> = (0..rewards.len()).filter(|i| mask >> i & 1 == 1).collect();
            let greatest = subset.iter().map(|&i| rewards[i]).fold(f64::NEG_INFINITY, f64::max);
            let weight = |i: usize| ((rewards[i] - greatest) / temperature).exp();
            let sum: f64 = subset.iter().map(|&i| weight(i)).sum();
            subset.iter().for_each(|&i| weights[i] += weight(i) / sum);
            count += 1.0;
        }
        weights.iter().map(|weight| weight / count).collect()
    }

    #[test]
    fn equals_the_enumeration_of_all_subsets_with_ties() {
        let mut random = SplitMix(5);
        for case in 0..40 {
            let m = 3 + case % 8;
            let rewards: Vec<f64> =
                (0..m).map(|_| (random.uniform() * 8.0).floor() / 2.0).collect();
            for n in 1..=m {
                for temperature in [0.02, 0.3, 1.0, 50.0] {
                    let exact = enumerated(&rewards, n, temperature);
                    let got = weights(&rewards, n, temperature).unwrap();
                    for (got, exact) in got.iter().zip(&exact) {
                        let error = (got - exact).abs();
                        assert!(error < 1e-13, "{m}, {n}, {temperature}: {got} against {exact}");
                    }
                }
            }
        }
    }

    #[test]
    fn of_all_samples_each_has_its_share_wherever_rewards_lie() {
        // e^{r/τ} are in the ratio of 1 to 2 to 5.
        for offset in [0.0, 5000.0, -5000.0] {
            let rewards = [1.0_f64, 5.0, 2.0].map(|ratio| offset + 2.0 * ratio.ln());
            let found = weights(&rewards, 3, 2.0).unwrap();
            for (found, expected) in found.iter().zip([0.125, 0.625, 0.25]) {
                assert!((found - expected).abs() < 1e-12, "{offset}: {found}, {expected}");
            }
        }
    }

    #[test]
    fn many_samples_sum_to_one_and_order_does_not_matter() {
        let mut random = SplitMix(6);
        let rewards: Vec<f64> = (0..256).map(|_| 4.0 * random.uniform()).collect();
        for n in [1, 4, 32, 200, 256] {
            let found = weights(&rewards, n, 0.7).unwrap();
            assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{n}");
            let reversed: Vec<f64> = rewards.iter().rev().copied().collect();
            let again = weights(&reversed, n, 0.7).unwrap();
            for (a, b) in found.iter().zip(again.iter().rev()) {
                assert!((a - b).abs() < 1e-14, "{n}: {a} and {b}");
            }
        }
    }

    #[test]
    fn cold_it_is_the_best_and_hot_any() {
        let rewards = [0.5, 2.0, 2.0, -1.0, 7.0];
        let best = selection_weights(&rewards, Selection::Best(3)).unwrap();
        for (cold, best) in weights(&rewards, 3, 1e-3).unwrap().iter().zip(&best) {
            assert!((cold - best).abs() < 1e-13);
        }
        assert!(weights(&rewards, 3, 1e9).unwrap().iter().all(|hot| (hot - 0.2).abs() < 1e-8));
    }

    #[test]
    fn no_temperature_and_too_low_ones_are_refused() {
        for temperature in [0.0, -1.0, f64::NAN, 1e-4] {
            let error = weights(&[0.0, 2.0], 2, temperature).unwrap_err();
            assert!(error.to_string().contains("temperature"), "{error}");
        }
        assert!(weights(&[3.0, 3.0], 2, 1e-4).is_ok());
    }
}
