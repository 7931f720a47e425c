//! How many prompts and samples an effect needs to be seen.

use statrs::distribution::{ContinuousCDF, Normal};

use crate::cluster::{check_level, mean_and_standard_error, normal_quantile, t_quantile};
use crate::error::{StatsError, check};

/// Prompts beyond which no plan goes: an effect that needs more is refused as too small.
const MOST_PROMPTS: f64 = 1e12;

/// Where the variance of a per-prompt number, such as a win rate or a paired difference, comes from.
///
/// With M samples a prompt, the variance over prompts is `between` + `within`·(samples/M): what prompts differ by, which more samples do not
/// lessen, and the noise of the samples, which falls as 1/M. The noise of a win rate has a part that falls as 1/M², too, so that for more
/// samples than the pilot's this is a little too much, and for fewer too little, in simulations by a third at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Variance of the prompts' true values.
    pub between: f64,
    /// Variance of the samples' noise, at `samples` of them.
    pub within: f64,
    /// M of the pilot.
    pub samples: usize,
}

impl Spread {
    /// Estimates it from a pilot whose samples are also taken in two halves, each with its own number.
    ///
    /// Equation: between = Cov(first half, second half), as the noises of two halves have nothing to do with one another, and within is what
    /// is left of the variance of the whole. So it is for every number without bias, whatever its noise is as a function of M.
    ///
    /// - `whole`, `halves`: one number a prompt, from all samples, from the first half and from the second; 2 prompts or more.
    /// - `samples`: a prompt, in the whole.
    ///
    /// # Errors
    /// [`StatsError::TooFew`], [`StatsError::NotFinite`], and [`StatsError::Unpaired`] for different numbers of prompts.
    pub fn of_halves(
        whole: &[f64],
        halves: [&[f64]; 2],
        samples: usize,
    ) -> Result<Self, StatsError> {
        let n = whole.len();
        for half in halves {
            check("halves", half, 2)?;
            if half.len() != n {
                return Err(StatsError::Unpaired { first: n, second: half.len() });
            }
        }
        let (_, standard_error) = mean_and_standard_error(whole)?;
        let total = standard_error * standard_error * n as f64;
        let means = halves.map(|half| half.iter().sum::<f64>() / n as f64);
        let pairs = halves[0].iter().zip(halves[1]);
        let products = pairs.map(|(a, b)| (a - means[0]) * (b - means[1])).sum::<f64>();
        let between = (products / (n as f64 - 1.0)).min(total).max(0.0);
        Ok(Self { between, within: total - between, samples })
    }

    /// Variance over prompts with that many samples a prompt.
    ///
    /// - `samples`: 1 or more; there is no finite variance with none.
    pub fn variance(&self, samples: usize) -> f64 {
        self.between + self.within * self.samples as f64 / samples as f64
    }

