//! What a policy is trained on: the reward, raw or standardised, a transform of the calibrated one, or what a procedure makes of it, the win rate
//! or the expected reward itself.

use std::fmt;
use std::str::FromStr;

use infalign_calibrate::Row;
use infalign_stats::{Choice, Kept};
use infalign_transform::{Optimum, Procedure, Theory, Transform, beta_for_kl};
use serde::{Deserialize, Serialize, Serializer};

use crate::TrainError;
use crate::pseudo_values::{normal_deviation, pseudo_values, shares_won, vote_deviation};

/// What marks the win rate under a procedure.
const WIN_RATE: &str = "win-rate:";
/// What marks the expected reward under a procedure.
const REWARD: &str = "reward:";

/// What a policy is trained on: `raw`, `standardized`, a [`Transform`] of the calibrated reward, `win-rate:PROCEDURE` or `reward:PROCEDURE`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
#[non_exhaustive]
pub enum Objective {
    /// r itself, in units of its standard deviation under the reference policy (one number for all prompts: it only rescales β).
    Raw,
    /// (r − mean)/deviation, those of the prompt's own rewards under the reference policy.
    Standardized,
    /// Φ(u), scaled to [0, 1] where Φ is bounded.
    Calibrated(Transform),
    /// W^T(π ≻ π_ref), the inference-time win rate under a procedure T that selects by rewards ([`Procedure::selection`]), from the policy's own
    /// responses to each prompt, of which there have to be more than T looks at.
    WinRate(Procedure),
    /// Σ_y T(π)(y)·r(y), the expected reward of what a procedure T that selects by rewards keeps, or by answers ([`Procedure::choice`]), in the
    /// units of `Raw`, from the policy's own responses to each prompt, of which there have to be more than T looks at.
    Reward(Procedure),
}

/// An objective that gives every response a reward by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pointwise<'a> {
    Raw,
    Standardized,
    Calibrated(&'a Transform),
}

/// What rewards under the reference policy measure r by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RewardScale {
    /// Standard deviation within a prompt, pooled over the prompts.
    pub(crate) unit: f64,
    /// Mean of the prompt's own rewards.
    pub(crate) mean: f64,
    /// Their standard deviation; 1 where all are equal.
    pub(crate) deviation: f64,
}

/// The responses of a rollout to one prompt.
pub(crate) struct Group<'a> {
    /// r of each.
    pub(crate) rewards: &'a [f32],
    /// u of each, in (0, 1).
    pub(crate) quantiles: &'a [f64],
    /// The answer of each, if it gives one; none at all where the objective does not [count](Objective::counts_answers) them.
    pub(crate) answers: &'a [Option<&'a str>],
    /// What r is measured by on this prompt.
    pub(crate) scale: RewardScale,
    /// What the table holds of it, if there is one.
    pub(crate) row: Option<&'a Row>,
}

impl Pointwise<'_> {
    /// The trained reward of one response.
    ///
    /// - reward: r(x, y).
    /// - u: its calibrated value in (0, 1).
    /// - scale: what r is measured by on this prompt.
    pub(crate) fn apply(self, reward: f32, u: f64, scale: RewardScale) -> f64 {
        match self {
            Self::Raw => f64::from(reward) / scale.unit,
            Self::Standardized => (f64::from(reward) - scale.mean) / scale.deviation,
            Self::Calibrated(transform) => transform.apply(u),
        }
    }
}

