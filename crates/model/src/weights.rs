//! The weights of the decoder core under Hugging Face's names: which there are, modules made of them, and back.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::attention::Attention;
use crate::checkpoint::{Checkpoint, param};
use crate::config::Family;
use crate::transformer::{Block, FeedForward, Projection, RmsNorm, Transformer};
use crate::{ModelError, TransformerConfig};

/// What a stored tensor is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// `[outputs, inputs]`, as checkpoints store it.
    Matrix([usize; 2]),
    /// The weight of a norm.
    Norm(usize),
    /// A bias.
    Bias(usize),
}

/// Names of a block's norms: before attention, after it, before the feed-forward layer, after it.
fn norm_names(family: Family) -> [Option<&'static str>; 4] {
    if family.is_gemma() {
        let after = Some("post_feedforward_layernorm");
        [
            Some("input_layernorm"),
            Some("post_attention_layernorm"),
            Some("pre_feedforward_layernorm"),
            after,
        ]
    } else {
        [Some("input_layernorm"), None, Some("post_attention_layernorm"), None]
    }
}

/// The projections of a block: name, inputs, outputs, and whether there is a bias.
fn projection_kinds(config: &TransformerConfig) -> [(&'static str, usize, usize, bool); 7] {
    let (hidden, inner, width) =
        (config.hidden_size, config.intermediate_size, config.head_width());
    let (queries, keys) = (config.num_attention_heads * width, config.kv_heads() * width);
    let (biased, biased_output) = config.attention_biases();
    let mlp = config.mlp_bias && config.family == Family::Llama;
    [
        ("self_attn.q_proj", hidden, queries, biased),
        ("self_attn.k_proj", hidden, keys, biased),
        ("self_attn.v_proj", hidden, keys, biased),
        ("self_attn.o_proj", queries, hidden, biased_output),
        ("mlp.gate_proj", hidden, inner, mlp),
        ("mlp.up_proj", hidden, inner, mlp),
        ("mlp.down_proj", inner, hidden, mlp),
    ]
}

/// Every tensor of a language model, in the order in which random weights are drawn: matrices first.
pub(crate) fn parameters(config: &TransformerConfig) -> Vec<(String, Kind)> {
    let hidden = config.hidden_size;
    let embedding = Kind::Matrix([config.vocab_size, hidden]);
    let mut matrices = vec![("model.embed_tokens.weight".to_owned(), embedding)];
    let mut vectors = Vec::new();
    for layer in 0..config.num_hidden_layers {
        let name = |part: &str, end: &str| format!("model.layers.{layer}.{part}.{end}");
        for (part, inputs, outputs, biased) in projection_kinds(config) {
            matrices.push((name(part, "weight"), Kind::Matrix([outputs, inputs])));
            vectors.extend(biased.then(|| (name(part, "bias"), Kind::Bias(outputs))));
        }
        let norms = norm_names(config.family).into_iter().flatten();
        vectors.extend(norms.map(|part| (name(part, "weight"), Kind::Norm(hidden))));
        if config.family.normalises_queries_and_keys() {
            let norms = ["self_attn.q_norm", "self_attn.k_norm"];
            vectors
                .extend(norms.map(|part| (name(part, "weight"), Kind::Norm(config.head_width()))));
        }
    }
    if !config.tie_word_embeddings {
        matrices.push(("lm_head.weight".to_owned(), embedding));
    }
    vectors.push(("model.norm.weight".to_owned(), Kind::Norm(hidden)));
    matrices.extend(vectors);
    matrices
}

/// The weights of a network under their names, without autodiff.
pub(crate) fn checkpoint(net: &Transformer, config: &TransformerConfig) -> Checkpoint {
    let mut checkpoint = Checkpoint::empty();
    let net = net.valid();
    checkpoint.put("model.embed_tokens.weight", net.embed_tokens.val());
    for (layer, block) in net.layers.iter().enumerate() {
        let name = |part: &str, end: &str| format!("model.layers.{layer}.{part}.{end}");
        let Block { self_attn, mlp, .. } = block;
        let projections = [
            &self_attn.q_proj,
            &self_attn.k_proj,
            &self_attn.v_proj,
            &self_attn.o_proj,
            &mlp.gate_proj,
            &mlp.up_proj,
            &mlp.down_proj,
        ];
        for ((part, ..), projection) in projection_kinds(config).into_iter().zip(projections) {
            checkpoint.put(name(part, "weight"), projection.weight.val().transpose());
            if let Some(bias) = &projection.bias {
                checkpoint.put(name(part, "bias"), bias.val());
            }
        }
        let [before, after, feed, fed] = norm_names(config.family);
        for (part, norm) in [
            (before, Some(&block.attention_in)),
            (after, block.attention_out.as_ref()),
            (feed, Some(&block.feedforward_in)),
            (fed, block.feedforward_out.as_ref()),
            (Some("self_attn.q_norm"), self_attn.q_norm.as_ref()),
            (Some("self_attn.k_norm"), self_attn.k_norm.as_ref()),
        ] {
            if let (Some(part), Some(norm)) = (part, norm) {
                checkpoint.put(name(part, "weight"), norm.weight.val());
            }
        }
    }
    checkpoint.put("model.norm.weight", net.norm.weight.val());
    if let Some(head) = &net.lm_head {
        checkpoint.put("lm_head.weight", head.weight.val().transpose());
    }
    checkpoint
}

/// Builds modules from a checkpoint.
pub(crate) struct Builder<'a> {
    pub(crate) config: &'a TransformerConfig,
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) device: &'a Device,
}

