//! What a procedure came to with a prefix scorer.

use std::collections::BTreeMap;
use std::fmt::Display;

use anyhow::{Context, Result};
use infalign_decode::{Kl, KlKind};
use infalign_evaluate::distinct;
use infalign_stats::{Interval, mean_interval, of_share};
use infalign_transform::{Composed, Procedure};
use serde::{Deserialize, Serialize};

/// Confidence level of the intervals over prompts.
pub(super) const LEVEL: f64 = 0.95;

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
    /// Mean of each reward, the judge's included, with its interval over prompts.
    pub(super) rewards: BTreeMap<String, Mean>,
    /// How often a response has more of each reward than a plain one of the base, ties ½.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) win_rates: BTreeMap<String, Mean>,
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
        let interval = mean_interval(&by_prompt, LEVEL)?;
        Ok(Self::new(interval, by_prompt))
    }

    /// Of win rates.
    ///
    /// # Errors
    /// As [`Mean::over`].
    pub(super) fn of_shares(by_prompt: Vec<f64>) -> Result<Self> {
        let interval = of_share(&by_prompt, mean_interval(&by_prompt, LEVEL)?);
        Ok(Self::new(interval, by_prompt))
    }

    fn new(Interval { estimate, low, high, .. }: Interval, by_prompt: Vec<f64>) -> Self {
        Self { estimate, low, high, by_prompt }
    }
}

/// What rows are compared by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Measure<'a> {
    /// The mean of a reward.
    Reward(&'a str),
    /// The win rate by a reward over plain samples of the base.
    WinRate(&'a str),
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
        if self.weights.is_empty() || all_weights(rows).len() == 1 {
            return name;
        }
        format!("{name} by {}", self.weights())
    }

    /// Whether it is what a trained policy writes by itself.
    pub(super) fn is_policy_itself(&self) -> bool {
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
    pub(super) fn series(&self) -> String {
        if let Some(policy) = self.policy.as_ref().filter(|_| self.is_policy_itself()) {
            return format!("policy {policy}");
        }
        let name = self.varied().map_or_else(|| self.procedure.to_string(), |varied| varied.series);
        let name = self.on_policy(name);
        if self.weights.is_empty() {
            return name;
        }
        let weights: Vec<String> =
            self.weights.iter().map(|(head, weight)| format!("{weight} {head}")).collect();
        format!("{name} ({})", weights.join(" + "))
    }

    /// The procedure, and the weights that it went by, if any; or the policy.
    pub(super) fn name(&self) -> String {
        if self.weights.is_empty() {
            return self.title();
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

    pub(super) fn weights(&self) -> String {
        let weights = self.weights.iter().map(|(head, weight)| format!("{head}:{weight}"));
        weights.collect::<Vec<_>>().join(" ")
    }

    /// The KL in nats per response: exact or an estimate where there is one, and else a bound.
    pub(super) fn kl(&self) -> Kl {
        let near = self.kl.iter().find(|kl| kl.kind != KlKind::Bound);
        near.or(self.kl.first()).copied().unwrap_or(Kl { nats: 0.0, kind: KlKind::Exact })
    }

    pub(super) fn nats(&self) -> f64 {
        self.kl().nats
    }

    /// A few words, for the line of its stage.
    pub(super) fn summary(&self) -> String {
        let rewards: Vec<String> = self
            .rewards
            .iter()
            .map(|(name, mean)| format!("{name} {:.3}", mean.estimate))
            .collect();
        let Kl { nats, kind } = self.kl();
        format!("{}, KL {nats:.3} ({kind})", rewards.join(", "))
    }

    /// The numbers of all prompts.
    ///
    /// # Errors
    /// Where the reward was not measured.
    pub(super) fn by_prompt(&self, measure: Measure<'_>) -> Result<&[f64]> {
        let (what, name, means) = match measure {
            Measure::Reward(name) => ("reward", name, &self.rewards),
            Measure::WinRate(name) => ("win rate by", name, &self.win_rates),
        };
        let mean = means.get(name).with_context(|| {
            let known: Vec<&String> = means.keys().collect();
            format!("there is no {what} {name:?}; there are {known:?}")
        })?;
        Ok(&mean.by_prompt)
    }
}

/// The weights that procedures went by, each once; plain samples may go by none.
pub(super) fn all_weights(rows: &[Row]) -> Vec<String> {
    distinct(rows.iter().filter(|row| !row.weights.is_empty()).map(Row::weights))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn row(procedure: &str, weight: f64, nats: f64, by_prompt: &[f64]) -> Row {
        Row {
            policy: None,
            procedure: procedure.parse().unwrap(),
            weights: BTreeMap::from([("liking".to_owned(), weight)]),
            rewards: BTreeMap::from([(
                "liking".to_owned(),
                Mean::over(by_prompt.to_vec()).unwrap(),
            )]),
            win_rates: BTreeMap::from([(
                "liking".to_owned(),
                Mean::of_shares(by_prompt.iter().map(|r| r / 8.0).collect()).unwrap(),
            )]),
            kl: vec![Kl { nats, kind: KlKind::Bound }],
            model_tokens: 1.0,
            scorer_calls: 1.0,
            truncation: 0.0,
        }
    }

    pub(in super::super) fn rows() -> Vec<Row> {
        vec![
            row("sample", 1.0, 0.0, &[0.0, 1.0, 2.0]),
            row("best-of:4", 1.0, 1.0, &[2.0, 3.0, 5.0]),
            row("cd-token:lambda=1", 1.0, 0.25, &[1.0, 2.0, 3.5]),
            row("cd-token:lambda=4", 1.0, 4.0, &[4.0, 5.0, 6.5]),
            row("cd-token:lambda=1", 0.5, 0.25, &[0.0, 0.0, 1.0]),
        ]
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
        assert_eq!(all_weights(&of_one), ["liking:1"]);
        let several = named(&rows());
        assert_eq!(several[1].0, "best-of:N by liking:1");
        assert_eq!(several[4].0, "cd-token:lambda=λ by liking:0.5");
    }

    #[test]
    fn plain_samples_may_go_by_no_weights() {
        let plain = Row { weights: BTreeMap::new(), ..row("sample", 1.0, 0.0, &[0.0, 1.0]) };
        let alone = [plain.clone()];
        let beside = [&alone[..], &rows()].concat();
        let both = ["liking:1", "liking:0.5"];
        for (rows, weights) in [(&alone[..], &both[..0]), (&beside, &both)] {
            assert_eq!([plain.front(rows), plain.series(), plain.name()], ["sample"; 3]);
            assert_eq!(all_weights(rows), weights);
        }
    }
}
