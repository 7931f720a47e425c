//! Grouped-query causal self-attention of a block, over the tokens at hand or over a cache.

use burn::module::Module;
use burn::tensor::Tensor;
use infalign_backend::kernels::{AttentionShape, attend};

use crate::cache::KvCache;
use crate::lora::Adapter;
use crate::norm::Norm;
use crate::positions::Positions;
use crate::projection::Projection;
use crate::rope::Rotation;

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
    /// Rotation of the tokens' positions; None where positions are learned.
    pub(crate) rotation: Option<&'a Rotation>,
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
    /// x: `[batch * time, hidden]` → the same shape. With a cache, its columns come before the new ones.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        batch: usize,
        context: &Context<'_>,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let view = if self.windowed { &context.windowed } else { &context.full };
        let [q, k, v] = self.project(x);
        let placed = |x: Tensor<2>, norm: &Option<Norm>| {
            let [rows, columns] = x.dims();
            let x = match norm {
                Some(norm) => norm
                    .forward(x.reshape([rows * columns / self.head_width, self.head_width]))
                    .reshape([rows, columns]),
                None => x,
            };
            match view.rotation {
                Some(rotation) => rotation.apply(x, self.head_width),
                None => x,
            }
        };
        let (q, k) = (placed(q, &self.q_norm), placed(k, &self.k_norm));
        let shape = AttentionShape {
            batch,
            heads: q.dims()[1] / self.head_width,
            kv_heads: self.kv_heads,
            width: self.head_width,
            scale: self.scale as f32,
            cap: self.score_cap.map(|cap| cap as f32),
            window: view.window,
        };
        let mixed = match cache {
            Some((cache, layer)) => cache.attend(layer, [q, k, v], shape),
            None => attend(q, k, v, shape),
        };
        self.o_proj.forward(mixed)
    }

    /// Queries, keys and values of x.
    fn project(&self, x: Tensor<2>) -> [Tensor<2>; 3] {
        let update = self.fused_adapter.as_ref().map(|adapter| adapter.forward(x.clone()));
        let parts = [&self.q_proj, &self.k_proj, &self.v_proj].map(|part| part.forward(x.clone()));
        let Some(update) = update else { return parts };
        let mut first = 0;
        parts.map(|part| {
            let width = part.dims()[1];
            first += width;
            part + update.clone().narrow(1, first - width, width)
        })
    }
}
