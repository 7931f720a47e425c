//! The `[reward]` table of a recipe.

use std::collections::BTreeMap;
use std::path::PathBuf;

use infalign_backend::Device;
use serde::{Deserialize, Serialize};

use crate::{
    Answer, Ensemble, Length, LengthUnit, Lexicon, LogLength, Patterns, Pooling, Reward,
    RewardError, RewardModel, Sequence, WeightedSum,
};

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

/// A reward within a sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// What the reward is multiplied by; finite, of either sign.
    pub weight: f32,
    /// The reward.
    pub reward: RewardConfig,
}

/// Which reward, by `kind`. Sums and ensembles hold others, to any depth.
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
    /// Whether the response goes on with the sequence of a prompt `a,b:M,n`.
    // With braces, or serde would let unknown keys pass.
    Sequence {},
    /// Whether the response gives the answer that a file has for its prompt.
    Answer {
        /// Rows with `prompt` and `answer`.
        file: PathBuf,
        /// A regular expression whose last match in the response holds the answer given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pattern: Option<String>,
    },
    /// A weighted sum of rewards.
    Sum {
        /// The rewards and their weights, at least one.
        parts: Vec<Part>,
    },
    /// Several rewards, pooled.
    Ensemble {
        /// The rewards, at least one.
        of: Vec<RewardConfig>,
        /// How they become one.
        by: Pooling,
        /// How many standard deviations are taken off, at least 0; with `mean-minus-std` alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        k: Option<f64>,
    },
}

impl RewardConfig {
    /// Every model that the reward and the rewards within it read.
    pub fn models_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Model { path, .. } => vec![path],
            other => other.within_mut().into_iter().flat_map(Self::models_mut).collect(),
        }
    }

    /// Every file that the reward and the rewards within it read, models aside.
    pub fn files_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Answer { file, .. } => vec![file],
            other => other.within_mut().into_iter().flat_map(Self::files_mut).collect(),
        }
    }

    /// The rewards that it is made of.
    fn within_mut(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Sum { parts } => parts.iter_mut().map(|part| &mut part.reward).collect(),
            Self::Ensemble { of, .. } => of.iter_mut().collect(),
            _ => Vec::new(),
        }
    }

    /// Builds the reward; models are loaded to `device`.
    ///
    /// # Errors
    /// [`RewardError`] for a setting out of range, a rule that is no rule, or a model that cannot be read.
    pub fn build(&self, device: &Device) -> Result<Box<dyn Reward>, RewardError> {
        Ok(match self {
            Self::Length { unit } => Box::new(Length { unit: *unit }),
            Self::LogLength { unit, most } => Box::new(LogLength::new(*unit, *most)?),
            Self::Lexicon { weights } => Box::new(Lexicon::new(weights)?),
            Self::Patterns { weights } => Box::new(Patterns::new(weights)?),
            Self::Model { path, reads } => Box::new(RewardModel::load(path, *reads, device)?),
            Self::Sequence {} => Box::new(Sequence),
            Self::Answer { file, pattern } => Box::new(Answer::read(file, pattern.as_deref())?),
            Self::Sum { parts } => {
                let part = |part: &Part| Ok((part.weight, part.reward.build(device)?));
                let parts = parts.iter().map(part).collect::<Result<_, RewardError>>()?;
                Box::new(WeightedSum::new(parts)?)
            }
            Self::Ensemble { of, by, k } => {
                let members =
                    of.iter().map(|member| member.build(device)).collect::<Result<_, _>>()?;
                Box::new(Ensemble::new(members, *by, *k)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        for unknown in ["kind = 'length'\nunit = 'words'\nweight = 1", "kind = 'sequence'\nk = 1"] {
            assert!(toml::from_str::<RewardConfig>(unknown).is_err(), "{unknown}");
        }
        let error = RewardConfig::Model { path: "absent".into(), reads: Reads::Response }
            .build(&device)
            .err()
            .unwrap();
        assert!(error.to_string().contains("absent"));
    }

    #[test]
    fn rewards_stand_within_rewards() {
        let text = r#"
            kind = "sum"
            parts = [
                { weight = 10, reward = { kind = "length", unit = "words" } },
                { weight = 1, reward = { kind = "ensemble", by = "mean-minus-std", k = 2.0, of = [
                    { kind = "log-length", unit = "words", most = 2 },
                    { kind = "sum", parts = [{ weight = 2.0, reward = { kind = "length", unit = "words" } }] },
                ] } },
            ]
        "#;
        let config: RewardConfig = toml::from_str(text).unwrap();
        let written = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<RewardConfig>(&written).unwrap(), config);
        let reward = config.build(&infalign_backend::device(None).unwrap()).unwrap();
        // 10 · 2 + (0 + 4)/2 − 2 · 2: of 0 and 4, the mean and the standard deviation are 2.
        assert_eq!(reward.score(&[("", "two words")]).unwrap(), [18.0]);
    }

    #[test]
    fn models_and_files_are_found_at_every_depth() {
        let text = r#"
            kind = "ensemble"
            by = "minimum"
            of = [
                { kind = "model", path = "one" },
                { kind = "sum", parts = [
                    { weight = 1.0, reward = { kind = "answer", file = "three" } },
                    { weight = 1.0, reward = { kind = "model", path = "two" } },
                ] },
            ]
        "#;
        let mut config: RewardConfig = toml::from_str(text).unwrap();
        let paths = |paths: Vec<&mut PathBuf>| -> Vec<PathBuf> {
            paths.into_iter().map(|path| path.clone()).collect()
        };
        assert_eq!(paths(config.models_mut()), [Path::new("one"), Path::new("two")]);
        assert_eq!(paths(config.files_mut()), [Path::new("three")]);
    }
}
