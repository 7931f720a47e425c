//! `config.json`: which architecture, and its sizes.

mod family;
mod rope;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ModelError;
pub(crate) use family::Family;
pub use family::Head;
pub use rope::RopeScaling;

/// The keys of `config.json` that change numbers, with Hugging Face's names; its other keys are not kept.
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
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; absent means `hidden_size / num_attention_heads`.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// `silu`, or for Gemma `gelu_pytorch_tanh`.
    #[serde(default = "silu")]
    pub hidden_act: String,
    /// What Gemma calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_activation: Option<String>,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// ε of RMSNorm.
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies.
    #[serde(default)]
    pub rope_scaling: Option<RopeScaling>,
    /// Base of the rotary frequencies in blocks with a window, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_local_base_freq: Option<f64>,
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
    #[serde(default = "float32", alias = "dtype")]
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

/// Longest context that is believed: the tables of rotations are made for all of it.
const LONGEST_CONTEXT: usize = 1 << 24;

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
        let text = std::fs::read_to_string(&path).map_err(ModelError::read(&path))?;
        let json = |source| ModelError::Json { path: path.clone(), source };
        let mut keys: Map<String, Value> = serde_json::from_str(&text).map_err(json)?;
        let names = keys.get("architectures").cloned().unwrap_or_default();
        let family = names.as_array().into_iter().flatten().filter_map(Value::as_str);
        let Some(family) = family.clone().find_map(|name| Family::of(name, head)) else {
            let known = format!("known here: {}", Family::known(head));
            return Err(unsupported(&path, "architectures", &names, &known));
        };
        rope::normalise(&mut keys, &path)?;
        family.fill(&mut keys);
        // After the defaults: a null is not one that is missing.
        keys.retain(|_, value| !value.is_null());
        let mut config: Self = serde_json::from_value(Value::Object(keys)).map_err(json)?;
        config.family = family;
        config.check(&path)?;
        Ok(config)
    }

    /// A Llama with tied embeddings, as many key as query heads, and the token ids of [`crate::write_word_tokenizer`].
    pub fn llama(
        vocabulary: usize,
        hidden: usize,
        intermediate: usize,
        layers: usize,
        heads: usize,
        context: usize,
    ) -> Self {
        Self {
            architectures: vec!["LlamaForCausalLM".into()],
            model_type: llama(),
            vocab_size: vocabulary,
            hidden_size: hidden,
            intermediate_size: intermediate,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: Some(heads),
            head_dim: Some(hidden / heads),
            hidden_act: silu(),
            max_position_embeddings: context,
            rms_norm_eps: rms_norm_eps(),
            rope_theta: rope_theta(),
            rope_scaling: None,
            rope_local_base_freq: None,
            attention_bias: false,
            mlp_bias: false,
            hidden_activation: None,
            sliding_window: None,
            use_sliding_window: false,
            max_window_layers: None,
            sliding_window_pattern: None,
            layer_types: None,
            query_pre_attn_scalar: None,
            attn_logit_softcapping: None,
            final_logit_softcapping: None,
            use_bidirectional_attention: false,
            family: Family::Llama,
            tie_word_embeddings: true,
            bos_token_id: Some(1),
            eos_token_id: Some(TokenIds::One(2)),
            pad_token_id: None,
            num_labels: None,
            id2label: None,
            torch_dtype: float32(),
        }
    }

    fn check(&self, path: &Path) -> Result<(), ModelError> {
        self.check_kinds(path)?;
        for (key, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.kv_heads()),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if size == 0 {
                return Err(unsupported(path, key, &0, "it must be at least 1"));
            }
        }
        for (key, value) in [("rope_theta", self.rope_theta), ("rms_norm_eps", self.rms_norm_eps)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(unsupported(path, key, &value, "it must be above 0"));
            }
        }
        if self.max_position_embeddings > LONGEST_CONTEXT {
            return Err(unsupported(
                path,
                "max_position_embeddings",
                &self.max_position_embeddings,
                "at most 16777216 is",
            ));
        }
        if !self.num_attention_heads.is_multiple_of(self.kv_heads()) {
            let hint = format!("it must divide num_attention_heads ({})", self.num_attention_heads);
            return Err(unsupported(path, "num_key_value_heads", &self.kv_heads(), &hint));
        }
        if !self.head_width().is_multiple_of(2) || self.head_width() == 0 {
            return Err(unsupported(
                path,
                "head_dim",
                &self.head_width(),
                "rotary embeddings need an even width",
            ));
        }
        Ok(())
    }

    /// Refuses values of keys that choose among kinds.
    fn check_kinds(&self, path: &Path) -> Result<(), ModelError> {
        let (key, found, known) = match &self.hidden_activation {
            Some(name) if self.family.is_gemma() => {
                ("hidden_activation", name, "gelu_pytorch_tanh")
            }
            _ => ("hidden_act", &self.hidden_act, "silu"),
        };
        if found != known {
            return Err(unsupported(path, key, found, &format!("only {known} is")));
        }
        if self.use_bidirectional_attention {
            let hint = "only false is";
            return Err(unsupported(path, "use_bidirectional_attention", &true, hint));
        }
        if let Some(types) = &self.layer_types {
            let known =
                |kind: &String| ["sliding_attention", "full_attention"].contains(&kind.as_str());
            if types.len() != self.num_hidden_layers || !types.iter().all(known) {
                let hint =
                    "it holds sliding_attention or full_attention for each of num_hidden_layers";
                return Err(unsupported(path, "layer_types", types, hint));
            }
        }
        if self.sliding_window == Some(0) {
            return Err(unsupported(path, "sliding_window", &0, "it must be at least 1"));
        }
        Ok(())
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
            _ => (self.attention_bias, self.attention_bias),
        }
    }

    /// What scores are multiplied by.
    pub(crate) fn score_scale(&self) -> f64 {
        let gemma = self.query_pre_attn_scalar.filter(|_| self.family.is_gemma());
        gemma.unwrap_or(self.head_width() as f64).powf(-0.5)
    }

    /// Key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head.
    pub fn head_width(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }
}

fn unsupported(
    path: &Path,
    key: &'static str,
    value: &dyn std::fmt::Debug,
    hint: &str,
) -> ModelError {
    ModelError::Config { path: path.into(), key, value: format!("{value:?}"), hint: hint.into() }
}
