//! Which values of `config.json` are refused.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{DEEPEST, Family, LONGEST_CONTEXT, TransformerConfig, WIDEST, names};
use crate::ModelError;

/// Refuses values other than the one that is computed of keys that the configuration does not keep.
pub(super) fn options(
    family: Family,
    keys: &Map<String, Value>,
    path: &Path,
) -> Result<(), ModelError> {
    for (key, hint) in [
        (
            "quantization_config",
            "quantised weights are not read: take the model that they were made from, or write it anew with transformers after `dequantize()`; if these are not quantised, leave the key out",
        ),
        (
            "transformers_weights",
            "weights are read from model.safetensors or its shards: give the file that name, and leave the key out",
        ),
    ] {
        if let Some(value) = keys.get(key).filter(|value| !value.is_null()) {
            return Err(unsupported(path, key, value, hint));
        }
    }
    for &(key, known) in family.fixed() {
        if let Some(value) = keys.get(key).filter(|value| **value != Value::Bool(known)) {
            return Err(unsupported(path, key, value, &format!("only {known} is")));
        }
    }
    let types = family.model_types();
    let named = keys.get("model_type").filter(|value| !value.is_null());
    match named.filter(|value| !value.as_str().is_some_and(|name| types.contains(&name))) {
        None => Ok(()),
        Some(value) => {
            let hint = format!("`architectures` says {}", types.join(" or "));
            Err(unsupported(path, "model_type", value, &hint))
        }
    }
}

impl TransformerConfig {
    /// Refuses what the core does not compute, and sizes that do not go together.
    ///
    /// - `path`: stands for the file in errors.
    ///
    /// # Errors
    /// [`ModelError::Config`] names the first key whose value is not supported.
    pub fn check(&self, path: &Path) -> Result<(), ModelError> {
        self.check_kinds(path)?;
        self.check_layers(path)?;
        self.check_sizes(path)?;
        self.check_numbers(path)?;
        self.check_heads(path)
    }

    fn check_sizes(&self, path: &Path) -> Result<(), ModelError> {
        for (key, size, most) in [
            ("vocab_size", self.vocab_size, WIDEST),
            ("hidden_size", self.hidden_size, WIDEST),
            ("intermediate_size", self.intermediate_size, WIDEST),
            ("num_attention_heads", self.num_attention_heads, WIDEST),
            ("num_key_value_heads", self.kv_heads(), WIDEST),
            ("max_position_embeddings", self.max_position_embeddings, LONGEST_CONTEXT),
        ] {
            if size == 0 {
                return Err(self.refuse(path, key, &0, "it must be at least 1"));
            }
            self.check_most(path, key, size, most)?;
        }
        self.check_most(path, "head_dim", self.head_dim.unwrap_or(0), WIDEST)?;
        self.check_most(path, "num_hidden_layers", self.num_hidden_layers, DEEPEST)
    }

    fn check_most(
        &self,
        path: &Path,
        key: &'static str,
        size: usize,
        most: usize,
    ) -> Result<(), ModelError> {
        if size > most {
            return Err(self.refuse(path, key, &size, &format!("at most {most} is")));
        }
        Ok(())
    }

    /// Refuses numbers that would make others infinite or no numbers.
    fn check_numbers(&self, path: &Path) -> Result<(), ModelError> {
        for (key, value) in [
            ("rope_theta", Some(self.rope_theta)),
            ("rms_norm_eps", Some(self.rms_norm_eps)),
            ("rope_local_base_freq", self.rope_local_base_freq),
            ("query_pre_attn_scalar", self.query_pre_attn_scalar),
            ("attn_logit_softcapping", self.attn_logit_softcapping),
            ("final_logit_softcapping", self.final_logit_softcapping),
        ] {
            if let Some(value) = value.filter(|value| !(*value > 0.0 && value.is_finite())) {
                return Err(self.refuse(path, key, &value, "it must be above 0"));
            }
        }
        match &self.rope_scaling {
            Some(scaling) if !scaling.is_valid() => {
                let hint =
                    "its numbers must be above 0, and high_freq_factor above low_freq_factor";
                Err(self.refuse(path, "rope_scaling", scaling, hint))
            }
            _ => Ok(()),
        }
    }

