//! A language model: configuration, weights and the passes that training needs.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor, activation::log_softmax};

use rayon::prelude::*;

use crate::attention::{Attention, Context};
use crate::batch::{ResponseBatch, TOKENS_PER_PASS, runs};
use crate::checkpoint::{Checkpoint, param};
use crate::rope::Rope;
use crate::transformer::{Block, FeedForward, Projection, RmsNorm, Transformer};
use crate::{ModelError, Sequence, TransformerConfig};

/// A Llama-family causal language model.
#[derive(Clone, Debug)]
pub struct CausalLm {
    pub(crate) config: TransformerConfig,
    pub(crate) net: Transformer,
    pub(crate) rope: Rope,
}

impl CausalLm {
    /// Reads a Hugging Face directory: `config.json` and `model.safetensors` (or its shards).
    ///
    /// # Errors
    /// [`ModelError`] names the file and the key or tensor at fault.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        let config = TransformerConfig::read(dir, &["LlamaForCausalLM"])?;
        Self::from_checkpoint(config, &Checkpoint::read(dir)?, device)
    }

    /// A model with weights drawn from `normal` (standard normal numbers), scaled as Llama is initialised: 0.02, and 0.02/√(2·layers)
    /// for the projections that end a residual branch.
    ///
    /// # Errors
    /// None for a configuration that passes its own checks.
    pub fn random(
        config: TransformerConfig,
        normal: &mut dyn FnMut() -> f32,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut checkpoint = Checkpoint::empty();
        let branch_end = 0.02 / (2.0 * config.num_hidden_layers as f32).sqrt();
        for (name, shape) in matrices(&config) {
            let scale = if name.contains("o_proj") || name.contains("down_proj") {
                branch_end
            } else {
                0.02
            };
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| scale * normal()).collect();
            checkpoint.put(
                name,
                Tensor::<2>::from_data(burn::tensor::TensorData::new(values, shape), device),
            );
        }
        for name in norms(&config) {
            checkpoint.put(name, Tensor::<1>::ones([config.hidden_size], device));
        }
        Self::from_checkpoint(config, &checkpoint, device)
    }

    /// Builds the model that the configuration describes from the tensors of a checkpoint.
    pub(crate) fn from_checkpoint(
        config: TransformerConfig,
        checkpoint: &Checkpoint,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let net = Builder { config: &config, checkpoint, device }.transformer()?;
        let rope = Rope::new(&config, device);
        Ok(Self { config, net, rope })
    }

    /// Writes `config.json` and `model.safetensors` into an existing folder.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        write_config(&self.config, dir)?;
        self.checkpoint().write(&dir.join("model.safetensors"))
    }

    /// The weights under Hugging Face's names, without autodiff.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint::empty();
        let net = self.net.valid();
        checkpoint.put("model.embed_tokens.weight", net.embed_tokens.val());
        for (layer, block) in net.layers.iter().enumerate() {
            for (name, projection) in projections(block) {
                checkpoint.put(
                    format!("model.layers.{layer}.{name}.weight"),
                    projection.weight.val().transpose(),
                );
            }
            for (name, norm) in [
                ("input_layernorm", &block.input_layernorm),
                ("post_attention_layernorm", &block.post_attention_layernorm),
            ] {
                checkpoint.put(format!("model.layers.{layer}.{name}.weight"), norm.weight.val());
            }
        }
        checkpoint.put("model.norm.weight", net.norm.weight.val());
        if let Some(head) = &net.lm_head {
            checkpoint.put("lm_head.weight", head.weight.val().transpose());
        }
        checkpoint
    }

    /// The configuration.
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// The weights, for an optimiser.
    pub fn net(&self) -> &Transformer {
        &self.net
    }

    /// The same model with other weights.
    pub fn with_net(self, net: Transformer) -> Self {
        Self { net, ..self }
    }

    /// The model with gradients enabled.
    pub fn train(self) -> Self {
        Self { net: self.net.train(), ..self }
    }

    /// A copy without gradients, for inference.
    pub fn valid(&self) -> Self {
        Self { net: self.net.valid(), ..self.clone() }
    }

    /// The device of the weights, without autodiff.
    pub fn device(&self) -> Device {
        self.net.embed_tokens.val().device().without_autodiff()
    }

    /// Final hidden states of right-padded ids `[batch, time]` → `[batch * time, hidden]`.
    ///
    /// Padding needs no mask: a causal model never looks at it from a real token.
    pub(crate) fn hidden(&self, ids: Tensor<2, Int>) -> Tensor<2> {
        let [_, time] = ids.dims();
        let rotation = self.rope.span(0, time);
        let hidden = Tensor::<2, Bool>::tril_mask([time, time], 0, &self.device()).unsqueeze::<4>();
        self.net.hidden(ids, &Context { rotation: &rotation, hidden: Some(hidden) }, None)
    }

    /// Logits of every response token's distribution: `[tokens, vocabulary]`, in the order of [`ResponseBatch::targets`].
    pub fn response_logits(&self, batch: &ResponseBatch) -> Tensor<2> {
        self.net.logits(self.hidden(batch.ids.clone()).select(0, batch.rows.clone()))
    }

    /// Runs of sequences that one pass can take, in order.
    pub fn passes<'a>(&self, sequences: &'a [Sequence]) -> Vec<&'a [Sequence]> {
        runs(sequences, |s| s.tokens.len(), TOKENS_PER_PASS)
    }

    /// log π(token | everything before it) of every response token, in nats, at temperature 1 over the whole vocabulary.
    ///
    /// # Errors
    /// [`ModelError`] for sequences that do not fit the model.
    pub fn log_probs(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        let model = self.valid();
        let score = |pass: &[Sequence]| {
            let batch = ResponseBatch::new(pass, &model.config, &model.device())?;
            let picked = log_softmax(model.response_logits(&batch), 1)
                .gather(1, batch.targets.clone())
                .into_data();
            let mut values = picked.iter::<f32>();
            Ok(batch
                .lengths
                .iter()
                .map(|&n| values.by_ref().take(n).collect())
                .collect::<Vec<Vec<f32>>>())
        };
        let passes = model
            .passes(sequences)
            .into_par_iter()
            .map(score)
            .collect::<Result<Vec<_>, ModelError>>()?;
        Ok(passes.into_iter().flatten().collect())
    }
}

