//! The `[reward]` table of a recipe.

mod build;
mod within;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use build::ApiKeys;
pub(crate) use build::key;

use crate::{LengthUnit, Pooling};

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
    #[serde(deserialize_with = "weight")]
    pub weight: f32,
    /// The reward.
    pub reward: RewardConfig,
}

/// Which reward, by `kind`. Sums and ensembles hold others, to any depth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
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
        #[serde(deserialize_with = "weights")]
        weights: BTreeMap<String, f32>,
    },
    /// Weighted words whose weights are learned from ratings of texts.
    RatedWords {
        /// Tab-separated files: id, rating, text.
        ratings: Vec<PathBuf>,
        /// What the square of a weight costs, above 0.
        #[serde(default = "ridge")]
        ridge: f64,
    },
    /// Weighted regular expressions.
    Patterns {
        /// Pattern → weight.
        #[serde(deserialize_with = "weights")]
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
    /// The score of a server.
    Remote(RemoteConfig),
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

/// A server that scores, in OpenRLHF's form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// What is posted to, such as `http://HOST:5000/get_reward`.
    pub url: String,
    /// Environment variable that holds the server's API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// How long one request may take, in seconds; above 0, at most a year.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: f64,
    /// The most pairs of one request, at least 1.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Where rewards are kept for other runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
}

impl RemoteConfig {
    /// A server by what is posted to, with the defaults.
    pub fn new(url: String) -> Self {
        Self {
            url,
            api_key_env: None,
            timeout_seconds: timeout_seconds(),
            batch: batch(),
            cache: None,
        }
    }
}

/// What stands where a weight has to: serde's own error names no key within a table that has a `kind`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Weight {
    Number(f32),
    Other(Value),
}

impl Weight {
    /// - of: what it is the weight of.
    fn number<E: Error>(self, of: &str) -> Result<f32, E> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Other(value) => Err(E::custom(format_args!(
                "the weight of {of} is {value}: it must be a finite number"
            ))),
        }
    }
}

fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    Weight::deserialize(deserializer)?.number("a part")
}

fn weights<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f32>, D::Error> {
    let all = BTreeMap::<String, Weight>::deserialize(deserializer)?.into_iter();
    all.map(|(entry, weight)| weight.number(&format!("`{entry}`")).map(|number| (entry, number)))
        .collect()
}

fn ridge() -> f64 {
    5.0
}

pub(crate) fn timeout_seconds() -> f64 {
    180.0
}

fn batch() -> usize {
    64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn no_key(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn configurations_parse_and_unknown_keys_are_refused() {
        let config: RewardConfig =
            toml::from_str("kind = 'lexicon'\nweights = { good = 1.0 }").unwrap();
        assert_eq!(
            toml::from_str::<RewardConfig>(&toml::to_string(&config).unwrap()).unwrap(),
            config
        );
        let device = infalign_backend::device(None).unwrap();
        assert_eq!(
            config.build(&device, Path::new(""), &no_key).unwrap().score(&[("", "good")]).unwrap(),
            [1.0]
        );
        for unknown in ["kind = 'length'\nunit = 'words'\nweight = 1", "kind = 'sequence'\nk = 1"] {
            assert!(toml::from_str::<RewardConfig>(unknown).is_err(), "{unknown}");
        }
        let error = RewardConfig::Model { path: "absent".into(), reads: Reads::Response }
            .build(&device, Path::new(""), &no_key)
            .err()
            .unwrap();
        assert!(error.to_string().contains("absent"));
    }

    #[test]
    fn a_weight_that_is_no_number_is_named_with_what_it_is_of() {
        for (text, told) in [
            (
                "kind = 'lexicon'\n[weights]\nfilthy = true",
                "the weight of `filthy` is true: it must be a finite number",
            ),
            ("kind = 'patterns'\nweights = { 'a.' = '1' }", "the weight of `a.` is \"1\":"),
            (
                "kind = 'sum'\nparts = [{ weight = [1], reward = { kind = 'sequence' } }]",
                "the weight of a part is [1]:",
            ),
        ] {
            let error = toml::from_str::<RewardConfig>(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let numbers = "kind = 'lexicon'\nweights = { a = 1, b = -0.1, c = 2e0 }";
        let weights = [("a", 1.0), ("b", -0.1), ("c", 2.0)].map(|(word, w)| (word.to_owned(), w));
        let config: RewardConfig = toml::from_str(numbers).unwrap();
        assert_eq!(config, RewardConfig::Lexicon { weights: weights.into() });
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
        let reward =
            config.build(&infalign_backend::device(None).unwrap(), Path::new(""), &no_key).unwrap();
        // 10 · 2 + (0 + 4)/2 − 2 · 2: of 0 and 4, the mean and the standard deviation are 2.
        assert_eq!(reward.score(&[("", "two words")]).unwrap(), [18.0]);
    }

    #[test]
    fn servers_are_told_and_checked_before_they_are_asked() {
        let device = infalign_backend::device(None).unwrap();
        let build = |keys: &str| {
            let text = format!("kind = 'remote'\nurl = 'http://host/get_reward'\n{keys}");
            let config: RewardConfig = toml::from_str(&text).unwrap();
            let key = |name: &str| (name == "KEY").then(|| "secret".to_owned());
            config.build(&device, Path::new(""), &key).map_err(|error| error.to_string())
        };
        assert!(build("").is_ok() && build("api_key_env = 'KEY'\nbatch = 8").is_ok());
        for (keys, told) in [
            ("api_key_env = 'NO_SUCH_KEY'", "NO_SUCH_KEY"),
            ("timeout_seconds = 0", "seconds above 0"),
            ("batch = 0", "`batch` is 0"),
            ("cache = '.'", "the cache ."),
        ] {
            let message = build(keys).err().unwrap();
            assert!(message.contains(told) && !message.contains("secret"), "{message}");
        }
        let unknown = "kind = 'remote'\nurl = 'http://host'\ntime_out = 1";
        assert!(toml::from_str::<RewardConfig>(unknown).is_err());
    }
}
