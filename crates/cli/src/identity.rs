//! What a calibration table was made from, as text that tells one model, reward or way to sample from another.
//!
//! The files of models and rewards are read for it once in a process, and again where they have changed ([`sha256_input`]).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use infalign_calibrate::CalibrationMeta;
use infalign_decode::Sampling;
use infalign_model::{Head, ModelFolder, Tokenizer};
use infalign_record::folder::is_weights;
use infalign_record::hash::{sha256_bytes, sha256_input};
use infalign_reward::RewardConfig;
use rayon::prelude::*;

use crate::models;
use crate::recipe::Paths;

/// The metadata of a table of reference rewards.
///
/// - `folder`: of the reference policy; `tokenizer`: by which it is read, and whose stops end its responses.
/// - `reward`: what [`given_reward`] or [`recipe_reward`] says; `template`: of the chat template, or empty.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn calibration(
    folder: &ModelFolder,
    tokenizer: &Tokenizer,
    reward: String,
    template: String,
    sampling: &Sampling,
    seed: u64,
) -> Result<CalibrationMeta> {
    // All at which a response ends, whoever says so.
    let stop_token_ids = tokenizer.stops() | &sampling.stop_token_ids;
    Ok(CalibrationMeta {
        model_sha256: model(folder)?,
        reward,
        tokenizer_sha256: self::tokenizer(tokenizer.folder())?,
        template_sha256: template,
        sampling: serde_json::to_string(&Sampling { stop_token_ids, ..sampling.clone() })?,
        seed,
        quantiles: None,
    })
}

/// What [`reward`] says of a reward of the command line, whose models and files lie where it says.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn given_reward(config: &RewardConfig) -> Result<String> {
    reward(config, |path| Ok(models::at(path.to_path_buf())), |path| Ok(path.to_path_buf()))
}

/// What [`reward`] says of a reward of a recipe.
///
/// # Errors
/// When a path cannot be resolved, or a file cannot be read.
pub(crate) fn recipe_reward(config: &RewardConfig, paths: &Paths<'_>) -> Result<String> {
    reward(config, |path| paths.model(path), |path| paths.resolve(path))
}

/// The reward's settings as far as rewards depend on them, every model and file by the hash of what it holds: the same may lie elsewhere
/// tomorrow.
///
/// - `model`, `file`: where a model and a file of the settings lie.
fn reward(
    config: &RewardConfig,
    model: impl Fn(&Path) -> Result<ModelFolder>,
    file: impl Fn(&Path) -> Result<PathBuf>,
) -> Result<String> {
    let mut essence = config.essence();
    for path in essence.models_mut() {
        *path = reward_model(&model(path)?)?.into();
    }
    for path in essence.files_mut() {
        *path = sha256_input(&file(path)?)?.into();
    }
    Ok(serde_json::to_string(&essence)?)
}

/// SHA-256 of what a language model computes with: its weights, and the settings that its numbers depend on.
///
/// # Errors
/// When a folder or a file cannot be read.
pub(crate) fn model(folder: &ModelFolder) -> Result<String> {
    with_settings(&weights(folder)?, folder, Head::CausalLm)
}

/// Whether a language model is the one of a digest: that of [`model`] or, in older files, of [`weights`].
///
/// # Errors
/// When a folder or a file cannot be read.
pub(crate) fn is_model(folder: &ModelFolder, sha256: &str) -> Result<bool> {
    let weights = weights(folder)?;
    Ok(weights == sha256 || with_settings(&weights, folder, Head::CausalLm)? == sha256)
}

/// SHA-256 of what a reward model computes with, as of [`model`], and of the tokenizer by which it reads.
fn reward_model(folder: &ModelFolder) -> Result<String> {
    let model = with_settings(&weights(folder)?, folder, Head::SequenceClassification)?;
    Ok(sha256_bytes((model + &tokenizer(&folder.tokenizer()?)?).as_bytes()))
}

