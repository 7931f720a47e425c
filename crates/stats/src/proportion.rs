//! Shares of trials, such as pairs in the right order, with Wilson's score interval: of independent trials, or of those that come in clusters.

use statrs::distribution::{ContinuousCDF, Normal};

use crate::cluster::{Interval, check_level, t_quantile};
use crate::error::StatsError;
use crate::significance::ROUNDING;

/// The share of successes with Wilson's score interval.
///
/// Equation: (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n) with p = successes/n and z the normal quantile of (1 + level)/2.
/// Unlike p ± z·s it stays within [0, 1], and it has a width where every trial succeeds. It assumes that the trials are independent and
/// alike; trials that share a text or a prompt are not, and then it is too narrow ([`clustered_wilson_interval`] is for those). Ties that
/// count ½ vary less, which makes it too wide.
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
    check_trials(successes, trials)?;
    check_level(level)?;
    let n = trials as f64;
    Ok(wilson(successes / n, n, level))
}

/// The share of successes of trials that come in clusters, such as pairs that share a prompt: Wilson's score interval of as many
/// independent trials as they are worth.
///
/// Equation: that of [`wilson_interval`] with n' in place of n and Student's t of m − 1 degrees in place of z; n' = min(N, p(1 − p)/v) with
/// v = m/(m − 1)·Σ(sᵢ − nᵢ·p)²/N², the variance of the ratio p = Σsᵢ/N of m clusters with sᵢ successes of nᵢ trials, N = Σnᵢ. (See Franco,
/// Little, Louis and Slud, J. Survey Stat. Methodol. 7 (2019), on such intervals.)
///
/// Where no trial or every trial is a success, nothing is known of how far those of a cluster go together, and they are taken to go
/// together wholly: n' = N²/Σnᵢ², which is m where clusters are of one size. Clusters of one trial each are independent trials, with the
/// interval of [`wilson_interval`]. A single cluster of more says nothing of others: its interval is from 0 to 1.
///
/// - `clusters`: of each, the successes, from 0 to its trials, where halves are ties, and the trials, at least 1. The clusters are
///   independent.
/// - `level`: nominal coverage, strictly between 0 and 1.
///
/// # Errors
/// [`StatsError::TooFew`], [`StatsError::Successes`] and [`StatsError::Level`] for arguments out of these ranges.
///
/// ```
/// let clusters = [(40.0, 40), (31.0, 40), (22.0, 40)];
/// let share = infalign_stats::clustered_wilson_interval(&clusters, 0.95)?;
/// let apart = infalign_stats::wilson_interval(93.0, 120, 0.95)?;
/// assert!(share.estimate == apart.estimate && share.low < apart.low && apart.high < share.high);
/// # Ok::<(), infalign_stats::StatsError>(())
/// ```
pub fn clustered_wilson_interval(
    clusters: &[(f64, usize)],
    level: f64,
) -> Result<Interval, StatsError> {
    clusters.iter().try_for_each(|&(successes, trials)| check_trials(successes, trials))?;
    let successes = clusters.iter().map(|(successes, _)| successes).sum();
    let trials = clusters.iter().map(|(_, trials)| trials).sum();
    let apart = wilson_interval(successes, trials, level)?;
    Ok(match clusters.len() {
        m if m == trials => apart,
        1 => Interval { low: 0.0, high: 1.0, ..apart },
        m => {
            let n = worth(clusters, apart.estimate);
            let (low, high) = ends(apart.estimate, n, t_quantile(level, m - 1));
            Interval { low, high, ..apart }
        }
    })
}

/// How many independent trials those of two or more clusters are worth, of which a share p are successes: n' of [`clustered_wilson_interval`].
fn worth(clusters: &[(f64, usize)], p: f64) -> f64 {
    let n: f64 = clusters.iter().map(|(_, trials)| *trials as f64).sum();
    if p == 0.0 || p == 1.0 {
        let squares: f64 = clusters.iter().map(|(_, trials)| (*trials as f64).powi(2)).sum();
        return n * n / squares;
    }
    let deviation = |(successes, trials): &(f64, usize)| successes - *trials as f64 * p;
    let squares: f64 = clusters.iter().map(|cluster| deviation(cluster).powi(2)).sum();
    let m = clusters.len() as f64;
    let variance = m / (m - 1.0) * squares / (n * n);
    // Clusters of one share have no variance.
    (p * (1.0 - p) / variance).min(n)
}

/// Refuses no trials, and successes that are not among them.
fn check_trials(successes: f64, trials: usize) -> Result<(), StatsError> {
    if trials == 0 {
        return Err(StatsError::TooFew { what: "trials", needed: 1, found: 0 });
    }
    if !(0.0..=trials as f64).contains(&successes) {
        return Err(StatsError::Successes { successes, trials });
    }
    Ok(())
}

/// Wilson's interval for a share p of n trials, which need not be whole.
fn wilson(p: f64, n: f64, level: f64) -> Interval {
    let (low, high) = ends(p, n, Normal::standard().inverse_cdf(0.5 + 0.5 * level));
    Interval { estimate: p, low, high, level }
}

