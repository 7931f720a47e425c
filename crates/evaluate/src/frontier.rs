//! Methods compared at the same KL: win rate against KL over sweeps, interpolated, with the uncertainty of both.
//!
//! A sweep is what runs of one method measured, each a mean KL and win rates. Every resample of the prompts moves all of them together, and
//! the interpolation ([`Gain`]) is done anew in each: so the interval of a win rate at a common KL has the uncertainty of the KLs in it, and that
//! of a difference is paired. It has not that of the interpolation itself, so runs at about the KL in question are the ones to compare.

use std::ops::Range;

use infalign_stats::{Interval, Resamples, check_level};
use infalign_transform::{Composed, Procedure};
use serde::{Deserialize, Serialize};

use crate::contest::contributions;
use crate::divergence::of_policy;
use crate::gain::Gain;
use crate::{Contest, Entry, EvaluateError, Judge, Statistics};

/// What one method measured, at one KL or several.
#[derive(Clone, Debug)]
pub struct Sweep<'a> {
    /// Name of the method.
    pub method: &'a str,
    /// A point a run, in any order.
    pub points: Vec<Entry<'a>>,
}

/// Win rate of a method at a KL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matched {
    /// Name of the method.
    pub method: String,
    /// The procedure on both sides.
    pub procedure: Composed,
    /// By what responses were judged.
    pub judge: Judge,
    /// The KL in nats per response.
    pub kl: f64,
    /// The win rate there; null where it was not measured as far, or only much farther.
    pub win_rate: Option<Interval>,
    /// That of the best policy there is in the continuous limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimum: Option<f64>,
}

/// Difference of two methods' win rates at a KL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatchedComparison {
    /// The first method.
    pub method: String,
    /// The method that is subtracted.
    pub baseline: String,
    /// The procedure on both sides.
    pub procedure: Composed,
    /// By what responses were judged.
    pub judge: Judge,
    /// The KL in nats per response.
    pub kl: f64,
    /// Win rate of the first minus that of the second; null where either has none.
    pub difference: Option<Interval>,
}

/// Win rate against KL of a method that was run at several, with its uncertainty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontierBand {
    /// Name of the method.
    pub method: String,
    /// The procedure on both sides.
    pub procedure: Composed,
    /// KL and win rate, from 0 on.
    pub points: Vec<(f64, Interval)>,
}

/// Methods at a common KL, and their frontiers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frontiers {
    /// Each method at the common KL.
    pub rows: Vec<Matched>,
    /// Each pair of methods there.
    pub comparisons: Vec<MatchedComparison>,
    /// Of methods with two points or more.
    pub bands: Vec<FrontierBand>,
}

/// The least KL, as a share of what a method's nearest run reaches beyond doubt, at which the method is measured by it: farther away its win rate depends on how its
/// policies come nearer, by 0.02 at this and by 0.05 at 0.6.
pub const NEAREST: f64 = 0.8;

/// Points of a band.
const BAND_POINTS: usize = 24;

