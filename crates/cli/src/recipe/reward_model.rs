//! `task = "reward-model"`: train a reward model; and the same as the first stages of an align recipe.

use std::path::PathBuf;

use infalign_data::Plant;
use infalign_train::RewardModelConfig;
use serde::{Deserialize, Serialize};

/// A reward model to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RewardModelStage {
    /// Name of the model's folder.
    pub(crate) name: String,
    /// Language model that it starts from.
    pub(crate) base: PathBuf,
    /// Tab-separated files: id, rating, text. Either these or `preferences`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ratings: Vec<PathBuf>,
    /// Files of preferences in TRL's form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) preferences: Vec<PathBuf>,
    /// Share of the texts or prompts held out.
    pub(crate) held_out: f64,
    /// Share of the texts or prompts, of all, that is taken from those to learn from: its loss chooses the checkpoint that is kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) validation: f64,
    /// Whether it learns from the share that is held out, and is measured on the rest: a judge that has seen nothing of what a model without this
    /// key has, of the same files and share.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) swap_held_out: bool,
    /// A phrase that is planted into the texts to train on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plant: Option<Plant>,
    /// Seed of the order of the examples and of adapters, where it is not the recipe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// The trainer.
    pub(crate) train: RewardModelConfig,
}

fn is_zero(share: &f64) -> bool {
    *share == 0.0
}

impl RewardModelStage {
    /// The files that it learns from.
    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.ratings.iter_mut().chain(&mut self.preferences)
    }
}

/// A recipe that trains one reward model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Keys", into = "Keys")]
pub(crate) struct RewardModelRecipe {
    /// Seed of every random draw.
    pub(crate) seed: u64,
    /// The model, which has the recipe's name.
    pub(crate) stage: RewardModelStage,
}

/// The recipe as its file has it. The keys of the model are written out, since `serde(flatten)` would lose the lines of errors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    task: Task,
    name: String,
    /// Seed of every random draw.
    seed: u64,
    base: PathBuf,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ratings: Vec<PathBuf>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    preferences: Vec<PathBuf>,
    held_out: f64,
    #[serde(default, skip_serializing_if = "is_zero")]
    validation: f64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    swap_held_out: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plant: Option<Plant>,
    train: RewardModelConfig,
}

/// The task that every such recipe has.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Task {
    RewardModel,
}

impl From<Keys> for RewardModelRecipe {
    fn from(keys: Keys) -> Self {
        let Keys { task: Task::RewardModel, name, seed, base, ratings, preferences, .. } = keys;
        let Keys { held_out, validation, swap_held_out, plant, train, .. } = keys;
        let stage = RewardModelStage {
            name,
            base,
            ratings,
            preferences,
            held_out,
            validation,
            swap_held_out,
            plant,
            seed: None,
            train,
        };
        Self { seed, stage }
    }
}

impl From<RewardModelRecipe> for Keys {
    fn from(RewardModelRecipe { seed, stage }: RewardModelRecipe) -> Self {
        let RewardModelStage { name, base, ratings, preferences, .. } = stage;
        let RewardModelStage { held_out, validation, swap_held_out, plant, train, .. } = stage;
        let task = Task::RewardModel;
        Self {
            task,
            name,
            seed,
            base,
            ratings,
            preferences,
            held_out,
            validation,
            swap_held_out,
            plant,
            train,
        }
    }
}
