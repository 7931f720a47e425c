//! What a paper states, and what was found.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// What has to hold of a step's JSON document.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Keys")]
enum Check {
    /// Of two methods, the first has the higher win rate: the interval of their paired difference is above 0.
    Better(Better),
    /// A number lies within a range.
    Number(Number),
}

#[derive(Debug)]
struct Better {
    better: String,
    worse: String,
    procedure: String,
    /// `reward` or `judge`.
    judge: String,
}

#[derive(Debug)]
struct Number {
    /// JSON pointer.
    at: String,
    least: Option<f64>,
    most: Option<f64>,
}

/// The keys of either check, so that one of neither is named.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    better: Option<String>,
    worse: Option<String>,
    procedure: Option<String>,
    judge: Option<String>,
    at: Option<String>,
    least: Option<f64>,
    most: Option<f64>,
}

impl TryFrom<Keys> for Check {
    type Error = &'static str;

    fn try_from(keys: Keys) -> Result<Self, &'static str> {
        match keys {
            Keys {
                better: Some(better),
                worse: Some(worse),
                procedure: Some(procedure),
                judge,
                at: None,
                least: None,
                most: None,
            } => {
                let judge = judge.unwrap_or_else(|| "reward".to_owned());
                Ok(Self::Better(Better { better, worse, procedure, judge }))
            }
            Keys { better: None, worse: None, procedure: None, judge: None, at, least, most } => {
                let at = at.ok_or("`is` needs better, worse and procedure, or at")?;
                if least.is_none() && most.is_none() || least.zip(most).is_some_and(|(a, b)| a > b)
                {
                    return Err("with at, `is` needs least or most, and least not above most");
                }
                Ok(Self::Number(Number { at, least, most }))
            }
            _ => {
                Err("`is` takes better, worse and procedure (and judge), or at with least and most")
            }
        }
    }
}

/// Whether what was found is what is stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It is.
    Agrees,
    /// It is not.
    Differs,
    /// The interval holds both.
    Open,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Found {
    pub(super) states: String,
    /// The number.
    pub(super) estimate: f64,
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
        let (estimate, interval, verdict) =
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

impl Check {
    fn of(&self, document: &Value) -> Result<(f64, Option<[f64; 2]>, Verdict)> {
        match self {
            Self::Better(better) => better.of(document),
            Self::Number(number) => number.of(document),
        }
    }
}

impl Better {
    fn of(&self, document: &Value) -> Result<(f64, Option<[f64; 2]>, Verdict)> {
        let Self { better, worse, procedure, judge } = self;
        let rows = document["comparisons"].as_array().map_or(&[][..], Vec::as_slice);
        let is = |row: &Value, key: &str, value: &str| row[key].as_str() == Some(value);
        let about = |row: &&Value| is(row, "procedure", procedure) && is(row, "judge", judge);
        let of = |first: &str, second: &str| {
            let pair = |row: &&Value| is(row, "method", first) && is(row, "baseline", second);
            rows.iter().filter(about).find(pair).map(|row| &row["difference"])
        };
        let number = |interval: &Value, key: &str| interval[key].as_f64().context("no interval");
        let (estimate, low, high) = if let Some(difference) = of(better, worse) {
            (
                number(difference, "estimate")?,
                number(difference, "low")?,
                number(difference, "high")?,
            )
        } else {
            let difference = of(worse, better).with_context(|| {
                format!("nothing compares {better} with {worse} under {procedure} by {judge}")
            })?;
            let less = |key| number(difference, key).map(|value| -value);
            (less("estimate")?, less("high")?, less("low")?)
        };
        let verdict = match (low > 0.0, high < 0.0) {
            (true, _) => Verdict::Agrees,
            (_, true) => Verdict::Differs,
            _ => Verdict::Open,
        };
        Ok((estimate, Some([low, high]), verdict))
    }
}

impl Number {
    fn of(&self, document: &Value) -> Result<(f64, Option<[f64; 2]>, Verdict)> {
        let value = document.pointer(&self.at).and_then(Value::as_f64);
        let value = value.with_context(|| format!("there is no number at {}", self.at))?;
        let within = self.least.is_none_or(|least| value >= least)
            && self.most.is_none_or(|most| value <= most);
        Ok((value, None, if within { Verdict::Agrees } else { Verdict::Differs }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(check: &str, document: &Value) -> Result<(f64, Option<[f64; 2]>, Verdict)> {
        toml::from_str::<Check>(check).unwrap().of(document)
    }

    #[test]
    fn the_interval_of_a_difference_decides_whichever_way_round_it_is() {
        let row = |low: f64, high: f64| {
            let difference = json!({ "estimate": (low + high) / 2.0, "low": low, "high": high });
            json!({ "comparisons": [{ "method": "a", "baseline": "b", "procedure": "best-of:4", "judge": "reward", "difference": difference }] })
        };
        let of = |better: &str, worse: &str, document: &Value| {
            let check = format!("better = '{better}'\nworse = '{worse}'\nprocedure = 'best-of:4'");
            verdict(&check, document).unwrap()
        };
        assert_eq!(of("a", "b", &row(0.25, 0.75)), (0.5, Some([0.25, 0.75]), Verdict::Agrees));
        assert_eq!(of("b", "a", &row(0.25, 0.75)), (-0.5, Some([-0.75, -0.25]), Verdict::Differs));
        assert_eq!(of("a", "b", &row(-0.25, 0.75)).2, Verdict::Open);
        let check = "better = 'a'\nworse = 'c'\nprocedure = 'best-of:4'";
        let message = verdict(check, &row(0.0, 1.0)).unwrap_err().to_string();
        assert!(message.contains("compares a with c"), "{message}");
    }

    #[test]
    fn a_number_is_looked_for_where_the_pointer_says() {
        let document = json!({ "win_rate": { "best-of:4": 0.87 } });
        let check = "at = '/win_rate/best-of:4'\nleast = 0.86\nmost = 0.88";
        assert_eq!(verdict(check, &document).unwrap(), (0.87, None, Verdict::Agrees));
        let check = "at = '/win_rate/best-of:4'\nmost = 0.86";
        assert_eq!(verdict(check, &document).unwrap().2, Verdict::Differs);
        assert!(verdict("at = '/win_rate/sample'\nmost = 1.0", &document).is_err());
    }

    #[test]
    fn keys_that_say_nothing_are_refused_by_name() {
        for (check, told) in [
            ("at = '/x'", "least or most"),
            ("at = '/x'\nleast = 2\nmost = 1", "least not above most"),
            ("at = '/x'\nleest = 2", "leest"),
            ("better = 'a'\nworse = 'b'", "`is` takes better"),
            ("least = 1", "or at"),
        ] {
            let message = toml::from_str::<Check>(check).unwrap_err().to_string();
            assert!(message.contains(told), "{message}");
        }
    }
}
