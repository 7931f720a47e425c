//! PEFT directories: `adapter_config.json` and `adapter_model.safetensors`.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::adapter::tensor_names;
use super::targets::{HEAD, OLD_HEAD, Target};
use super::{Adapter, LoraConfig, Patterns};
use crate::checkpoint::Checkpoint;
use crate::config::Family;
use crate::tensors::numbers;
use crate::{ModelError, TransformerConfig, json_file};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What goes before the path of every module.
const PREFIX: &str = "base_model.model.";

/// The keys of [`LoraConfig`].
const OWN: [&str; 8] = [
    "r",
    "lora_alpha",
    "use_rslora",
    "target_modules",
    "layers_to_transform",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
];
/// Keys that change nothing of what a trained adapter computes, whatever their values. `fan_in_fan_out` tells PEFT how the module stores
/// its weight, which the family decides.
const WITHOUT_EFFECT: [&str; 15] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];
/// Ways to begin that leave the model as it is, besides `true` and `false`.
const HARMLESS_BEGINNINGS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What to do with an adapter of a kind that is not read.
pub(super) const MERGE: &str = "merge the adapter into its base with PEFT's merge_and_unload() and give the folder of the merged model";

/// Whether a folder holds an adapter in place of a model.
pub(crate) fn is_adapter(dir: &Path) -> bool {
    dir.join(CONFIG).is_file()
}

pub(crate) fn refuse(dir: &Path, reason: String) -> ModelError {
    ModelError::Adapter { name: dir.display().to_string(), reason }
}

/// What an adapter says of the model that it belongs to: its folder or name, and the revision of the latter.
///
/// # Errors
/// [`ModelError::Adapter`] where it says nothing.
pub(crate) fn base_name(dir: &Path) -> Result<(String, Option<String>), ModelError> {
    let keys: Map<String, Value> = json_file::read(&dir.join(CONFIG))?;
    let text = |key| keys.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    match text("base_model_name_or_path") {
        Some(name) => Ok((name.into(), text("revision").map(str::to_owned))),
        None => {
            let base = keys.get("base_model_name_or_path").unwrap_or(&Value::Null);
            let reason = format!(
                "`base_model_name_or_path` is {base}; write the folder of the base model there, or its name on the hub"
            );
            Err(refuse(dir, reason))
        }
    }
}

/// The tables whose order counts, which a [`Map`] would sort.
#[derive(Deserialize)]
struct Ordered {
    rank_pattern: Option<Patterns<usize>>,
    alpha_pattern: Option<Patterns<f64>>,
}

/// Reads `adapter_config.json`.
///
/// # Errors
/// [`ModelError::Adapter`] names the first key whose value is not supported.
pub(crate) fn read_config(dir: &Path) -> Result<LoraConfig, ModelError> {
    let path = dir.join(CONFIG);
    let mut keys: Map<String, Value> = json_file::read(&path)?;
    // Another kind of adapter has other keys: it is told by its own name.
    let kind = keys.get_key_value("peft_type");
    for (key, value) in kind.into_iter().chain(&keys) {
        if !is_supported(key, value) {
            let reason = format!("`{key}` is {value}, which is not supported; {MERGE}");
            return Err(refuse(dir, reason));
        }
    }
    keys.retain(|key, value| OWN.contains(&key.as_str()) && !value.is_null());
    if let Some(layers) = keys.get_mut("layers_to_transform").filter(|layers| layers.is_u64()) {
        *layers = json!([layers]);
    }
    let config: LoraConfig = serde_json::from_value(Value::Object(keys))
        .map_err(|source| ModelError::Json { path: path.clone(), source })?;
    let Ordered { rank_pattern, alpha_pattern } = json_file::read(&path)?;
    Ok(LoraConfig {
        rank_pattern: rank_pattern.unwrap_or_default(),
        alpha_pattern: alpha_pattern.unwrap_or_default(),
        ..config
    })
}

/// Whether a key has a value that is computed. A key that is not known has to be off: whatever it does, it then does nothing.
fn is_supported(key: &str, value: &Value) -> bool {
    match (key, value) {
        ("peft_type", value) => value == "LORA",
        ("bias", value) => value == "none",
        ("init_lora_weights", Value::String(how)) => HARMLESS_BEGINNINGS.contains(&how.as_str()),
        ("init_lora_weights", _) => true,
        (key, _) if OWN.contains(&key) || WITHOUT_EFFECT.contains(&key) => true,
        (_, Value::Array(items)) => items.is_empty(),
        (_, Value::Object(items)) => items.is_empty(),
        (_, value) => [json!(null), json!(false), json!("")].contains(value),
    }
}

