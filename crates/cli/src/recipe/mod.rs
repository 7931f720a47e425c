//! Recipes: TOML files that say everything about a run. docs: `recipes/README.md`.

mod align;
mod language_model;
mod method;
mod objective;
mod paths;
mod read;
mod reward_model;
mod scorer;
mod set;

pub(crate) use align::{AlignRecipe, CalibrationConfig, PromptsConfig, WatchConfig};
pub(crate) use language_model::{LanguageModelRecipe, ModelSize};
pub(crate) use method::{Kind, Method};
pub(crate) use paths::Paths;
pub(crate) use read::{Recipe, read, read_resolved, read_text};
pub(crate) use reward_model::{RewardModelRecipe, RewardModelStage};
pub(crate) use scorer::{Head, ScorerEvaluation, ScorerPolicy, ScorerRecipe, ScorerRollouts};
