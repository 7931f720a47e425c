//! Models by path, or by their name on the Hugging Face hub.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use infalign_decode::Sampling;
use infalign_model::{HubModel, ModelError, ModelFolder};
use infalign_record::env::hub_cache;
use infalign_record::folder::CONFIG;

/// The folder of a model that the command line names.
///
/// # Errors
/// When a name, such as `gpt2`, `org/name` or `org/name@revision`, is not in the hub's local cache, or a folder is that of a method, whose policy
/// lies in it.
pub(crate) fn folder(model: &Path) -> Result<ModelFolder> {
    let is_model = |folder: &Path| {
        ["config.json", "adapter_config.json"].iter().any(|file| folder.join(file).exists())
    };
    let policy = model.join("policy");
    ensure!(
        is_model(model) || !is_model(&policy),
        "{} is the folder of a method: give its policy, {}",
        model.display(),
        policy.display()
    );
    Ok(ModelFolder::find(model, &hub_cache())?)
}

/// How responses were drawn that a policy was trained on, where it lies in the folder of its run.
pub(crate) fn trained_on(policy: &Path) -> Option<Sampling> {
    let policy = dunce::canonicalize(policy).ok()?;
    // RUN/methods/NAME/policy
    let run = policy.ancestors().nth(3)?;
    let recipe: toml::Table = std::fs::read_to_string(run.join(CONFIG)).ok()?.parse().ok()?;
    recipe.get("generation")?.clone().try_into().ok()
}

/// The folder of a model that a recipe names on the hub; `None` for a path.
///
/// # Errors
/// [`ModelError`] when the name is not in the hub's local cache.
pub(crate) fn hub_folder(model: &Path) -> Result<Option<PathBuf>, ModelError> {
    HubModel::parse(model).map(|hub| hub.locate(&hub_cache())).transpose()
}

/// Refuses models whose tokenizers have the same tokens, but that have not as many logits for one: their distributions cannot be compared.
///
/// - `model`, `other`: what they are called, and their `vocab_size`.
///
/// # Errors
/// One sentence with both numbers.
pub(crate) fn check_vocabularies(
    (model, size): (&str, usize),
    (other, others): (&str, usize),
) -> Result<()> {
    ensure!(
        size == others,
        "{model} has a vocab_size of {size} and {other} one of {others}, though both have the same tokens: take the surplus out of the larger by resize_token_embeddings({}) of transformers",
        size.min(others)
    );
    Ok(())
}

/// A folder that a model is known to lie in.
pub(crate) fn at(folder: PathBuf) -> ModelFolder {
    ModelFolder::new(folder, &hub_cache())
}

/// The name of a model on the hub with the revision that the cache holds now; `None` for a path. One part alone is a path unless the
/// cache holds such a model.
///
/// # Errors
/// As [`hub_folder`].
pub(crate) fn pinned(model: &Path) -> Result<Option<PathBuf>, ModelError> {
    let Some(hub) = HubModel::parse(model) else { return Ok(None) };
    match hub.pinned(&hub_cache()) {
        Err(ModelError::NotInCache { .. }) if model.components().count() == 1 => Ok(None),
        pinned => Ok(Some(pinned?.to_string().into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_known_by_its_run_and_told_from_its_method() {
        let run = tempfile::tempdir().unwrap();
        let method = run.path().join("methods/a");
        let policy = method.join("policy");
        std::fs::create_dir_all(&policy).unwrap();
        std::fs::write(policy.join("config.json"), "{}").unwrap();
        assert_eq!(trained_on(&policy), None);
        let recipe = "task = 'align'\n[generation]\nmax_tokens = 4\ntop_k = 2\n";
        std::fs::write(run.path().join(CONFIG), recipe).unwrap();
        let trained = trained_on(&policy).unwrap();
        assert_eq!((trained.max_tokens, trained.top_k, trained.temperature), (4, 2, 1.0));
        assert_eq!(trained_on(&method), None);
        let refused = folder(&method).map(drop).unwrap_err().to_string();
        assert!(refused.contains("the folder of a method: give its policy, "), "{refused}");
        folder(&policy).unwrap();
    }
}
