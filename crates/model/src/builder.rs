//! A network made of weights under the core's names.

use burn::module::Param;
use burn::tensor::{Device, Tensor};

use crate::attention::Attention;
use crate::checkpoint::{Checkpoint, param};
use crate::config::Family;
use crate::feed_forward::FeedForward;
use crate::norm::Norm;
use crate::projection::Projection;
use crate::transformer::{Block, Transformer};
use crate::weights::{
    self, EMBEDDING, OUTPUT_MATRIX, ProjectionKind, norm_names, projection_kinds,
};
use crate::{ModelError, TransformerConfig, layout};

/// Builds modules from a checkpoint.
pub(crate) struct Builder<'a> {
    pub(crate) config: &'a TransformerConfig,
    pub(crate) checkpoint: &'a mut Checkpoint,
    pub(crate) device: &'a Device,
}

impl Builder<'_> {
    /// The network that the configuration describes.
    pub(crate) fn transformer(&mut self) -> Result<Transformer, ModelError> {
        let config = self.config;
        let names = weights::parameters(config).into_iter().map(|(name, _)| name).collect();
        self.checkpoint.refuse_others(&names)?;
        self.check_ties()?;
        let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);
        let embeddings = self.checkpoint.take(EMBEDDING, [vocabulary, hidden], self.device)?;
        let headless = config.tie_word_embeddings || config.classifies();
        let gemma = config.family.is_gemma();
        Ok(Transformer {
            embed_tokens: param(EMBEDDING, embeddings),
            embedding_scale: if gemma { (hidden as f64).sqrt() } else { 1.0 },
            embed_positions: config.learns_positions().then(|| self.positions()).transpose()?,
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

    /// Refuses an output matrix that the configuration says is the embedding, and is not.
    fn check_ties(&self) -> Result<(), ModelError> {
        let tied = self.config.tie_word_embeddings && !self.config.classifies();
        if tied && self.checkpoint.differ(EMBEDDING, OUTPUT_MATRIX) {
            return Err(ModelError::Config {
                path: self.checkpoint.path().join("config.json"),
                key: "tie_word_embeddings",
                value: "true".into(),
                hint: format!(
                    "the weights hold another matrix as {}: set it to false",
                    layout::stored_name(self.config, OUTPUT_MATRIX)
                ),
            });
        }
        Ok(())
    }

    /// The table of learned positions.
    fn positions(&mut self) -> Result<Param<Tensor<2>>, ModelError> {
        let name = "model.embed_positions.weight";
        let shape = [self.config.max_position_embeddings, self.config.hidden_size];
        Ok(param(name, self.checkpoint.take(name, shape, self.device)?))
    }

    fn block(&mut self, layer: usize) -> Result<Block, ModelError> {
        let (config, hidden) = (self.config, self.config.hidden_size);
        let name = |part: Option<&str>| part.map(|part| format!("model.layers.{layer}.{part}"));
        let [before, after, feed, fed] = norm_names(config.family).map(name);
        Ok(Block {
            attention_in: self.norm(&before.unwrap_or_default(), hidden)?,
            self_attn: self.attention(layer)?,
            attention_out: after.map(|name| self.norm(&name, hidden)).transpose()?,
            feedforward_in: self.norm(&feed.unwrap_or_default(), hidden)?,
            mlp: self.feed_forward(layer)?,
            feedforward_out: fed.map(|name| self.norm(&name, hidden)).transpose()?,
            parallel: config.is_parallel(),
        })
    }

    fn attention(&mut self, layer: usize) -> Result<Attention, ModelError> {
        let (config, width) = (self.config, self.config.head_width());
        let [q, k, v, o, ..] = projection_kinds(config);
        let head_norm = |builder: &mut Self, part: &str| {
            let normed = config.family.normalises_queries_and_keys();
            let name = format!("model.layers.{layer}.self_attn.{part}");
            normed.then(|| builder.norm(&name, width)).transpose()
        };
        Ok(Attention {
            q_proj: self.layer_projection(layer, q)?,
            k_proj: self.layer_projection(layer, k)?,
            v_proj: self.layer_projection(layer, v)?,
            o_proj: self.layer_projection(layer, o)?,
            q_norm: head_norm(self, "q_norm")?,
            k_norm: head_norm(self, "k_norm")?,
            fused_adapter: None,
            kv_heads: config.kv_heads(),
            head_width: width,
            scale: config.score_scale(),
            score_cap: config.attn_logit_softcapping.filter(|_| config.family == Family::Gemma2),
            windowed: config.window(layer).is_some(),
        })
    }

    fn feed_forward(&mut self, layer: usize) -> Result<FeedForward, ModelError> {
        let [.., gate, up, down] = projection_kinds(self.config);
        let gated = !self.config.family.is_gpt();
        Ok(FeedForward {
            gate_proj: gated.then(|| self.layer_projection(layer, gate)).transpose()?,
            up_proj: self.layer_projection(layer, up)?,
            down_proj: self.layer_projection(layer, down)?,
            activation: self.config.activation(),
        })
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Norm, ModelError> {
        let weight = format!("{name}.weight");
        let scale = self.checkpoint.take(&weight, [width], self.device)?;
        let offset = if self.config.family.is_gemma() { 1.0 } else { 0.0 };
        Ok(Norm {
            weight: param(&weight, scale),
            bias: self.bias(name, width, self.config.family.is_gpt())?,
            epsilon: self.config.rms_norm_eps,
            offset,
        })
    }

    fn layer_projection(
        &mut self,
        layer: usize,
        (part, inputs, outputs, biased): ProjectionKind,
    ) -> Result<Projection, ModelError> {
        self.projection(&format!("model.layers.{layer}.{part}"), inputs, outputs, biased)
    }

    fn projection(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        biased: bool,
    ) -> Result<Projection, ModelError> {
        let weight = format!("{name}.weight");
        // Laid out anew rather than transposed in place: every pass multiplies by it.
        let data = self.checkpoint.take(&weight, [outputs, inputs], self.device)?;
        let data = data.transpose().into_data();
        let bias = self.bias(name, outputs, biased)?;
        let weight = param(&weight, Tensor::from_data(data, self.device));
        Ok(Projection { weight, bias, adapter: None })
    }

    fn bias(
        &mut self,
        name: &str,
        width: usize,
        biased: bool,
    ) -> Result<Option<Param<Tensor<1>>>, ModelError> {
        let name = format!("{name}.bias");
        let bias = biased.then(|| self.checkpoint.take(&name, [width], self.device)).transpose()?;
        Ok(bias.map(|bias| param(&name, bias)))
    }
}
