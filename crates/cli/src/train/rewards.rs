//! The rewards of an align run: the one that is trained on, the judge, and the models among them that the run trains itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail, ensure};
use infalign_reward::RewardConfig;

use super::inputs::{Inputs, check_names};
use crate::progress::Progress;
use crate::recipe::AlignRecipe;

/// Folder of the reward models in a run's.
const FOLDER: &str = "reward-models";
/// The same as recipes name it.
const OWN: &str = "$RUN/reward-models";

/// The rewards of a recipe with their keys.
pub(super) fn configs(recipe: &AlignRecipe) -> Vec<(&'static str, &RewardConfig)> {
    let judge = recipe.evaluation.judge.iter().map(|judge| ("evaluation.judge", judge));
    std::iter::once(("reward", &recipe.reward)).chain(judge).collect()
}

/// Whether a reward reads a model that the run trains itself.
pub(super) fn is_own(config: &RewardConfig) -> bool {
    models(config).iter().any(|path| path.starts_with(OWN))
}

/// Every model that a reward reads, those of nested ones included.
fn models(config: &RewardConfig) -> Vec<PathBuf> {
    config.clone().models_mut().into_iter().map(|path| path.clone()).collect()
}

/// Refuses reward models that nothing reads, and rewards that read one that is not trained.
///
/// # Errors
/// One sentence that names the model and what to do.
pub(super) fn check(recipe: &AlignRecipe) -> Result<()> {
    check_names("reward_model", recipe.reward_model.iter().map(|stage| stage.name.as_str()))?;
    let trained: Vec<PathBuf> =
        recipe.reward_model.iter().map(|stage| Path::new(OWN).join(&stage.name)).collect();
    let configs = configs(recipe);
    for path in &trained {
        ensure!(
            configs.iter().any(|(_, config)| models(config).contains(path)),
            "a [[reward_model]] trains {0}, which nothing uses: give [reward] or evaluation.judge kind = \"model\" and path = \"{0}\"",
            path.display()
        );
    }
    for (key, config) in configs {
        let own = models(config).into_iter().filter(|path| path.starts_with(OWN));
        if let Some(path) = own.into_iter().find(|path| !trained.contains(path)) {
            bail!("{key}.path is {}, but no [[reward_model]] has that name", path.display());
        }
    }
    Ok(())
}

/// Trains the recipe's reward models that are not there yet.
///
/// # Errors
/// What stopped the training; the models that are finished stay.
pub(super) fn train(
    inputs: &Inputs<'_>,
    progress: &mut Progress,
    interrupted: &AtomicBool,
) -> Result<()> {
    let folder = inputs.run.join(FOLDER);
    for model in &inputs.reward_models {
        let dir = folder.join(&model.stage.name);
        if dir.exists() {
            progress.skip(&model.title());
            continue;
        }
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let checkpoints = inputs.run.join("checkpoints").join(&model.stage.name);
        model.train((&dir, &checkpoints), inputs.recipe.seed, progress, interrupted)?;
    }
    Ok(())
}
