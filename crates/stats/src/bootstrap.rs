//! The bootstrap over prompts: intervals of any function of means, from resamples that everything compared has in common.
//!
//! A prompt is the cluster, as in [`crate::cluster`]: prompts are drawn with replacement, their responses are not. All series of a table
//! are resampled together, so a difference of two of them is paired, and a function of several, such as a win rate interpolated to a
//! common KL, carries the uncertainty of all.
//!
//! Intervals are bias-corrected and accelerated (BCa; Efron 1987). A resample of n prompts varies less than n prompts do, by (n − 1)/n, and
//! normal quantiles ignore that the spread is estimated; so the levels are widened to those of Student's t, z → t₍n−1₎·√(n/(n − 1))
//! (Hesterberg 2015, "expanded" intervals), which matters below some fifty prompts. Below ten, of which resamples are too much alike, the interval is
//! Student's with the jackknife's standard error.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, Normal};

use crate::Interval;
use crate::cluster::{check_level, jackknife_deviations, t_quantile};
use crate::error::{StatsError, check};

/// Prompts from which on resamples tell more than the jackknife.
const FEWEST: usize = 10;
/// Statistics that are nearer to each other, beside the greatest, are equal.
const TIE: f64 = 1e-12;

/// Means of several series over the same prompts, and of resamples of these prompts.
#[derive(Clone, Debug)]
pub struct Resamples {
    /// `[prompts, series]`.
    values: Vec<f64>,
    /// `[series]`.
    means: Vec<f64>,
    /// `[replicates, series]`.
    replicates: Vec<f64>,
}

impl Resamples {
    /// Refuses too few resamples, before there is anything to resample.
    ///
    /// # Errors
    /// [`StatsError::TooFew`] for fewer than 100.
    pub fn check(replicates: usize) -> Result<(), StatsError> {
        const LEAST: usize = 100;
        if replicates < LEAST {
            return Err(StatsError::TooFew {
                what: "replicates",
                needed: LEAST,
                found: replicates,
            });
        }
        Ok(())
    }

    /// Resamples the prompts.
    ///
    /// - `series`: one number a prompt each, for the same prompts in the same order; 2 prompts or more.
    /// - `replicates`: how many resamples, 100 or more; 10,000 leave little noise at the ends of a 95 % interval.
    /// - `seed`: which resamples. The same ones come whatever the series, and on any number of threads.
    ///
    /// # Errors
    /// [`StatsError::TooFew`], [`StatsError::NotFinite`], and [`StatsError::Unpaired`] for series of different lengths.
    pub fn new(series: &[&[f64]], replicates: usize, seed: u64) -> Result<Self, StatsError> {
        let prompts = series.first().map_or(0, |first| first.len());
        Self::check(replicates)?;
        for one in series {
            if one.len() != prompts {
                return Err(StatsError::Unpaired { first: prompts, second: one.len() });
            }
            check("series", one, 2)?;
        }
        let values: Vec<f64> =
            (0..prompts).flat_map(|prompt| series.iter().map(move |one| one[prompt])).collect();
        let width = series.len();
        let mut means = vec![0.0; width];
        let mut all = vec![0.0; replicates * width];
        if width > 0 {
            mean(&values, |_| 1.0, prompts, &mut means);
            all.par_chunks_mut(width).enumerate().for_each(|(replicate, means)| {
                let counts = counts(prompts, seed, replicate as u64);
                mean(&values, |prompt| f64::from(counts[prompt]), prompts, means);
            });
        }
        Ok(Self { values, means, replicates: all })
    }

    /// Interval of a function of the series' means, `[series]`, such as their difference.
    ///
    /// The estimate is the function of the means over all prompts. Where the function is not a number for some resamples, as where an
    /// interpolation has nothing to go by, those are left out.
    ///
    /// # Errors
    /// [`StatsError::Level`], and [`StatsError::Undefined`] where the function is not a number for the prompts themselves or for more
    /// than one resample in a hundred.
    pub fn interval(
        &self,
        level: f64,
        statistic: impl Fn(&[f64]) -> f64 + Sync,
    ) -> Result<Interval, StatsError> {
        self.interval_of(level, 0.0, statistic)
    }

    /// Interval of the mean of one series, by its place. Costs no more for the series beside it.
    ///
    /// # Errors
    /// [`StatsError::NoSeries`], and as [`Resamples::interval`].
    pub fn mean(&self, level: f64, series: usize) -> Result<Interval, StatsError> {
        self.only([series])?.interval(level, |means| means[0])
    }

    /// Interval of the mean of one series less that of another, by their places. Costs no more for the series beside them.
    ///
    /// # Errors
    /// As [`Resamples::mean`].
    pub fn difference(&self, level: f64, a: usize, b: usize) -> Result<Interval, StatsError> {
        let pair = self.only([a, b])?;
        let scale = pair.means[0].abs().max(pair.means[1].abs());
        pair.interval_of(level, scale, |means| means[0] - means[1])
    }

    /// Some of the series, by their places, on the same resamples.
    fn only<const N: usize>(&self, places: [usize; N]) -> Result<Self, StatsError> {
        let count = self.means.len();
        if let Some(index) = places.into_iter().find(|&place| place >= count) {
            return Err(StatsError::NoSeries { index, count });
        }
        let of = |rows: &[f64]| -> Vec<f64> {
            rows.chunks(count).flat_map(|row| places.map(|place| row[place])).collect()
        };
        let (values, means) = (of(&self.values), of(&self.means));
        Ok(Self { values, means, replicates: of(&self.replicates) })
    }

