//! `config.json`: which architecture, and its sizes.

mod check;
pub(crate) mod common;
mod family;
mod names;
mod rope;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::feed_forward::Activation;
use crate::{ModelError, json_file};
use check::unsupported;
pub(crate) use family::Family;
pub use family::Head;
pub use rope::RopeScaling;

/// The keys of `config.json` that change numbers, with the names that Hugging Face has for most families; its other keys are not kept.
///
/// [`TransformerConfig::read`] is the way in. What serde makes of a text alone is a Llama, whatever `architectures` says: without the
/// defaults and the names of its family, and without any check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransformerConfig {
    /// One name; [`TransformerConfig::read`] says which are known.
    pub architectures: Vec<String>,
    /// `llama`.
    #[serde(default = "llama")]
    pub model_type: String,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; absent means as many as query heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; absent means `hidden_size / num_attention_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// `silu`; `gelu_pytorch_tanh` for Gemma; for GPT-2 and GPT-NeoX one of the names of GELU.
    #[serde(default = "silu")]
    pub hidden_act: String,
    /// What Gemma calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_activation: Option<String>,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// ε of the norms.
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Base of the rotary frequencies in blocks with a window, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_local_base_freq: Option<f64>,
    /// Share of a head's width that is rotated; absent means all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial_rotary_factor: Option<f64>,
    /// Whether attention and feed-forward layer read the same input (GPT-NeoX).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_parallel_residual: Option<bool>,
    /// Biases in attention.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases in the feed-forward layer.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Tokens that a windowed block looks back on, itself included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Whether Qwen uses its window.
    #[serde(default, skip_serializing_if = "is_false")]
    pub use_sliding_window: bool,
    /// Qwen's first block with a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_window_layers: Option<usize>,
    /// Gemma 3 has a block without a window every so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window_pattern: Option<usize>,
    /// `sliding_attention` or `full_attention` for each block; goes before all other keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<String>>,
    /// Gemma divides scores by the root of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_pre_attn_scalar: Option<f64>,
    /// Scores x become c·tanh(x/c) (Gemma 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attn_logit_softcapping: Option<f64>,
    /// Logits x become c·tanh(x/c) (Gemma).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_logit_softcapping: Option<f64>,
    /// Attention to later tokens; only its absence is supported.
    #[serde(default, skip_serializing_if = "is_false")]
    pub use_bidirectional_attention: bool,
    /// Whether the output matrix is the embedding's.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Token that opens a text.
    #[serde(default)]
    pub bos_token_id: Option<u32>,
    /// Token or tokens that end one.
    #[serde(default)]
    pub eos_token_id: Option<TokenIds>,
    /// Padding token; [`crate::SequenceClassifier`] writes it so that other readers pool at the last real token.
    #[serde(default)]
    pub pad_token_id: Option<u32>,
    /// Number of outputs of a sequence classifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_labels: Option<usize>,
    /// Names of a classifier's outputs: what other readers take their number from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id2label: Option<std::collections::BTreeMap<String, String>>,
    /// Type of the stored weights.
    #[serde(default = "float32")]
    pub torch_dtype: String,
    /// What `architectures` says.
    #[serde(skip)]
    pub(crate) family: Family,
}

/// One token id or several, as `eos_token_id` may be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    /// One.
    One(u32),
    /// Several.
    Many(Vec<u32>),
}

impl TokenIds {
    /// The ids as a slice.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

/// The family that `architectures` names, or, where it is absent, `model_type` for a language model; it names that alone from then on.
fn family_of(keys: &mut Map<String, Value>, head: Head, path: &Path) -> Result<Family, ModelError> {
    let names = keys.get("architectures").cloned().unwrap_or_default();
    let known = names.as_array().into_iter().flatten().filter_map(Value::as_str);
    let named = known.clone().find_map(|name| Family::of(name, head));
    let unnamed = head == Head::CausalLm && known.count() == 0;
    let kind = keys.get("model_type").and_then(Value::as_str).filter(|_| unnamed);
    let Some(family) = named.or_else(|| kind.and_then(Family::of_type)) else {
        let known = format!("known here: {}", Family::known(head));
        return Err(unsupported(path, "architectures", &names, &known));
    };
    keys.insert("architectures".into(), vec![family.architecture(head)].into());
    Ok(family)
}

/// Longest context that is believed: the tables of rotations are made for all of it.
const LONGEST_CONTEXT: usize = 1 << 24;

/// Greatest width, vocabulary and number of heads that are believed: products of two of them stay far within `usize`.
const WIDEST: usize = 1 << 24;

/// Most blocks that are believed: the names of all their tensors are made before any is looked for.
const DEEPEST: usize = 1 << 14;

fn llama() -> String {
    "llama".into()
}
fn is_false(value: &bool) -> bool {
    !value
}
fn silu() -> String {
    "silu".into()
}
fn float32() -> String {
    "float32".into()
}
fn rms_norm_eps() -> f64 {
    1e-6
}
fn rope_theta() -> f64 {
    10_000.0
}

impl TransformerConfig {
    /// Reads `DIR/config.json` of a model with the given head.
    ///
    /// # Errors
    /// [`ModelError::Config`] names the first key whose value is not supported.
    pub fn read(dir: &Path, head: Head) -> Result<Self, ModelError> {
        let path = dir.join("config.json");
        let mut keys: Map<String, Value> = json_file::read(&path)?;
        let family = family_of(&mut keys, head, &path)?;
        check::options(family, &keys, &path)?;
        common::spellings(&mut keys);
        rope::normalise(family, &mut keys, &path)?;
        names::to_common(family, &mut keys, &path)?;
        family.fill(&mut keys);
        if !family.has_windows() {
            keys.remove("layer_types");
        }
        // After the defaults: a null is not one that is missing.
        keys.retain(|_, value| !value.is_null());
        let mut config: Self = serde_path_to_error::deserialize(Value::Object(keys))
            .map_err(serde::de::Error::custom)
            .map_err(|source| ModelError::Json { path: path.clone(), source })?;
        config.family = family;
        config.check(&path)?;
        Ok(config)
    }

    /// What `config.json` says, with the family's own names. Read again, it means the same.
    pub(crate) fn keys(&self) -> serde_json::Result<Map<String, Value>> {
        // In full: transformers takes no null for these two, and of some families another number where they are absent.
        let (heads, width) = (Some(self.kv_heads()), Some(self.head_width()));
        let whole = Self { num_key_value_heads: heads, head_dim: width, ..self.clone() };
        let mut keys: Map<String, Value> = serde_json::from_value(serde_json::to_value(whole)?)?;
        let mut filled = keys.clone();
        self.family.fill(&mut filled);
        for (key, _) in filled {
            // Such as no window, where the family has one by default.
            keys.entry(key).or_insert(Value::Null);
        }
        // transformers demands a whole number where it is one.
        let scalar = self.query_pre_attn_scalar.map(|value| (value, value as u64));
        if let Some((_, whole)) = scalar.filter(|(value, whole)| *whole as f64 == *value) {
            keys.insert("query_pre_attn_scalar".into(), whole.into());
        }
        Ok(names::to_own(self.family, keys))
    }

    /// A Llama with tied embeddings, as many key as query heads, and the token ids of [`crate::write_word_tokenizer`].
    /// [`TransformerConfig::check`] says whether such sizes go together.
    pub fn llama(
        vocabulary: usize,
        hidden: usize,
        intermediate: usize,
        layers: usize,
        heads: usize,
        context: usize,
    ) -> Self {
        let keys = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": intermediate,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads,
            "head_dim": hidden.checked_div(heads), "max_position_embeddings": context, "tie_word_embeddings": true,
            "bos_token_id": 1, "eos_token_id": 2,
        });
        serde_json::from_value(keys).unwrap_or_else(|error| unreachable!("{error}"))
    }

    /// How far a block looks back, itself included; `None` for everything.
    pub(crate) fn window(&self, layer: usize) -> Option<usize> {
        let windowed = match &self.layer_types {
            Some(types) => types.get(layer).is_some_and(|kind| kind == "sliding_attention"),
            None => self.family.is_windowed(self, layer),
        };
        self.sliding_window.filter(|_| windowed)
    }

    /// Biases of queries, keys and values, and of attention's output.
    pub(crate) fn attention_biases(&self) -> (bool, bool) {
        match self.family {
            Family::Mistral => (false, false),
            Family::Qwen2 => (true, false),
            Family::Gpt2 => (true, true),
            _ => (self.attention_bias, self.attention_bias),
        }
    }

    /// Biases of the feed-forward layer.
    pub(crate) fn feed_forward_biases(&self) -> bool {
        match self.family {
            Family::Llama => self.mlp_bias,
            family => family.is_gpt(),
        }
    }

    /// The key that names the activation, and the name.
    fn activation_name(&self) -> (&'static str, &str) {
        match &self.hidden_activation {
            Some(name) if self.family.is_gemma() => ("hidden_activation", name),
            _ => ("hidden_act", &self.hidden_act),
        }
    }

    /// The feed-forward layer's activation; SiLU under a name that reading refuses.
    pub(crate) fn activation(&self) -> Activation {
        Activation::named(self.activation_name().1).unwrap_or(Activation::Silu)
    }

    /// Whether attention and feed-forward layer read the same input.
    pub(crate) fn is_parallel(&self) -> bool {
        self.family == Family::GptNeox && self.use_parallel_residual == Some(true)
    }

    /// What scores are divided by the root of.
    pub(crate) fn score_scalar(&self) -> f64 {
        let gemma = self.query_pre_attn_scalar.filter(|_| self.family.is_gemma());
        gemma.unwrap_or(self.head_width() as f64)
    }

    /// What scores are multiplied by.
    pub(crate) fn score_scale(&self) -> f64 {
        self.score_scalar().powf(-0.5)
    }

    /// Keys and values of so many tokens of one sequence, in bytes.
    pub(crate) fn cache_bytes(&self, tokens: usize) -> usize {
        let values = 2 * self.num_hidden_layers * self.kv_heads() * self.head_width();
        values * tokens * size_of::<f32>()
    }

    /// Key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head; 0 where there is none.
    pub fn head_width(&self) -> usize {
        let share = || self.hidden_size.checked_div(self.num_attention_heads);
        self.head_dim.or_else(share).unwrap_or(0)
    }

    /// The last tokens of a text that fit the context, since the response that is judged stands at the end. The token that begins texts
    /// stays before them.
    pub fn keep_end(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        let begins = self.bos_token_id.is_some() && tokens.first().copied() == self.bos_token_id;
        let surplus = tokens.len().saturating_sub(self.max_position_embeddings);
        let kept = usize::from(begins && self.max_position_embeddings > 1);
        tokens.drain(kept..kept + surplus);
        tokens
    }

    /// Whether it is a classifier's.
    pub(crate) fn classifies(&self) -> bool {
        self.architectures.contains(&self.family.architecture(Head::SequenceClassification))
    }

    /// Whether positions are learned, not rotations.
    pub(crate) fn learns_positions(&self) -> bool {
        self.family == Family::Gpt2
    }

    /// How much of a head's width is rotated.
    pub(crate) fn rotary_width(&self) -> usize {
        match (self.family, self.partial_rotary_factor) {
            (Family::Gpt2, _) => 0,
            (Family::GptNeox, Some(share)) => (self.head_width() as f64 * share) as usize,
            _ => self.head_width(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_lose_their_beginning_but_for_its_mark() {
        let keep_end = |tokens: &[u32], context| {
            TransformerConfig::llama(16, 8, 8, 1, 2, context).keep_end(tokens.to_vec())
        };
        assert_eq!(keep_end(&[1, 5, 6, 7, 8], 3), [1, 7, 8]);
        assert_eq!(keep_end(&[4, 5, 6, 7, 8], 3), [6, 7, 8]);
        assert_eq!(keep_end(&[1, 5, 6], 3), [1, 5, 6]);
        assert_eq!(keep_end(&[1, 5, 6], 1), [6]);
        let unmarked =
            TransformerConfig { bos_token_id: None, ..TransformerConfig::llama(16, 8, 8, 1, 2, 3) };
        assert_eq!(unmarked.keep_end(vec![1, 5, 6, 7]), [5, 6, 7]);
    }

    fn read(keys: &Value) -> TransformerConfig {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), keys.to_string()).unwrap();
        TransformerConfig::read(dir.path(), Head::CausalLm).unwrap()
    }

    #[test]
    fn what_is_written_means_the_same_and_has_no_null_that_others_cannot_read() {
        let sizes = |model_type: &str| {
            serde_json::json!({
                "model_type": model_type, "vocab_size": 60000, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": null, "head_dim": null, "sliding_window": null, "bos_token_id": null,
            })
        };
        for model_type in ["llama", "mistral", "qwen2", "qwen3", "gemma2"] {
            let config = read(&sizes(model_type));
            let keys = config.keys().unwrap();
            assert_eq!((&keys["num_key_value_heads"], &keys["head_dim"]), (&4.into(), &16.into()));
            assert!(!keys.contains_key("rope_scaling") && keys["bos_token_id"].is_null());
            let again = read(&keys.into());
            assert_eq!((again.kv_heads(), again.head_width()), (4, 16), "{model_type}");
            assert_eq!((again.sliding_window, again.bos_token_id), (None, None), "{model_type}");
        }
    }

    #[test]
    fn qwens_last_blocks_have_a_window_where_it_is_used() {
        for model_type in ["qwen2", "qwen3"] {
            let windows = |used: bool| {
                let config = read(&serde_json::json!({
                    "model_type": model_type, "vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 4,
                    "num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": 6, "max_window_layers": 2,
                    "use_sliding_window": used,
                }));
                [0, 1, 2, 3].map(|layer| config.window(layer))
            };
            assert_eq!(windows(true), [None, None, Some(6), Some(6)], "{model_type}");
            assert_eq!(windows(false), [None; 4], "{model_type}");
        }
    }

    #[test]
    fn a_whole_number_is_written_as_one_where_transformers_demands_it() {
        let mut config = TransformerConfig::llama(16, 8, 8, 1, 2, 8);
        for (value, written) in [(256.0, "256"), (0.5, "0.5")] {
            config.query_pre_attn_scalar = Some(value);
            assert_eq!(config.keys().unwrap()["query_pre_attn_scalar"].to_string(), written);
        }
        config.query_pre_attn_scalar = None;
        assert!(!config.keys().unwrap().contains_key("query_pre_attn_scalar"));
    }
}
