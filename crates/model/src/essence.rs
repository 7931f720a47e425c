//! What a model's files say as far as what it reads and computes depends on it, whatever else they say and however they are written.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::Family;
use crate::lora::peft;
use crate::{
    Head, LoraConfig, ModelError, ModelFolder, TargetModules, TokenIds, Tokenizer,
    TransformerConfig, json_file,
};

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
        let resolved = resolved(&config);
        text(&(resolved, essence(config, head), adapter.map(with_sets)), self.path())
    }
}

impl Tokenizer {
    /// The contents of a folder's `tokenizer.json` that encoding depends on, as text: without truncation and padding.
    ///
    /// # Errors
    /// [`ModelError::Io`] and [`ModelError::Json`].
    pub fn essence(dir: &Path) -> Result<String, ModelError> {
        let path = dir.join("tokenizer.json");
        let mut keys: Map<String, Value> = json_file::read(&path)?;
        keys.retain(|key, _| !UNUSED.contains(&key.as_str()));
        text(&keys, &path)
    }
}

/// What several keys of a configuration say together, or say by being absent: the same of all that mean the same.
fn resolved(config: &TransformerConfig) -> impl Serialize + use<> {
    let windows: Vec<Option<usize>> =
        (0..config.num_hidden_layers).map(|layer| config.window(layer)).collect();
    let local_base = config.rope_local_base_freq.filter(|_| windows.iter().any(Option::is_some));
    let widths = [config.kv_heads(), config.head_width(), config.rotary_width()];
    let biases = (config.attention_biases(), config.feed_forward_biases());
    let activation = format!("{:?}", config.activation());
    let parallel = config.is_parallel();
    (windows, local_base, widths, biases, activation, parallel, config.score_scalar())
}

/// The other keys in one form of all that mean the same, without what numbers do not depend on.
fn essence(config: TransformerConfig, head: Head) -> TransformerConfig {
    // It has no output matrix, and cuts its texts, and stands for an empty one, by these tokens.
    let classifies = head == Head::SequenceClassification;
    let (context, family) = (config.max_position_embeddings, config.family);
    let ends = config.eos_token_id.map(|ids| TokenIds::Many(ids.as_slice().to_vec()));
    TransformerConfig {
        // These are resolved.
        num_key_value_heads: None,
        head_dim: None,
        partial_rotary_factor: None,
        rope_local_base_freq: None,
        attention_bias: false,
        mlp_bias: false,
        hidden_act: String::new(),
        hidden_activation: None,
        use_parallel_residual: None,
        query_pre_attn_scalar: None,
        sliding_window: None,
        use_sliding_window: false,
        max_window_layers: None,
        sliding_window_pattern: None,
        layer_types: None,
        // Other families do not look at these.
        attn_logit_softcapping: config.attn_logit_softcapping.filter(|_| family == Family::Gemma2),
        final_logit_softcapping: config.final_logit_softcapping.filter(|_| family.is_gemma()),
        rope_scaling: config.rope_scaling.and_then(|scaling| scaling.resolved(context)),
        tie_word_embeddings: config.tie_word_embeddings && !classifies,
        bos_token_id: config.bos_token_id.filter(|_| classifies),
        eos_token_id: ends.filter(|_| classifies),
        pad_token_id: config.pad_token_id.filter(|_| classifies),
        num_labels: None,
        id2label: None,
        torch_dtype: String::new(),
        ..config
    }
}

/// The settings of an adapter with its sets in order: PEFT writes them in any.
fn with_sets(mut adapter: LoraConfig) -> LoraConfig {
    if let TargetModules::Named(names) = &mut adapter.target_modules {
        put_in_order(names);
    }
    put_in_order(&mut adapter.modules_to_save);
    adapter.layers_to_transform.iter_mut().for_each(put_in_order);
    adapter
}

fn put_in_order<T: Ord>(set: &mut Vec<T>) {
    set.sort_unstable();
    set.dedup();
}

