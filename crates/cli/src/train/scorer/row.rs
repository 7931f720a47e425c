//! What a procedure came to with a prefix scorer, and how two of them compare.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use anyhow::{Context, Result, bail};
use infalign_decode::{Kl, KlKind};
use infalign_evaluate::{NEAREST, distinct};
use infalign_stats::{Interval, mean_interval, paired_difference};
use infalign_transform::{Composed, Procedure};
use serde::{Deserialize, Serialize};

/// Confidence level of the intervals over prompts.
const LEVEL: f64 = 0.95;

/// What one procedure came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The policy that samples were drawn from, where it is not the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
    /// The procedure.
    pub(super) procedure: Composed,
    /// Weights of the rewards, by which scorer and selection choose.
    pub(super) weights: BTreeMap<String, f64>,
    /// Mean of each reward, with its interval over prompts.
    pub(super) rewards: BTreeMap<String, Mean>,
    /// What is known of the mean KL to the base, in nats per response; on a policy that was trained from it, with that of the policy.
    pub(super) kl: Vec<Kl>,
    /// Tokens drawn for a response.
    pub(super) model_tokens: f64,
    /// Values and rewards asked for, for a response.
    pub(super) scorer_calls: f64,
    /// The most that limiting the candidates of `cd-token` moved, in total variation.
    pub(super) truncation: f64,
}

/// A mean with its interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mean {
    pub(super) estimate: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// The mean over the responses to each prompt, in the order of the prompts.
    by_prompt: Vec<f64>,
}

impl Mean {
    /// - `by_prompt`: the mean of each prompt's responses.
    ///
    /// # Errors
    /// For fewer than two prompts, or what is no finite number.
    pub(super) fn over(by_prompt: Vec<f64>) -> Result<Self> {
        let Interval { estimate, low, high, .. } = mean_interval(&by_prompt, LEVEL)?;
        Ok(Self { estimate, low, high, by_prompt })
    }
}

/// The number of a procedure that fronts vary.
struct Varied {
    /// The procedure with a letter in the number's place.
    front: String,
    /// The procedure without it.
    series: String,
    letter: char,
    number: String,
}

impl Row {
    /// What the figure calls the front that this is a point of: the procedure with a letter in the place of the number that is varied, and the
    /// weights where rows go by several; or the policy.
    ///
    /// - `rows`: all of the figure.
    pub(super) fn front(&self, rows: &[Self]) -> String {
        if self.is_policy_itself() {
            return self.series();
        }
        let name = self.varied().map_or_else(|| self.procedure.to_string(), |varied| varied.front);
        let name = self.on_policy(name);
        match common_weights(rows) {
            Some(_) => name,
            None => format!("{name} by {}", self.weights()),
        }
    }

    /// Whether it is what a trained policy writes by itself.
    fn is_policy_itself(&self) -> bool {
        self.policy.is_some() && self.procedure == Procedure::Sample.into()
    }

    /// The name of a procedure, with the policy that it draws from.
    fn on_policy(&self, name: String) -> String {
        self.policy.as_ref().map_or(name.clone(), |policy| format!("{name} on {policy}"))
    }

    /// The number that is varied on a front, with its letter.
    pub(super) fn number(&self) -> Option<String> {
        self.varied().map(|Varied { letter, number, .. }| format!("{letter} = {number}"))
    }

    /// The number that fronts vary; none for a procedure that has no such number.
    fn varied(&self) -> Option<Varied> {
        let varied = |series: &str, front: &str, letter: char, number: &dyn Display| {
            let (front, series) = (format!("{front}{letter}"), series.to_owned());
            Some(Varied { front, series, letter, number: number.to_string() })
        };
        match (self.procedure.selection, self.procedure.inner) {
            (Procedure::Sample, Procedure::CdToken { lambda, candidates: None }) => {
                varied("cd-token", "cd-token:lambda=", 'λ', &lambda)
            }
            (Procedure::Sample, Procedure::CdBlock { length, samples }) => {
                let front = format!("cd-block:length={length},samples=");
                varied(&format!("cd-block, M = {length}"), &front, 'K', &samples)
            }
            (Procedure::BestOf(n), Procedure::Sample) => varied("best-of", "best-of:", 'N', &n),
            (Procedure::WorstOf(n), Procedure::Sample) => varied("worst-of", "worst-of:", 'N', &n),
            _ => None,
        }
    }