impl Builder<'_> {
    /// The network that the configuration describes.
    pub(crate) fn transformer(&self) -> Result<Transformer, ModelError> {
        let config = self.config;
        let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);
        let embedding = "model.embed_tokens.weight";
        let embeddings = self.checkpoint.take(embedding, [vocabulary, hidden], self.device)?;
        let headless = config.tie_word_embeddings || self.checkpoint.contains("score.weight");
        let gemma = config.family.is_gemma();
        Ok(Transformer {
            embed_tokens: param(embedding, embeddings),
            embedding_scale: if gemma { (hidden as f64).sqrt() } else { 1.0 },
            layers: (0..config.num_hidden_layers)
                .map(|layer| self.block(layer))
                .collect::<Result<_, _>>()?,
            norm: self.norm("model.norm", hidden)?,
            lm_head: if headless {
                None
            } else {
                Some(self.projection("lm_head", hidden, vocabulary, false)?)
            },
            logit_cap: config.final_logit_softcapping.filter(|_| gemma),
        })
    }

    fn block(&self, layer: usize) -> Result<Block, ModelError> {
        let (config, hidden) = (self.config, self.config.hidden_size);
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let norm = |part: Option<&str>| part.map(|part| self.norm(&name(part), hidden)).transpose();
        let [before, after, feed, fed] = norm_names(config.family);
        let [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj] =
            projection_kinds(config).map(|(part, inputs, outputs, biased)| {
                self.projection(&name(part), inputs, outputs, biased)
            });
        let head_norm = |part: &str| {
            let normed = config.family.normalises_queries_and_keys();
            normed.then(|| self.norm(&name(part), config.head_width())).transpose()
        };
        Ok(Block {
            attention_in: self.norm(&name(before.unwrap_or_default()), hidden)?,
            self_attn: Attention {
                q_proj: q_proj?,
                k_proj: k_proj?,
                v_proj: v_proj?,
                o_proj: o_proj?,
                q_norm: head_norm("self_attn.q_norm")?,
                k_norm: head_norm("self_attn.k_norm")?,
                kv_heads: config.kv_heads(),
                head_width: config.head_width(),
                scale: config.score_scale(),
                score_cap: config
                    .attn_logit_softcapping
                    .filter(|_| config.family == Family::Gemma2),
                windowed: config.window(layer).is_some(),
            },
            attention_out: norm(after)?,
            feedforward_in: self.norm(&name(feed.unwrap_or_default()), hidden)?,
            mlp: FeedForward {
                gate_proj: gate_proj?,
                up_proj: up_proj?,
                down_proj: down_proj?,
                gelu: config.family.is_gemma(),
            },
            feedforward_out: norm(fed)?,
        })
    }

    fn norm(&self, name: &str, width: usize) -> Result<RmsNorm, ModelError> {
        let name = format!("{name}.weight");
        let weight = self.checkpoint.take(&name, [width], self.device)?;
        let offset = if self.config.family.is_gemma() { 1.0 } else { 0.0 };
        Ok(RmsNorm { weight: param(&name, weight), epsilon: self.config.rms_norm_eps, offset })
    }

    fn projection(
        &self,
        name: &str,
        inputs: usize,
        outputs: usize,
        biased: bool,
    ) -> Result<Projection, ModelError> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        // Laid out anew rather than transposed in place: every pass multiplies by it.
        let data = self.checkpoint.take(&weight, [outputs, inputs], self.device)?;
        let data = data.transpose().into_data();
        let take_bias = || self.checkpoint.take(&bias, [outputs], self.device);
        let bias = biased.then(take_bias).transpose()?.map(|value| param(&bias, value));
        Ok(Projection { weight: param(&weight, Tensor::from_data(data, self.device)), bias })
    }
}
