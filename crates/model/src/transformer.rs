//! The decoder: embedding, blocks of attention and SwiGLU, final norm, output matrix.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, activation::silu};

use crate::attention::{Attention, Context};
use crate::cache::KvCache;

/// A linear map without bias; the weight is `[inputs, outputs]`, the transpose of what checkpoints store.
#[derive(Module, Debug)]
pub(crate) struct Projection {
    pub(crate) weight: Param<Tensor<2>>,
}

impl Projection {
    /// x: `[rows, inputs]` → `[rows, outputs]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.val())
    }
}

/// Root-mean-square normalisation: x / √(mean(x²) + ε) · weight.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Param<Tensor<1>>,
    pub(crate) epsilon: f64,
}

impl RmsNorm {
    /// x: `[rows, hidden]` → the same shape.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let scale = x.clone().square().mean_dim(1).add_scalar(self.epsilon).sqrt().recip();
        x * scale * self.weight.val().unsqueeze()
    }
}

/// SwiGLU feed-forward: down(silu(gate(x)) · up(x)).
#[derive(Module, Debug)]
pub(crate) struct FeedForward {
    pub(crate) gate_proj: Projection,
    pub(crate) up_proj: Projection,
    pub(crate) down_proj: Projection,
}

impl FeedForward {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.down_proj.forward(silu(self.gate_proj.forward(x.clone())) * self.up_proj.forward(x))
    }
}

/// One block with its two residual branches.
#[derive(Module, Debug)]
pub(crate) struct Block {
    pub(crate) input_layernorm: RmsNorm,
    pub(crate) self_attn: Attention,
    pub(crate) post_attention_layernorm: RmsNorm,
    pub(crate) mlp: FeedForward,
}

/// The trainable part of a model, without its configuration.
#[derive(Module, Debug)]
pub struct Transformer {
    pub(crate) embed_tokens: Param<Tensor<2>>,
    pub(crate) layers: Vec<Block>,
    pub(crate) norm: RmsNorm,
    /// The output matrix `[hidden, vocabulary]`; None where it is the embedding's transpose, or where another head follows.
    pub(crate) lm_head: Option<Projection>,
}

impl Transformer {
    /// ids: `[batch, time]` → final hidden states, normalised: `[batch * time, hidden]`.
    pub(crate) fn hidden(
        &self,
        ids: Tensor<2, Int>,
        context: &Context<'_>,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<2> {
        let [batch, time] = ids.dims();
        let mut x = self.embed_tokens.val().select(0, ids.reshape([batch * time]));
        for (layer, block) in self.layers.iter().enumerate() {
            let cache = cache.as_deref_mut().map(|cache| (cache, layer));
            x = x.clone()
                + block.self_attn.forward(block.input_layernorm.forward(x), batch, context, cache);
            x = x.clone() + block.mlp.forward(block.post_attention_layernorm.forward(x));
        }
        if let Some(cache) = cache {
            cache.advance(time);
        }
        self.norm.forward(x)
    }

    /// hidden: `[rows, hidden]` → logits `[rows, vocabulary]`.
    pub(crate) fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => hidden.matmul(self.embed_tokens.val().transpose()),
        }
    }
}
