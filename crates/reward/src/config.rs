//! The `[reward]` table of a recipe.

use std::collections::BTreeMap;
use std::path::PathBuf;

use infalign_backend::Device;
use serde::{Deserialize, Serialize};

use crate::{Length, LengthUnit, Lexicon, LogLength, Patterns, Reward, RewardError, RewardModel};

/// What a reward model is given to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reads {
    /// The response alone, white space before it removed.
    Response,
    /// Prompt and response as one text.
    #[default]
    PromptAndResponse,
}

/// Which reward, by `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RewardConfig {
    /// Length of the response.
    Length {
        /// What is counted.
        unit: LengthUnit,
    },
    /// Logarithm of the response's length.
    LogLength {
        /// What is counted.
        unit: LengthUnit,
        /// T_max, the length whose reward is 0; longer responses count as this long.
        most: usize,
    },
    /// Weighted words.
    Lexicon {
        /// Word → weight.
        weights: BTreeMap<String, f32>,
    },
    /// Weighted regular expressions.
    Patterns {
        /// Pattern → weight.
        weights: BTreeMap<String, f32>,
    },
    /// A learned reward model.
    Model {
        /// A `*ForSequenceClassification` directory.
        path: PathBuf,
        /// What it is given to read.
        #[serde(default)]
        reads: Reads,
    },
}

impl RewardConfig {
    /// Builds the reward; a model is loaded to `device`.
    ///
    /// # Errors
    /// [`RewardError`] for a rule that is no rule, or a model that cannot be read.
    pub fn build(&self, device: &Device) -> Result<Box<dyn Reward>, RewardError> {
        Ok(match self {
            Self::Length { unit } => Box::new(Length { unit: *unit }),
            Self::LogLength { unit, most } => Box::new(LogLength::new(*unit, *most)?),
            Self::Lexicon { weights } => Box::new(Lexicon::new(weights)?),
            Self::Patterns { weights } => Box::new(Patterns::new(weights)?),
            Self::Model { path, reads } => Box::new(RewardModel::load(path, *reads, device)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_parse_and_unknown_keys_are_refused() {
        let config: RewardConfig =
            toml::from_str("kind = 'lexicon'\nweights = { good = 1.0 }").unwrap();
        assert_eq!(
            toml::from_str::<RewardConfig>(&toml::to_string(&config).unwrap()).unwrap(),
            config
        );
        let device = infalign_backend::device(None).unwrap();
        assert_eq!(config.build(&device).unwrap().score(&[("", "good")]).unwrap(), [1.0]);
        assert!(
            toml::from_str::<RewardConfig>("kind = 'length'\nunit = 'words'\nweight = 1").is_err()
        );
        let error = RewardConfig::Model { path: "absent".into(), reads: Reads::Response }
            .build(&device)
            .err()
            .unwrap();
        assert!(error.to_string().contains("absent"));
    }
}
