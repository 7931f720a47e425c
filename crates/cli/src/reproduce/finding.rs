//! What a paper states, and what was found.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check::{Check, Told};
use super::step::printed;

/// A statement, and the number that says whether it holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Finding {
    /// What the paper states.
    states: String,
    /// The step whose output tells.
    pub(super) step: String,
    /// What of it.
    is: Check,
    /// What was found when the plan was last run in full; another verdict is reported as a failed check.
    expect: Verdict,
}

/// Whether what was found is what is stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It is.
    Agrees,
    /// It is not.
    Differs,
    /// The interval holds both, or it was not measured near what was asked.
    Open,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Found {
    pub(super) states: String,
    /// The number; none where it was not measured near what was asked.
    pub(super) estimate: Option<f64>,
    /// Its interval, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interval: Option<[f64; 2]>,
    /// None in a smoke run.
    pub(super) verdict: Option<Verdict>,
    pub(super) expected: Verdict,
}

impl Found {
    pub(super) fn is_unexpected(&self) -> bool {
        self.verdict.is_some_and(|verdict| verdict != self.expected)
    }

    /// A sentence about a verdict that was not expected.
    pub(super) fn surprise(&self) -> String {
        let word = |verdict: Verdict| verdict.word();
        let found = self.verdict.map_or("not judged", word);
        format!("{:?} was expected to be {}, and is {found}", self.states, word(self.expected))
    }
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Agrees => "agrees",
            Self::Differs => "differs",
            Self::Open => "open",
        }
    }
}

impl Finding {
    /// Reads the step's document.
    ///
    /// # Errors
    /// Where it does not hold what is asked for.
    pub(super) fn judge(&self, smoke: bool, steps: &Path) -> Result<Found> {
        let file = printed(steps, &self.step);
        let text = std::fs::read(&file).with_context(|| file.display().to_string())?;
        let document: Value = serde_json::from_slice(&text)
            .with_context(|| format!("{}: its command needs --json", file.display()))?;
        let Told { estimate, interval, verdict } =
            self.is.of(&document).with_context(|| file.display().to_string())?;
        Ok(Found {
            states: self.states.clone(),
            estimate,
            interval,
            verdict: (!smoke).then_some(verdict),
            expected: self.expect,
        })
    }
}
