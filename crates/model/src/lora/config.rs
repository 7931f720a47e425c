//! What an adapter is made of: its settings, under PEFT's names.

use infalign_backend::precision::{POSITIVE, is_positive};
use serde::{Deserialize, Serialize};

use super::Patterns;
use super::targets::{HEAD, OLD_HEAD};
use crate::ModelError;
use crate::config::Family;

/// Settings of a LoRA adapter, under the names of PEFT's `adapter_config.json`.
///
/// Dropout is not among them: `lora_dropout` is ignored on reading, training uses none, and 0 is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank: rows of A, at least 1.
    pub r: usize,
    /// α, above 0: the update is A·B·α/r.
    pub lora_alpha: f64,
    /// Whether it is A·B·α/√r instead (rank-stabilised LoRA).
    #[serde(default)]
    pub use_rslora: bool,
    /// The linear modules that get an adapter.
    pub target_modules: TargetModules,
    /// Blocks, from 0, to which the targets are limited, but for those named by their whole paths; absent means all. Only beside a list of names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers_to_transform: Option<Vec<usize>>,
    /// Modules that are trained as a whole and stored with the adapter: the embedding or the output matrix, where they are two, or a
    /// classifier's `score`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules_to_save: Vec<String>,
    /// Other ranks: regular expression for the end of a module's path → rank. Of several that fit a module the first counts; a recipe's are in
    /// alphabetical order.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub rank_pattern: Patterns<usize>,
    /// Other values of α: regular expression for the end of a module's path → α. Of several that fit a module the first counts; a recipe's are
    /// in alphabetical order.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub alpha_pattern: Patterns<f64>,
}

/// Which modules get an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Names, such as `q_proj`: whole paths or the ends of paths.
    Named(Vec<String>),
    /// A regular expression for whole paths; or `all-linear`, which is every linear module but the output matrix.
    Pattern(String),
}

impl LoraConfig {
    /// Refuses settings that are out of range. The modules are looked up when an adapter is put on a model.
    ///
    /// # Errors
    /// [`ModelError::Adapter`] names the setting, its value and the range.
    pub fn check(&self) -> Result<(), ModelError> {
        let ranks = self.rank_pattern.iter().map(|(_, rank)| rank).chain([&self.r]);
        if let Some(rank) = ranks.into_iter().find(|rank| **rank == 0) {
            return Err(self.refuse(format!(
                "a rank (`r` or `rank_pattern`) is {rank}; it must be at least 1"
            )));
        }
        let alphas = self.alpha_pattern.iter().map(|(_, alpha)| alpha).chain([&self.lora_alpha]);
        if let Some(alpha) = alphas.into_iter().find(|alpha| !is_positive(**alpha)) {
            let reason = format!(
                "`lora_alpha` or a value of `alpha_pattern` is {alpha:?}; it must be {POSITIVE}"
            );
            return Err(self.refuse(reason));
        }
        if self.layers_to_transform.is_some()
            && matches!(self.target_modules, TargetModules::Pattern(_))
        {
            let reason = "`layers_to_transform` needs a list of names as `target_modules`; a regular expression says the blocks itself";
            return Err(self.refuse(reason.into()));
        }
        Ok(())
    }

    /// The settings with the present name of GPT-NeoX's output matrix, which PEFT looks for.
    pub(super) fn with_present_names(self, family: Family) -> Self {
        if family != Family::GptNeox {
            return self;
        }
        let renamed = |text: &str| text.replace(OLD_HEAD, HEAD);
        let all = |names: &[String]| names.iter().map(|name| renamed(name)).collect();
        Self {
            target_modules: match &self.target_modules {
                TargetModules::Named(names) => TargetModules::Named(all(names)),
                TargetModules::Pattern(text) => TargetModules::Pattern(renamed(text)),
            },
            modules_to_save: all(&self.modules_to_save),
            rank_pattern: self.rank_pattern.iter().map(|(text, r)| (renamed(text), *r)).collect(),
            alpha_pattern: self.alpha_pattern.iter().map(|(text, a)| (renamed(text), *a)).collect(),
            ..self
        }
    }

    /// The error for settings that do not do. (Those of a file are put behind its name.)
    pub(super) fn refuse(&self, reason: String) -> ModelError {
        ModelError::Adapter { name: format!("of rank {}", self.r), reason }
    }
}