fn with_settings(weights: &str, folder: &ModelFolder, head: Head) -> Result<String> {
    Ok(sha256_bytes(format!("{weights}{}", folder.essence(head)?).as_bytes()))
}

/// SHA-256 of what the tokenizer of a folder encodes by.
///
/// # Errors
/// When its file cannot be read.
pub(crate) fn tokenizer(dir: &Path) -> Result<String> {
    Ok(sha256_bytes(Tokenizer::essence(dir)?.as_bytes()))
}

/// SHA-256 of a model's safetensors file, or of the hashes of its shards in the order of their names; an adapter's comes before its base's.
///
/// # Errors
/// When a folder or a file cannot be read.
pub(crate) fn weights(folder: &ModelFolder) -> Result<String> {
    let mut files = weight_files(folder.path())?;
    if let Some(base) = folder.base()? {
        files.extend(weight_files(&base)?);
    }
    let hashes: Vec<_> = files.par_iter().map(|file| sha256_input(file)).collect();
    let hashes = hashes.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(if hashes.len() == 1 { hashes.concat() } else { sha256_bytes(hashes.concat().as_bytes()) })
}

fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_weights(path)).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reward_is_what_rewards_depend_on_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(name), text).unwrap();
        };
        let config = |theta: &str| {
            format!(
                r#"{{ "architectures": ["LlamaForSequenceClassification"], "vocab_size": 16, "hidden_size": 8, "intermediate_size": 8,
                "num_hidden_layers": 1, "num_attention_heads": 2, "rope_theta": {theta} }}"#
            )
        };
        for folder in ["m", "copy"] {
            write(&format!("{folder}/model.safetensors"), "weights");
            write(&format!("{folder}/config.json"), &config("1e4"));
            write(&format!("{folder}/tokenizer.json"), "{}");
        }
        write("a.jsonl", "answers");
        let name = |model: &str, settings: &str| {
            let text = format!(
                "kind = 'ensemble'\nby = 'mean'\nof = [{{kind = 'model', path = '{model}'}}, {{kind = 'answer', file = 'a.jsonl'}}, \
                 {{kind = 'remote', url = 'http://host'{settings}}}]"
            );
            let config: RewardConfig = toml::from_str(&text).unwrap();
            let lies = |path: &Path| Ok(dir.path().join(path));
            reward(&config, |path| Ok(models::at(lies(path)?)), lies).unwrap()
        };
        let first = name("m", "");
        assert!(
            first.contains("http://host") && first.contains(&sha256_bytes(b"answers")),
            "{first}"
        );
        assert_eq!(name("copy", ", cache = 'c.jsonl', api_key_env = 'KEY', batch = 3"), first);
        let mut names = vec![first];
        for (file, text) in [
            ("a.jsonl", "other answers"),
            ("m/model.safetensors", "other weights"),
            ("m/config.json", config("500").as_str()),
            ("m/tokenizer.json", r#"{ "model": {} }"#),
        ] {
            write(file, text);
            let other = name("m", "");
            assert!(!names.contains(&other), "{file}");
            names.push(other);
        }
    }

    #[test]
    fn an_adapter_is_what_it_and_its_base_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        for folder in ["base", "adapter"] {
            std::fs::create_dir(path(folder)).unwrap();
        }
        write("base/config.json", "{}");
        write("base/model.safetensors", "weights");
        let config = serde_json::json!({ "base_model_name_or_path": path("base") });
        write("adapter/adapter_config.json", &config.to_string());
        write("adapter/adapter_model.safetensors", "adapter");
        let of = |name: &str| weights(&models::at(path(name))).unwrap();
        let first = of("adapter");
        assert_ne!(first, of("base"));
        write("base/model.safetensors", "other weights");
        let second = of("adapter");
        write("adapter/adapter_model.safetensors", "other adapter");
        assert!(first != second && second != of("adapter"));
    }
}
