//! Means over prompts with Student t intervals.
//!
//! A prompt is the cluster: its responses share the prompt, so they are not independent, while the
//! prompts are. One number a prompt (already averaged over its responses) goes in, and only the
//! spread between prompts decides the interval.

use serde::{Deserialize, Serialize};
use statrs::distribution::{Continuous, ContinuousCDF, Normal, StudentsT};

use crate::error::{StatsError, check};

/// An estimate with its confidence interval, in the units of the input.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean over prompts, or the share of trials.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Nominal coverage, strictly between 0 and 1.
    pub level: f64,
}

impl Interval {
    /// An interval as wide to either side.
    pub(crate) fn around(estimate: f64, half_width: f64, level: f64) -> Self {
        Self { estimate, low: estimate - half_width, high: estimate + half_width, level }
    }

    /// Student's interval with the jackknife's standard error: s² = (n − 1)/n·Σd², d the deviations.
    pub(crate) fn of_jackknife(estimate: f64, deviations: &[f64], level: f64) -> Self {
        let n = deviations.len() as f64;
        let squares: f64 = deviations.iter().map(|d| d * d).sum();
        let standard_error = ((n - 1.0) / n * squares).sqrt();
        Self::around(estimate, t_quantile(level, deviations.len() - 1) * standard_error, level)
    }
}

/// What leaving one cluster out takes from the mean of all values that are so computed.
pub(crate) fn jackknife_deviations(without_one: &[f64]) -> Vec<f64> {
    let mean = without_one.iter().sum::<f64>() / without_one.len() as f64;
    without_one.iter().map(|value| mean - value).collect()
}

/// Mean over clusters and its standard error.
///
/// Equation: x̄ and √(Σ(xᵢ − x̄)² / (n(n−1))).
///
/// - `per_cluster`: one number a cluster (prompt), n ≥ 2.
///
/// # Errors
/// [`StatsError::TooFew`] when n < 2, [`StatsError::NotFinite`] for a NaN or infinite number.
pub fn mean_and_standard_error(per_cluster: &[f64]) -> Result<(f64, f64), StatsError> {
    check("per_cluster", per_cluster, 2)?;
    let n = per_cluster.len() as f64;
    let mean = per_cluster.iter().sum::<f64>() / n;
    let squares: f64 = per_cluster.iter().map(|value| (value - mean).powi(2)).sum();
    Ok((mean, (squares / (n * (n - 1.0))).sqrt()))
}

/// Mean over clusters with its t interval of n − 1 degrees of freedom.
///
/// Equation: x̄ ± t₍n−1₎((1 + level)/2)·s/√n. Exact for normal cluster means, and close for the means
/// of bounded numbers such as win rates once there are some tens of prompts.
///
/// - `per_cluster`: one number a cluster (prompt), n ≥ 2.
/// - `level`: nominal coverage, strictly between 0 and 1.
///
/// # Errors
/// [`StatsError::Level`], and as for [`mean_and_standard_error`].
///
/// ```
/// let wins = [0.5, 0.75, 1.0, 0.25, 0.5];
/// let interval = infalign_stats::mean_interval(&wins, 0.95)?;
/// assert_eq!(interval.estimate, 0.6);
/// assert!(interval.low < 0.6 && 0.6 < interval.high);
/// # Ok::<(), infalign_stats::StatsError>(())
/// ```
pub fn mean_interval(per_cluster: &[f64], level: f64) -> Result<Interval, StatsError> {
    check_level(level)?;
    let (estimate, standard_error) = mean_and_standard_error(per_cluster)?;
    let half_width = t_quantile(level, per_cluster.len() - 1) * standard_error;
    Ok(Interval::around(estimate, half_width, level))
}

/// Interval of the mean difference a − b on the same clusters.
///
/// Pairing takes what the prompts have in common out of the spread.
///
/// - `a`, `b`: one number a cluster (prompt) each, in the same order, n ≥ 2.
/// - `level`: nominal coverage, strictly between 0 and 1.
///
/// # Errors
/// [`StatsError::Unpaired`] when the lengths differ, and as for [`mean_interval`].
pub fn paired_difference(a: &[f64], b: &[f64], level: f64) -> Result<Interval, StatsError> {
    if a.len() != b.len() {
        return Err(StatsError::Unpaired { first: a.len(), second: b.len() });
    }
    check("a", a, 2)?;
    check("b", b, 2)?;
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    mean_interval(&differences, level)
}