    /// What recipes may call a front, too: the procedure without the number that is varied, and the weights; or the policy.
    fn series(&self) -> String {
        if let Some(policy) = self.policy.as_ref().filter(|_| self.is_policy_itself()) {
            return format!("policy {policy}");
        }
        let name = self.varied().map_or_else(|| self.procedure.to_string(), |varied| varied.series);
        let name = self.on_policy(name);
        let weights: Vec<String> =
            self.weights.iter().map(|(head, weight)| format!("{weight} {head}")).collect();
        format!("{name} ({})", weights.join(" + "))
    }

    /// The procedure, and the weights that it went by; or the policy.
    fn name(&self) -> String {
        if self.is_policy_itself() {
            return self.series();
        }
        format!("{} by {}", self.title(), self.weights())
    }

    /// What its stage and its line begin with.
    pub(super) fn title(&self) -> String {
        if self.is_policy_itself() {
            return self.series();
        }
        self.on_policy(self.procedure.to_string())
    }

    fn weights(&self) -> String {
        let weights = self.weights.iter().map(|(head, weight)| format!("{head}:{weight}"));
        weights.collect::<Vec<_>>().join(" ")
    }

    /// The KL in nats per response: exact or an estimate where there is one, and else a bound.
    pub(super) fn kl(&self) -> Kl {
        let near = self.kl.iter().find(|kl| kl.kind != KlKind::Bound);
        near.or(self.kl.first()).copied().unwrap_or(Kl { nats: 0.0, kind: KlKind::Exact })
    }

    fn nats(&self) -> f64 {
        self.kl().nats
    }

    /// A few words, for the line of its stage.
    pub(super) fn summary(&self) -> String {
        let rewards: Vec<String> = self
            .rewards
            .iter()
            .map(|(name, mean)| format!("{name} {:.3}", mean.estimate))
            .collect();
        let kl = self.kl.first();
        let kl = kl.map_or(String::new(), |kl| format!(", KL {:.3} ({})", kl.nats, kl.kind));
        format!("{}{kl}", rewards.join(", "))
    }

    /// One line for people.
    pub(super) fn line(&self) -> String {
        let rewards: Vec<String> = self
            .rewards
            .iter()
            .map(|(name, mean)| {
                format!("{name} {:.3} [{:.3}, {:.3}]", mean.estimate, mean.low, mean.high)
            })
            .collect();
        let kl: Vec<String> =
            self.kl.iter().map(|kl| format!("{:.3} ({})", kl.nats, kl.kind)).collect();
        format!(
            "{:<34} {:<24} {}  KL {}  {}, {}",
            self.title(),
            self.weights(),
            rewards.join("  "),
            kl.join(", "),
            counted(self.model_tokens, "token"),
            counted(self.scorer_calls, "score")
        )
    }

    fn by_prompt(&self, reward: &str) -> Result<&[f64]> {
        let mean = self.rewards.get(reward).with_context(|| {
            let known: Vec<&String> = self.rewards.keys().collect();
            format!("there is no reward {reward:?}; there are {known:?}")
        })?;
        Ok(&mean.by_prompt)
    }
}

/// A rounded number of things.
fn counted(number: f64, thing: &str) -> String {
    let plural = if number.round() == 1.0 { "" } else { "s" };
    format!("{number:.0} {thing}{plural}")
}

/// The weights that all procedures went by; none where they went by several.
pub(super) fn common_weights(rows: &[Row]) -> Option<String> {
    let of_procedures = rows.iter().filter(|row| !row.is_policy_itself());
    match &distinct(of_procedures.map(Row::weights))[..] {
        [weights] => Some(weights.clone()),
        _ => None,
    }
}