    /// About the least number of prompts with which a true effect of that size is found with probability `power`, by a two-sided test of
    /// level 1 − `level`; at least 2.
    ///
    /// Equation: n ≥ (t·(1 − 1/4ν) + z·√(1 + t²/2ν))²·σ²/effect², t the quantile of the test at ν = n − 1 degrees, z that of the power: the
    /// normal approximation to the noncentral t. Beside that itself it is one too few or too many in 2 of 100 cases, and up to a power of
    /// 0.9 not too few.
    ///
    /// # Errors
    /// [`StatsError::Level`] for a level or power that is no probability, [`StatsError::Margin`] for an effect that is not above 0,
    /// [`StatsError::TooFew`] without samples.
    ///
    /// ```
    /// use infalign_stats::Spread;
    /// let pilot = Spread { between: 0.02, within: 0.04, samples: 16 };
    /// let few = pilot.prompts_needed(0.02, 16, 0.95, 0.8)?;
    /// let many = pilot.prompts_needed(0.02, 64, 0.95, 0.8)?;
    /// assert!(few == 1180 && many < few / 2 + 100);
    /// # Ok::<(), infalign_stats::StatsError>(())
    /// ```
    pub fn prompts_needed(
        &self,
        effect: f64,
        samples: usize,
        level: f64,
        power: f64,
    ) -> Result<usize, StatsError> {
        check_level(level)?;
        check_level(power)?;
        if !(effect > 0.0 && effect.is_finite()) {
            return Err(StatsError::Margin(effect));
        }
        for found in [samples, self.samples] {
            if found == 0 {
                return Err(StatsError::TooFew { what: "samples a prompt", needed: 1, found });
            }
        }
        let z = Normal::standard().inverse_cdf(power);
        let ratio = self.variance(samples) / (effect * effect);
        let needed = |n: usize| {
            let (t, freedom) = (t_quantile(level, n - 1), n as f64 - 1.0);
            let reach = t * (1.0 - 0.25 / freedom) + z * (1.0 + 0.5 * t * t / freedom).sqrt();
            reach.max(0.0).powi(2) * ratio
        };
        // t falls as n grows, so the least n that is enough is found from below.
        let normal = (normal_quantile(level) + z).max(0.0).powi(2) * ratio;
        // Neither is it where the spread is no number.
        if !(0.0..=MOST_PROMPTS).contains(&normal) {
            return Err(StatsError::Margin(effect));
        }
        let mut n = (normal.ceil() as usize).max(2);
        while (n as f64) < needed(n) {
            n += 1;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::t_test;
    use crate::testing::SplitMix;

    /// A prompt's number from M samples: its own value and the mean of M noises.
    fn prompt(random: &mut SplitMix, value: f64, samples: usize) -> [f64; 3] {
        let noises: Vec<f64> = (0..samples).map(|_| random.normal()).collect();
        let mean = |part: &[f64]| value + part.iter().sum::<f64>() / part.len() as f64;
        [mean(&noises), mean(&noises[..samples / 2]), mean(&noises[samples / 2..])]
    }

    #[test]
    fn the_parts_of_the_variance_are_found() {
        let mut random = SplitMix(37);
        let rows: Vec<[f64; 3]> = (0..4_000)
            .map(|_| {
                let value = 0.3 * random.normal();
                prompt(&mut random, value, 16)
            })
            .collect();
        let column = |k: usize| -> Vec<f64> { rows.iter().map(|row| row[k]).collect() };
        let spread = Spread::of_halves(&column(0), [&column(1), &column(2)], 16).unwrap();
        assert!((spread.between - 0.09).abs() < 0.01, "{spread:?}");
        assert!((spread.within - 1.0 / 16.0).abs() < 0.005, "{spread:?}");
        assert!((spread.variance(64) - (0.09 + 1.0 / 64.0)).abs() < 0.01);
    }

    #[test]
    fn the_parts_of_the_variance_are_never_below_nothing() {
        // The whole has a variance of 2, its halves a covariance of −4, 6 and 1.5.
        let of = |first: &[f64], second: &[f64]| {
            Spread::of_halves(&[0.0, 2.0], [first, second], 4).unwrap()
        };
        let spread = of(&[-2.0, 2.0], &[2.0, 0.0]);
        assert_eq!(spread, Spread { between: 0.0, within: 2.0, samples: 4 });
        let spread = of(&[-1.0, 2.0], &[1.0, 5.0]);
        assert_eq!(spread, Spread { between: 2.0, within: 0.0, samples: 4 });
        let spread = of(&[0.0, 1.0], &[0.0, 3.0]);
        assert_eq!(spread, Spread { between: 1.5, within: 0.5, samples: 4 });
        // The noise is half with twice the samples, and four times as much with one.
        assert_eq!([8, 4, 1].map(|samples| spread.variance(samples)), [1.75, 2.0, 3.5]);
    }

    #[test]
    fn a_plan_has_the_power_that_it_says() {
        let mut random = SplitMix(38);
        let spread = Spread { between: 0.09, within: 1.0 / 16.0, samples: 16 };
        for (effect, samples) in [(0.1, 16), (0.25, 4)] {
            let n = spread.prompts_needed(effect, samples, 0.95, 0.8).unwrap();
            let sigma = spread.variance(samples).sqrt();
            let found = (0..1_500).filter(|_| {
                let x: Vec<f64> = (0..n).map(|_| effect + sigma * random.normal()).collect();
                t_test(&x, 0.0).unwrap() < 0.05
            });
            let power = found.count() as f64 / 1_500.0;
            assert!((0.77..0.84).contains(&power), "{power} with {n} prompts");
        }
    }

    /// The least that suffice by the noncentral t of another program; for a power of 0.8 one fewer has 0.745, 0.619, 0.755 and 0.754.
    #[test]
    fn few_prompts_are_enough() {
        let spread = Spread { between: 1.0, within: 0.0, samples: 1 };
        for (power, counts) in [(0.8, [4, 4, 5, 8]), (0.9, [4, 5, 5, 10])] {
            let needed = [3.0, 2.5, 2.0, 1.2]
                .map(|effect| spread.prompts_needed(effect, 1, 0.95, power).unwrap());
            assert_eq!(needed, counts, "{power}");
        }
    }

    /// The numbers by the same equation with 50 digits.
    #[test]
    fn hundreds_of_billions_of_prompts_are_counted() {
        for (between, halvings, level, expected) in [
            (0.75, 12, 0.95, 98_761_765),
            (1.6875, 18, 0.95, 910_188_407_773),
            // A level so near to 1 that little of what it leaves is in (1 + level)/2.
            (0.25, 17, 1.0 - 3e-15, 327_528_960_033),
        ] {
            let spread = Spread { between, within: 0.0, samples: 1 };
            let effect = 0.5_f64.powi(halvings);
            assert_eq!(spread.prompts_needed(effect, 1, level, 0.8), Ok(expected), "{between}");
        }
    }

    #[test]
    fn a_small_pilot_of_best_of_4_plans_for_more_samples() {
        let mut random = SplitMix(39);
        let mut side = |shift: f64, samples: usize| -> Vec<f64> {
            (0..samples).map(|_| shift + random.normal()).collect()
        };
        let won = |ours: &[f64], theirs: &[f64]| {
            crate::win_rate(ours, theirs, crate::Selection::Best(4)).unwrap()
        };
        let mut pilot: [Vec<f64>; 3] = Default::default();
        let mut later = Vec::new();
        for _ in 0..4_000 {
            let shift = 0.3 + 0.4 * side(0.0, 1)[0];
            let (ours, theirs) = (side(shift, 8), side(0.0, 8));
            pilot[0].push(won(&ours, &theirs));
            pilot[1].push(won(&ours[..4], &theirs[..4]));
            pilot[2].push(won(&ours[4..], &theirs[4..]));
            later.push(won(&side(shift, 64), &side(0.0, 64)));
        }
        let spread = Spread::of_halves(&pilot[0], [&pilot[1], &pilot[2]], 8).unwrap();
        let (_, standard_error) = mean_and_standard_error(&later).unwrap();
        let share = spread.variance(64) / (standard_error * standard_error * 4_000.0);
        assert!((0.8..1.25).contains(&share), "{share}");
    }

    #[test]
    fn what_is_no_effect_or_level_is_refused() {
        let spread = Spread { between: 1.0, within: 0.0, samples: 1 };
        assert!(matches!(spread.prompts_needed(0.0, 1, 0.95, 0.8), Err(StatsError::Margin(_))));
        let none = spread.prompts_needed(0.1, 0, 0.95, 0.8);
        assert!(matches!(none, Err(StatsError::TooFew { found: 0, .. })), "{none:?}");
        assert!(matches!(spread.prompts_needed(0.1, 1, 0.95, 1.0), Err(StatsError::Level(_))));
        assert_eq!(spread.prompts_needed(1e9, 1, 0.95, 0.8).unwrap(), 2);
        // A power below 0.05, which the test has without any effect, takes no more than the least.
        assert_eq!(spread.prompts_needed(0.01, 1, 0.95, 0.01).unwrap(), 2);
        // (1.96 + 0.84)² = 7.85 prompts at an effect of 1, and 10¹⁴ times as many here.
        let most = spread.prompts_needed(1e-7, 1, 0.95, 0.8);
        assert_eq!(most, Err(StatsError::Margin(1e-7)));
        let unknown = Spread { between: f64::NAN, ..spread }.prompts_needed(0.1, 1, 0.95, 0.8);
        assert_eq!(unknown, Err(StatsError::Margin(0.1)));
        let unpaired = Spread::of_halves(&[1.0, 2.0, 3.0], [&[1.0, 2.0], &[1.0, 2.0]], 2);
        assert!(matches!(unpaired, Err(StatsError::Unpaired { .. })));
    }
}
