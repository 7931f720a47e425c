//! Shares of independent trials, such as pairs in the right order, with Wilson's score interval.

use statrs::distribution::{ContinuousCDF, Normal};

use crate::Interval;
use crate::error::StatsError;

/// The share of successes with Wilson's score interval.
///
/// Equation: (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n) with p = successes/n and z the normal quantile of (1 + level)/2.
/// Unlike p ± z·s it stays within [0, 1], and it has a width where every trial succeeds. It assumes that the trials are independent and
/// alike; trials that share a text or a prompt are not, and then it is too narrow. Ties that count ½ vary less, which makes it too wide.
///
/// - `successes`: 0 to `trials`; halves are ties.
/// - `trials`: n ≥ 1.
/// - `level`: nominal coverage, strictly between 0 and 1.
///
/// # Errors
/// [`StatsError::TooFew`], [`StatsError::Successes`] and [`StatsError::Level`] for arguments out of these ranges.
///
/// ```
/// let share = infalign_stats::wilson_interval(8.0, 10, 0.95)?;
/// assert!(share.estimate == 0.8 && share.low < 0.5 && share.high < 0.95);
/// # Ok::<(), infalign_stats::StatsError>(())
/// ```
pub fn wilson_interval(successes: f64, trials: usize, level: f64) -> Result<Interval, StatsError> {
    if trials == 0 {
        return Err(StatsError::TooFew { what: "trials", needed: 1, found: 0 });
    }
    let n = trials as f64;
    if !(0.0..=n).contains(&successes) {
        return Err(StatsError::Successes { successes, trials });
    }
    if !(level > 0.0 && level < 1.0) {
        return Err(StatsError::Level(level));
    }
    let z = Normal::standard().inverse_cdf(0.5 + 0.5 * level);
    let (p, shrink) = (successes / n, 1.0 + z * z / n);
    let centre = (p + z * z / (2.0 * n)) / shrink;
    let half_width = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt() / shrink;
    // Rounding may lead a little beyond.
    let (low, high) = ((centre - half_width).max(0.0), (centre + half_width).min(1.0));
    Ok(Interval { estimate: p, low, high, level })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SplitMix;

    #[test]
    fn the_ends_solve_the_equation_of_the_score_test() {
        // |p − π| = z·√(π(1 − π)/n) at both ends, by definition.
        let z = 1.959_963_984_540_054;
        for (successes, trials) in [(8.0, 10), (1.5, 7), (499.0, 1000)] {
            let share = wilson_interval(successes, trials, 0.95).unwrap();
            for end in [share.low, share.high] {
                let spread = z * (end * (1.0 - end) / trials as f64).sqrt();
                assert!(((share.estimate - end).abs() - spread).abs() < 1e-9, "{share:?}");
            }
        }
        // Worked by hand for 8 of 10.
        let share = wilson_interval(8.0, 10, 0.95).unwrap();
        assert!((share.low - 0.490_16).abs() < 1e-5 && (share.high - 0.943_32).abs() < 1e-5);
    }

    #[test]
    fn no_and_all_successes_have_a_width() {
        let (none, all) =
            (wilson_interval(0.0, 20, 0.95).unwrap(), wilson_interval(20.0, 20, 0.95).unwrap());
        assert!(none.low < 1e-15 && none.high > 0.1 && all.high > 1.0 - 1e-15 && all.low < 0.9);
        assert!((none.high - (1.0 - all.low)).abs() < 1e-12);
    }

    #[test]
    fn covers_the_share_of_independent_trials() {
        let mut random = SplitMix(41);
        for (share, trials) in [(0.5, 40), (0.7, 150), (0.93, 200)] {
            let covered = (0..4_000).filter(|_| {
                let successes = (0..trials).filter(|_| random.uniform() < share).count();
                let interval = wilson_interval(successes as f64, trials, 0.95).unwrap();
                interval.low <= share && share <= interval.high
            });
            let coverage = covered.count() as f64 / 4_000.0;
            assert!((0.93..=0.97).contains(&coverage), "{coverage} of {share}");
        }
    }

    #[test]
    fn refuses_what_has_no_share() {
        assert!(matches!(wilson_interval(0.0, 0, 0.9), Err(StatsError::TooFew { .. })));
        for successes in [-0.5, 3.5, f64::NAN] {
            let error = wilson_interval(successes, 3, 0.9).unwrap_err();
            assert!(error.to_string().contains("of 3 trials"), "{error}");
        }
        assert_eq!(wilson_interval(1.0, 3, 1.0), Err(StatsError::Level(1.0)));
    }
}