/// Refuses what is no probability strictly between 0 and 1.
///
/// # Errors
/// [`StatsError::Level`].
pub fn check_level(level: f64) -> Result<(), StatsError> {
    if level > 0.0 && level < 1.0 { Ok(()) } else { Err(StatsError::Level(level)) }
}

/// Degrees of freedom beyond which Student's t is computed as what it differs by from a normal variable: the library's loses ever more
/// digits as they grow, and of ten millions its inverse does not end.
const MANY: usize = 100_000;

/// The z that a standard normal variable stays within, in absolute value, with probability `level`.
pub(crate) fn normal_quantile(level: f64) -> f64 {
    -Normal::standard().inverse_cdf(0.5 - 0.5 * level)
}

/// The t that a Student t variable of `freedom` degrees stays within, in absolute value, with
/// probability `level`.
///
/// Of many degrees it is z + (z³ + z)/4ν + (5z⁵ + 16z³ + 3z)/96ν², z the normal quantile. Of fewer the
/// library's inverse begins, and Newton steps on its distribution function finish the work.
pub(crate) fn t_quantile(level: f64, freedom: usize) -> f64 {
    let v = freedom as f64;
    if freedom > MANY {
        let z = normal_quantile(level);
        let (first, second) = (z.powi(3) + z, 5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z);
        return z + first / (4.0 * v) + second / (96.0 * v * v);
    }
    // The location, scale and degrees are valid by construction, so this never falls back.
    let Ok(student) = StudentsT::new(0.0, 1.0, v) else { return f64::INFINITY };
    let tail = 0.5 - 0.5 * level;
    let start = -student.inverse_cdf(tail);
    (0..3).fold(start, |t, _| t - (tail - student.cdf(-t)) / student.pdf(t))
}