/// What is written of an adapter, in this order.
#[derive(Serialize)]
struct Written<'a> {
    peft_type: &'static str,
    task_type: &'static str,
    base_model_name_or_path: Option<&'a Path>,
    bias: &'static str,
    fan_in_fan_out: bool,
    inference_mode: bool,
    init_lora_weights: bool,
    lora_dropout: f64,
    #[serde(flatten)]
    own: &'a LoraConfig,
}

/// Writes `adapter_config.json` of an adapter for `model`, which is in the folder `base`.
///
/// # Errors
/// [`ModelError::Io`].
pub(super) fn write_config(
    config: &LoraConfig,
    model: &TransformerConfig,
    base: Option<&Path>,
    dir: &Path,
) -> Result<(), ModelError> {
    let written = Written {
        peft_type: "LORA",
        task_type: if model.classifies() { "SEQ_CLS" } else { "CAUSAL_LM" },
        base_model_name_or_path: base,
        bias: "none",
        fan_in_fan_out: model.family == Family::Gpt2,
        inference_mode: true,
        init_lora_weights: true,
        lora_dropout: 0.0,
        own: config,
    };
    json_file::write(&dir.join(CONFIG), &written)
}

/// Reads the tensors, under the paths of the model's modules.
///
/// # Errors
/// As [`Checkpoint::read`].
pub(crate) fn read_tensors(dir: &Path) -> Result<Checkpoint, ModelError> {
    let mut tensors = Checkpoint::at(dir);
    tensors.read_file(&dir.join(WEIGHTS))?;
    Ok(tensors.renamed(|name| {
        // Some files keep the adapter's name, that of the wrapper around a module to save, or an old one.
        let path = name.strip_prefix(PREFIX).unwrap_or(name).split('.');
        path.filter(|part| !["default", "modules_to_save"].contains(part))
            .map(|part| if part == OLD_HEAD { HEAD } else { part })
            .collect::<Vec<_>>()
            .join(".")
    }))
}

/// Refuses tensors of an adapter that belong to nothing.
///
/// # Errors
/// [`ModelError::Adapter`] names the first.
pub(crate) fn refuse_rest(tensors: &Checkpoint, dir: &Path) -> Result<(), ModelError> {
    match tensors.names().next() {
        Some(name) => Err(refuse(
            dir,
            format!("the tensor `{name}` belongs to no module that {CONFIG} names"),
        )),
        None => Ok(()),
    }
}

/// Writes tensors that have the paths of the model's modules.
///
/// # Errors
/// [`ModelError::Io`] and [`ModelError::Safetensors`].
pub(crate) fn write_tensors(tensors: Checkpoint, dir: &Path) -> Result<(), ModelError> {
    tensors.renamed(|name| format!("{PREFIX}{name}")).write(&dir.join(WEIGHTS))
}

/// Takes the adapter of a module out of the tensors.
///
/// # Errors
/// [`ModelError::MissingTensor`] and [`ModelError::Shape`].
pub(super) fn take_adapter(
    tensors: &mut Checkpoint,
    target: &Target,
    device: &Device,
) -> Result<Adapter, ModelError> {
    let module = &target.module;
    let ([inputs, outputs], rank) = (module.inputs_and_outputs(), target.rank);
    let [name_a, name_b] = tensor_names(target.path());
    let a = tensors.remove(&name_a, &[rank, inputs])?;
    let b = module.rows_to_core(&tensors.remove(&name_b, &[outputs, rank])?, rank);
    let transposed = |values, shape: [usize; 2]| {
        let data = Tensor::<2>::from_data(TensorData::new(values, shape), device).transpose();
        Tensor::from_data(data.into_data(), device)
    };
    let (a, b) = (transposed(a, [rank, inputs]), transposed(b, [outputs, rank]));
    Ok(Adapter::new(target.path(), a, b, target.scale))
}

/// Puts the adapter of a module among the tensors.
pub(super) fn put_adapter(tensors: &mut Checkpoint, target: &Target, adapter: &Adapter) {
    let module = &target.module;
    let ([_, outputs], rank) = (module.inputs_and_outputs(), target.rank);
    let [name_a, name_b] = tensor_names(target.path());
    tensors.put(name_a, adapter.a.val().transpose());
    let b = numbers(adapter.b.val().transpose());
    tensors.insert(name_b, vec![outputs, rank], module.rows_from_core(&b, rank));
}
