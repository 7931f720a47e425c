//! `config.json`: which architecture, and its sizes.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// The keys of a Llama-family `config.json`, with Hugging Face's names and defaults.
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
    /// `silu`.
    #[serde(default = "silu")]
    pub hidden_act: String,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// ε of RMSNorm.
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    /// Rotary settings as newer configurations write them; [`TransformerConfig::read`] moves them to `rope_theta`.
    #[serde(default, skip_serializing)]
    pub rope_parameters: Option<RopeParameters>,
    /// Rotary scaling; only its absence is supported.
    #[serde(default)]
    pub rope_scaling: Option<serde_json::Value>,
    /// Biases in attention; only `false` is supported.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases in the feed-forward layer; only `false` is supported.
    #[serde(default)]
    pub mlp_bias: bool,
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
}

/// The rotary settings of `rope_parameters`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeParameters {
    /// Base of the frequencies.
    #[serde(default)]
    pub rope_theta: Option<f64>,
    /// `default`; other kinds scale the frequencies.
    #[serde(default)]
    pub rope_type: Option<String>,
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
    /// Reads `DIR/config.json` and checks that its architecture is one of `architectures`.
    ///
    /// # Errors
    /// [`ModelError::Config`] names the first key whose value is not supported.
    pub fn read(dir: &Path, architectures: &[&str]) -> Result<Self, ModelError> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(ModelError::read(&path))?;
        // The architecture is looked at first: another one has other keys.
        let names: Architectures = serde_json::from_str(&text)
            .map_err(|source| ModelError::Json { path: path.clone(), source })?;
        if !names.architectures.iter().any(|name| architectures.contains(&name.as_str())) {
            return Err(unsupported(
                &path,
                "architectures",
                &names.architectures,
                &format!("known here: {}", architectures.join(", ")),
            ));
        }
        let mut config: Self = serde_json::from_str(&text)
            .map_err(|source| ModelError::Json { path: path.clone(), source })?;
        config.take_rope_parameters(&path)?;
        config.check(&path)?;
        Ok(config)
    }

    fn take_rope_parameters(&mut self, path: &Path) -> Result<(), ModelError> {
        let Some(rope) = self.rope_parameters.take() else { return Ok(()) };
        if let Some(kind) = rope.rope_type.filter(|kind| kind != "default") {
            return Err(unsupported(path, "rope_type", &kind, "only default is"));
        }
        self.rope_theta = rope.rope_theta.unwrap_or(self.rope_theta);
        Ok(())
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
            rope_parameters: None,
            rope_scaling: None,
            attention_bias: false,
            mlp_bias: false,
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
        if self.hidden_act != "silu" {
            return Err(unsupported(path, "hidden_act", &self.hidden_act, "only silu is"));
        }
        if let Some(scaling) = self.rope_scaling.as_ref().filter(|v| !v.is_null()) {
            return Err(unsupported(path, "rope_scaling", scaling, "only null is"));
        }
        for (key, bias) in [("attention_bias", self.attention_bias), ("mlp_bias", self.mlp_bias)] {
            if bias {
                return Err(unsupported(path, key, &true, "only false is"));
            }
        }
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

    /// Key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head.
    pub fn head_width(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }
}

#[derive(Deserialize)]
struct Architectures {
    #[serde(default)]
    architectures: Vec<String>,
}

fn unsupported(
    path: &Path,
    key: &'static str,
    value: &dyn std::fmt::Debug,
    hint: &str,
) -> ModelError {
    ModelError::Config { path: path.into(), key, value: format!("{value:?}"), hint: hint.into() }
}