/// P(T ≤ t) of a Student t variable of `freedom` degrees; small where t is far below 0, and then with its digits.
///
/// Of many degrees it is that of a normal variable at w + (w³ + 3w)/48a², w² = a·log(1 + t²/ν) and a = ν − ½ (Hill 1970).
pub(crate) fn t_cdf(t: f64, freedom: usize) -> f64 {
    let v = freedom as f64;
    if freedom > MANY {
        let a = v - 0.5;
        let w = (a * (t * t / v).ln_1p()).sqrt().copysign(t);
        return Normal::standard().cdf(w + (w.powi(3) + 3.0 * w) / (48.0 * a * a));
    }
    // The degrees are valid by construction.
    StudentsT::new(0.0, 1.0, v).map_or(f64::NAN, |student| student.cdf(t))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SplitMix;

    #[test]
    fn t_quantiles_match_closed_forms() {
        for level in [0.5f64, 0.9, 0.95, 0.99] {
            // One degree of freedom: tan(π·level/2). Two: level·√(2/(1 − level²)).
            let one = (std::f64::consts::FRAC_PI_2 * level).tan();
            let two = level * (2.0 / (1.0 - level * level)).sqrt();
            assert!((t_quantile(level, 1) / one - 1.0).abs() < 1e-11, "{level}");
            assert!((t_quantile(level, 2) / two - 1.0).abs() < 1e-11, "{level}");
        }
        // Four degrees: the tail P(|T| > t) = 1 − ½·s·(3 − s²) with s = t/√(t² + 4).
        let t = t_quantile(0.95, 4);
        let s = t / (t * t + 4.0).sqrt();
        assert!((0.5 * s * (3.0 - s * s) - 0.95).abs() < 1e-10);
    }

    /// Expected numbers by mpmath with 50 digits.
    #[test]
    fn many_degrees_of_freedom_are_told_from_the_normal_distribution() {
        // On both sides of where the way of computing changes.
        for (level, freedom, expected) in [
            (0.95, 100_000, 1.959_987_707_534_609_7),
            (0.95, 100_001, 1.959_987_707_297_379_3),
            (0.5, 100_001, 0.674_492_203_528_758_8),
            (0.999_999, 100_001, 4.891_943_337_666_326),
            (0.95, 1_000_000, 1.959_966_356_814_107),
            (0.95, 100_000_000, 1.959_964_008_262_766_7),
            (0.95, 1_000_000_000_000, 1.959_963_984_542_426_6),
        ] {
            let t = t_quantile(level, freedom);
            assert!((t / expected - 1.0).abs() < 1e-10, "{level}, {freedom}: {t}");
            let tail = 0.5 - 0.5 * level;
            assert!((t_cdf(-t, freedom) / tail - 1.0).abs() < 1e-9, "{level}, {freedom}");
            assert!((t_cdf(t, freedom) + tail - 1.0).abs() < 1e-9, "{level}, {freedom}");
        }
        let tail = t_cdf(-3.0, 1_000_000);
        assert!((tail / 0.001_349_931_270_710_898_5 - 1.0).abs() < 1e-9, "{tail}");
        assert_eq!((t_cdf(0.0, MANY + 1), t_cdf(-1e200, MANY + 1)), (0.5, 0.0));
    }

    #[test]
    fn interval_of_a_known_sample() {
        let interval = mean_interval(&[1.0, 2.0, 3.0], 0.95).unwrap();
        let half_width = 4.302_652_729_696_142 / 3f64.sqrt();
        assert_eq!(interval.estimate, 2.0);
        assert!((interval.high - 2.0 - half_width).abs() < 1e-9);
        assert!((2.0 - interval.low - half_width).abs() < 1e-9);
    }

    fn coverage(repetitions: usize, mut covers: impl FnMut() -> bool) -> f64 {
        (0..repetitions).filter(|_| covers()).count() as f64 / repetitions as f64
    }

    #[test]
    fn covers_the_mean_of_normal_clusters() {
        let mut random = SplitMix(23);
        let share = coverage(4_000, || {
            let clusters: Vec<f64> = (0..8).map(|_| 3.0 + 2.0 * random.normal()).collect();
            let interval = mean_interval(&clusters, 0.95).unwrap();
            interval.low <= 3.0 && 3.0 <= interval.high
        });
        assert!((0.93..=0.97).contains(&share), "{share}");
    }

    #[test]
    fn covers_the_win_rate_of_tied_clusters() {
        // Each prompt's win rate is the mean of 4 comparisons of one difficulty: correlated within.
        let mut random = SplitMix(29);
        let share = coverage(2_000, || {
            let prompts: Vec<f64> = (0..60)
                .map(|_| {
                    let difficulty = random.uniform();
                    (0..4).map(|_| f64::from(random.uniform() < difficulty)).sum::<f64>() / 4.0
                })
                .collect();
            let interval = mean_interval(&prompts, 0.95).unwrap();
            interval.low <= 0.5 && 0.5 <= interval.high
        });
        assert!((0.93..=0.97).contains(&share), "{share}");
    }

    #[test]
    fn pairing_removes_what_the_prompts_share() {
        let mut random = SplitMix(31);
        let a: Vec<f64> = (0..50).map(|_| 100.0 * random.normal()).collect();
        let b: Vec<f64> = a.iter().map(|value| value - 1.0 + 0.1 * random.normal()).collect();
        let paired = paired_difference(&a, &b, 0.95).unwrap();
        assert!(paired.low > 0.9 && paired.high < 1.1, "{paired:?}");
        assert!((paired.estimate - 1.0).abs() < 0.1);
    }

    #[test]
    fn refuses_what_has_no_interval() {
        assert_eq!(mean_interval(&[1.0, 2.0], 1.0), Err(StatsError::Level(1.0)));
        assert!(matches!(mean_interval(&[1.0, 2.0], f64::NAN), Err(StatsError::Level(_))));
        assert_eq!(
            mean_interval(&[1.0], 0.9),
            Err(StatsError::TooFew { what: "per_cluster", needed: 2, found: 1 })
        );
        assert_eq!(
            paired_difference(&[1.0, 2.0], &[1.0], 0.9),
            Err(StatsError::Unpaired { first: 2, second: 1 })
        );
        assert!(mean_interval(&[f64::NAN, 1.0], 0.9).is_err());
    }
}
