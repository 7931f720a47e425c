//! The architectures, and how they differ from Llama.

use serde_json::{Map, Value, json};

/// A family of decoders that share one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Family {
    #[default]
    Llama,
    /// Llama with a sliding window in every block.
    Mistral,
    /// Llama with biases on queries, keys and values.
    Qwen2,
    /// Llama with normalised queries and keys.
    Qwen3,
    /// Norms after both branches too, capped scores and logits, windows in every other block.
    Gemma2,
    /// Gemma 2 with normalised queries and keys instead of capped scores, and two rotations.
    Gemma3,
    /// LayerNorm, learned positions, a feed-forward layer without a gate, biases everywhere.
    Gpt2,
    /// GPT-2 with rotations of part of each head in place of learned positions, and both branches side by side.
    GptNeox,
}

/// What a model ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The output matrix of a language model.
    CausalLm,
    /// The scores of a classifier, such as a reward model's.
    SequenceClassification,
}

const FAMILIES: [(Family, &str); 8] = [
    (Family::Llama, "Llama"),
    (Family::Mistral, "Mistral"),
    (Family::Qwen2, "Qwen2"),
    (Family::Qwen3, "Qwen3"),
    (Family::Gemma2, "Gemma2"),
    (Family::Gemma3, "Gemma3"),
    (Family::Gpt2, "GPT2"),
    (Family::GptNeox, "GPTNeoX"),
];

impl Family {
    /// The family of an architecture such as `LlamaForCausalLM`, if it ends in `head`.
    pub(super) fn of(architecture: &str, head: Head) -> Option<Self> {
        let named = |(family, _): &&(Family, &str)| family.architecture(head) == architecture;
        FAMILIES.iter().find(named).map(|(family, _)| *family)
    }

    /// The family of a `model_type` such as `llama`.
    pub(super) fn of_type(model_type: &str) -> Option<Self> {
        let of = |(family, _): &&(Family, &str)| family.model_types().contains(&model_type);
        FAMILIES.iter().find(of).map(|(family, _)| *family)
    }

    /// The name of its architecture in `config.json`.
    pub(crate) fn architecture(self, head: Head) -> String {
        let name = FAMILIES.iter().find(|(family, _)| *family == self).map_or("", |(_, name)| name);
        match (head, self) {
            (Head::CausalLm, Family::Gpt2) => format!("{name}LMHeadModel"),
            (Head::CausalLm, _) => format!("{name}ForCausalLM"),
            (Head::SequenceClassification, Family::Gemma3) => {
                format!("{name}TextForSequenceClassification")
            }
            (Head::SequenceClassification, _) => format!("{name}ForSequenceClassification"),
        }
    }

    /// The names of all architectures with a head.
    pub(super) fn known(head: Head) -> String {
        FAMILIES.map(|(family, _)| family.architecture(head)).join(", ")
    }

    pub(crate) fn is_gemma(self) -> bool {
        matches!(self, Family::Gemma2 | Family::Gemma3)
    }

    /// Whether norms have a bias, and the feed-forward layer has one too and no gate.
    pub(crate) fn is_gpt(self) -> bool {
        matches!(self, Family::Gpt2 | Family::GptNeox)
    }

