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

    /// Interval of the mean of one series less that of another, by their places.
    ///
    /// # Errors
    /// As [`Resamples::interval`].
    pub fn difference(&self, level: f64, a: usize, b: usize) -> Result<Interval, StatsError> {
        let scale = self.means[a].abs().max(self.means[b].abs());
        self.interval_of(level, scale, |means| means[a] - means[b])
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::testing::SplitMix;
    use crate::{mean_interval, paired_difference};

    fn first(means: &[f64]) -> f64 {
        means[0]
    }

    /// Share of simulations whose interval holds the truth.
    fn coverage(simulations: u64, mut covers: impl FnMut(u64) -> bool) -> f64 {
        (0..simulations).filter(|&seed| covers(seed)).count() as f64 / simulations as f64
    }

    #[test]
    fn covers_the_mean_of_bounded_skewed_prompts() {
        // Win rates of prompts near the upper end, as of a strong policy: 1 − U⁴ has mean 0.8.
        let mut random = SplitMix(3);
        for (prompts, simulations) in [(50, 1_000), (200, 800), (2_000, 400)] {
            let share = coverage(simulations, |seed| {
                let x: Vec<f64> = (0..prompts).map(|_| 1.0 - random.uniform().powi(4)).collect();
                let resamples = Resamples::new(&[&x], 500, seed).unwrap();
                let interval = resamples.interval(0.95, first).unwrap();
                interval.low <= 0.8 && 0.8 <= interval.high
            });
            assert!((0.93..=0.97).contains(&share), "{share} with {prompts} prompts");
        }
    }

    #[test]
    fn covers_the_mean_of_a_handful_of_prompts() {
        let mut random = SplitMix(8);
        for prompts in [2, 3, 5, 9, 10, 12] {
            let share = coverage(1_000, |seed| {
                let x: Vec<f64> = (0..prompts).map(|_| random.normal()).collect();
                let resamples = Resamples::new(&[&x], 500, seed).unwrap();
                let interval = resamples.interval(0.95, first).unwrap();
                interval.low <= 0.0 && 0.0 <= interval.high
            });
            assert!((0.925..=0.97).contains(&share), "{share} with {prompts} prompts");
        }
    }

    #[test]
    fn covers_the_difference_of_paired_prompts() {
        let mut random = SplitMix(4);
        let share = coverage(1_000, |seed| {
            let draw = |random: &mut SplitMix| -> (f64, f64) {
                let ease = random.uniform();
                (ease, (ease + 0.2 * random.uniform() - 0.05).clamp(0.0, 1.2))
            };
            let (a, b): (Vec<f64>, Vec<f64>) = (0..60).map(|_| draw(&mut random)).unzip();
            let resamples = Resamples::new(&[&a, &b], 500, seed).unwrap();
            let interval = resamples.interval(0.95, |m| m[1] - m[0]).unwrap();
            // E(b − a) = 0.05 but for the clamp at 0: E max(0, −(ease + v)), v uniform on [−0.05, 0.15], is 0.05³/(6·0.2).
            let truth = 0.05 + 0.05_f64.powi(3) / (6.0 * 0.2);
            interval.low <= truth && truth <= interval.high
        });
        assert!((0.93..=0.97).contains(&share), "{share}");
    }

    #[test]
    fn agrees_with_students_interval_where_that_is_right() {
        let mut random = SplitMix(5);
        let a: Vec<f64> = (0..400).map(|_| random.normal()).collect();
        let b: Vec<f64> = a.iter().map(|a| a + 0.3 + random.normal()).collect();
        let resamples = Resamples::new(&[&a, &b], 20_000, 1).unwrap();
        let bootstrap = resamples.interval(0.95, |m| m[1] - m[0]).unwrap();
        let student = paired_difference(&b, &a, 0.95).unwrap();
        assert!((bootstrap.estimate - student.estimate).abs() < 1e-12);
        for (ours, theirs) in [(bootstrap.low, student.low), (bootstrap.high, student.high)] {
            assert!((ours - theirs).abs() < 0.01, "{bootstrap:?} {student:?}");
        }
    }

    /// Of prompts with two outcomes many resamples tie with the estimate, whatever the outcomes are called.
    #[test]
    fn the_scale_of_outcomes_does_not_move_their_interval() {
        for (prompts, high) in [(20, 18), (40, 10), (100, 90)] {
            let of = |a: f64, b: f64| {
                let x: Vec<f64> = (0..prompts).map(|k| if k < high { b } else { a }).collect();
                let found = Resamples::new(&[&x], 2_000, 1).unwrap().interval(0.95, first).unwrap();
                [found.low, found.high].map(|end| (end - a) / (b - a))
            };
            let expected = of(0.0, 1.0);
            for (a, b) in [(0.1, 0.7), (0.3, 1.1), (0.0, 0.1), (-0.7, 0.2)] {
                let found = of(a, b);
                let near =
                    found.iter().zip(expected).all(|(found, end)| (found - end).abs() < 1e-9);
                assert!(near, "{a} and {b}: {found:?} and not {expected:?}");
            }
        }
    }

    /// Two series that differ on one prompt of many, whose resamples tie at multiples of a difference that is small beside their means.
    #[test]
    fn the_scale_of_series_does_not_move_the_interval_of_their_difference() {
        let of = |a: f64, b: f64| {
            let scaled = |k: u32| a + (b - a) * f64::from(k * k % 11) / 10.0;
            let first: Vec<f64> = (0..1_000).map(scaled).collect();
            let mut second = first.clone();
            second[500] += 0.25 * (b - a);
            let resamples = Resamples::new(&[&first, &second], 2_000, 1).unwrap();
            let found = resamples.difference(0.95, 1, 0).unwrap();
            [found.low, found.high].map(|end| end / (b - a))
        };
        let expected = of(0.0, 1.0);
        for (a, b) in [(0.1, 0.7), (0.3, 1.1), (0.4, 0.5), (-0.7, 0.2)] {
            let found = of(a, b);
            let near = found.iter().zip(expected).all(|(found, end)| (found - end).abs() < 1e-9);
            assert!(near, "{a} and {b}: {found:?} and not {expected:?}");
        }
    }

    #[test]
    fn below_ten_prompts_the_interval_of_a_mean_is_students() {
        for (prompts, same) in [(2_u32, true), (9, true), (10, false)] {
            let x: Vec<f64> = (0..prompts).map(|k| f64::from(k * k)).collect();
            let ours = Resamples::new(&[&x], 200, 1).unwrap().interval(0.95, first).unwrap();
            let student = mean_interval(&x, 0.95).unwrap();
            assert!((ours.estimate - student.estimate).abs() < 1e-12);
            let apart = (ours.low - student.low).abs().max((ours.high - student.high).abs());
            assert_eq!(apart < 1e-9, same, "{prompts}: {ours:?} {student:?}");
        }
    }

    #[test]
    fn skewed_data_have_a_skewed_interval() {
        let mut random = SplitMix(6);
        let x: Vec<f64> = (0..80).map(|_| -(1.0 - random.uniform()).ln()).collect();
        let bca = Resamples::new(&[&x], 10_000, 1).unwrap().interval(0.95, first).unwrap();
        let student = mean_interval(&x, 0.95).unwrap();
        assert!(bca.high - bca.estimate > 1.1 * (bca.estimate - bca.low), "{bca:?}");
        assert!(bca.low > student.low && bca.high > student.high, "{bca:?} {student:?}");
    }

    #[test]
    fn the_acceleration_is_the_skewness_of_the_deviations_over_six() {
        // Σd³ = 27 − 3 and Σd² = 12: 24/(6·12^{3/2}), in whatever unit.
        for unit in [1.0, 10.0] {
            let found = acceleration(&[-1.0, -1.0, -1.0, 3.0].map(|d: f64| d * unit));
            assert!((found - 0.096_225_045).abs() < 1e-8, "{found} in units of {unit}");
        }
    }

    #[test]
    fn levels_are_of_students_quantiles_widened_and_accelerated() {
        let resamples = Resamples::new(&[&[0.0; 10]], 100, 0).unwrap();
        // Φ(z/(1 − az)) at z = ±2.262157·√(10/9): the resamples lie as far on either side, without bias.
        for (acceleration, expected) in
            [(0.0, [0.008_550_6, 0.991_449_4]), (0.05, [0.016_564_7, 0.996_608_4])]
        {
            let found = resamples.levels(0.95, (0.0, 0.0), &[-1.0, 1.0], acceleration);
            let near =
                found.iter().zip(expected).all(|(found, level)| (found - level).abs() < 1e-6);
            assert!(near, "{acceleration}: {found:?} and not {expected:?}");
        }
    }

    #[test]
    fn an_interval_is_accelerated_by_the_skewness_of_its_prompts() {
        // Resamples spread evenly from −1 to 1, so that a level p is at 2p − 1, of a mean with Σd³ = 120 and Σd² = 40: a = 0.079057.
        let resamples = Resamples {
            values: vec![-1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 4.0, 4.0],
            means: vec![0.0],
            replicates: (1_u32..1_000).map(|k| f64::from(k) / 500.0 - 1.0).collect(),
        };
        let found = resamples.interval(0.95, first).unwrap();
        let apart = (found.low + 0.955_177).abs().max((found.high - 0.996_702).abs());
        assert!(apart < 1e-5, "{found:?}");
    }

    #[test]
    fn resamples_are_uniform_and_the_seeds_alone() {
        let (n, rounds) = (7, 20_000);
        let mut hits = [0; 8];
        for replicate in 0..rounds {
            for count in counts(n, 9, replicate) {
                hits[count as usize] += 1;
            }
        }
        // A prompt is in a resample Binomial(7, 1/7) times: 0 with (6/7)⁷, 1 with (6/7)⁶.
        let all = (n as u64 * rounds) as f64;
        for (times, expected) in [(0, (6f64 / 7.0).powi(7)), (1, (6f64 / 7.0).powi(6))] {
            let share = f64::from(hits[times]) / all;
            assert!((share - expected).abs() < 0.006, "{times}: {share} {expected}");
        }
        assert_eq!(counts(50, 1, 2), counts(50, 1, 2));
        assert_ne!(counts(50, 1, 2), counts(50, 1, 3));
        assert_ne!(counts(50, 1, 2), counts(50, 2, 2));
        assert_eq!(counts(50, 1, 2).iter().sum::<u32>(), 50);
    }

    #[test]
    fn threads_and_further_series_change_nothing() {
        let mut random = SplitMix(7);
        let mut draw = || -> Vec<f64> { (0..30).map(|_| random.uniform()).collect() };
        let (a, b) = (draw(), draw());
        let alone = Resamples::new(&[&a], 300, 5).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let both = pool.install(|| Resamples::new(&[&b, &a], 300, 5)).unwrap();
        let second = both.interval(0.9, |means| means[1]).unwrap();
        assert_eq!(alone.interval(0.9, first).unwrap(), second);
    }

    #[test]
    fn what_does_not_vary_has_no_width_and_what_is_undefined_is_an_error() {
        let resamples = Resamples::new(&[&[1.0; 5]], 100, 0).unwrap();
        let interval = resamples.interval(0.95, first).unwrap();
        assert_eq!((interval.low, interval.estimate, interval.high), (1.0, 1.0, 1.0));
        let none = Resamples::new(&[], 100, 0).unwrap().interval(0.95, |_| 0.0);
        assert_eq!(none, Err(StatsError::Undefined { defined: 0, of: 0 }));
        let undefined = resamples.interval(0.95, |_| f64::NAN);
        assert_eq!(undefined, Err(StatsError::Undefined { defined: 0, of: 100 }));
        // One resample in a hundred may be undefined; the prompts themselves are looked at first.
        let but_for = |lost: usize| {
            let calls = AtomicUsize::new(0);
            resamples.interval(0.95, |means| {
                let call = calls.fetch_add(1, Ordering::Relaxed);
                if (1..=lost).contains(&call) { f64::NAN } else { means[0] }
            })
        };
        assert_eq!(but_for(1).unwrap().estimate, 1.0);
        assert_eq!(but_for(2), Err(StatsError::Undefined { defined: 98, of: 100 }));
        assert!(matches!(resamples.interval(1.0, first), Err(StatsError::Level(_))));
        assert!(matches!(Resamples::new(&[&[1.0]], 100, 0), Err(StatsError::TooFew { .. })));
        assert!(matches!(Resamples::new(&[&[1.0, 2.0]], 99, 0), Err(StatsError::TooFew { .. })));
        let unpaired = Resamples::new(&[&[1.0, 2.0], &[1.0]], 100, 0).err();
        assert_eq!(unpaired, Some(StatsError::Unpaired { first: 2, second: 1 }));
    }
}
