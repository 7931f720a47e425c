//! The decoder core: embedding, blocks of attention and feed-forward, final norm, output matrix.
//!
//! One core serves every family; what differs is optional: biases, norms of queries and keys, norms after the branches, windows, caps,
//! the scale of the embedding, learned positions in place of rotations, gates, and branches side by side.

use burn::module::{Module, Param};
use burn::tensor::{DType, Int, Tensor, TensorData, activation::log_softmax};
use infalign_backend::kernels::{log_probs, project};

use crate::attention::{Attention, Context};
use crate::cache::KvCache;
use crate::feed_forward::FeedForward;
use crate::norm::Norm;
use crate::projection::Projection;

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
    pub(crate) attention_in: Norm,
    pub(crate) self_attn: Attention,
    /// After attention, before its residual (Gemma).
    pub(crate) attention_out: Option<Norm>,
    pub(crate) feedforward_in: Norm,
    pub(crate) mlp: FeedForward,
    /// After the feed-forward layer, before its residual (Gemma).
    pub(crate) feedforward_out: Option<Norm>,
    /// Whether both branches read the block's input (GPT-NeoX), not the second what the first has made of it.
    pub(crate) parallel: bool,
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
        let normed = self.attention_in.forward(x.clone());
        let mixed = self.self_attn.mixed(normed, batch, context, cache);
        let input = self.parallel.then(|| x.clone());
        let sum = added(x, &self.self_attn.o_proj, mixed, &self.attention_out);
        let fed = self.feedforward_in.forward(input.unwrap_or_else(|| sum.clone()));
        let inner = self.mlp.inner(fed);
        added(sum, &self.mlp.down_proj, inner, &self.feedforward_out)
    }
}

/// residual + norm(projection(x)).
fn added(
    residual: Tensor<2>,
    projection: &Projection,
    x: Tensor<2>,
    norm: &Option<Norm>,
) -> Tensor<2> {
    match norm {
        Some(norm) => residual + norm.forward(projection.forward(x)),
        None => projection.forward_onto(x, residual),
    }
}

/// The trainable part of a model, without its configuration.
#[derive(Module, Debug)]
pub struct Transformer {
    pub(crate) embed_tokens: Param<Tensor<2>>,
    /// What embeddings are multiplied by on their way in: 1, or √hidden for Gemma.
    pub(crate) embedding_scale: f64,
    /// Added to the embeddings by position: `[max_position_embeddings, hidden]` (GPT-2).
    pub(crate) embed_positions: Option<Param<Tensor<2>>>,
    pub(crate) layers: Vec<Block>,
    pub(crate) norm: Norm,
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
        if let Some(table) = &self.embed_positions {
            let width = x.dims()[1];
            let x_by_row = x.reshape([batch, time, width]) + context.positions.rows(&table.val());
            x = x_by_row.reshape([batch * time, width]);
        }
        for (layer, block) in self.layers.iter().enumerate() {
            x = block.forward(x, batch, context, cache.as_deref_mut().map(|cache| (cache, layer)));
        }
        if let Some(cache) = cache {
            cache.advance(time);
        }
        self.norm.forward(x)
    }

    /// hidden: `[rows, hidden]` → logits `[rows, vocabulary]`, as f32; of weights in bf16 they are rounded to bf16.
    pub(crate) fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let logits = match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => project(hidden, self.embed_tokens.val().transpose()),
        };
        cap(logits.cast(DType::F32), self.logit_cap)
    }

    /// hidden: `[rows, hidden]` → log-probabilities of a token each: `[rows, 1]`.
    pub(crate) fn log_probs(&self, hidden: Tensor<2>, targets: &[u32]) -> Tensor<2> {
        if let Some(weight) = self.plain_head() {
            return log_probs(hidden, weight, targets);
        }
        let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
        let ids = TensorData::new(ids, [targets.len(), 1]);
        let ids = Tensor::<2, Int>::from_data(ids, &hidden.device());
        log_softmax(self.logits(hidden), 1).gather(1, ids)
    }

    /// The output matrix, where logits are hidden states times it and nothing else.
    pub(crate) fn plain_head(&self) -> Option<Tensor<2>> {
        let weight = match &self.lm_head {
            Some(head) => head.plain_weight()?,
            None => self.embed_tokens.val().transpose(),
        };
        self.logit_cap.is_none().then_some(weight)
    }
}