    /// The activations that the family's files may name.
    pub(super) fn activations(self) -> &'static [&'static str] {
        match self {
            _ if self.is_gemma() => &["gelu_pytorch_tanh"],
            _ if self.is_gpt() => &["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"],
            _ => &["silu"],
        }
    }

    /// What the family's files may say as `model_type`.
    pub(super) fn model_types(self) -> &'static [&'static str] {
        match self {
            Family::Llama => &["llama"],
            Family::Mistral => &["mistral"],
            Family::Qwen2 => &["qwen2"],
            Family::Qwen3 => &["qwen3"],
            Family::Gemma2 => &["gemma2"],
            Family::Gemma3 => &["gemma3_text"],
            Family::Gpt2 => &["gpt2"],
            Family::GptNeox => &["gpt_neox"],
        }
    }

    /// Whether `layer_types` means something: the others have no windows, and transformers does not look at it.
    pub(super) fn has_windows(self) -> bool {
        !matches!(self, Family::Llama | Family::Gpt2 | Family::GptNeox)
    }

    /// Keys of which only one value is computed, where a file has them.
    pub(super) fn fixed(self) -> &'static [(&'static str, bool)] {
        match self {
            Family::Gpt2 => &[
                ("scale_attn_weights", true),
                ("scale_attn_by_inverse_layer_idx", false),
                ("reorder_and_upcast_attn", false),
                ("add_cross_attention", false),
            ],
            _ => &[],
        }
    }

    /// Whether queries and keys are normalised before they are rotated.
    pub(crate) fn normalises_queries_and_keys(self) -> bool {
        matches!(self, Family::Qwen3 | Family::Gemma3)
    }

    /// Fills in the keys that the family's files may leave out with the default that transformers has for them. The sizes of matrices are
    /// not among them: every file names them.
    pub(super) fn fill(self, keys: &mut Map<String, Value>) {
        // Null too: what is saved has to name the family that was read.
        if keys.get("model_type").is_none_or(Value::is_null) {
            keys.insert("model_type".to_owned(), self.model_types()[0].into());
        }
        let gemma = json!({
            "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096, "tie_word_embeddings": true,
            "hidden_activation": "gelu_pytorch_tanh", "num_key_value_heads": 4, "max_position_embeddings": 8192,
            "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
        });
        let own = match self {
            Family::Llama => {
                json!({ "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2 })
            }
            Family::Mistral => json!({
                "sliding_window": 4096, "num_key_value_heads": 8, "max_position_embeddings": 131072, "bos_token_id": 1, "eos_token_id": 2,
            }),
            Family::Qwen2 => json!({
                "sliding_window": 4096, "max_window_layers": 28, "num_key_value_heads": 32, "max_position_embeddings": 32768,
            }),
            Family::Qwen3 => json!({
                "sliding_window": 4096, "max_window_layers": 28, "head_dim": 128, "num_key_value_heads": 32, "max_position_embeddings": 32768,
            }),
            Family::Gemma2 => {
                json!({ "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0 })
            }
            Family::Gemma3 => json!({
                "rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 6, "max_position_embeddings": 131072,
            }),
            Family::Gpt2 => json!({
                "hidden_act": "gelu_new", "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
                "max_position_embeddings": 1024, "bos_token_id": 50256, "eos_token_id": 50256,
            }),
            Family::GptNeox => json!({
                "hidden_act": "gelu", "rms_norm_eps": 1e-5, "attention_bias": true,
                "partial_rotary_factor": 0.25, "use_parallel_residual": true, "max_position_embeddings": 2048, "bos_token_id": 0,
                "eos_token_id": 2,
            }),
        };
        let shared = if self.is_gemma() { gemma } else { json!({}) };
        // A model that was made for a test has a vocabulary without the default token.
        let vocabulary = keys.get("vocab_size").and_then(Value::as_u64);
        let is_there =
            |key: &str, value: &Value| !key.ends_with("_token_id") || value.as_u64() < vocabulary;
        for defaults in [own, shared] {
            let defaults = defaults.as_object().into_iter().flatten();
            for (key, value) in defaults.filter(|(key, value)| is_there(key, value)) {
                keys.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }

    /// Whether a block, counted from 0, looks through the sliding window, where `layer_types` does not say.
    pub(super) fn is_windowed(self, keys: &super::TransformerConfig, layer: usize) -> bool {
        match self {
            Family::Llama | Family::Gpt2 | Family::GptNeox => false,
            Family::Mistral => true,
            Family::Qwen2 | Family::Qwen3 => {
                keys.use_sliding_window && layer >= keys.max_window_layers.unwrap_or(usize::MAX)
            }
            Family::Gemma2 => layer.is_multiple_of(2),
            Family::Gemma3 => {
                !(layer + 1).is_multiple_of(keys.sliding_window_pattern.unwrap_or(6).max(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_known_by_name_and_head() {
        let of = |name: &str| Family::of(name, Head::CausalLm);
        assert_eq!(of("Qwen3ForCausalLM"), Some(Family::Qwen3));
        assert_eq!(of("Qwen3ForSequenceClassification"), None);
        assert_eq!(of("MambaForCausalLM"), None);
        let heads = Head::SequenceClassification;
        assert_eq!(Family::of("MistralForSequenceClassification", heads), Some(Family::Mistral));
        assert!(Family::known(Head::CausalLm).ends_with("GPT2LMHeadModel, GPTNeoXForCausalLM"));
    }

    #[test]
    fn a_file_that_leaves_the_type_out_is_of_the_architectures_own() {
        for (family, name) in [
            (Family::Llama, "llama"),
            (Family::Mistral, "mistral"),
            (Family::Gemma3, "gemma3_text"),
            (Family::Gpt2, "gpt2"),
        ] {
            for mut keys in [Map::new(), Map::from_iter([("model_type".to_owned(), Value::Null)])] {
                family.fill(&mut keys);
                assert_eq!(keys["model_type"], name);
            }
        }
    }
}