/// The paired difference of a reward under two procedures, the second subtracted; none where a front does not reach the KL, or begins much
/// farther away.
///
/// - `pair`: each a procedure as it was named, or, where several rows have it, as `PROCEDURE by REWARD:WEIGHT REWARD:WEIGHT`, rewards in
///   alphabetical order. With `kl`, above 0, in nats per response, each is a front as the figure's legend names it, or as `best-of (1 REWARD)`
///   and the like, and both are taken at that KL: between two points a reward is linear in √KL, and every front begins at plain sampling of what
///   it draws from. The interval takes the KLs for known.
///
/// # Errors
/// Where there is no such row, front or reward.
pub(crate) fn reward_difference(
    rows: &[Row],
    pair: [&str; 2],
    reward: &str,
    kl: Option<f64>,
) -> Result<Option<Difference>> {
    let of = |name: &str| match kl {
        None => Ok(Some((named(rows, name)?.by_prompt(reward)?.to_vec(), false))),
        Some(kl) => at(rows, name, reward, kl),
    };
    let [Some(first), Some(second)] = [of(pair[0])?, of(pair[1])?] else { return Ok(None) };
    let interval = paired_difference(&first.0, &second.0, LEVEL)?;
    Ok(Some(Difference { interval, bounded: [first.1, second.1] }))
}

/// A difference of rewards.
#[derive(Debug)]
pub(crate) struct Difference {
    /// Over prompts.
    pub(crate) interval: Interval,
    /// Whether the KL of the first, and that of the second, are bounds: their rewards at the KL itself may be higher.
    pub(crate) bounded: [bool; 2],
}

fn named<'a>(rows: &'a [Row], name: &str) -> Result<&'a Row> {
    let is = |row: &&Row| row.title() == name || row.name() == name;
    let mut found = rows.iter().filter(is);
    match (found.next(), found.next()) {
        (Some(row), None) => Ok(row),
        (Some(row), Some(_)) if row.policy.is_some() => {
            bail!("there are several of {name:?}, at several KLs: compare them at one, with `kl`")
        }
        (Some(_), Some(_)) => {
            bail!("{name:?} was run with several weights: add `by` and them")
        }
        _ => {
            let names: Vec<String> = rows.iter().map(Row::name).collect();
            bail!("there is no {name:?}; there are {names:?}")
        }
    }
}