/// Writes `DIR/config.json`.
pub(crate) fn write_config(config: &TransformerConfig, dir: &Path) -> Result<(), ModelError> {
    let path = dir.join("config.json");
    // Weights are always written as f32.
    let config = TransformerConfig { torch_dtype: "float32".into(), ..config.clone() };
    let json = serde_json::to_vec_pretty(&config)
        .map_err(|source| ModelError::Json { path: path.clone(), source })?;
    std::fs::write(&path, json).map_err(ModelError::write(&path))
}

/// The projections of a block with their names in a checkpoint.
fn projections(block: &Block) -> [(&'static str, &Projection); 7] {
    [
        ("self_attn.q_proj", &block.self_attn.q_proj),
        ("self_attn.k_proj", &block.self_attn.k_proj),
        ("self_attn.v_proj", &block.self_attn.v_proj),
        ("self_attn.o_proj", &block.self_attn.o_proj),
        ("mlp.gate_proj", &block.mlp.gate_proj),
        ("mlp.up_proj", &block.mlp.up_proj),
        ("mlp.down_proj", &block.mlp.down_proj),
    ]
}

/// Names and stored shapes `[outputs, inputs]` of every matrix of the architecture.
fn matrices(config: &TransformerConfig) -> Vec<(String, [usize; 2])> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) =
        (config.num_attention_heads * config.head_width(), config.kv_heads() * config.head_width());
    let mut all = vec![("model.embed_tokens.weight".to_owned(), [config.vocab_size, hidden])];
    for layer in 0..config.num_hidden_layers {
        let block = [
            ("self_attn.q_proj", [queries, hidden]),
            ("self_attn.k_proj", [keys, hidden]),
            ("self_attn.v_proj", [keys, hidden]),
            ("self_attn.o_proj", [hidden, queries]),
            ("mlp.gate_proj", [inner, hidden]),
            ("mlp.up_proj", [inner, hidden]),
            ("mlp.down_proj", [hidden, inner]),
        ];
        all.extend(
            block.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)),
        );
    }
    if !config.tie_word_embeddings {
        all.push(("lm_head.weight".to_owned(), [config.vocab_size, hidden]));
    }
    all
}