impl Objective {
    /// The objective as a reward of single responses; none for what the responses of a group have together.
    pub(crate) fn pointwise(&self) -> Option<Pointwise<'_>> {
        self.of_each().filter(|_| !matches!(self, Self::Reward(_)))
    }

    /// What each response counts for, where a procedure keeps it if there is one; none for a win rate, which takes the reference's responses.
    fn of_each(&self) -> Option<Pointwise<'_>> {
        match self {
            Self::Raw | Self::Reward(_) => Some(Pointwise::Raw),
            Self::Standardized => Some(Pointwise::Standardized),
            Self::Calibrated(transform) => Some(Pointwise::Calibrated(transform)),
            Self::WinRate(_) => None,
        }
    }

    /// What the procedure of a win rate or an expected reward keeps; none for other objectives.
    ///
    /// # Errors
    /// [`TrainError::NotASelection`] for a procedure that does more than choose, and for a win rate under one that goes by answers, which a
    /// calibration table does not hold.
    pub fn choice(&self) -> Result<Option<Choice>, TrainError> {
        let choice = match self {
            Self::WinRate(procedure) => procedure.selection().map(Choice::Ranked),
            Self::Reward(procedure) => procedure.choice(),
            _ => return Ok(None),
        };
        choice.map(Some).ok_or_else(|| TrainError::NotASelection { objective: self.to_string() })
    }

    /// Whether it goes by the answers of the responses.
    pub(crate) fn counts_answers(&self) -> bool {
        matches!(self, Self::Reward(Procedure::Majority(_)))
    }

    /// Refuses a row of a calibration table that cannot tell the decoder of a win rate on its prompt.
    ///
    /// # Errors
    /// [`TrainError::Data`] for quantiles in place of rewards, for fewer rewards than the decoder looks at, and for a temperature that is nothing
    /// beside their spread.
    pub fn check_row(&self, row: &Row) -> Result<(), TrainError> {
        let (Self::WinRate(_), Some(Choice::Ranked(selection))) = (self, self.choice()?) else {
            return Ok(());
        };
        let (id, needed) = (row.id(), selection.samples());
        match row.rewards().map(<[f32]>::len) {
            Some(held) if held >= needed => {
                let rewards: Vec<f64> = row.values().iter().copied().map(f64::from).collect();
                let kept = Kept::new(&rewards, selection).map(drop);
                kept.map_err(|error| {
                    TrainError::Data(format!("objective {self}, prompt {id}: {error}"))
                })
            }
            Some(held) => Err(TrainError::Data(format!(
                "the table holds {held} reference rewards of prompt {id}, but objective {self} looks at {needed}"
            ))),
            None => Err(TrainError::Data(format!(
                "the table holds quantiles of prompt {id}, but objective {self} draws from the reference rewards themselves: give a table that is not compressed"
            ))),
        }
    }

    /// The trained rewards of all responses of a rollout to one prompt.
    pub(crate) fn of_group(&self, group: &Group<'_>) -> Result<Vec<f64>, TrainError> {
        let Group { rewards, quantiles, scale, row, .. } = *group;
        let choice = self.choice()?;
        let scores: Vec<f64> = match (self.of_each(), choice, row.and_then(Row::rewards)) {
            (Some(of_each), ..) => {
                let each = rewards.iter().zip(quantiles);
                each.map(|(&r, &u)| of_each.apply(r, u, scale)).collect()
            }
            (None, Some(Choice::Ranked(selection)), Some(reference)) => {
                shares_won(rewards, reference, selection)?
            }
            _ => return Err(TrainError::NeedsTable { what: format!("objective {self}") }),
        };
        match choice {
            Some(choice) => Ok(pseudo_values((rewards, group.answers), &scores, choice)?),
            None => Ok(scores),
        }
    }

    /// The β, on the scale of what is trained on, whose optimum is `kl` nats from the reference: exact in the continuous limit for a
    /// transform and a win rate (of `soft-best-of` that of its coldest, `best-of`); for the reward itself that of a normal one, 1/√(2 KL), and for
    /// the expected one near the reference, σ/√(2 KL), σ being the [`normal_deviation`], or the [`vote_deviation`] under a majority.
    pub(crate) fn beta_for_kl(&self, kl: f64) -> Result<f64, TrainError> {
        Ok(match self {
            Self::Raw | Self::Standardized => (2.0 * kl).powf(-0.5),
            Self::Reward(procedure) => {
                let deviation = match procedure {
                    Procedure::Majority(n) => vote_deviation(n.get()),
                    other => normal_deviation(other.samples()),
                };
                deviation * (2.0 * kl).powf(-0.5)
            }
            Self::Calibrated(transform) => beta_for_kl(transform, kl)?.get() / transform.scale(),
            Self::WinRate(Procedure::SoftBestOf { n, .. }) => {
                Optimum::for_kl(&Procedure::BestOf(*n), kl)?.beta.get()
            }
            Self::WinRate(procedure) => Optimum::for_kl(procedure, kl)?.beta.get(),
        })
    }

    /// What the continuous limit says of it; nothing of rewards whose spread counts.
    pub fn theory(&self) -> Option<Theory> {
        match self {
            Self::Calibrated(transform) => Some(Theory::Transform(transform.clone())),
            Self::Raw | Self::Standardized | Self::Reward(_) => None,
            Self::WinRate(procedure) => {
                procedure.has_rank_density().then_some(Theory::WinRate(*procedure))
            }
        }
    }
}

