//! The decoder core: embedding, blocks of attention and gated feed-forward, final norm, output matrix.
//!
//! One core serves every family; what differs is optional: biases, norms of queries and keys, norms after the branches, windows, caps,
//! and the scale of the embedding.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, activation::silu};

use crate::attention::{Attention, Context};
use crate::cache::KvCache;

/// A linear map; the weight is `[inputs, outputs]`, the transpose of what checkpoints store.
#[derive(Module, Debug)]
pub(crate) struct Projection {
    pub(crate) weight: Param<Tensor<2>>,
    pub(crate) bias: Option<Param<Tensor<1>>>,
}

impl Projection {
    /// x: `[rows, inputs]` → `[rows, outputs]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = x.matmul(self.weight.val());
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }
}

/// Root-mean-square normalisation: x / √(mean(x²) + ε) · (weight + offset).
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Param<Tensor<1>>,
    pub(crate) epsilon: f64,
    /// 1 for Gemma, which stores weights around 0.
    pub(crate) offset: f64,
}

impl RmsNorm {
    /// x: `[rows, width]` → the same shape.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let scale = x.clone().square().mean_dim(1).add_scalar(self.epsilon).sqrt().recip();
        let weight = self.weight.val();
        let weight = if self.offset == 0.0 { weight } else { weight.add_scalar(self.offset) };
        x * scale * weight.unsqueeze()
    }
}

/// Gated feed-forward: down(act(gate(x)) · up(x)).
#[derive(Module, Debug)]
pub(crate) struct FeedForward {
    pub(crate) gate_proj: Projection,
    pub(crate) up_proj: Projection,
    pub(crate) down_proj: Projection,
    /// Whether the activation is GELU by tanh instead of SiLU.
    pub(crate) gelu: bool,
}

impl FeedForward {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = self.gate_proj.forward(x.clone());
        let gate = if self.gelu { gelu_tanh(gate) } else { silu(gate) };
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

/// ½x·(1 + tanh(√(2/π)·(x + 0.044715x³))).
fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    let inner = x.clone() + x.clone().powi_scalar(3).mul_scalar(0.044715);
    let share = inner.mul_scalar((2.0 / std::f64::consts::PI).sqrt()).tanh().add_scalar(1.0);
    x.mul_scalar(0.5) * share
}

/// c·tanh(x/c), which keeps x within ±c.
pub(crate) fn cap<const D: usize>(x: Tensor<D>, cap: Option<f64>) -> Tensor<D> {
    match cap {
        Some(cap) => x.div_scalar(cap).tanh().mul_scalar(cap),
        None => x,
    }
}

/// One block with its two residual branches.
#[derive(Module, Debug)]
pub(crate) struct Block {
    pub(crate) attention_in: RmsNorm,
    pub(crate) self_attn: Attention,
    /// After attention, before its residual (Gemma).
    pub(crate) attention_out: Option<RmsNorm>,
    pub(crate) feedforward_in: RmsNorm,
    pub(crate) mlp: FeedForward,
    /// After the feed-forward layer, before its residual (Gemma).
    pub(crate) feedforward_out: Option<RmsNorm>,
}

impl Block {
    /// x: `[batch * time, hidden]` → the same shape.
    fn forward(
        &self,
        x: Tensor<2>,
        batch: usize,
        context: &Context<'_>,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let normed = |norm: &Option<RmsNorm>, x| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let mixed =
            self.self_attn.forward(self.attention_in.forward(x.clone()), batch, context, cache);
        let x = x + normed(&self.attention_out, mixed);
        let fed = self.mlp.forward(self.feedforward_in.forward(x.clone()));
        x + normed(&self.feedforward_out, fed)
    }
}

/// The trainable part of a model, without its configuration.
#[derive(Module, Debug)]
pub struct Transformer {
    pub(crate) embed_tokens: Param<Tensor<2>>,
    /// What embeddings are multiplied by on their way in: 1, or √hidden for Gemma.
    pub(crate) embedding_scale: f64,
    pub(crate) layers: Vec<Block>,
    pub(crate) norm: RmsNorm,
    /// The output matrix `[hidden, vocabulary]`; None where it is the embedding's transpose, or where another head follows.
    pub(crate) lm_head: Option<Projection>,
    /// Cap of the logits.
    pub(crate) logit_cap: Option<f64>,
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
        if self.embedding_scale != 1.0 {
            x = x.mul_scalar(self.embedding_scale);
        }
        for (layer, block) in self.layers.iter().enumerate() {
            x = block.forward(x, batch, context, cache.as_deref_mut().map(|cache| (cache, layer)));
        }
        if let Some(cache) = cache {
            cache.advance(time);
        }
        self.norm.forward(x)
    }

    /// hidden: `[rows, hidden]` → logits `[rows, vocabulary]`.
    pub(crate) fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let logits = match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => hidden.matmul(self.embed_tokens.val().transpose()),
        };
        cap(logits, self.logit_cap)
    }
}
