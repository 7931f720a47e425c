//! `[[method]]`: what is compared, CTRL and its baselines.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use infalign_backend::precision::{POSITIVE, is_positive};
use infalign_model::LoraConfig;
use infalign_train::baselines::{BondConfig, Labels, OfflineConfig};
use infalign_train::{Objective, SolverConfig};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::objective::ObjectiveConfig;

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Method {
    /// Name in tables, plots and folders.
    pub(crate) name: String,
    /// How its policy is trained.
    #[serde(flatten)]
    pub(crate) kind: Kind,
}

/// How a policy is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Kind {
    /// By CTRL, as `[train]` says but for the solver, where it has one of its own.
    Ctrl {
        /// What it maximises: the reward, a transform of the calibrated reward, or the win rate or the expected reward under a procedure.
        objective: ObjectiveConfig,
        /// In place of that of `[train]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        solver: Option<SolverConfig>,
    },
    /// By CTRL, as `[train]` says but for β, which is that of variational best-of-N.
    Vbon {
        /// N.
        n: usize,
    },
    /// On given responses.
    Sft {
        /// Files of prompts and responses in TRL's form.
        completions: Vec<PathBuf>,
        train: OfflineConfig,
    },
    /// On the best of N reference responses.
    BestOfNSft {
        /// N.
        n: usize,
        train: OfflineConfig,
    },
    /// On pairs of responses.
    Dpo {
        /// β.
        beta: f64,
        /// How rewards of reference responses make preferences. Either this or `preferences`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        labels: Option<Labels>,
        /// Files of preferences in TRL's form, in place of reference responses.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        preferences: Vec<PathBuf>,
        train: OfflineConfig,
    },
    /// On pairs of responses.
    Ipo {
        /// τ.
        tau: f64,
        /// How rewards of reference responses make preferences. Either this or `preferences`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        labels: Option<Labels>,
        /// Files of preferences in TRL's form, in place of reference responses.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        preferences: Vec<PathBuf>,
        train: OfflineConfig,
    },
    /// On the best and the worst of N reference responses.
    Bonbon {
        /// N.
        n: usize,
        /// Weight of imitation against comparison.
        alpha: f64,
        train: OfflineConfig,
    },
    /// On responses of the policy and of an anchor that follows it.
    Bond { train: BondConfig },
}

impl<'de> Deserialize<'de> for Method {
    /// `kind` may be left out, which the derived form of a tagged enum does not allow.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = toml::Table::deserialize(deserializer)?;
        let name = table.remove("name").ok_or_else(|| D::Error::missing_field("name"))?;
        table.entry("kind").or_insert_with(|| "ctrl".into());
        let refuse = |error: toml::de::Error| D::Error::custom(error.message());
        let name = name.try_into().map_err(refuse)?;
        Ok(Self { name, kind: table.try_into().map_err(refuse)? })
    }
}

