//! Recipes: TOML files that say everything about a run. docs: `recipes/README.md`.

mod align;
mod language_model;
mod objective;
mod paths;
mod read;

pub(crate) use align::{AlignRecipe, Method, PromptsConfig, RewardModelStage};
pub(crate) use language_model::{LanguageModelRecipe, ModelSize};
pub(crate) use paths::Paths;
pub(crate) use read::{Recipe, read, read_resolved, read_text};
