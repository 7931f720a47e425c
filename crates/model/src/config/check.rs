//! Which values of `config.json` are refused.

use std::fmt::Debug;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Family, LONGEST_CONTEXT, TransformerConfig, names};
use crate::ModelError;

/// Refuses values other than the one that is computed of keys that the configuration does not keep.
pub(super) fn options(
    family: Family,
    keys: &Map<String, Value>,
    path: &Path,
) -> Result<(), ModelError> {
    for &(key, known) in family.fixed() {
        if let Some(value) = keys.get(key).filter(|value| **value != Value::Bool(known)) {
            return Err(unsupported(path, key, value, &format!("only {known} is")));
        }
    }
    Ok(())
}

impl TransformerConfig {
    /// Refuses what the core does not compute.
    pub(super) fn check(&self, path: &Path) -> Result<(), ModelError> {
        self.check_kinds(path)?;
        self.check_layers(path)?;
        self.check_sizes(path)?;
        self.check_heads(path)
    }

    fn check_sizes(&self, path: &Path) -> Result<(), ModelError> {
        for (key, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.kv_heads()),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if size == 0 {
                return Err(self.refuse(path, key, &0, "it must be at least 1"));
            }
        }
        for (key, value) in [("rope_theta", self.rope_theta), ("rms_norm_eps", self.rms_norm_eps)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(self.refuse(path, key, &value, "it must be above 0"));
            }
        }
        let (key, context) = ("max_position_embeddings", self.max_position_embeddings);
        if context > LONGEST_CONTEXT {
            return Err(self.refuse(path, key, &context, "at most 16777216 is"));
        }
        Ok(())
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
        if self.head_width() == 0 || !self.rotary_width().is_multiple_of(2) {
            let hint = "rotary embeddings need an even width";
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
        }
        if self.sliding_window == Some(0) {
            return Err(self.refuse(path, "sliding_window", &0, "it must be at least 1"));
        }
        Ok(())
    }

    /// The error for a key, under the name that the family's files give it.
    fn refuse(&self, path: &Path, key: &'static str, value: &dyn Debug, hint: &str) -> ModelError {
        unsupported(path, names::own(self.family, key).unwrap_or(key), value, hint)
    }
}

pub(super) fn unsupported(
    path: &Path,
    key: &'static str,
    value: &dyn Debug,
    hint: &str,
) -> ModelError {
    ModelError::Config { path: path.into(), key, value: format!("{value:?}"), hint: hint.into() }
}
