//! What a policy is trained on: the raw reward, or a transform of the calibrated one.

use std::fmt;
use std::str::FromStr;

use infalign_transform::{Transform, beta_for_kl};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The reward that a policy is trained on: `raw`, or a [`Transform`] of the calibrated reward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Objective {
    /// r itself, in units of its standard deviation under the reference policy (one number for all prompts: it only rescales β).
    Raw,
    /// Φ(u), scaled to [0, 1] where Φ is bounded.
    Calibrated(Transform),
}

impl Objective {
    /// The trained reward of one response.
    ///
    /// - reward: r(x, y).
    /// - u: its calibrated value in (0, 1).
    /// - unit: standard deviation of r under the reference policy.
    pub(crate) fn apply(&self, reward: f32, u: f64, unit: f64) -> f64 {
        match self {
            Self::Raw => f64::from(reward) / unit,
            Self::Calibrated(transform) => transform.apply(u),
        }
    }

    /// The β, on the scale of [`Objective::apply`], whose optimum is `kl` nats from the reference: exact in the continuous limit for a
    /// transform; for the raw reward that of a normal one, 1/√(2 KL).
    pub(crate) fn beta_for_kl(&self, kl: f64) -> Result<f64, TrainError> {
        Ok(match self {
            Self::Raw => (2.0 * kl).powf(-0.5),
            Self::Calibrated(transform) => beta_for_kl(transform, kl)? / transform.scale(),
        })
    }
}

impl FromStr for Objective {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        if text == "raw" {
            return Ok(Self::Raw);
        }
        Ok(Self::Calibrated(text.parse()?))
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw => f.write_str("raw"),
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
        for text in ["raw", "identity", "log", "exp:-10"] {
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
    fn the_raw_reward_is_in_units_of_its_spread() {
        assert_eq!(Objective::Raw.apply(3.0, 0.5, 2.0), 1.5);
    }
}