/// The greatest KL that every sweep reaches beyond doubt, three standard errors of its farthest point below it; none where a sweep has no
/// KL, or hardly any.
///
/// # Errors
/// [`EvaluateError::Stats`] for fewer than two prompts.
pub fn common_kl(sweeps: &[Sweep<'_>]) -> Result<Option<f64>, EvaluateError> {
    let mut common = f64::INFINITY;
    for sweep in sweeps {
        let mut farthest = 0.0_f64;
        for point in &sweep.points {
            let Some(kl) = reached(point)? else { return Ok(None) };
            farthest = farthest.max(kl);
        }
        common = common.min(farthest);
    }
    Ok(Some(common).filter(|kl| kl.is_finite() && *kl > 1e-3))
}

/// The KL that a run reaches beyond doubt: three standard errors below its own.
fn reached(point: &Entry<'_>) -> Result<Option<f64>, EvaluateError> {
    Ok(of_policy(point.sampled)?.map(|kl| kl.estimate - 3.0 * kl.standard_error))
}

/// Whether a KL is not much nearer than every run of a method.
fn is_near(sweep: &Sweep<'_>, kl: f64) -> Result<bool, EvaluateError> {
    let mut nearest = f64::INFINITY;
    for point in &sweep.points {
        nearest = nearest.min(reached(point)?.unwrap_or(f64::INFINITY));
    }
    Ok(kl >= NEAREST * nearest)
}

/// Compares sweeps at a KL, under the same procedure on both sides.
///
/// - `pairs`: which are compared, by their places: the second is subtracted.
///
/// # Errors
/// [`EvaluateError`] as for [`crate::table`].
pub fn frontiers(
    sweeps: &[Sweep<'_>],
    procedure: Composed,
    judge: Judge,
    kl: f64,
    pairs: &[(usize, usize)],
    statistics: &Statistics,
) -> Result<Frontiers, EvaluateError> {
    let measured = Measured::of(sweeps, procedure, judge, kl, statistics)?;
    let near = sweeps.iter().map(|sweep| is_near(sweep, kl)).collect::<Result<Vec<_>, _>>()?;
    let best = procedure.of_ranks().filter(|_| judge == Judge::Reward);
    let best = best.and_then(|procedure| optimum(&procedure, kl));
    let rows = sweeps.iter().enumerate().map(|(sweep, one)| Matched {
        method: one.method.to_owned(),
        procedure,
        judge,
        kl,
        win_rate: measured.win_rate(sweep, kl).filter(|_| near[sweep]),
        optimum: best,
    });
    let comparisons = pairs.iter().map(|&(a, b)| MatchedComparison {
        method: sweeps[a].method.to_owned(),
        baseline: sweeps[b].method.to_owned(),
        procedure,
        judge,
        kl,
        difference: measured.difference(a, b, kl).filter(|_| near[a] && near[b]),
    });
    let several = sweeps.iter().enumerate().filter(|(sweep, _)| measured.runs[*sweep].len() > 1);
    let bands = several.map(|(sweep, one)| FrontierBand {
        method: one.method.to_owned(),
        procedure,
        points: measured.band(sweep),
    });
    Ok(Frontiers {
        rows: rows.collect(),
        comparisons: comparisons.collect(),
        bands: bands.collect(),
    })
}

/// What the runs of all sweeps measured, prompt by prompt.
struct Measured {
    /// Of every run, one after the other, each prompt's KL, and what each adds to the win rate.
    series: Vec<Vec<f64>>,
    /// Runs of each sweep.
    runs: Vec<Range<usize>>,
    resamples: Resamples,
    gain: Gain,
    level: f64,
}

impl Measured {
    /// - `kl`: the farthest KL in question beside those of the runs.
    fn of(
        sweeps: &[Sweep<'_>],
        procedure: Composed,
        judge: Judge,
        kl: f64,
        statistics: &Statistics,
    ) -> Result<Self, EvaluateError> {
        // Whatever else has no interval is not measured.
        check_level(statistics.level)?;
        let contest = Contest::same(procedure);
        let (mut series, mut runs) = (Vec::new(), Vec::new());
        for sweep in sweeps {
            let start = series.len() / 2;
            for point in &sweep.points {
                // Without a KL there is no place on the axis.
                let Some(kl) = &point.sampled.kl else { continue };
                let named = (sweep.method, point.sampled);
                let reference = ("the reference", point.reference);
                series.push(kl.iter().map(|kl| kl.exact).collect());
                series.push(contributions(named, reference, &contest, judge)?.wins);
            }
            runs.push(start..series.len() / 2);
        }
        // Whatever the kind of intervals: an interpolation has no closed form.
        let (replicates, seed) = statistics.intervals.resamples();
        let slices: Vec<&[f64]> = series.iter().map(Vec::as_slice).collect();
        let resamples = Resamples::new(&slices, replicates, seed)?;
        let farthest = series.iter().step_by(2).map(|kls| mean(kls)).fold(kl, f64::max);
        // Of resamples some are farther.
        let gain = Gain::of(procedure.of_ranks().as_ref(), 2.0 * farthest);
        Ok(Self { series, runs, resamples, gain, level: statistics.level })
    }

    /// Win rate of a sweep at a KL, by the means of all series.
    fn at(&self, means: &[f64], sweep: usize, kl: f64) -> f64 {
        let runs = self.runs[sweep].clone();
        self.gain.interpolated(runs.map(|run| (means[2 * run], means[2 * run + 1])), kl)
    }

    fn win_rate(&self, sweep: usize, kl: f64) -> Option<Interval> {
        self.resamples.interval(self.level, |means: &[f64]| self.at(means, sweep, kl)).ok()
    }

    fn difference(&self, a: usize, b: usize, kl: f64) -> Option<Interval> {
        let difference = |means: &[f64]| self.at(means, a, kl) - self.at(means, b, kl);
        self.resamples.interval(self.level, difference).ok()
    }

    /// Win rates of a sweep from 0 to its farthest run, the denser the smaller the KL. At the end it is the run's own, since half of the
    /// resamples do not reach as far.
    fn band(&self, sweep: usize) -> Vec<(f64, Interval)> {
        let kls = self.runs[sweep].clone().map(|run| (run, mean(&self.series[2 * run])));
        let Some((run, farthest)) = kls.max_by(|a, b| a.1.total_cmp(&b.1)) else {
            return Vec::new();
        };
        let farthest = farthest.max(0.0);
        let point = |step: usize| {
            let kl = farthest * (step as f64 / BAND_POINTS as f64).powi(2);
            Some((kl, self.win_rate(sweep, kl)?))
        };
        let own = self.resamples.mean(self.level, 2 * run + 1);
        let end = own.ok().map(|win_rate| (farthest, win_rate));
        (0..BAND_POINTS).filter_map(point).chain(end).collect()
    }
}

fn mean(series: &[f64]) -> f64 {
    series.iter().sum::<f64>() / series.len() as f64
}

/// The win rate of the best policy there is at a KL, in the continuous limit; none for what has no such theory.
pub(crate) fn optimum(procedure: &Procedure, kl: f64) -> Option<f64> {
    infalign_transform::Optimum::for_kl(procedure, kl).ok().map(|optimum| optimum.win_rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kl::KlSample;
    use crate::test_samples::samples;
    use crate::{Intervals, Label, PromptText, Sampled};
    use infalign_decode::Stream;
    use infalign_stats::StatsError;

    /// A policy whose calibrated rewards are u^{1/a}, at its own KL, log a − (a − 1)/a, which is measured with noise.
    fn policy(a: f64, stage: &str, prompts: usize) -> Sampled {
        let truth = a.ln() - (a - 1.0) / a;
        let mut all = Sampled::default();
        for prompt in 0..prompts {
            let mut stream = Stream::new(3, stage, &prompt.to_string(), 0);
            let kl = truth * (1.0 + 0.3 * stream.normal(100));
            all.prompts.push(PromptText {
                id: prompt.to_string(),
                text: String::new(),
                sha256: None,
            });
            all.responses.push(vec![String::new(); 16]);
            all.rewards.push((0..16).map(|k| stream.uniform(k).powf(1.0 / a)).collect());
            all.kl.get_or_insert_default().push(KlSample { exact: kl, k1: kl, k3: kl });
        }
        all
    }

    fn entry<'a>(sampled: &'a Sampled, reference: &'a Sampled) -> Entry<'a> {
        Entry { label: Label::named("log"), sampled, reference }
    }

    #[test]
    fn sweeps_are_compared_at_a_kl_that_no_run_had() {
        // Both sweeps are of the same family, whose win rate is a/(a + 1): no difference at any KL.
        let policies = [1.5, 2.5, 1.9, 3.2].map(|a| policy(a, &format!("policy {a}"), 150));
        let reference = policy(1.0, "reference", 150);
        let entries: Vec<Entry<'_>> = policies.iter().map(|p| entry(p, &reference)).collect();
        let sweeps = [
            Sweep { method: "one", points: vec![entries[1], entries[0]] },
            Sweep { method: "other", points: entries[2..].to_vec() },
        ];
        let kl = common_kl(&sweeps).unwrap().unwrap();
        let reach = 2.5_f64.ln() - 0.6;
        assert!(kl < reach && kl > 0.85 * reach, "{kl} of {reach}");
        let statistics = Statistics {
            intervals: Intervals::Bca { replicates: 600, seed: 1 },
            ..Statistics::new(1)
        };
        let by = |intervals, kl| {
            let (sample, statistics) =
                (Procedure::Sample.into(), Statistics { intervals, ..statistics });
            frontiers(&sweeps, sample, Judge::Reward, kl, &[(0, 1)], &statistics).unwrap()
        };
        let at = |kl| by(statistics.intervals, kl);
        let found = at(0.2);
        // Student's t has the same resamples, and others where others are asked for.
        assert_eq!(by(Intervals::StudentT { replicates: 600, seed: 1 }, 0.2), found);
        assert_ne!(by(Intervals::StudentT { replicates: 600, seed: 2 }, 0.2), found);
        // log a − (a − 1)/a = 0.2 at a = 1.9236…: found by bisection here.
        let (mut low, mut high) = (1.0_f64, 3.0_f64);
        for _ in 0..60 {
            let a = 0.5 * (low + high);
            if a.ln() - (a - 1.0) / a < 0.2 { low = a } else { high = a }
        }
        for row in &found.rows {
            let win_rate = row.win_rate.unwrap();
            assert!((win_rate.estimate - low / (low + 1.0)).abs() < 0.02, "{row:?}");
            assert!(win_rate.low < win_rate.estimate && row.optimum.unwrap() > 0.6);
        }
        let difference = found.comparisons[0].difference.unwrap();
        assert!(difference.low < 0.0 && 0.0 < difference.high, "{difference:?}");
        assert_eq!(found.bands.len(), 2);
        assert!(found.bands[0].points.len() > 15 && found.bands[0].points[0].1.estimate == 0.5);
        // A band ends where the method's farthest run is, with the win rate of that.
        let (end, farthest) = (found.bands[0].points.last().unwrap(), &policies[1]);
        let run = of_policy(farthest).unwrap().unwrap();
        assert!((end.0 - run.estimate).abs() < 1e-9, "{end:?}");
        assert!((end.1.estimate - 2.5 / 3.5).abs() < 0.04 && end.1.low < end.1.high, "{end:?}");
        // Farther than measured there is no number, and the row says so.
        let far = at(2.0);
        assert!(far.rows.iter().all(|row| row.win_rate.is_none()));
        assert!(far.comparisons[0].difference.is_none());
        // So much nearer than any run there is none either.
        let wrong = Statistics { level: 1.5, ..statistics };
        let sample = Procedure::Sample.into();
        let error = frontiers(&sweeps, sample, Judge::Reward, 0.2, &[], &wrong).unwrap_err();
        assert!(matches!(error, EvaluateError::Stats(StatsError::Level(_))), "{error}");
        let near = at(0.03);
        assert!(near.rows.iter().all(|row| row.win_rate.is_none()), "{near:?}");
        assert!(near.comparisons[0].difference.is_none());
    }

    #[test]
    fn a_common_kl_lies_three_standard_errors_below_what_was_measured() {
        // The prompts' KLs are 0.4 and 0.6: 0.5 with an error of 0.1.
        let sampled = samples(0.0);
        let sweep = Sweep { method: "one", points: vec![entry(&sampled, &sampled)] };
        let kl = common_kl(&[sweep]).unwrap().unwrap();
        assert!((kl - 0.2).abs() < 1e-12, "{kl}");
    }

    #[test]
    fn differences_at_a_kl_are_of_the_first_method_less_the_second() {
        let at_half_a_nat = |shift: f64| {
            let kl = KlSample { exact: 0.5, k1: 0.5, k3: 0.5 };
            Sampled { kl: Some(vec![kl; 2]), ..samples(shift) }
        };
        let (strong, base) = (at_half_a_nat(40.0), at_half_a_nat(0.0));
        let sweeps = [
            Sweep { method: "strong", points: vec![entry(&strong, &base)] },
            Sweep { method: "base", points: vec![entry(&base, &base)] },
        ];
        let statistics = Statistics {
            intervals: Intervals::Bca { replicates: 100, seed: 1 },
            ..Statistics::new(1)
        };
        let sample = Procedure::Sample.into();
        let found = frontiers(&sweeps, sample, Judge::Reward, 0.5, &[(0, 1)], &statistics).unwrap();
        let won: Vec<f64> = found.rows.iter().map(|row| row.win_rate.unwrap().estimate).collect();
        // At the KL of a run the win rate is the run's: of the first prompt all, and of the second, by 5, 5, 7 and 49 against 5, 5, 7 and 9, 8.5/16.
        assert!((won[0] - 0.765_625).abs() < 1e-9 && (won[1] - 0.5).abs() < 1e-9, "{won:?}");
        let one = &found.comparisons[0];
        assert_eq!((one.method.as_str(), one.baseline.as_str()), ("strong", "base"));
        assert!((one.difference.unwrap().estimate - 0.265_625).abs() < 1e-9, "{one:?}");
    }
}