/// Names of every norm's weight.
fn norms(config: &TransformerConfig) -> Vec<String> {
    let layers = (0..config.num_hidden_layers).flat_map(|layer| {
        ["input_layernorm", "post_attention_layernorm"]
            .map(|name| format!("model.layers.{layer}.{name}.weight"))
    });
    layers.chain(["model.norm.weight".to_owned()]).collect()
}

/// Builds modules from a checkpoint.
struct Builder<'a> {
    config: &'a TransformerConfig,
    checkpoint: &'a Checkpoint,
    device: &'a Device,
}

impl Builder<'_> {
    fn transformer(&self) -> Result<Transformer, ModelError> {
        let config = self.config;
        let embedding = "model.embed_tokens.weight";
        let classifier = self.checkpoint.contains("score.weight");
        Ok(Transformer {
            embed_tokens: param(
                embedding,
                self.checkpoint.take(
                    embedding,
                    [config.vocab_size, config.hidden_size],
                    self.device,
                )?,
            ),
            layers: (0..config.num_hidden_layers)
                .map(|layer| self.block(layer))
                .collect::<Result<_, _>>()?,
            norm: self.norm("model.norm")?,
            lm_head: if config.tie_word_embeddings || classifier {
                None
            } else {
                Some(self.projection("lm_head")?)
            },
        })
    }

    fn block(&self, layer: usize) -> Result<Block, ModelError> {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        Ok(Block {
            input_layernorm: self.norm(&name("input_layernorm"))?,
            self_attn: Attention {
                q_proj: self.projection(&name("self_attn.q_proj"))?,
                k_proj: self.projection(&name("self_attn.k_proj"))?,
                v_proj: self.projection(&name("self_attn.v_proj"))?,
                o_proj: self.projection(&name("self_attn.o_proj"))?,
                kv_heads: self.config.kv_heads(),
                head_width: self.config.head_width(),
            },
            post_attention_layernorm: self.norm(&name("post_attention_layernorm"))?,
            mlp: FeedForward {
                gate_proj: self.projection(&name("mlp.gate_proj"))?,
                up_proj: self.projection(&name("mlp.up_proj"))?,
                down_proj: self.projection(&name("mlp.down_proj"))?,
            },
        })
    }

    fn norm(&self, name: &str) -> Result<RmsNorm, ModelError> {
        let name = format!("{name}.weight");
        let weight = self.checkpoint.take(&name, [self.config.hidden_size], self.device)?;
        Ok(RmsNorm { weight: param(&name, weight), epsilon: self.config.rms_norm_eps })
    }

    fn projection(&self, name: &str) -> Result<Projection, ModelError> {
        let name = format!("{name}.weight");
        let shape = matrices(self.config)
            .into_iter()
            .find(|(n, _)| *n == name)
            .map_or([0, 0], |(_, shape)| shape);
        // Laid out anew rather than transposed in place: every pass multiplies by it.
        let data = self.checkpoint.take(&name, shape, self.device)?.transpose().into_data();
        Ok(Projection { weight: param(&name, Tensor::from_data(data, self.device)) })
    }
}
