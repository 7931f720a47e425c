//! What has to hold of a step's JSON document for a statement to hold.

use anyhow::{Context, Result};
use infalign_stats::Interval;
use serde::Deserialize;
use serde_json::Value;

use super::finding::Verdict;
use crate::train::{Difference, Measure, Row, difference};

/// What a document says of a statement.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    /// The number that decides; none where it was not measured near what was asked.
    pub(super) estimate: Option<f64>,
    /// Its interval, where it is an estimate.
    pub(super) interval: Option<[f64; 2]>,
    pub(super) verdict: Verdict,
}

/// What has to hold of a step's JSON document.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Keys")]
pub(super) enum Check {
    /// Of two methods, the first has the higher win rate, and not by a larger KL: the interval of their paired difference is above 0.
    Better(Better),
    /// Of two procedures with a prefix scorer, the first has the higher reward or win rate: the interval of their paired difference is above 0.
    Higher(Higher),
    /// A number lies within a range.
    Number(Number),
}

#[derive(Debug)]
pub(super) struct Better {
    better: String,
    worse: String,
    procedure: String,
    /// `reward` or `judge`.
    judge: String,
}

/// As [`difference`] has them.
#[derive(Debug)]
pub(super) struct Higher {
    higher: String,
    lower: String,
    /// Name of the reward.
    by: String,
    /// Whether its win rate over the base is compared, and not its mean.
    wins: bool,
    kl: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Number {
    /// JSON pointer.
    at: String,
    least: Option<f64>,
    most: Option<f64>,
}

/// The keys of all checks, so that one of none is named.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    better: Option<String>,
    worse: Option<String>,
    procedure: Option<String>,
    judge: Option<String>,
    higher: Option<String>,
    lower: Option<String>,
    reward: Option<String>,
    win_rate: Option<String>,
    kl: Option<f64>,
    at: Option<String>,
    least: Option<f64>,
    most: Option<f64>,
}

impl Keys {
    /// Whether what was not taken is empty.
    fn are_none(&self) -> bool {
        let Self { better, worse, procedure, judge, higher, lower, reward, .. } = self;
        let Self { win_rate, kl, at, least, most, .. } = self;
        let texts = [better, worse, procedure, judge, higher, lower, reward, win_rate, at];
        texts.iter().all(|text| text.is_none()) && [kl, least, most].iter().all(|n| n.is_none())
    }
}

impl TryFrom<Keys> for Check {
    type Error = &'static str;

    fn try_from(mut keys: Keys) -> Result<Self, &'static str> {
        const WHAT: &str = "`is` takes better, worse and procedure (and judge); or higher, lower and reward or win_rate (and kl); or at with least and most";
        let check = if let Some(better) = keys.better.take() {
            let worse = keys.worse.take().ok_or(WHAT)?;
            let procedure = keys.procedure.take().ok_or(WHAT)?;
            let judge = keys.judge.take().unwrap_or_else(|| "reward".to_owned());
            Self::Better(Better { better, worse, procedure, judge })
        } else if let Some(higher) = keys.higher.take() {
            let lower = keys.lower.take().ok_or(WHAT)?;
            let (by, wins) = match (keys.reward.take(), keys.win_rate.take()) {
                (Some(reward), None) => (reward, false),
                (None, Some(reward)) => (reward, true),
                _ => return Err(WHAT),
            };
            if keys.kl.is_some_and(|kl| !(kl > 0.0 && kl.is_finite())) {
                return Err("kl has to be above 0");
            }
            Self::Higher(Higher { higher, lower, by, wins, kl: keys.kl.take() })
        } else {
            let (at, least, most) =
                (keys.at.take().ok_or(WHAT)?, keys.least.take(), keys.most.take());
            if least.is_none() && most.is_none() || least.zip(most).is_some_and(|(a, b)| a > b) {
                return Err("with at, `is` needs least or most, and least not above most");
            }
            Self::Number(Number { at, least, most })
        };
        if keys.are_none() { Ok(check) } else { Err(WHAT) }
    }
}

impl Check {
    /// What the document says.
    ///
    /// # Errors
    /// Where the document does not hold what is asked for.
    pub(super) fn of(&self, document: &Value) -> Result<Told> {
        match self {
            Self::Better(better) => better.of(document),
            Self::Higher(higher) => higher.of(document),
            Self::Number(number) => number.of(document),
        }
    }
}

