//! Grouped-query causal self-attention of a block, over the tokens at hand or over a cache.

use burn::module::Module;
use burn::tensor::Tensor;
use infalign_backend::kernels::{Angles, AttentionShape, attend, project_three, rotate};

use crate::cache::KvCache;
use crate::lora::Adapter;
use crate::norm::Norm;
use crate::positions::Positions;
use crate::projection::Projection;

/// Self-attention of one block.
///
/// Queries, keys and values are three projections even where a checkpoint fuses them (`layout.rs`): so grouped heads need no other path.
/// An adapter of the fused matrix stays one, with one A and all rows of B.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    pub(crate) q_proj: Projection,
    pub(crate) k_proj: Projection,
    pub(crate) v_proj: Projection,
    pub(crate) o_proj: Projection,
    /// Adapter of queries, keys and values together, for families that fuse them.
    pub(crate) fused_adapter: Option<Adapter>,
    /// Norms of each head's queries and keys, before they are rotated (Qwen 3, Gemma 3).
    pub(crate) q_norm: Option<Norm>,
    pub(crate) k_norm: Option<Norm>,
    pub(crate) kv_heads: usize,
    pub(crate) head_width: usize,
    /// What scores are multiplied by.
    pub(crate) scale: f64,
    /// Cap of the scores (Gemma 2).
    pub(crate) score_cap: Option<f64>,
    /// Whether it looks through the window of the context.
    pub(crate) windowed: bool,
}

/// What the tokens of a batch may look at: themselves and those before them.
pub(crate) struct View<'a> {
    /// What the tokens are rotated by; None where positions are learned.
    pub(crate) angles: Option<&'a Angles>,
    /// Tokens that each looks back on, itself included; None: all.
    pub(crate) window: Option<usize>,
}

/// Positions, and the views of the blocks without and with a window.
pub(crate) struct Context<'a> {
    pub(crate) positions: &'a Positions,
    pub(crate) full: View<'a>,
    pub(crate) windowed: View<'a>,
}

impl Attention {
    /// What `o_proj` takes: x `[batch * time, hidden]` → `[batch * time, heads * width]`. With a cache, its columns come before the new ones.
    pub(crate) fn mixed(
        &self,
        x: Tensor<2>,
        batch: usize,
        context: &Context<'_>,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let view = if self.windowed { &context.windowed } else { &context.full };
        let [q, k, v] = self.project(x);
        let (q, k) = (self.normed(q, &self.q_norm), self.normed(k, &self.k_norm));
        let shape = AttentionShape {
            batch,
            heads: q.dims()[1] / self.head_width,
            kv_heads: self.kv_heads,
            width: self.head_width,
            scale: self.scale as f32,
            cap: self.score_cap.map(|cap| cap as f32),
            window: view.window,
        };
        match cache {
            Some((cache, layer)) => cache.attend(layer, [q, k, v], view.angles, shape),
            None => {
                let rotated = |x| match view.angles {
                    Some(angles) => rotate(x, angles, self.head_width),
                    None => x,
                };
                attend(rotated(q), rotated(k), v, shape)
            }
        }
    }

    /// Each head by itself.
    fn normed(&self, x: Tensor<2>, norm: &Option<Norm>) -> Tensor<2> {
        let Some(norm) = norm else { return x };
        let [rows, columns] = x.dims();
        let heads = [rows * columns / self.head_width, self.head_width];
        norm.forward(x.reshape(heads)).reshape([rows, columns])
    }

    /// Queries, keys and values of x.
    fn project(&self, x: Tensor<2>) -> [Tensor<2>; 3] {
        let update = self.fused_adapter.as_ref().map(|adapter| adapter.forward(x.clone()));
        let parts = [&self.q_proj, &self.k_proj, &self.v_proj];
        let parts = match parts.map(Projection::plain_weight) {
            [Some(q), Some(k), Some(v)] => project_three(x, [q, k, v]),
            _ => parts.map(|part| part.forward(x.clone())),
        };
        let Some(update) = update else { return parts };
        let mut first = 0;
        parts.map(|part| {
            let width = part.dims()[1];
            first += width;
            part + update.clone().narrow(1, first - width, width)
        })
    }
}
