//! What a policy is trained on: the reward, raw or standardised, or a transform of the calibrated one.

use std::fmt;
use std::str::FromStr;

use infalign_transform::{Transform, beta_for_kl};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The reward that a policy is trained on: `raw`, `standardized`, or a [`Transform`] of the calibrated reward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Objective {
    /// r itself, in units of its standard deviation under the reference policy (one number for all prompts: it only rescales β).
    Raw,
    /// (r − mean)/deviation, those of the prompt's own rewards under the reference policy.
    Standardized,
    /// Φ(u), scaled to [0, 1] where Φ is bounded.
    Calibrated(Transform),
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

impl Objective {
    /// The trained reward of one response.
    ///
    /// - reward: r(x, y).
    /// - u: its calibrated value in (0, 1).
    /// - scale: what r is measured by on this prompt.
    pub(crate) fn apply(&self, reward: f32, u: f64, scale: RewardScale) -> f64 {
        match self {
            Self::Raw => f64::from(reward) / scale.unit,
            Self::Standardized => (f64::from(reward) - scale.mean) / scale.deviation,
            Self::Calibrated(transform) => transform.apply(u),
        }
    }

    /// The β, on the scale of [`Objective::apply`], whose optimum is `kl` nats from the reference: exact in the continuous limit for a
    /// transform; for the reward itself that of a normal one, 1/√(2 KL).
    pub(crate) fn beta_for_kl(&self, kl: f64) -> Result<f64, TrainError> {
        Ok(match self {
            Self::Raw | Self::Standardized => (2.0 * kl).powf(-0.5),
            Self::Calibrated(transform) => beta_for_kl(transform, kl)? / transform.scale(),
        })
    }
}

impl FromStr for Objective {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        Ok(match text {
            "raw" => Self::Raw,
            "standardized" => Self::Standardized,
            transform => Self::Calibrated(transform.parse()?),
        })
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw => f.write_str("raw"),
            Self::Standardized => f.write_str("standardized"),
            Self::Calibrated(transform) => transform.fmt(f),
        }
    }
}

impl TryFrom<String> for Objective {
    type Error = TrainError;

    fn try_from(text: String) -> Result<Self, TrainError> {
        text.parse()
    }
}

impl From<Objective> for String {
    fn from(objective: Objective) -> Self {
        objective.to_string()
    }
}

#[cfg(test)]
mod tests {
    use infalign_transform::{Beta, Tilt};

    use super::*;

    #[test]
    fn objectives_parse_and_print() {
        for text in ["raw", "standardized", "identity", "log", "exp:-10"] {
            assert_eq!(text.parse::<Objective>().unwrap().to_string(), text);
        }
        assert!("rawe".parse::<Objective>().is_err());
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
        // For a normal reward, KL = 1/(2β²).
        assert!((Objective::Raw.beta_for_kl(0.5).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_reward_itself_is_in_units_of_a_spread() {
        let scale = RewardScale { unit: 2.0, mean: 1.0, deviation: 0.5 };
        assert_eq!(Objective::Raw.apply(3.0, 0.5, scale), 1.5);
        assert_eq!(Objective::Standardized.apply(3.0, 0.5, scale), 4.0);
    }
}
