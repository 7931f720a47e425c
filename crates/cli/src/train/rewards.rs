//! The rewards of a run: those that it is about, and the models among them that it trains itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail, ensure};
use infalign_backend::Device;
use infalign_record::env::hub_cache;
use infalign_reward::{Reads, Reward, RewardConfig};

use super::inputs::check_names;
use super::made_by::MadeBy;
use super::reward_model::RewardModelInputs;
use crate::files::make_folder;
use crate::interrupt;
use crate::progress::Progress;
use crate::recipe::{AlignRecipe, Paths, RewardModelStage};
use crate::server::api_key;

/// A reward with the key that it has in the recipe.
pub(super) type Keyed<'a> = (String, &'a RewardConfig);

/// Folder of the reward models in a run's.
const FOLDER: &str = "reward-models";
/// The same as recipes name it.
const OWN: &str = "$RUN/reward-models";

/// The rewards of an align recipe.
pub(super) fn configs(recipe: &AlignRecipe) -> Vec<Keyed<'_>> {
    let judge = recipe.evaluation.judge.iter().map(|judge| ("evaluation.judge".into(), judge));
    std::iter::once(("reward".into(), &recipe.reward)).chain(judge).collect()
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
pub(super) fn check(stages: &[RewardModelStage], seed: u64, configs: &[Keyed<'_>]) -> Result<()> {
    check_names("reward_model", stages.iter().map(|stage| stage.name.as_str()))?;
    check_twins(stages, seed)?;
    let trained: Vec<PathBuf> =
        stages.iter().map(|stage| Path::new(OWN).join(&stage.name)).collect();
    for path in &trained {
        ensure!(
            configs.iter().any(|(_, config)| models(config).contains(path)),
            "a [[reward_model]] trains {0}, which nothing uses: give a reward kind = \"model\" and path = \"{0}\"",
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

/// Refuses two stages that would train the same model, which an ensemble would take for two.
fn check_twins(stages: &[RewardModelStage], seed: u64) -> Result<()> {
    // But for what they are called, and with the seed that they have.
    let essence = |stage: &RewardModelStage| RewardModelStage {
        name: String::new(),
        seed: stage.seed.or(Some(seed)),
        ..stage.clone()
    };
    for (place, one) in stages.iter().enumerate() {
        let twin = stages[..place].iter().find(|other| essence(other) == essence(one));
        if let Some(other) = twin {
            bail!(
                "[[reward_model]] {:?} and {:?} have the same data, settings and seed, so they would be one model: give one of them a seed of its own",
                other.name,
                one.name
            );
        }
    }
    Ok(())
}

/// Builds a reward of a recipe; one that the run trains itself is there only after that stage.
///
/// # Errors
/// When a rule is none, a model or a file cannot be read, or the key of a server is not there.
pub(super) fn build(config: &RewardConfig, run: &Path, device: &Device) -> Result<Box<dyn Reward>> {
    build_until(None, config, run, device)
}

/// The same to work with: a server is not asked any more after Ctrl-C.
///
/// # Errors
/// As [`build`].
pub(super) fn build_to_work(
    config: &RewardConfig,
    run: &Path,
    device: &Device,
) -> Result<Box<dyn Reward>> {
    build_until(Some(interrupt::flag()), config, run, device)
}

fn build_until(
    stop: Option<&'static AtomicBool>,
    config: &RewardConfig,
    run: &Path,
    device: &Device,
) -> Result<Box<dyn Reward>> {
    let mut config = config.clone();
    let paths = Paths { run };
    for model in config.models_mut() {
        *model = paths.model(model)?.path().to_path_buf();
    }
    for file in config.files_mut() {
        *file = paths.resolve(file)?;
    }
    Ok(config.build_until(stop, device, &hub_cache(), &api_key)?)
}

/// The first of a reward's models that the run trains itself and that cannot be read.
pub(super) fn unreadable(config: &RewardConfig, run: &Path, device: &Device) -> Option<PathBuf> {
    let cannot_be_read = |path: &PathBuf| {
        let alone = RewardConfig::Model { path: path.clone(), reads: Reads::default() };
        build(&alone, run, device).is_err()
    };
    let mut own = models(config).into_iter().filter(|path| path.starts_with(OWN));
    Paths { run }.resolve(&own.find(cannot_be_read)?).ok()
}

/// Trains the run's reward models that are not there yet.
///
/// # Errors
/// What stopped the training; the models that are finished stay.
pub(super) fn train(
    models: &[RewardModelInputs<'_>],
    made_by: &MadeBy,
    run: &Path,
    seed: u64,
    progress: &mut Progress,
) -> Result<()> {
    let folder = run.join(FOLDER);
    for model in models {
        let dir = folder.join(&model.stage.name);
        let checkpoints = run.join("checkpoints").join(&model.stage.name);
        if dir.exists() {
            progress.skip(&model.title());
            made_by.check_trained(&dir, &checkpoints)?;
            continue;
        }
        make_folder(&folder)?;
        made_by.check_checkpoints(&checkpoints)?;
        let seed = model.stage.seed.unwrap_or(seed);
        model.train((&dir, &checkpoints), seed, progress)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_that_would_train_one_model_are_refused() {
        let stage = |name: &str, more: &str| -> RewardModelStage {
            let text = format!(
                "name = \"{name}\"\nbase = \"model\"\nratings = [\"r.txt\"]\nheld_out = 0.1\n{more}\n[train]\nsteps = 1\n\
                 examples_per_step = 1\noptimizer.learning_rate = 0.1\n"
            );
            toml::from_str(&text).unwrap()
        };
        for (more, refused) in
            [("", true), ("seed = 1", true), ("seed = 2", false), ("swap_held_out = true", false)]
        {
            let checked = check_twins(&[stage("a", ""), stage("b", more)], 1);
            assert_eq!(checked.is_err(), refused, "{more}");
        }
        let message = check_twins(&[stage("a", ""), stage("b", "")], 1).unwrap_err().to_string();
        assert!(message.contains("\"a\" and \"b\"") && message.contains("a seed"), "{message}");
    }
}
