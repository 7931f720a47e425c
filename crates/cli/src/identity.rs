//! What a calibration table was made from, as text that tells one model, reward or way to sample from another.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use infalign_calibrate::CalibrationMeta;
use infalign_decode::Sampling;
use infalign_model::ModelFolder;
use infalign_record::folder::is_weights;
use infalign_record::hash::{sha256_bytes, sha256_file};
use infalign_reward::RewardConfig;

use crate::models;

/// The metadata of a table of reference rewards.
///
/// - `folder`: of the reference policy; `reward`: what [`reward`] says; `template`: of the chat template, or empty.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn calibration(
    folder: &ModelFolder,
    reward: String,
    template: String,
    sampling: &Sampling,
    seed: u64,
) -> Result<CalibrationMeta> {
    Ok(CalibrationMeta {
        model_sha256: weights(folder)?,
        reward,
        tokenizer_sha256: sha256_file(&folder.tokenizer()?.join("tokenizer.json"))?,
        template_sha256: template,
        sampling: serde_json::to_string(sampling)?,
        seed,
        quantiles: None,
    })
}

/// The reward's settings as far as rewards depend on them, every model and file by the hash of what it holds: the same may lie elsewhere
/// tomorrow.
///
/// - `model`, `file`: where a model and a file of the settings lie.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn reward(
    config: &RewardConfig,
    model: impl Fn(&Path) -> Result<ModelFolder>,
    file: impl Fn(&Path) -> Result<PathBuf>,
) -> Result<String> {
    let mut essence = config.essence();
    for path in essence.models_mut() {
        *path = weights(&model(path)?)?.into();
    }
    for path in essence.files_mut() {
        *path = sha256_file(&file(path)?)?.into();
    }
    Ok(serde_json::to_string(&essence)?)
}

/// Of the command line's models, which lie where they are said to lie.
pub(crate) fn lies_there(path: &Path) -> Result<ModelFolder> {
    Ok(models::at(path.to_path_buf()))
}

/// Of the command line's files, which are what they are.
pub(crate) fn as_given(path: &Path) -> Result<PathBuf> {
    Ok(path.to_path_buf())
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
    let hashes = files.iter().map(|file| Ok(sha256_file(file)?)).collect::<Result<Vec<_>>>()?;
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
        for folder in ["m", "copy"] {
            write(&format!("{folder}/model.safetensors"), "weights");
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
        write("a.jsonl", "other answers");
        let second = name("m", "");
        write("m/model.safetensors", "other weights");
        assert!(first != second && second != name("m", ""));
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
