//! Win rates and KLs of two runs, from the samples of each: whether they are equivalent, and whether claims hold.
//!
//! The same prompts were answered in both runs, so differences are taken prompt by prompt. *Equivalent* means that the 90 % interval
//! of the difference lies within the margins that were declared before the run (two one-sided tests at 5 %). Otherwise the runs differ, or
//! there are too few prompts to tell: a difference that is not significant is never called agreement.

use std::path::Path;

use anyhow::{Context, Result};
use infalign_evaluate::{Contest, Entry, Judge, KlSample, Label, Sampled, win_rates};
use infalign_record::replication::{ClaimRow, Row};
use infalign_record::{Expect, Level};
use infalign_stats::{Interval, paired_difference};

use crate::sources::{Method, REFERENCE, Source};

/// Two one-sided tests at 5 %.
const TWO_ONE_SIDED: f64 = 0.90;
/// Of claims.
const LEVEL: f64 = 0.95;

/// The samples of a method.
fn sampled<'a>(run: &'a Source, name: &str) -> Result<&'a Sampled> {
    let found = run.methods.iter().find(|method| method.name == name);
    found.map(|method| &method.sampled).with_context(|| format!("there is no method {name:?}"))
}

/// Win rate of each prompt.
fn wins(run: &Source, name: &str, contest: &Contest, judge: Judge) -> Result<Vec<f64>> {
    let (label, sampled) = (Label::named(name), sampled(run, name)?);
    Ok(win_rates(&Entry { label, sampled, reference: &run.reference }, contest, judge)?)
}

/// Every win rate and KL of two runs, and the claims, tried on the second. Both are empty for runs that store no samples of methods.
///
/// - `required`: what is asked of every number.
///
/// # Errors
/// When the samples of a run cannot be read or are not those of its results.
pub(super) fn compare(
    original: &Path,
    replica: &Path,
    expect: &Expect,
    required: Level,
) -> Result<(Vec<Row>, Vec<ClaimRow>)> {
    if !original.join(REFERENCE).is_file() {
        return Ok((Vec::new(), Vec::new()));
    }
    let (a, b) = (Source::run(original, None)?, Source::run(replica, None)?);
    let [of_kl, of_wins] = [expect.equivalence.kl, expect.equivalence.win_rate].map(|of| Margin {
        of,
        required,
        expect,
    });
    let mut rows = Vec::new();
    for Method { name, sampled: ours, .. } in &a.methods {
        if let (Some(ours), Some(theirs)) = (&ours.kl, &sampled(&b, name)?.kl) {
            rows.push(of_kl.row(format!("{name}: KL"), &exact(ours), &exact(theirs))?);
        }
        for row in a.rows.iter().filter(|row| row.method == *name) {
            let contest = &row.contest;
            let by = if row.judge == Judge::Judge { ", by the judge" } else { "" };
            let wins = |run: &Source| wins(run, name, contest, row.judge);
            let result = format!("{name}: win rate, {contest}{by}");
            rows.push(of_wins.row(result, &wins(&a)?, &wins(&b)?)?);
        }
    }
    Ok((rows, claims(&b, expect)?))
}

/// KL(π‖π_ref) of every prompt, exact at every token, in nats.
fn exact(kl: &[KlSample]) -> Vec<f64> {
    kl.iter().map(|kl| kl.exact).collect()
}

/// How far apart two numbers may be.
struct Margin<'a> {
    of: f64,
    required: Level,
    expect: &'a Expect,
}