impl Kind {
    /// What a recipe calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ctrl { .. } => "ctrl",
            Self::Vbon { .. } => "vbon",
            Self::Sft { .. } => "sft",
            Self::BestOfNSft { .. } => "best-of-n-sft",
            Self::Dpo { .. } => "dpo",
            Self::Ipo { .. } => "ipo",
            Self::Bonbon { .. } => "bonbon",
            Self::Bond { .. } => "bond",
        }
    }

    /// Whether CTRL trains it, as `[train]` says and with calibrated rewards.
    pub(crate) fn is_ctrl(&self) -> bool {
        matches!(self, Self::Ctrl { .. } | Self::Vbon { .. })
    }

    /// What it maximises, if CTRL trains it and the recipe alone says it.
    pub(super) fn objective(&self) -> Option<&Objective> {
        match self {
            Self::Ctrl { objective, .. } => objective.known(),
            _ => None,
        }
    }

    /// Whether it needs the rewards of reference responses to the same prompt, which calibration within groups has not.
    pub(crate) fn needs_table(&self) -> bool {
        match self {
            Self::Ctrl { objective, .. } => objective.needs_table(),
            Self::Vbon { .. } => true,
            _ => false,
        }
    }

    /// How many stored reference responses to a prompt it takes at least; none where it learns from something else.
    pub(crate) fn rollouts(&self) -> Option<usize> {
        match self {
            Self::BestOfNSft { n, .. } | Self::Bonbon { n, .. } => Some(*n),
            Self::Dpo { preferences, .. } | Self::Ipo { preferences, .. } => {
                preferences.is_empty().then_some(2)
            }
            _ => None,
        }
    }

    /// The training of a method that learns from stored responses.
    pub(crate) fn offline(&self) -> Option<&OfflineConfig> {
        match self {
            Self::Sft { train, .. }
            | Self::BestOfNSft { train, .. }
            | Self::Dpo { train, .. }
            | Self::Ipo { train, .. }
            | Self::Bonbon { train, .. } => Some(train),
            Self::Ctrl { .. } | Self::Vbon { .. } | Self::Bond { .. } => None,
        }
    }

    /// The adapter of its own training.
    pub(crate) fn lora(&self) -> Option<&LoraConfig> {
        match self {
            Self::Bond { train } => train.lora.as_ref(),
            kind => kind.offline()?.lora.as_ref(),
        }
    }

    /// The files that it reads.
    pub(super) fn files_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Ctrl { objective, .. } => objective.path_mut().into_iter().collect(),
            Self::Sft { completions: files, .. }
            | Self::Dpo { preferences: files, .. }
            | Self::Ipo { preferences: files, .. } => files.iter_mut().collect(),
            _ => Vec::new(),
        }
    }

    /// Refuses values out of range, and keys that have no effect.
    ///
    /// # Errors
    /// One sentence with the key, its value and the range.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Vbon { n } | Self::BestOfNSft { n, .. } => check_n(*n)?,
            Self::Dpo { beta, labels, preferences, .. } => {
                check_positive("beta", *beta)?;
                check_pairs(*labels, preferences)?;
            }
            Self::Ipo { tau, labels, preferences, .. } => {
                check_positive("tau", *tau)?;
                check_pairs(*labels, preferences)?;
            }
            Self::Bonbon { n, alpha, .. } => {
                check_n(*n)?;
                let fine = (0.0..=1.0).contains(alpha);
                ensure!(fine, "alpha is {alpha}, but it must be between 0 and 1");
            }
            Self::Sft { completions, .. } => {
                ensure!(!completions.is_empty(), "completions is empty: name at least one file");
            }
            Self::Bond { train } => train.check().context("train")?,
            Self::Ctrl { .. } => (),
        }
        self.offline().map_or(Ok(()), OfflineConfig::check).context("train")
    }
}

fn check_n(n: usize) -> Result<()> {
    ensure!(n >= 2, "n is {n}, but it must be at least 2");
    Ok(())
}

fn check_positive(key: &str, value: f64) -> Result<()> {
    ensure!(is_positive(value), "{key} is {value:?}, but it must be {POSITIVE}");
    Ok(())
}

