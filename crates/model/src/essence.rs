//! What a model's files say as far as what it reads and computes depends on it, whatever else they say and however they are written.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::lora::peft;
use crate::{Head, ModelError, ModelFolder, Tokenizer, TransformerConfig};

/// Parts of `tokenizer.json` that are left to whoever encodes texts.
const UNUSED: [&str; 2] = ["truncation", "padding"];

impl ModelFolder {
    /// The settings of a model that its numbers depend on, those of an adapter included, as text. The tokens that end a language model's
    /// texts are not among them: [`Tokenizer::stops`] are.
    ///
    /// # Errors
    /// As [`ModelFolder::config`], and [`ModelError::Adapter`] for settings of an adapter that are not supported.
    pub fn essence(&self, head: Head) -> Result<String, ModelError> {
        let adapter = peft::is_adapter(self.path()).then(|| peft::read_config(self.path()));
        let adapter = adapter.transpose()?;
        let config = match self.config(head) {
            // The base of a classifier's adapter may be a language model.
            Err(_) if adapter.is_some() => self.config(Head::CausalLm)?,
            config => config?,
        };
        text(&(essence(config, head), adapter), self.path())
    }
}

impl Tokenizer {
    /// The contents of a folder's `tokenizer.json` that encoding depends on, as text: without truncation and padding.
    ///
    /// # Errors
    /// [`ModelError::Io`] and [`ModelError::Json`].
    pub fn essence(dir: &Path) -> Result<String, ModelError> {
        let path = dir.join("tokenizer.json");
        let contents = std::fs::read_to_string(&path).map_err(ModelError::read(&path))?;
        let mut keys: Map<String, Value> = serde_json::from_str(&contents)
            .map_err(|source| ModelError::Json { path: path.clone(), source })?;
        keys.retain(|key, _| !UNUSED.contains(&key.as_str()));
        text(&keys, &path)
    }
}

/// The configuration in one form of all that mean the same, without what numbers do not depend on.
fn essence(config: TransformerConfig, head: Head) -> TransformerConfig {
    // A classifier cuts its texts, and stands for an empty one, by these tokens.
    let has_texts = head == Head::SequenceClassification;
    TransformerConfig {
        num_key_value_heads: Some(config.kv_heads()),
        head_dim: Some(config.head_width()),
        bos_token_id: config.bos_token_id.filter(|_| has_texts),
        eos_token_id: config.eos_token_id.filter(|_| has_texts),
        pad_token_id: config.pad_token_id.filter(|_| has_texts),
        num_labels: None,
        id2label: None,
        torch_dtype: String::new(),
        ..config
    }
}

fn text(value: &impl Serialize, path: &Path) -> Result<String, ModelError> {
    serde_json::to_string(value).map_err(|source| ModelError::Json { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Writes the `config.json` of a small Llama with other values of some keys.
    fn write_config(dir: &Path, architecture: &str, changes: &Value) {
        let mut keys = json!({
            "architectures": [architecture], "vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2,
        });
        keys.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        std::fs::write(dir.join("config.json"), keys.to_string()).unwrap();
    }

    #[test]
    fn a_configuration_is_the_values_that_numbers_depend_on() {
        let dir = tempfile::tempdir().unwrap();
        let of = |architecture: &str, head, changes: Value| {
            write_config(dir.path(), architecture, &changes);
            ModelFolder::from(dir.path()).essence(head).unwrap()
        };
        let model = |changes| of("LlamaForCausalLM", Head::CausalLm, changes);
        let first = model(json!({}));
        for changes in [
            json!({ "transformers_version": "5.0.0", "torch_dtype": "bfloat16" }),
            json!({ "head_dim": 4, "num_key_value_heads": 2, "rope_theta": 10000 }),
            json!({ "eos_token_id": [2, 3], "pad_token_id": 0, "bos_token_id": null }),
        ] {
            assert_eq!(model(changes.clone()), first, "{changes}");
        }
        for changes in [
            json!({ "rope_theta": 500.0 }),
            json!({ "rope_scaling": { "rope_type": "linear", "factor": 2.0 } }),
            json!({ "rms_norm_eps": 1e-5 }),
            json!({ "tie_word_embeddings": true }),
        ] {
            assert_ne!(model(changes.clone()), first, "{changes}");
        }
        let name = "LlamaForSequenceClassification";
        let classifier = |changes| of(name, Head::SequenceClassification, changes);
        let labels = json!({ "num_labels": 1, "id2label": { "0": "good" } });
        assert_eq!(classifier(labels), classifier(json!({})));
        assert_ne!(classifier(json!({ "pad_token_id": 3 })), classifier(json!({})));
    }

    #[test]
    fn an_adapter_is_its_settings_and_those_of_its_base() {
        let dir = tempfile::tempdir().unwrap();
        let [base, adapter] = ["base", "adapter"].map(|name| dir.path().join(name));
        for folder in [&base, &adapter] {
            std::fs::create_dir(folder).unwrap();
        }
        write_config(&base, "LlamaForCausalLM", &json!({}));
        let of = |alpha: f64, dropout: f64| {
            let keys = json!({
                "peft_type": "LORA", "base_model_name_or_path": base, "r": 2, "lora_alpha": alpha, "lora_dropout": dropout,
                "target_modules": ["q_proj"],
            });
            std::fs::write(adapter.join("adapter_config.json"), keys.to_string()).unwrap();
            let folder = ModelFolder::from(&adapter);
            // Of a classifier, too, whose base is a language model.
            folder.essence(Head::SequenceClassification).unwrap();
            folder.essence(Head::CausalLm).unwrap()
        };
        let first = of(4.0, 0.0);
        assert_eq!(of(4.0, 0.5), first);
        assert_ne!(of(8.0, 0.0), first);
        write_config(&base, "LlamaForCausalLM", &json!({ "rope_theta": 500.0 }));
        assert_ne!(of(4.0, 0.0), first);
    }

    #[test]
    fn a_tokenizer_neither_cuts_nor_pads() {
        let dir = tempfile::tempdir().unwrap();
        let of = |contents: &str| {
            std::fs::write(dir.path().join("tokenizer.json"), contents).unwrap();
            Tokenizer::essence(dir.path()).map_err(|error| error.to_string())
        };
        let first = of(r#"{"model": {"a": 0}, "truncation": null, "padding": null}"#);
        let cut = "{\n\"model\": {\"a\": 0},\n\"truncation\": {\"max_length\": 8}\n}";
        assert_eq!(of(cut), first);
        assert_ne!(of(r#"{"model": {"a": 1}}"#), first);
        assert!(of("{").unwrap_err().contains("tokenizer.json is not valid"));
    }
}