impl Better {
    fn of(&self, document: &Value) -> Result<Told> {
        let Self { better, worse, procedure, judge } = self;
        let rows: Vec<&Value> = comparisons(document).collect();
        let is = |row: &Value, key: &str, value: &str| row[key].as_str() == Some(value);
        let about = |row: &&Value| is(row, "procedure", procedure) && is(row, "judge", judge);
        let of = |first: &str, second: &str| {
            let pair = |row: &&Value| is(row, "method", first) && is(row, "baseline", second);
            rows.iter().copied().filter(about).find(pair).map(|row| &row["difference"])
        };
        let (difference, turned) = of(better, worse)
            .map(|difference| (difference, false))
            .or_else(|| of(worse, better).map(|difference| (difference, true)))
            .with_context(|| {
                format!("nothing compares {better} with {worse} under {procedure} by {judge}")
            })?;
        if difference.is_null() {
            return Ok(above_0(None));
        }
        let number = |key| difference[key].as_f64().context("no interval");
        let [estimate, low, high] = [number("estimate")?, number("low")?, number("high")?];
        let difference = if turned { [-estimate, -high, -low] } else { [estimate, low, high] };
        let told = above_0(Some(difference));
        // Who went further from the reference may have won by that alone.
        let further = match (kl_of(document, better), kl_of(document, worse)) {
            (Some(better), Some(worse)) => better - worse,
            _ => 0.0,
        };
        let unsure = match told.verdict {
            Verdict::Agrees => further > SAME_KL,
            Verdict::Differs => -further > SAME_KL,
            Verdict::Open => false,
        };
        Ok(if unsure { Told { verdict: Verdict::Open, ..told } } else { told })
    }
}

/// KLs that differ by less count as the same, nats.
const SAME_KL: f64 = 0.05;

/// KL from the reference of a method that `compare` printed, nats.
fn kl_of(document: &Value, method: &str) -> Option<f64> {
    let rows = document["rows"].as_array()?;
    rows.iter().find(|row| row["method"] == method)?["kl"]["estimate"].as_f64()
}

/// What `compare` printed of methods, or `report` of methods at a common KL.
fn comparisons(document: &Value) -> impl Iterator<Item = &Value> {
    let judged = document["judged"].as_array().into_iter().flatten();
    let reported = judged.map(|judged| &judged["at_common_kl"]["comparisons"]);
    let lists = std::iter::once(&document["comparisons"]).chain(reported);
    lists.filter_map(Value::as_array).flatten()
}

impl Higher {
    fn of(&self, document: &Value) -> Result<Told> {
        let Self { higher, lower, by, wins, kl } = self;
        let measure = if *wins { Measure::WinRate(by) } else { Measure::Reward(by) };
        let rows: Vec<Row> = Vec::deserialize(&document["evaluation"])
            .context("`higher` asks for what a scorer recipe with [[evaluation]] printed")?;
        let Some(difference) = difference(&rows, [higher, lower], measure, *kl)? else {
            return Ok(above_0(None));
        };
        let Difference { interval: Interval { estimate, low, high, .. }, bounded } = difference;
        let told = above_0(Some([estimate, low, high]));
        // Where the KL of the one that has less is a bound, it may have more at the KL itself.
        let unsure = match told.verdict {
            Verdict::Agrees => bounded[1],
            Verdict::Differs => bounded[0],
            Verdict::Open => false,
        };
        Ok(Told { verdict: if unsure { Verdict::Open } else { told.verdict }, ..told })
    }
}

/// Whether a difference is above 0; open where it was not measured near what was asked.
fn above_0(difference: Option<[f64; 3]>) -> Told {
    let Some([estimate, low, high]) = difference else {
        return Told { estimate: None, interval: None, verdict: Verdict::Open };
    };
    let verdict = match (low > 0.0, high < 0.0) {
        (true, _) => Verdict::Agrees,
        (_, true) => Verdict::Differs,
        _ => Verdict::Open,
    };
    Told { estimate: Some(estimate), interval: Some([low, high]), verdict }
}

impl Number {
    fn of(&self, document: &Value) -> Result<Told> {
        let value = document.pointer(&self.at).and_then(Value::as_f64);
        let value = value.with_context(|| format!("there is no number at {}", self.at))?;
        let within = self.least.is_none_or(|least| value >= least)
            && self.most.is_none_or(|most| value <= most);
        let verdict = if within { Verdict::Agrees } else { Verdict::Differs };
        Ok(Told { estimate: Some(value), interval: None, verdict })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(check: &str, document: &Value) -> Result<Told> {
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
            told(&check, document).unwrap()
        };
        let is = |estimate, interval, verdict| Told {
            estimate: Some(estimate),
            interval: Some(interval),
            verdict,
        };
        assert_eq!(of("a", "b", &row(0.25, 0.75)), is(0.5, [0.25, 0.75], Verdict::Agrees));
        assert_eq!(of("b", "a", &row(0.25, 0.75)), is(-0.5, [-0.75, -0.25], Verdict::Differs));
        assert_eq!(of("a", "b", &row(-0.25, 0.75)).verdict, Verdict::Open);
        let check = "better = 'a'\nworse = 'c'\nprocedure = 'best-of:4'";
        let message = told(check, &row(0.0, 1.0)).unwrap_err().to_string();
        assert!(message.contains("compares a with c"), "{message}");
    }