fn check_pairs(labels: Option<Labels>, preferences: &[PathBuf]) -> Result<()> {
    ensure!(
        labels.is_none() || preferences.is_empty(),
        "labels has no effect on the files under preferences: leave one of them out"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Method, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    const TRAIN: &str =
        "train = { steps = 3, examples_per_step = 2, optimizer = { learning_rate = 0.1 } }\n";

    #[test]
    fn ctrl_is_what_a_method_is_without_a_kind() {
        let plain = read("name = 'a'\nobjective = 'exp:5'").unwrap();
        assert_eq!(plain, read("name = 'a'\nkind = 'ctrl'\nobjective = 'exp:5'").unwrap());
        assert_eq!((plain.kind.name(), plain.kind.is_ctrl()), ("ctrl", true));
    }

    #[test]
    fn every_kind_is_written_as_it_is_read() {
        let bond = "train = { steps = 3, prompts_per_step = 2, samples_per_prompt = 2, anchor_rate = 0.1, optimizer = { learning_rate = 0.1 } }\n";
        for keys in [
            "kind = 'ctrl'\nobjective = 'log'\nsolver = { kind = 'ppo', epochs = 2 }\n".to_owned(),
            "kind = 'vbon'\nn = 4\n".to_owned(),
            format!("kind = 'sft'\ncompletions = ['a.jsonl']\n{TRAIN}"),
            format!("kind = 'best-of-n-sft'\nn = 4\n{TRAIN}"),
            format!("kind = 'dpo'\nbeta = 0.1\nlabels = 'bradley-terry'\n{TRAIN}"),
            format!("kind = 'ipo'\ntau = 0.1\npreferences = ['a.jsonl']\n{TRAIN}"),
            format!("kind = 'bonbon'\nn = 4\nalpha = 0.5\n{TRAIN}"),
            format!("kind = 'bond'\n{bond}"),
        ] {
            let method = read(&format!("name = 'a'\n{keys}")).unwrap();
            method.kind.check().unwrap();
            assert!(keys.contains(&format!("'{}'", method.kind.name())), "{keys}");
            assert_eq!(read(&toml::to_string(&method).unwrap()).unwrap(), method);
        }
    }

    #[test]
    fn keys_without_effect_and_values_out_of_range_are_refused() {
        let unknown = |text: &str| read(&format!("name = 'a'\n{text}")).unwrap_err();
        let dpo = format!("kind = 'dpo'\nbeta = 0.1\n{TRAIN}");
        assert!(unknown(&format!("{dpo}objective = 'raw'")).contains("unknown field `objective`"));
        assert!(unknown(&format!("{dpo}n = 4")).contains("unknown field `n`"));
        assert!(unknown("objective = 'raw'\nbeta = 1").contains("unknown field `beta`"));
        let solver = "solver = { kind = 'rloo', clip = 0.2 }";
        assert!(unknown(&format!("objective = 'raw'\n{solver}")).contains("unknown field `clip`"));
        assert!(unknown(&format!("{dpo}{solver}")).contains("unknown field `solver`"));
        assert!(unknown("kind = 'dpo'\nbeta = 1").contains("missing field `train`"));
        assert!(unknown("kind = 'ppo'").contains("unknown variant `ppo`"));
        assert!(read("objective = 'raw'").unwrap_err().contains("missing field `name`"));
        let refused = |text: &str| {
            let method = read(&format!("name = 'a'\n{text}\n{TRAIN}")).unwrap();
            format!("{:#}", method.kind.check().unwrap_err())
        };
        assert!(refused("kind = 'dpo'\nbeta = 0").contains("beta is 0"));
        assert!(refused("kind = 'ipo'\ntau = -1").contains("tau is -1"));
        assert!(refused("kind = 'ipo'\ntau = inf").contains("tau is inf, but it must be finite"));
        assert!(refused("kind = 'dpo'\nbeta = 1e300").contains("beta is 1e300"));
        assert!(refused("kind = 'dpo'\nbeta = 1e-50").contains("beta is 1e-50"));
        assert!(refused("kind = 'ipo'\ntau = 1e-50").contains("tau is 1e-50"));
        assert!(refused("kind = 'best-of-n-sft'\nn = 1").contains("n is 1"));
        assert!(refused("kind = 'bonbon'\nn = 2\nalpha = 2").contains("alpha is 2"));
        assert!(refused("kind = 'sft'\ncompletions = []").contains("completions is empty"));
        let both = "kind = 'ipo'\ntau = 1\nlabels = 'reward'\npreferences = ['a']";
        assert!(refused(both).contains("labels has no effect"));
    }
}
