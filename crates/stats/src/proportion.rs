//! Shares of independent trials, such as pairs in the right order, with Wilson's score interval.

use statrs::distribution::{ContinuousCDF, Normal};

use crate::cluster::{Interval, check_level};
use crate::error::StatsError;
use crate::significance::ROUNDING;

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
    check_level(level)?;
    Ok(wilson(successes / n, n, level))
}

/// Wilson's interval for a share p of n trials, which need not be whole.
fn wilson(p: f64, n: f64, level: f64) -> Interval {
    let z = Normal::standard().inverse_cdf(0.5 + 0.5 * level);
    let shrink = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / shrink;
    let half_width = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt() / shrink;
    // Rounding may lead a little beyond.
    let (low, high) = ((centre - half_width).max(0.0), (centre + half_width).min(1.0));
    Interval { estimate: p, low, high, level }
}

/// Trials on the rarer side below which resamples say too little of what was not seen.
const FEW: f64 = 10.0;

/// The interval of a mean of numbers from 0 to 1, within 0 and 1, and no narrower than the trials allow that the numbers are worth.
///
/// Where nearly all numbers are at one edge, as win rates of a single response a prompt are, resamples of them hardly hold any other, and an interval
/// from them ends too early. Numbers of mean p and variance s² are worth n' = n·p(1 − p)/s² independent trials: where n'·min(p, 1 − p) is
/// less than 10, the interval is widened to hold Wilson's of n' trials, too. Numbers that are all 0 or all 1, but for 1e-12, are n trials.
///
/// - `values`: in [0, 1], of independent prompts; `interval`: of their mean.
#[must_use]
pub fn of_share(values: &[f64], interval: Interval) -> Interval {
    let n = values.len() as f64;
    let mean = (values.iter().sum::<f64>() / n).clamp(0.0, 1.0);
    let p = if mean.min(1.0 - mean) <= ROUNDING { mean.round() } else { mean };
    let squares: f64 = values.iter().map(|value| (value - p).powi(2)).sum();
    let rarer = p.min(1.0 - p);
    let trials = if rarer > 0.0 { n * p * (1.0 - p) * (n - 1.0) / squares } else { n };
    let (mut low, mut high) = (interval.low, interval.high);
    if trials * rarer < FEW {
        let wilson = wilson(p, trials, interval.level);
        (low, high) = (low.min(wilson.low), high.max(wilson.high));
    }
    // Student's, of few prompts, leads beyond.
    Interval { low: low.clamp(0.0, 1.0), high: high.clamp(0.0, 1.0), ..interval }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resamples;
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
    fn what_never_happened_in_n_trials_is_below_a_known_share() {
        // With p = 0 the score test's π = z²·(1 − π)/n: z²/(n + z²).
        let z = 1.959_963_984_540_054_f64;
        for trials in [1, 20, 1000] {
            let high = z * z / (trials as f64 + z * z);
            let interval = Interval { estimate: 0.0, low: 0.0, high: 0.0, level: 0.95 };
            for none in [
                wilson_interval(0.0, trials, 0.95).unwrap(),
                of_share(&vec![0.0; trials], interval),
            ] {
                assert_eq!(none.estimate, 0.0);
                assert!(none.low < 1e-15 && (none.high - high).abs() < 1e-9, "{none:?}");
            }
        }
    }

    #[test]
    fn rounding_of_win_rates_takes_no_width_from_a_clean_sweep() {
        let (policy, reference): (Vec<f64>, Vec<f64>) =
            (0..16).map(|n| (20.0 + f64::from(n), f64::from(n))).unzip();
        let won = crate::win_rate(&policy, &reference, crate::Selection::Worst(4)).unwrap();
        assert!(won < 1.0, "the weights of this one add up to a little less");
        let all = wilson_interval(30.0, 30, 0.95).unwrap();
        let interval = Interval { estimate: won, low: won, high: won, level: 0.95 };
        let found = of_share(&[won; 30], interval);
        assert!((found.low - 0.886_5).abs() < 1e-4 && (found.low - all.low).abs() < 1e-15);
        assert!(found.estimate == won && found.high > 1.0 - 1e-15, "{found:?}");
        let lost = Interval { estimate: 1e-16, low: 1e-16, high: 1e-16, level: 0.95 };
        let found = of_share(&[1e-16; 30], lost);
        assert!((found.high - (1.0 - all.low)).abs() < 1e-12 && found.low < 1e-15, "{found:?}");
    }

    #[test]
    fn from_ten_on_the_rarer_side_intervals_are_left_alone() {
        let z = 1.959_963_984_540_054_f64;
        let of = |successes: usize| {
            let values: Vec<f64> = (0..100).map(|n| f64::from(u8::from(n < successes))).collect();
            let share = successes as f64 / 100.0;
            let interval = Interval { estimate: share, low: share, high: share, level: 0.95 };
            (of_share(&values, interval), interval)
        };
        // The variance of n trials is p(1 − p)·n/(n − 1), so that they are worth n − 1: 9.9 and 10.89 on the rarer side.
        for (successes, widened) in [(10, true), (11, false), (89, false), (90, true)] {
            let (found, before) = of(successes);
            assert_eq!(found != before, widened, "{successes}: {found:?}");
            for end in [found.low, found.high].into_iter().filter(|_| widened) {
                let spread = z * (end * (1.0 - end) / 99.0).sqrt();
                assert!(((found.estimate - end).abs() - spread).abs() < 1e-9, "{found:?}");
            }
        }
    }

    #[test]
    fn a_share_is_no_less_than_nothing_and_no_more_than_all() {
        let students = Interval { estimate: 0.75, low: -0.046, high: 1.546, level: 0.95 };
        let found = of_share(&[0.25, 0.75, 1.0, 1.0], students);
        assert_eq!((found.low, found.high), (0.0, 1.0));
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
    fn covers_win_rates_near_the_edges_where_resamples_do_not() {
        let mut random = SplitMix(43);
        for (share, prompts, most) in [(0.97, 50, 0.85), (0.99, 50, 0.5), (0.02, 100, 0.95)] {
            let mut covered = [0, 0];
            for _ in 0..400 {
                let won = |_| f64::from(u8::from(random.uniform() < share));
                let values: Vec<f64> = (0..prompts).map(won).collect();
                let resamples = Resamples::new(&[&values], 400, 1).unwrap();
                let resampled = resamples.interval(0.95, |means| means[0]).unwrap();
                for (n, of) in [resampled, of_share(&values, resampled)].into_iter().enumerate() {
                    covered[n] += usize::from(of.low <= share && share <= of.high);
                }
            }
            let [before, after] = covered.map(|n| n as f64 / 400.0);
            assert!(before < most && after > 0.93, "{before} and {after} of {share}");
        }
    }

    #[test]
    fn win_rates_of_many_responses_keep_their_intervals() {
        let mut random = SplitMix(47);
        let of_prompt = |_| (0.92 + 0.03 * random.normal()).clamp(0.0, 1.0);
        let values: Vec<f64> = (0..160).map(of_prompt).collect();
        let interval = Interval { estimate: 0.92, low: 0.915, high: 0.925, level: 0.95 };
        assert_eq!(of_share(&values, interval), interval);
        let ties = Interval { estimate: 0.5, low: 0.5, high: 0.5, level: 0.95 };
        assert_eq!(of_share(&[0.5; 20], ties), ties);
        let always = Interval { estimate: 1.0, low: 1.0, high: 1.0, level: 0.95 };
        assert!((of_share(&[1.0; 20], always).low - 0.839).abs() < 1e-3);
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