    fn check_heads(&self, path: &Path) -> Result<(), ModelError> {
        let (heads, gpt) = (self.num_attention_heads, self.family.is_gpt());
        if !heads.is_multiple_of(self.kv_heads()) {
            let hint = format!("it must divide num_attention_heads ({heads})");
            return Err(self.refuse(path, "num_key_value_heads", &self.kv_heads(), &hint));
        }
        if gpt && !self.hidden_size.is_multiple_of(heads) {
            let hint = format!("it must divide the width of the stream ({})", self.hidden_size);
            return Err(self.refuse(path, "num_attention_heads", &heads, &hint));
        }
        let rotates = !self.learns_positions();
        let unfit = |width: usize| width == 0 && rotates || !width.is_multiple_of(2);
        if self.head_width() == 0 || unfit(self.rotary_width()) {
            let hint = "rotary embeddings need an even width above 0";
            return Err(match self.partial_rotary_factor.filter(|_| gpt) {
                Some(share) => self.refuse(path, "partial_rotary_factor", &share, hint),
                None => self.refuse(path, "head_dim", &self.head_width(), hint),
            });
        }
        Ok(())
    }

    /// Refuses values of keys that choose among kinds.
    fn check_kinds(&self, path: &Path) -> Result<(), ModelError> {
        let ((key, name), known) = (self.activation_name(), self.family.activations());
        if !known.contains(&name) {
            return Err(self.refuse(path, key, &name, &format!("only {} is", known.join(", "))));
        }
        if self.use_bidirectional_attention {
            let hint = "only false is";
            return Err(self.refuse(path, "use_bidirectional_attention", &true, hint));
        }
        let share = self.partial_rotary_factor.unwrap_or(1.0);
        if share != 1.0 && self.family != Family::GptNeox {
            return Err(self.refuse(path, "partial_rotary_factor", &share, "only 1 is"));
        }
        if !(share > 0.0 && share <= 1.0) {
            let hint = "it must be above 0 and at most 1";
            return Err(self.refuse(path, "partial_rotary_factor", &share, hint));
        }
        Ok(())
    }

    fn check_layers(&self, path: &Path) -> Result<(), ModelError> {
        if let Some(types) = &self.layer_types {
            let known =
                |kind: &String| ["sliding_attention", "full_attention"].contains(&kind.as_str());
            if types.len() != self.num_hidden_layers || !types.iter().all(known) {
                let hint =
                    "it holds sliding_attention or full_attention for each of num_hidden_layers";
                return Err(self.refuse(path, "layer_types", types, hint));
            }
            let qwen = matches!(self.family, Family::Qwen2 | Family::Qwen3);
            let windowed = types.iter().any(|kind| kind == "sliding_attention");
            if qwen && windowed && !self.use_sliding_window {
                let hint = "use_sliding_window is false";
                return Err(self.refuse(path, "layer_types", types, hint));
            }
        }
        if self.sliding_window == Some(0) {
            return Err(self.refuse(path, "sliding_window", &0, "it must be at least 1"));
        }
        Ok(())
    }

    /// The error for a key, under the name that the family's files give it.
    fn refuse(
        &self,
        path: &Path,
        key: &'static str,
        value: &impl Serialize,
        hint: &str,
    ) -> ModelError {
        unsupported(path, names::own(self.family, key).unwrap_or(key), value, hint)
    }
}

pub(super) fn unsupported(
    path: &Path,
    key: &'static str,
    value: &impl Serialize,
    hint: &str,
) -> ModelError {
    // As the file has it.
    let value = serde_json::to_value(value).unwrap_or_default().to_string();
    ModelError::Config { path: path.into(), key, value, hint: hint.into() }
}