/// The shares π below and above p with |p − π| = z·√(π(1 − π)/n).
fn ends(p: f64, n: f64, z: f64) -> (f64, f64) {
    let shrink = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / shrink;
    let half_width = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt() / shrink;
    // Rounding may lead a little beyond.
    ((centre - half_width).max(0.0), (centre + half_width).min(1.0))
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
    fn clusters_of_one_trial_are_independent_trials() {
        for (successes, trials) in [(8.0_f64, 10), (1.5, 7), (0.0, 20), (20.0, 20), (1.0, 1)] {
            let rest = |cluster: usize| (successes - cluster as f64).clamp(0.0, 1.0);
            let clusters: Vec<(f64, usize)> = (0..trials).map(|n| (rest(n), 1)).collect();
            let found = clustered_wilson_interval(&clusters, 0.95).unwrap();
            assert_eq!(found, wilson_interval(successes, trials, 0.95).unwrap());
        }
    }

    #[test]
    fn clusters_are_worth_what_is_worked_by_hand() {
        // Deviations 1.6, −1.4 and −0.2 of p = 0.6: v = 3/2·4.56/100 = 0.0684, n' = 0.24/0.0684, and t of two degrees.
        let clusters = [(4.0, 4), (1.0, 4), (1.0, 2)];
        let (n, t) = (0.24 / 0.0684, 4.302_652_729_696_142_f64);
        let share = clustered_wilson_interval(&clusters, 0.95).unwrap();
        assert!(share.estimate == 0.6 && share.level == 0.95, "{share:?}");
        for end in [share.low, share.high] {
            let spread = t * (end * (1.0 - end) / n).sqrt();
            assert!(((share.estimate - end).abs() - spread).abs() < 1e-9, "{share:?}");
        }
        assert!((share.low - 0.058_957).abs() < 1e-6 && (share.high - 0.972_910).abs() < 1e-6);
        // No more than there are trials: clusters of one share have no variance.
        let alike = clustered_wilson_interval(&[(2.0, 4), (3.0, 6), (1.0, 2)], 0.95).unwrap();
        for end in [alike.low, alike.high] {
            let spread = t * (end * (1.0 - end) / 12.0).sqrt();
            assert!(((alike.estimate - end).abs() - spread).abs() < 1e-9, "{alike:?}");
        }
    }

    #[test]
    fn clusters_without_a_failure_are_one_trial_each() {
        // Of sizes 5 and 3: n' = 64/34. With p = 0 the end is t²/(n' + t²), t = tan(π·0.95/2) of one degree.
        let t = (std::f64::consts::FRAC_PI_2 * 0.95).tan();
        let far = t * t / (64.0 / 34.0 + t * t);
        let none = clustered_wilson_interval(&[(0.0, 5), (0.0, 3)], 0.95).unwrap();
        let all = clustered_wilson_interval(&[(5.0, 5), (3.0, 3)], 0.95).unwrap();
        assert!(none.low < 1e-12 && (none.high - far).abs() < 1e-9, "{none:?}");
        assert!(all.high > 1.0 - 1e-12 && (all.low - (1.0 - far)).abs() < 1e-9, "{all:?}");
        assert_eq!((none.estimate, all.estimate), (0.0, 1.0));
    }

    #[test]
    fn a_single_cluster_says_nothing() {
        for successes in [0.0, 30.5, 40.0] {
            let found = clustered_wilson_interval(&[(successes, 40)], 0.95).unwrap();
            let estimate = successes / 40.0;
            assert_eq!(found, Interval { estimate, low: 0.0, high: 1.0, level: 0.95 });
        }
    }

    #[test]
    fn covers_the_share_of_trials_that_go_together() {
        // Each cluster has a share of its own, uniform from the least to 1, and up to `most` trials.
        let mut random = SplitMix(53);
        for (clusters, most, least) in [(7, 30.0, 0.2), (12, 40.0, 0.5), (30, 12.0, 0.5)] {
            let mean = 0.5 * (1.0 + least);
            let mut covered = [0, 0];
            for _ in 0..2_000 {
                let cluster = |_| {
                    let trials = 1 + (most * random.uniform()) as usize;
                    let share = least + (1.0 - least) * random.uniform();
                    let successes = (0..trials).filter(|_| random.uniform() < share).count();
                    (successes as f64, trials)
                };
                let clusters: Vec<(f64, usize)> = (0..clusters).map(cluster).collect();
                let successes = clusters.iter().map(|cluster| cluster.0).sum();
                let trials = clusters.iter().map(|cluster| cluster.1).sum();
                let apart = wilson_interval(successes, trials, 0.95).unwrap();
                let together = clustered_wilson_interval(&clusters, 0.95).unwrap();
                for (n, of) in [apart, together].into_iter().enumerate() {
                    covered[n] += usize::from(of.low <= mean && mean <= of.high);
                }
            }
            let [apart, together] = covered.map(|n| n as f64 / 2_000.0);
            assert!(apart < 0.9, "{apart} of {clusters}");
            assert!((0.92..=0.97).contains(&together), "{together} of {clusters}");
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
        for clusters in [&[][..], &[(1.0, 2), (0.0, 0)]] {
            let error = clustered_wilson_interval(clusters, 0.9).unwrap_err();
            assert!(matches!(error, StatsError::TooFew { .. }), "{error}");
        }
        let error = clustered_wilson_interval(&[(1.0, 2), (4.0, 3)], 0.9).unwrap_err();
        assert!(error.to_string().contains("of 3 trials"), "{error}");
        let error = clustered_wilson_interval(&[(1.0, 2), (1.0, 3)], 0.0).unwrap_err();
        assert_eq!(error, StatsError::Level(0.0));
    }
}