    /// - `scale`: greatest of the numbers that the statistic is made of, where they may be greater than it.
    fn interval_of(
        &self,
        level: f64,
        scale: f64,
        statistic: impl Fn(&[f64]) -> f64 + Sync,
    ) -> Result<Interval, StatsError> {
        check_level(level)?;
        let width = self.means.len().max(1);
        let estimate = statistic(&self.means);
        let mut drawn: Vec<f64> =
            self.replicates.chunks(width).map(&statistic).filter(|value| !value.is_nan()).collect();
        let all = self.replicates.len() / width;
        if !estimate.is_finite() || all == 0 || drawn.len() * 100 < all * 99 {
            return Err(StatsError::Undefined { defined: drawn.len(), of: all });
        }
        let deviations = self.jackknife(&statistic);
        if self.prompts() < FEWEST {
            let interval = Interval::of_jackknife(estimate, &deviations, level);
            if !interval.low.is_finite() {
                let defined = deviations.iter().filter(|d| d.is_finite()).count();
                return Err(StatsError::Undefined { defined, of: deviations.len() });
            }
            return Ok(interval);
        }
        drawn.sort_unstable_by(f64::total_cmp);
        let ends = [drawn[0], drawn[drawn.len() - 1], estimate];
        let tie = TIE * ends.iter().fold(scale, |most, value| most.max(value.abs()));
        let levels = self.levels(level, (estimate, tie), &drawn, acceleration(&deviations));
        let [low, high] = levels.map(|share| quantile(&drawn, share));
        // The middle is the estimate's, however the resamples lie.
        Ok(Interval { estimate, low: low.min(estimate), high: high.max(estimate), level })
    }

    fn prompts(&self) -> usize {
        self.values.len() / self.means.len().max(1)
    }

    /// Between which shares of the resamples the interval lies: Φ(z₀ + (z₀ ± z)/(1 − a(z₀ ± z))).
    ///
    /// - `tie`: resamples that are nearer to the estimate are as great: sums that are equal on paper may differ in their last bits.
    fn levels(
        &self,
        level: f64,
        (estimate, tie): (f64, f64),
        sorted: &[f64],
        acceleration: f64,
    ) -> [f64; 2] {
        let normal = Normal::standard();
        let (n, replicates) = (self.prompts() as f64, sorted.len() as f64);
        let below = sorted.partition_point(|&value| value < estimate - tie);
        let at_most = sorted.partition_point(|&value| value <= estimate + tie);
        let share = 0.5 * (below + at_most) as f64 / replicates;
        let bias = normal.inverse_cdf(share.clamp(0.5 / replicates, 1.0 - 0.5 / replicates));
        let z = t_quantile(level, self.prompts() - 1) * (n / (n - 1.0)).sqrt();
        [-z, z].map(|z| {
            let shifted = bias + z;
            // Beyond the pole of a large acceleration the formula turns back.
            let denominator = (1.0 - acceleration * shifted).max(1e-3);
            normal.cdf(bias + shifted / denominator)
        })
    }

    /// What leaving one prompt out takes from the statistic.
    fn jackknife(&self, statistic: &(impl Fn(&[f64]) -> f64 + Sync)) -> Vec<f64> {
        let (width, n) = (self.means.len().max(1), self.prompts() as f64);
        let mut left = vec![0.0; width];
        let mut values = Vec::with_capacity(self.prompts());
        for row in self.values.chunks(width) {
            for ((left, mean), value) in left.iter_mut().zip(&self.means).zip(row) {
                *left = mean + (mean - value) / (n - 1.0);
            }
            values.push(statistic(&left));
        }
        jackknife_deviations(&values)
    }
}

/// a = Σd³ / (6·(Σd²)^{3/2}) of a jackknife's deviations d.
fn acceleration(deviations: &[f64]) -> f64 {
    let sum = |power: i32| deviations.iter().map(|d| d.powi(power)).sum::<f64>();
    let acceleration = sum(3) / (6.0 * sum(2).powf(1.5));
    if acceleration.is_finite() { acceleration } else { 0.0 }
}

/// How often a resample holds each prompt: n draws from n.
fn counts(prompts: usize, seed: u64, replicate: u64) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(replicate);
    let mut counts = vec![0; prompts];
    let n = prompts as u64;
    // Lemire's method: the low half of the product tells the draws that would favour some prompts.
    let unfair = (1 << 32) % n;
    for _ in 0..prompts {
        let drawn = loop {
            let product = u64::from(random.next_u32()) * n;
            if product & u64::from(u32::MAX) >= unfair {
                break product >> 32;
            }
        };
        counts[drawn as usize] += 1;
    }
    counts
}

/// Weighted sums of the rows over the number of prompts.
fn mean(values: &[f64], count: impl Fn(usize) -> f64, prompts: usize, means: &mut [f64]) {
    for (prompt, row) in values.chunks(means.len()).enumerate() {
        let count = count(prompt);
        if count > 0.0 {
            means.iter_mut().zip(row).for_each(|(sum, value)| *sum += count * value);
        }
    }
    means.iter_mut().for_each(|sum| *sum /= prompts as f64);
}

/// The quantile of sorted values, linear between them.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (share * (sorted.len() + 1) as f64 - 1.0).clamp(0.0, sorted.len() as f64 - 1.0);
    let (below, part) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + part * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests;