impl FromStr for Objective {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        let objective = match (text, text.strip_prefix(WIN_RATE), text.strip_prefix(REWARD)) {
            ("raw", ..) => Self::Raw,
            ("standardized", ..) => Self::Standardized,
            (_, Some(procedure), _) => Self::WinRate(procedure.parse()?),
            (_, _, Some(procedure)) => Self::Reward(procedure.parse()?),
            (transform, None, None) => Self::Calibrated(transform.parse()?),
        };
        objective.choice()?;
        Ok(objective)
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw => f.write_str("raw"),
            Self::Standardized => f.write_str("standardized"),
            Self::Calibrated(transform) => transform.fmt(f),
            Self::WinRate(procedure) => write!(f, "{WIN_RATE}{procedure}"),
            Self::Reward(procedure) => write!(f, "{REWARD}{procedure}"),
        }
    }
}

impl TryFrom<String> for Objective {
    type Error = TrainError;

    fn try_from(text: String) -> Result<Self, TrainError> {
        text.parse()
    }
}

/// As text, where that is read as the same.
impl Serialize for Objective {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Calibrated(transform) => transform.serialize(serializer),
            Self::WinRate(procedure) | Self::Reward(procedure) => {
                procedure.check().map_err(serde::ser::Error::custom)?;
                serializer.collect_str(self)
            }
            Self::Raw | Self::Standardized => serializer.collect_str(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use infalign_calibrate::{Calibration, CalibrationMeta};
    use infalign_transform::{Beta, Function, Tilt};

    use super::*;
    use crate::in_theory;

    #[test]
    fn objectives_parse_and_print() {
        for text in ["raw", "standardized", "identity", "log", "exp:-10", "win-rate:worst-of:4"] {
            assert_eq!(text.parse::<Objective>().unwrap().to_string(), text);
        }
        for text in [
            "reward:sample",
            "reward:best-of:4",
            "reward:soft-best-of:4,temperature=0.5",
            "reward:majority:4",
        ] {
            let objective: Objective = text.parse().unwrap();
            assert!(matches!(objective, Objective::Reward(_)) && objective.pointwise().is_none());
            assert_eq!(objective.to_string(), text);
            assert_eq!(serde_json::to_string(&objective).unwrap(), format!("\"{text}\""));
        }
        let function = Function::new(|u| u * u).unwrap();
        let unreadable = Procedure::SoftBestOf { n: 4.try_into().unwrap(), temperature: 0.0 };
        for objective in
            [Objective::Calibrated(Transform::Function(function)), Objective::WinRate(unreadable)]
        {
            assert!(serde_json::to_string(&objective).is_err(), "{objective}");
        }
        for text in ["rawe", "win-rate", "win-rate:best", "reward", "reward:", "reward:raw"] {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
        for text in ["win-rate:majority:4", "reward:cd-token:lambda=1"] {
            let message = text.parse::<Objective>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{text} cannot be told")), "{message}");
        }
    }

    #[test]
    fn beta_belongs_to_the_scaled_transform() {
        for text in ["identity", "exp:10", "exp:-10"] {
            let objective: Objective = text.parse().unwrap();
            let Objective::Calibrated(transform) = &objective else { panic!("a transform") };
            // The policy ∝ exp(apply(u)/β) is that of the raw transform at β · scale.
            let beta = objective.beta_for_kl(0.5).unwrap();
            let kl =
                Tilt::new(transform, Beta::new(beta * transform.scale()).unwrap()).unwrap().kl();
            assert!((kl - 0.5).abs() < 1e-9, "{text}: {kl}");
        }
        // Of a win rate, that of the best policy there is.
        let kl_of = |beta: f64| {
            Optimum::new(&"worst-of:4".parse().unwrap(), Beta::new(beta).unwrap()).unwrap().kl
        };
        let objective: Objective = "win-rate:worst-of:4".parse().unwrap();
        assert!((kl_of(objective.beta_for_kl(0.5).unwrap()) - 0.5).abs() < 1e-9);
        // For a normal reward, KL = 1/(2β²).
        assert!((Objective::Raw.beta_for_kl(0.5).unwrap() - 1.0).abs() < 1e-12);
        let first = |text: &str| text.parse::<Objective>().unwrap().beta_for_kl(0.5).unwrap();
        assert!((first("reward:sample") - 1.0).abs() < 1e-9, "as raw");
        assert!((first("reward:worst-of:4") - 1.263).abs() < 1e-3);
        assert!((first("reward:majority:3") - 1.5).abs() < 1e-12);
    }

    #[test]
    fn a_win_rate_needs_the_reference_rewards_themselves() {
        let mut table = Calibration::new(CalibrationMeta::default());
        table.insert("a", "a", vec![1.0, 2.0, 3.0]).unwrap();
        let objective = |text: &str| text.parse::<Objective>().unwrap();
        let check = |text: &str, table: &Calibration| {
            let checked = objective(text).check_row(table.row("a").unwrap());
            checked.map_err(|error| error.to_string())
        };
        check("win-rate:best-of:3", &table).unwrap();
        let message = check("win-rate:worst-of:4", &table).unwrap_err();
        assert!(message.contains("3 reference rewards") && message.contains("looks at 4"));
        let compressed = table.compressed(3).unwrap();
        assert!(check("win-rate:sample", &compressed).unwrap_err().contains("quantiles"));
        check("exp:10", &compressed).unwrap();
        let scale = RewardScale { unit: 1.0, mean: 0.0, deviation: 1.0 };
        let (rewards, quantiles) = (&[1.0, 2.0], &[0.2, 0.8]);
        let group = Group { rewards, quantiles, answers: &[], scale, row: None };
        let refused = objective("win-rate:sample").of_group(&group);
        assert!(matches!(refused, Err(TrainError::NeedsTable { .. })));
        assert!(matches!(
            in_theory(&objective("win-rate:sample"), &table),
            Err(TrainError::NotPointwise { .. })
        ));
    }

    #[test]
    fn an_expected_reward_needs_no_reference_rewards_but_for_its_unit() {
        let scale = RewardScale { unit: 2.0, mean: 1.0, deviation: 0.5 };
        let answers =
            ["7", "8", "8", ""].map(|given| Some(given).filter(|given| !given.is_empty()));
        let of_group = |text: &str, rewards: &[f32]| {
            let quantiles = &vec![0.5; rewards.len()];
            let group = Group { rewards, quantiles, answers: &answers, scale, row: None };
            text.parse::<Objective>().unwrap().of_group(&group)
        };
        let rewards = [3.0, -1.0, 8.0, 0.5];
        let raw = of_group("raw", &rewards).unwrap();
        let one = of_group("reward:sample", &rewards).unwrap();
        assert!(raw.iter().zip(&one).all(|(raw, one)| (raw - one).abs() < 1e-12), "{one:?}");
        // The pairs keep 3, 8, 3, 8, 0.5 and 8, and without the greatest 3, 3 and 0.5: 4·30.5/6 − 3·6.5/3.
        let best = of_group("reward:best-of:2", &rewards).unwrap();
        assert!((best[2] - (4.0 * 30.5 / 6.0 - 6.5) / 2.0).abs() < 1e-12, "{best:?}");
        assert!(of_group("reward:best-of:2", &[1.0, 2.0]).is_err(), "each is left out once");
        // Of two, "7" and "8" tie, and 0.5 has no vote: 1, 5.5, 3, 3.5, -1 and 8, and without the first 3.5, -1 and 8.
        let majority = of_group("reward:majority:2", &rewards).unwrap();
        assert!((majority[0] - (4.0 * 20.0 / 6.0 - 10.5) / 2.0).abs() < 1e-12, "{majority:?}");
        let mut table = Calibration::new(CalibrationMeta::default());
        table.insert("a", "a", vec![1.0, 2.0]).unwrap();
        let few: Objective = "reward:best-of:4".parse().unwrap();
        few.check_row(table.row("a").unwrap()).unwrap();
    }

    #[test]
    fn the_reward_itself_is_in_units_of_a_spread() {
        let scale = RewardScale { unit: 2.0, mean: 1.0, deviation: 0.5 };
        assert_eq!(Pointwise::Raw.apply(3.0, 0.5, scale), 1.5);
        assert_eq!(Pointwise::Standardized.apply(3.0, 0.5, scale), 4.0);
    }
}
