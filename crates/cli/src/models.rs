//! Models by path, or by their name on the Hugging Face hub.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use infalign_decode::Sampling;
use infalign_model::{HubModel, ModelError, ModelFolder, Tokenizer, TransformerConfig};
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

/// Warns where responses go on behind the token that the tokenizer says ends them.
///
/// - `config`: of the model that they are drawn from.
pub(crate) fn warn_of_end(tokenizer: &Tokenizer, config: &TransformerConfig, sampling: &Sampling) {
    if let Some(warning) = unheeded_end(tokenizer, config, sampling) {
        tell!("warning: {warning}");
    }
}

fn unheeded_end(
    tokenizer: &Tokenizer,
    config: &TransformerConfig,
    sampling: &Sampling,
) -> Option<String> {
    let (token, id) = tokenizer.named_end()?;
    let is_heeded = tokenizer.stops().contains(&id) || sampling.stop_token_ids.contains(&id);
    let is_of_model = (id as usize) < config.vocab_size;
    (is_of_model && !is_heeded).then(|| {
        format!(
            "{token:?} is the eos_token of {}, but responses go on behind it: to end them there, give its id, {id}, as a stop token (--stop-token-id of commands, stop_token_ids of recipes and requests)",
            tokenizer.folder().join("tokenizer_config.json").display()
        )
    })
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
    use std::collections::BTreeSet;

    use infalign_model::Head;

    use super::*;

    #[test]
    fn an_end_that_is_no_stop_is_told_with_what_makes_it_one() {
        let dir = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/quickstart/model");
        for file in std::fs::read_dir(source).unwrap().flatten() {
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        let config = at(dir.path().into()).config(Head::CausalLm).unwrap();
        let told = |end: &str, stop_token_ids: BTreeSet<u32>, vocab_size: usize| {
            let file = dir.path().join("tokenizer_config.json");
            std::fs::write(file, format!(r#"{{"eos_token": "{end}"}}"#)).unwrap();
            let tokenizer = Tokenizer::load(dir.path(), &config).unwrap();
            let mut config = config.clone();
            config.vocab_size = vocab_size;
            unheeded_end(&tokenizer, &config, &Sampling { stop_token_ids, ..Sampling::default() })
        };
        let none = BTreeSet::new;
        let warning = told("<unk>", none(), config.vocab_size).unwrap();
        assert!(warning.starts_with("\"<unk>\" is the eos_token of "), "{warning}");
        assert!(warning.contains("tokenizer_config.json, but"), "{warning}");
        assert!(warning.contains("its id, 0, as a stop token"), "{warning}");
        assert_eq!(told("<unk>", BTreeSet::from([0]), config.vocab_size), None);
        assert_eq!(told("<unk>", none(), 0), None, "the model cannot write it");
        assert_eq!(told("</s>", none(), config.vocab_size), None);
    }

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