    #[test]
    fn a_method_that_went_further_has_not_won() {
        let row = |method: &str, kl: f64| json!({ "method": method, "kl": { "estimate": kl } });
        let verdict = |kl: [f64; 2], better: &str, worse: &str| {
            let difference = json!({ "estimate": 0.5, "low": 0.25, "high": 0.75 });
            let document = json!({
                "rows": [row("a", kl[0]), row("b", kl[1])],
                "comparisons": [{ "method": "a", "baseline": "b", "procedure": "sample", "judge": "reward", "difference": difference }],
            });
            let check = format!("better = '{better}'\nworse = '{worse}'\nprocedure = 'sample'");
            told(&check, &document).unwrap().verdict
        };
        assert_eq!(verdict([0.54, 0.5], "a", "b"), Verdict::Agrees);
        assert_eq!(verdict([1.2, 0.5], "a", "b"), Verdict::Open);
        assert_eq!(verdict([0.3, 0.5], "a", "b"), Verdict::Agrees);
        assert_eq!(verdict([1.2, 0.5], "b", "a"), Verdict::Open);
        assert_eq!(verdict([0.3, 0.5], "b", "a"), Verdict::Differs);
    }

    #[test]
    fn a_report_tells_of_methods_at_its_kl() {
        let row = |difference: Value| json!({ "method": "a", "baseline": "b", "procedure": "sample", "judge": "reward", "kl": 0.5, "difference": difference });
        let report = |difference: Value| json!({ "judged": [{ "comparisons": [], "at_common_kl": { "comparisons": [row(difference)] } }] });
        let check = "better = 'a'\nworse = 'b'\nprocedure = 'sample'";
        let found = told(check, &report(json!({ "estimate": 0.2, "low": 0.1, "high": 0.3 })));
        let found = found.unwrap();
        assert_eq!((found.estimate, found.verdict), (Some(0.2), Verdict::Agrees));
        // Not run as far.
        let found = told(check, &report(Value::Null)).unwrap();
        assert_eq!((found.estimate, found.verdict), (None, Verdict::Open));
    }

    #[test]
    fn rewards_of_procedures_are_compared_by_prompt() {
        let row = |procedure: &str, rewards: [f64; 3]| {
            let mean = json!({ "estimate": 0.0, "low": 0.0, "high": 0.0, "by_prompt": rewards });
            json!({
                "procedure": procedure, "weights": { "liking": 1.0 }, "rewards": { "liking": mean },
                "win_rates": { "judge": mean },
                "kl": [{ "nats": 1.0, "kind": "bound" }], "model_tokens": 1.0, "scorer_calls": 1.0,
                "truncation": 0.0
            })
        };
        let rows =
            [row("sample", [0.0, 0.5, 1.0]), row("cd-block:length=2,samples=4", [1.0, 1.75, 2.0])];
        let document = json!({ "evaluation": rows });
        let check = "higher = 'cd-block:length=2,samples=4'\nlower = 'sample'\nreward = 'liking'";
        let found = told(check, &document).unwrap();
        assert!((found.estimate.unwrap() - 3.25 / 3.0).abs() < 1e-12);
        assert_eq!(found.verdict, Verdict::Agrees);
        assert!(told(check, &json!({ "scorer": [] })).is_err());
        let by = |by: &str| told(&check.replace("reward = 'liking'", by), &document);
        assert_eq!(by("win_rate = 'judge'").unwrap(), found);
        let message = by("win_rate = 'liking'").unwrap_err().to_string();
        assert!(message.contains("no win rate by \"liking\"; there are [\"judge\"]"), "{message}");
        let older: Value =
            serde_json::from_str(&document.to_string().replace("win_rates", "x")).unwrap();
        assert!(told(check, &older).is_ok());
    }

    #[test]
    fn a_number_is_looked_for_where_the_pointer_says() {
        let document = json!({ "win_rate": { "best-of:4": 0.87 } });
        let check = "at = '/win_rate/best-of:4'\nleast = 0.86\nmost = 0.88";
        let found = told(check, &document).unwrap();
        assert_eq!((found.estimate, found.verdict), (Some(0.87), Verdict::Agrees));
        let check = "at = '/win_rate/best-of:4'\nmost = 0.86";
        assert_eq!(told(check, &document).unwrap().verdict, Verdict::Differs);
        assert!(told("at = '/win_rate/sample'\nmost = 1.0", &document).is_err());
    }

    #[test]
    fn keys_that_say_nothing_are_refused_by_name() {
        for (check, told) in [
            ("at = '/x'", "least or most"),
            ("at = '/x'\nleast = 2\nmost = 1", "least not above most"),
            ("at = '/x'\nleest = 2", "leest"),
            ("better = 'a'\nworse = 'b'", "`is` takes better"),
            ("higher = 'a'\nlower = 'b'", "higher, lower and reward"),
            ("higher = 'a'\nlower = 'b'\nreward = 'r'\nwin_rate = 'r'", "reward or win_rate"),
            ("higher = 'a'\nlower = 'b'\nreward = 'r'\nat = '/x'", "or higher"),
            ("least = 1", "or at"),
        ] {
            let message = toml::from_str::<Check>(check).unwrap_err().to_string();
            assert!(message.contains(told), "{message}");
        }
    }
}