fn text(value: &impl Serialize, path: &Path) -> Result<String, ModelError> {
    serde_json::to_string(value).map_err(|source| ModelError::Json { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Writes the `config.json` of a small model with other values of some keys.
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
        for changes in [
            json!({ "num_labels": 1, "id2label": { "0": "good" } }),
            json!({ "tie_word_embeddings": true, "eos_token_id": [2] }),
        ] {
            assert_eq!(classifier(changes.clone()), classifier(json!({})), "{changes}");
        }
        assert_ne!(classifier(json!({ "pad_token_id": 3 })), classifier(json!({})));
    }

    /// Holds a configuration against one that means the same, and against another.
    fn check(architecture: &str, configs: [Value; 3]) {
        let dir = tempfile::tempdir().unwrap();
        let [first, same, other] = configs.map(|mut changes| {
            changes["num_hidden_layers"] = 4.into();
            changes["num_key_value_heads"] = 2.into();
            write_config(dir.path(), &format!("{architecture}ForCausalLM"), &changes);
            ModelFolder::from(dir.path()).essence(Head::CausalLm).unwrap()
        });
        assert_eq!(first, same, "{architecture}");
        assert_ne!(first, other, "{architecture}");
    }

    #[test]
    fn windows_are_those_of_each_block() {
        let [full, sliding] = ["full_attention", "sliding_attention"];
        let used = |used: bool| json!({ "sliding_window": 8, "use_sliding_window": used, "max_window_layers": 3 });
        let listed = |window: Value, first: &str, last: &str| {
            let used = !window.is_null();
            json!({ "sliding_window": window, "use_sliding_window": used, "layer_types": [first, full, full, last] })
        };
        for architecture in ["Qwen2", "Qwen3"] {
            check(architecture, [used(false), listed(Value::Null, full, full), used(true)]);
            let by_types = [(full, sliding), (sliding, full)];
            let [same, other] = by_types.map(|(first, last)| listed(8.into(), first, last));
            check(architecture, [used(true), same, other]);
        }
        let every = |blocks: usize| json!({ "sliding_window_pattern": blocks });
        let types = json!({ "layer_types": [sliding, full, sliding, full] });
        check("Gemma3", [every(2), types, every(3)]);
        check(
            "Mistral",
            [json!({}), json!({ "sliding_window": 4096 }), json!({ "sliding_window": null })],
        );
    }

    #[test]
    fn rotations_are_those_that_are_computed() {
        let five = |factor: f64| json!({ "rope_parameters": { "rope_theta": 5, "rope_type": "linear", "factor": factor } });
        check("Llama", [json!({ "rope_theta": 5.0 }), five(1.0), five(2.0)]);
        let llama3 = |original: Value| {
            json!({ "max_position_embeddings": 64, "rope_scaling": {
                "rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": original,
            } })
        };
        check("Llama", [llama3(Value::Null), llama3(64.into()), llama3(32.into())]);
        let local = |theta: f64| json!({ "rope_theta": 5.0, "rope_local_base_freq": theta });
        let kinds = json!({ "rope_parameters": {
            "full_attention": { "rope_theta": 5.0 }, "sliding_attention": { "rope_theta": 3.0 },
        } });
        check("Gemma3", [local(3.0), kinds, local(4.0)]);
        let share = |share: Value| json!({ "rotary_pct": share });
        check("GPTNeoX", [share(1.into()), share(1.0.into()), share(0.5.into())]);
    }

    #[test]
    fn keys_count_as_far_as_the_family_looks_at_them() {
        let ignored = json!({
            "attention_bias": true, "mlp_bias": true, "final_logit_softcapping": 5.0, "use_parallel_residual": true,
            "query_pre_attn_scalar": 3,
        });
        check("Mistral", [json!({}), ignored, json!({ "rms_norm_eps": 1e-5 })]);
        let capped = json!({ "attn_logit_softcapping": 5.0, "hidden_act": "silu" });
        check("Gemma3", [json!({}), capped, json!({ "final_logit_softcapping": 5.0 })]);
        let by = |scalar: Value| json!({ "head_dim": 4, "query_pre_attn_scalar": scalar });
        check("Gemma2", [by(Value::Null), by(4.into()), by(256.into())]);
        let bent = |name: &str| json!({ "hidden_act": name, "rotary_pct": 0.5 });
        check("GPTNeoX", [bent("gelu_new"), bent("gelu_fast"), bent("gelu")]);
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
    fn the_modules_and_blocks_of_an_adapter_are_sets() {
        let of = |modules: &[&str], blocks: &[usize], saved: &[&str]| {
            let keys = json!({
                "r": 2, "lora_alpha": 4.0, "target_modules": modules, "layers_to_transform": blocks, "modules_to_save": saved,
            });
            with_sets(serde_json::from_value(keys).unwrap())
        };
        let first = of(&["q_proj", "v_proj"], &[0, 1], &["embed_tokens", "lm_head"]);
        let again = of(&["v_proj", "q_proj", "v_proj"], &[1, 0, 1], &["lm_head", "embed_tokens"]);
        assert_eq!(again, first);
        assert_ne!(of(&["q_proj"], &[0, 1], &["embed_tokens", "lm_head"]), first);
        assert_ne!(of(&["q_proj", "v_proj"], &[0], &["embed_tokens", "lm_head"]), first);
        assert_ne!(of(&["q_proj", "v_proj"], &[0, 1], &["lm_head"]), first);
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