impl Margin<'_> {
    /// - `original`, `replica`: one number a prompt.
    fn row(&self, result: String, original: &[f64], replica: &[f64]) -> Result<Row> {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (a, b) = (mean(original), mean(replica));
        let difference = paired_difference(replica, original, TWO_ONE_SIDED)?;
        let (reached, verdict) = if original == replica {
            (Level::Bitwise, String::new())
        } else if self.expect.tolerance.holds(a, b) {
            (Level::Tolerance, "within tolerance: ".to_owned())
        } else if -self.of < difference.low && difference.high < self.of {
            (Level::Equivalent, format!("equivalent within {}: ", self.of))
        } else {
            (Level::Differs, self.beyond(original, replica, &difference)?)
        };
        let note =
            if original == replica { verdict } else { format!("{verdict}{}", shown(&difference)) };
        let [original, replica] = [a, b].map(|mean| Some(format!("{mean:.4}")));
        Ok(Row { result, required: self.required, reached, original, replica, note })
    }

    /// Whether the difference is one, or there are too few prompts to tell.
    fn beyond(&self, original: &[f64], replica: &[f64], difference: &Interval) -> Result<String> {
        let wide = paired_difference(replica, original, LEVEL)?;
        let is_one = (wide.low > 0.0 || wide.high < 0.0) && difference.estimate.abs() > self.of;
        if is_one {
            return Ok("different: ".to_owned());
        }
        Ok(format!(
            "inconclusive; about {} prompts would tell: ",
            self.needed(original.len(), difference)
        ))
    }

    /// Prompts with which two one-sided tests find equivalence with a power of 80 % where there is no difference: the interval's width
    /// falls with the root of their number.
    fn needed(&self, prompts: usize, difference: &Interval) -> usize {
        // Normal quantiles at 95 % and, for the two tests together, 90 %.
        const QUANTILES: [f64; 2] = [1.645, 1.282];
        let standard_error = (difference.high - difference.low) / 2.0 / QUANTILES[0];
        let ratio = (QUANTILES[0] + QUANTILES[1]) * standard_error / self.of;
        (prompts as f64 * ratio * ratio).ceil().max(prompts as f64 + 1.0) as usize
    }
}

fn shown(difference: &Interval) -> String {
    let Interval { estimate, low, high, level } = difference;
    format!("{estimate:+.4} [{low:+.4}, {high:+.4}] at {:.0} %", 100.0 * level)
}

fn claims(replica: &Source, expect: &Expect) -> Result<Vec<ClaimRow>> {
    let mut rows = Vec::new();
    for claim in &expect.claims {
        let mut contests = replica.rows.iter().map(|row| row.contest);
        let contest = contests.find(|contest| contest.to_string() == claim.procedure);
        let contest = contest.with_context(|| {
            format!("a claim is about {:?}, which was not measured", claim.procedure)
        })?;
        let wins = |name: &str| {
            let wins = wins(replica, name, &contest, Judge::Reward);
            wins.with_context(|| format!("a claim names the method {name:?}"))
        };
        let difference = paired_difference(&wins(&claim.better)?, &wins(&claim.worse)?, LEVEL)?;
        rows.push(ClaimRow {
            claim: format!(
                "{} wins more than {} under {}",
                claim.better, claim.worse, claim.procedure
            ),
            holds: difference.low > 0.0,
            difference: shown(&difference),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of prompts around a mean, spread evenly by ± `spread`.
    fn around(mean: f64, spread: f64, n: usize) -> Vec<f64> {
        (0..n).map(|i| mean + spread * (2.0 * (i as f64 + 0.5) / n as f64 - 1.0)).collect()
    }

    fn row(original: &[f64], replica: &[f64]) -> Row {
        let expect = Expect::default();
        let margin = Margin { of: 0.02, required: Level::Equivalent, expect: &expect };
        margin.row("win rate".into(), original, replica).unwrap()
    }

    #[test]
    fn the_levels_are_told_apart() {
        let original = around(0.7, 0.1, 200);
        let shifted = |by: f64, noise: f64| -> Vec<f64> {
            let noise = |i: usize| if i.is_multiple_of(2) { noise } else { -noise };
            original.iter().enumerate().map(|(i, value)| value + by + noise(i)).collect()
        };
        assert_eq!(row(&original, &original).reached, Level::Bitwise);
        assert_eq!(row(&original, &shifted(1e-7, 0.0)).reached, Level::Tolerance);
        assert_eq!(row(&original, &shifted(0.005, 0.05)).reached, Level::Equivalent);
        let different = row(&original, &shifted(0.05, 0.05));
        assert!(different.note.starts_with("different") && !different.holds());
        let unclear = row(&original[..10], &shifted(0.01, 0.3)[..10]);
        assert!(unclear.note.starts_with("inconclusive") && !unclear.holds(), "{}", unclear.note);
    }

    #[test]
    fn the_prompts_that_would_tell_shrink_the_interval_into_the_margin() {
        let expect = Expect::default();
        let margin = Margin { of: 0.02, required: Level::Equivalent, expect: &expect };
        let interval = |half: f64| Interval { estimate: 0.0, low: -half, high: half, level: 0.9 };
        let n = margin.needed(100, &interval(0.04));
        // Two one-sided tests: n = s²·(z₀.₉₅ + z₀.₉)²/δ², s = 10·0.04/1.645.
        let expected =
            (10.0 * 0.04 / 1.645f64).powi(2) * (1.645f64 + 1.282).powi(2) / 0.02f64.powi(2);
        assert_eq!(n, expected.ceil() as usize);
    }
}
