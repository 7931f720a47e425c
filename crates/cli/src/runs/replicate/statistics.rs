//! Win rates and KLs of two align runs, from the samples of each: whether they are equivalent, and whether claims hold.
//!
//! The same prompts were answered in both runs, so differences are taken prompt by prompt. *Equivalent* means that the 90 % interval
//! of the difference lies within the margins that were declared before the run (two one-sided tests at 5 %). Otherwise the runs differ, or
//! there are too few prompts to tell: a difference that is not significant is never called agreement.

use std::path::Path;

use anyhow::{Context, Result};
use infalign_evaluate::{Sampled, selection};
use infalign_record::folder::{self, CONFIG};
use infalign_record::replication::{ClaimRow, Row};
use infalign_record::{Expect, Level};
use infalign_stats::{Interval, Selection, paired_difference, win_rate};

use crate::recipe::{AlignRecipe, Recipe, read_resolved};
use crate::sources::{METHODS, REFERENCE, SAMPLES};

/// Two one-sided tests at 5 %.
const TWO_ONE_SIDED: f64 = 0.90;
/// Of claims.
const LEVEL: f64 = 0.95;

/// The samples of one run.
struct Stored {
    reference: Sampled,
    /// By the names of the methods; the reference's own is `base`.
    methods: Vec<(String, Sampled)>,
}

/// Every win rate and KL of two runs, and the claims, tried on the second. Both are empty for other runs than align runs.
///
/// - `required`: what is asked of every number.
///
/// # Errors
/// When the samples of a run cannot be read or are not those of its recipe.
pub(super) fn compare(
    original: &Path,
    replica: &Path,
    expect: &Expect,
    required: Level,
) -> Result<(Vec<Row>, Vec<ClaimRow>)> {
    let config = original.join(CONFIG);
    if !config.exists() {
        return Ok((Vec::new(), Vec::new()));
    }
    let Recipe::Align(recipe) = read_resolved(&config)? else {
        return Ok((Vec::new(), Vec::new()));
    };
    let (a, b) = (stored(original, &recipe)?, stored(replica, &recipe)?);
    let mut rows = Vec::new();
    for ((name, ours), (_, theirs)) in a.methods.iter().zip(&b.methods) {
        let kl = Margin { of: expect.equivalence.kl, required, expect };
        rows.push(kl.row(
            format!("{name}: KL"),
            &exact_kl(name, ours)?,
            &exact_kl(name, theirs)?,
        )?);
        let margin = Margin { of: expect.equivalence.win_rate, required, expect };
        for procedure in &recipe.evaluation.procedures {
            let selection = selection(procedure)?;
            let ours = wins(ours, &a.reference, selection)?;
            let theirs = wins(theirs, &b.reference, selection)?;
            rows.push(margin.row(format!("{name}: win rate, {procedure}"), &ours, &theirs)?);
        }
    }
    Ok((rows, claims(&b, &recipe, expect)?))
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

fn claims(replica: &Stored, recipe: &AlignRecipe, expect: &Expect) -> Result<Vec<ClaimRow>> {
    let of = |name: &str| {
        let found = replica.methods.iter().find(|(method, _)| method == name);
        found
            .map(|(_, samples)| samples)
            .with_context(|| format!("a claim names the method {name:?}, which is not there"))
    };
    let mut rows = Vec::new();
    for claim in &expect.claims {
        let procedure =
            recipe.evaluation.procedures.iter().find(|p| p.to_string() == claim.procedure);
        let procedure = procedure.with_context(|| {
            format!("a claim is about {:?}, which was not measured", claim.procedure)
        })?;
        let selection = selection(procedure)?;
        let better = wins(of(&claim.better)?, &replica.reference, selection)?;
        let worse = wins(of(&claim.worse)?, &replica.reference, selection)?;
        let difference = paired_difference(&better, &worse, LEVEL)?;
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

/// Win rate of each prompt.
fn wins(policy: &Sampled, reference: &Sampled, selection: Selection) -> Result<Vec<f64>> {
    let pairs = policy.rewards.iter().zip(&reference.rewards);
    Ok(pairs.map(|(ours, theirs)| win_rate(ours, theirs, selection)).collect::<Result<_, _>>()?)
}

/// KL(π‖π_ref) of every prompt, exact at every token, in nats.
fn exact_kl(name: &str, sampled: &Sampled) -> Result<Vec<f64>> {
    let kl = sampled.kl.as_ref().with_context(|| format!("the samples of {name} tell no KL"))?;
    Ok(kl.iter().map(|kl| kl.exact).collect())
}

fn stored(run: &Path, recipe: &AlignRecipe) -> Result<Stored> {
    let (reference, base): (Sampled, Sampled) = folder::json(run, REFERENCE)?;
    let mut methods = vec![("base".to_owned(), base)];
    for method in &recipe.method {
        let samples = folder::json(run, &format!("{METHODS}/{}/{SAMPLES}", method.name))?;
        methods.push((method.name.clone(), samples));
    }
    Ok(Stored { reference, methods })
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
