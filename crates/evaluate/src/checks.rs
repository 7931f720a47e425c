//! What can be refused of an evaluation before anything is sampled or scored.

use infalign_stats::{Resamples, StatsError};
use infalign_transform::Composed;

use crate::contest::{choice_among, same_prompts};
use crate::{Contest, EvaluateError, PromptText, Sampled, Statistics};

/// What is going to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The procedures.
    pub contests: &'a [Contest],
    /// How intervals are made.
    pub statistics: &'a Statistics,
    /// Whether there will be a [`crate::plan()`], which measures halves.
    pub halves: bool,
}

impl Sampled {
    /// What is known of samples before they are drawn: all but the responses, which are empty, and their scores.
    pub fn outline(prompts: Vec<PromptText>, samples: usize, procedure: Option<Composed>) -> Self {
        let responses = vec![vec![String::new(); samples]; prompts.len()];
        Self { prompts, responses, procedure, ..Self::default() }
    }
}

/// Refuses what could not be measured of two sides whatever their scores: other prompts, fewer than two, fewer responses than a procedure
/// takes, procedures that cannot be evaluated from them, and too few resamples.
///
/// - `policy`: with its name; both sides may be without scores.
///
/// # Errors
/// [`EvaluateError`] says what to change.
pub fn check(
    policy: (&str, &Sampled),
    reference: &Sampled,
    asked: &Asked<'_>,
) -> Result<(), EvaluateError> {
    let reference = ("the reference", reference);
    same_prompts(policy, reference)?;
    let found = policy.1.prompts.len();
    if found < 2 {
        return Err(StatsError::TooFew { what: "prompts", needed: 2, found }.into());
    }
    Resamples::check(asked.statistics.intervals.resamples().0)?;
    for contest in asked.contests {
        for (side, procedure) in [(policy, contest.policy), (reference, contest.reference)] {
            let n = choice_among(side.0, side.1, &procedure)?.samples();
            enough(side, n, &procedure, asked.halves)?;
        }
    }
    Ok(())
}

fn enough(
    (method, sampled): (&str, &Sampled),
    n: usize,
    procedure: &Composed,
    halves: bool,
) -> Result<(), EvaluateError> {
    for (prompt, responses) in sampled.prompts.iter().zip(&sampled.responses) {
        let (found, needed) = (responses.len(), if halves { 2 * n } else { n });
        if found >= needed {
            continue;
        }
        let (method, prompt) = (method.to_owned(), prompt.id.clone());
        let procedure = procedure.to_string();
        return Err(if found < n {
            EvaluateError::Few { method, prompt, procedure, needed: n, found }
        } else {
            EvaluateError::Halves { method, prompt, procedure, needed, found }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Intervals;
    use crate::test_samples::samples;

    #[test]
    fn whatever_could_not_be_measured_is_told_without_a_single_score() {
        let statistics = Statistics::new(0);
        let outline = |n: usize, samples: usize| {
            let prompt =
                |k: usize| PromptText { id: format!("p{k}"), text: "Say".into(), sha256: None };
            Sampled::outline((0..n).map(prompt).collect(), samples, None)
        };
        let told = |policy: &Sampled, procedure: &str, statistics: &Statistics, halves: bool| {
            let contests = [Contest::same(procedure.parse().unwrap())];
            let asked = Asked { contests: &contests, statistics, halves };
            check(("A", policy), &outline(2, 8), &asked).map_err(|error| error.to_string())
        };
        let whole = outline(2, 8);
        assert_eq!(told(&whole, "best-of:8", &statistics, false), Ok(()));
        assert_eq!(told(&samples(0.0), "best-of:4", &statistics, false), Ok(()));
        assert_eq!(told(&whole, "majority:8", &statistics, false), Ok(()));
        let by = |intervals| Statistics { intervals, ..statistics };
        let few = by(Intervals::Bca { replicates: 99, seed: 0 });
        let unused = by(Intervals::StudentT { replicates: 99, seed: 0 });
        let made = Sampled { procedure: Some("majority:3".parse().unwrap()), ..outline(2, 8) };
        for (policy, procedure, statistics, halves, needle) in [
            (&outline(3, 8), "sample", &statistics, false, "3 against 2"),
            (&whole, "best-of:9", &statistics, false, "A, prompt `p0`"),
            (&whole, "majority:9", &statistics, false, "give 9 or more"),
            (&whole, "best-of:8", &statistics, true, "give 16 or more"),
            (&whole, "cd-token:lambda=1", &statistics, false, "cd-token"),
            (&made, "best-of:2", &statistics, false, "those of `majority:3`"),
            (&whole, "sample", &few, false, "at least 100"),
            (&whole, "sample", &unused, false, "at least 100"),
        ] {
            let told = told(policy, procedure, statistics, halves).unwrap_err();
            assert!(told.contains(needle), "{procedure}: {told}");
        }
        let one = outline(1, 8);
        let asked = Asked { contests: &[], statistics: &statistics, halves: false };
        let error = check(("A", &one), &one, &asked).unwrap_err().to_string();
        assert!(error.contains("at least 2"), "{error}");
    }
}
