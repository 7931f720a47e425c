//! `task = "language-model"`: generate a corpus from a grammar and train a small language model on it.

use std::path::PathBuf;

use infalign_train::LanguageModelConfig;
use serde::{Deserialize, Serialize};

/// A recipe that makes a language model from nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LanguageModelRecipe {
    /// `language-model`.
    pub(crate) task: String,
    /// Name of the recipe.
    pub(crate) name: String,
    /// Seed of every random draw.
    pub(crate) seed: u64,
    /// The grammar that texts are drawn from.
    pub(crate) grammar: PathBuf,
    /// How many texts are drawn.
    pub(crate) texts: usize,
    /// How many prompts are written to train on, and how many to hold out.
    pub(crate) prompts: PromptCounts,
    /// Sizes of the model.
    pub(crate) model: ModelSize,
    /// The trainer.
    pub(crate) train: LanguageModelConfig,
}

/// Numbers of prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromptCounts {
    /// To train on.
    pub(crate) train: usize,
    /// Held out.
    pub(crate) test: usize,
}

/// Sizes of a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelSize {
    /// Width of the residual stream.
    pub(crate) hidden: usize,
    /// Width of the feed-forward layer.
    pub(crate) intermediate: usize,
    /// Blocks.
    pub(crate) layers: usize,
    /// Attention heads.
    pub(crate) heads: usize,
    /// Longest sequence, in tokens.
    pub(crate) context: usize,
}