/// The reward of every prompt on a front, at a KL that it reaches and that is not much nearer than every point of it, and whether that is a
/// bound.
fn at(rows: &[Row], series: &str, reward: &str, kl: f64) -> Result<Option<(Vec<f64>, bool)>> {
    let is = |row: &&Row| row.front(rows) == series || row.series() == series;
    let mut front: Vec<&Row> = rows.iter().filter(is).collect();
    if front.is_empty() {
        let names: BTreeSet<String> = rows.iter().map(|row| row.front(rows)).collect();
        bail!("there is no front {series:?}; there are {names:?}")
    }
    let bounded = front.iter().any(|row| row.kl().kind == KlKind::Bound);
    let nearest = front.iter().map(|row| row.nats()).fold(f64::INFINITY, f64::min);
    if kl < NEAREST * nearest {
        return Ok(None);
    }
    // Plain sampling goes by no weights; a policy itself began at the base.
    let from = front[0].policy.as_ref().filter(|_| !front[0].is_policy_itself());
    let begins =
        |row: &&Row| row.policy.as_ref() == from && row.procedure == Procedure::Sample.into();
    front.extend(rows.iter().find(begins));
    front.sort_by(|a, b| a.nats().total_cmp(&b.nats()));
    let between = |pair: &&[&Row]| pair[0].nats() < kl && kl <= pair[1].nats();
    let Some([low, high]) = front.windows(2).find(between) else { return Ok(None) };
    let [from, to] = [low, high].map(|row| row.nats().max(0.0).sqrt());
    let share = (kl.sqrt() - from) / (to - from);
    let pairs = low.by_prompt(reward)?.iter().zip(high.by_prompt(reward)?);
    let rewards = pairs.map(|(low, high)| low + share * (high - low)).collect();
    Ok(Some((rewards, bounded)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(procedure: &str, weight: f64, nats: f64, by_prompt: &[f64]) -> Row {
        Row {
            policy: None,
            procedure: procedure.parse().unwrap(),
            weights: BTreeMap::from([("liking".to_owned(), weight)]),
            rewards: BTreeMap::from([(
                "liking".to_owned(),
                Mean::over(by_prompt.to_vec()).unwrap(),
            )]),
            kl: vec![Kl { nats, kind: KlKind::Bound }],
            model_tokens: 1.0,
            scorer_calls: 1.0,
            truncation: 0.0,
        }
    }

    fn rows() -> Vec<Row> {
        vec![
            row("sample", 1.0, 0.0, &[0.0, 1.0, 2.0]),
            row("best-of:4", 1.0, 1.0, &[2.0, 3.0, 5.0]),
            row("cd-token:lambda=1", 1.0, 0.25, &[1.0, 2.0, 3.5]),
            row("cd-token:lambda=4", 1.0, 4.0, &[4.0, 5.0, 6.5]),
            row("cd-token:lambda=1", 0.5, 0.25, &[0.0, 0.0, 1.0]),
        ]
    }

    #[test]
    fn a_difference_of_two_procedures_is_paired_by_prompt() {
        let of = |pair, kl| reward_difference(&rows(), pair, "liking", kl);
        let difference = of(["best-of:4", "sample"], None).unwrap().unwrap().interval;
        let expected = paired_difference(&[2.0, 3.0, 5.0], &[0.0, 1.0, 2.0], LEVEL).unwrap();
        assert_eq!(difference, expected);
        let named =
            of(["cd-token:lambda=1 by liking:0.5", "sample"], None).unwrap().unwrap().interval;
        assert!((named.estimate + 2.0 / 3.0).abs() < 1e-12);
        for (pair, told) in [
            (["cd-token:lambda=1", "sample"], "several weights"),
            (["best-of:5", "sample"], "best-of:4 by liking:1"),
        ] {
            let message = of(pair, None).unwrap_err().to_string();
            assert!(message.contains(told), "{message}");
        }
        let message = reward_difference(&rows(), ["best-of:4", "sample"], "wit", None);
        assert!(message.unwrap_err().to_string().contains("liking"));
    }

    #[test]
    fn fronts_are_named_as_procedures_are() {
        let named = |rows: &[Row]| -> Vec<(String, Option<String>)> {
            rows.iter().map(|row| (row.front(rows), row.number())).collect()
        };
        let block = row("cd-block:length=8,samples=4", 1.0, 1.0, &[0.0, 1.0]);
        let of_one = [&rows()[..4], &[block]].concat();
        let told = |name: &str, number: &str| (name.to_owned(), Some(number.to_owned()));
        let expected = [
            ("sample".to_owned(), None),
            told("best-of:N", "N = 4"),
            told("cd-token:lambda=λ", "λ = 1"),
            told("cd-token:lambda=λ", "λ = 4"),
            told("cd-block:length=8,samples=K", "K = 4"),
        ];
        assert_eq!(named(&of_one), expected);
        assert_eq!(common_weights(&of_one).as_deref(), Some("liking:1"));
        let several = named(&rows());
        assert_eq!(several[1].0, "best-of:N by liking:1");
        assert_eq!(several[4].0, "cd-token:lambda=λ by liking:0.5");
    }

    #[test]
    fn one_of_a_thing_is_not_several() {
        let line = row("sample", 1.0, 0.0, &[0.0, 1.0]).line();
        assert!(line.ends_with("1 token, 1 score"), "{line}");
        let row = Row { model_tokens: 84.2, ..row("best-of:4", 1.0, 1.0, &[2.0, 3.0]) };
        assert!(row.line().ends_with("84 tokens, 1 score"), "{}", row.line());
    }

    #[test]
    fn policies_have_fronts_of_their_own() {
        let policy = |name: &str, nats, by_prompt: &[f64]| Row {
            policy: Some(name.to_owned()),
            weights: BTreeMap::new(),
            kl: vec![Kl { nats, kind: KlKind::Exact }],
            ..row("sample", 1.0, nats, by_prompt)
        };
        let mut rows = rows();
        rows.push(policy("ppo", 1.0, &[1.0, 2.0, 3.5]));
        rows.push(policy("dpo", 0.25, &[0.0, 2.0, 2.0]));
        rows.push(policy("dpo", 1.0, &[1.0, 3.0, 3.0]));
        let of = |pair, kl| reward_difference(&rows, pair, "liking", kl);
        let plain = of(["policy ppo", "sample"], None).unwrap().unwrap().interval;
        assert_eq!(
            plain,
            paired_difference(&[1.0, 2.0, 3.5], &[0.0, 1.0, 2.0], LEVEL).unwrap(),
            "the base's samples are those without a policy"
        );
        let message = of(["policy dpo", "sample"], None).unwrap_err().to_string();
        assert!(message.contains("with `kl`"), "{message}");
        // √0.81 is nine tenths of the way from plain sampling to one nat, and eight of ten from a quarter of a nat.
        let both = of(["policy dpo", "policy ppo"], Some(0.81)).unwrap().unwrap();
        let expected = paired_difference(&[0.8, 2.8, 2.8], &[0.9, 1.9, 3.35], LEVEL).unwrap();
        assert!((both.interval.estimate - expected.estimate).abs() < 1e-12);
        assert_eq!(both.bounded, [false; 2]);
        let far = of(["policy dpo", "policy ppo"], Some(0.25)).unwrap();
        assert!(far.is_none(), "the only run of ppo is four times as far from the base");
    }

    #[test]
    fn procedures_on_a_policy_go_on_from_the_policy() {
        let of_dpo = |row: Row| Row { policy: Some("dpo".to_owned()), ..row };
        let mut rows = rows()[..3].to_vec();
        rows.push(of_dpo(Row {
            weights: BTreeMap::new(),
            kl: vec![Kl { nats: 0.25, kind: KlKind::Exact }],
            ..row("sample", 1.0, 0.25, &[1.0, 2.0, 2.0])
        }));
        rows.push(of_dpo(row("best-of:4", 1.0, 1.0, &[3.0, 4.0, 4.0])));
        let names: Vec<String> = rows[3..].iter().map(Row::title).collect();
        assert_eq!(names, ["policy dpo", "best-of:4 on dpo"]);
        let fronts: Vec<String> = rows[3..].iter().map(|row| row.front(&rows)).collect();
        assert_eq!(fronts, ["policy dpo", "best-of:N on dpo"]);
        let of = |pair, kl| reward_difference(&rows, pair, "liking", kl).unwrap().unwrap().interval;
        let expected = paired_difference(&[3.0, 4.0, 4.0], &[2.0, 3.0, 5.0], LEVEL).unwrap();
        assert_eq!(of(["best-of:4 on dpo", "best-of:4"], None), expected);
        // √0.81 is eight tenths of the way from the policy, a quarter of a nat from the base, to one nat.
        let hybrid = [1.0 + 0.8 * 2.0, 2.0 + 0.8 * 2.0, 2.0 + 0.8 * 2.0];
        let plain = [0.9 * 2.0, 1.0 + 0.9 * 2.0, 2.0 + 0.9 * 3.0];
        let expected = paired_difference(&hybrid, &plain, LEVEL).unwrap();
        let found = of(["best-of (1 liking)", "best-of on dpo (1 liking)"], Some(0.81));
        assert!((found.estimate + expected.estimate).abs() < 1e-12);
    }

    #[test]
    fn fronts_are_compared_at_a_common_kl() {
        let fronts = ["cd-token (1 liking)", "best-of (1 liking)"];
        // √1 is a third of the way from √0.25 to √4; the other front has a point there.
        let difference = reward_difference(&rows(), fronts, "liking", Some(1.0)).unwrap().unwrap();
        let tokenwise = [2.0, 3.0, 4.5];
        let expected = paired_difference(&tokenwise, &[2.0, 3.0, 5.0], LEVEL).unwrap();
        assert!((difference.interval.estimate - expected.estimate).abs() < 1e-12);
        assert_eq!(difference.bounded, [true; 2]);
        let as_drawn = ["cd-token:lambda=λ by liking:1", "best-of:N by liking:1"];
        let same = reward_difference(&rows(), as_drawn, "liking", Some(1.0)).unwrap().unwrap();
        assert_eq!(same.interval, difference.interval);
        assert!(reward_difference(&rows(), fronts, "liking", Some(2.0)).unwrap().is_none());
        let unknown = ["beam (1 liking)", "best-of (1 liking)"];
        let message = reward_difference(&rows(), unknown, "liking", Some(1.0)).unwrap_err();
        assert!(message.to_string().contains("no front"), "{message}");
    }
}
