//! Grouped-query causal self-attention of a block: by the kernel where all tokens are at hand, over all scores where there is a cache.

use burn::module::Module;
use burn::tensor::{Bool, DType, Device, Tensor, activation::softmax};
use infalign_backend::kernels::{AttentionShape, attend};

use crate::cache::KvCache;
use crate::lora::Adapter;
use crate::norm::Norm;
use crate::positions::Positions;
use crate::projection::Projection;
use crate::rope::Rotation;
use crate::transformer::cap;

/// Score of a masked key. Every token sees at least itself, so that no row is without a key; and exp(−∞) is quicker than an exponential
/// that underflows.
const MASKED: f32 = f32::NEG_INFINITY;

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

/// What the tokens of a batch may look at.
pub(crate) struct View<'a> {
    /// Rotation of the tokens' positions; None where positions are learned.
    pub(crate) rotation: Option<&'a Rotation>,
    pub(crate) mask: Mask,
}

/// Which keys a token sees.
pub(crate) enum Mask {
    /// Itself and those before it, as far back as the window goes; there is no cache.
    Causal { window: Option<usize> },
    /// All but those where this is true: `[batch, 1, time, keys]`. None: all.
    Hidden(Option<Box<Tensor<4, Bool>>>),
}

impl Mask {
    /// As a tensor for `time` tokens.
    fn hidden(&self, time: usize, device: &Device) -> Option<Tensor<4, Bool>> {
        let window = match self {
            Self::Hidden(hidden) => return hidden.as_deref().cloned(),
            Self::Causal { window } => window.filter(|window| *window < time),
        };
        let later = Tensor::<2, Bool>::tril_mask([time, time], 0, device);
        // Tokens further back than the window: all but the upper triangle that begins there.
        let hidden = match window {
            Some(window) => {
                later.bool_or(Tensor::<2, Bool>::triu_mask([time, time], 1 - window as i64, device))
            }
            None => later,
        };
        Some(hidden.unsqueeze::<4>())
    }
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
        let mixed = match (&view.mask, self.score_cap, cache) {
            (Mask::Causal { window }, None, None) => {
                let shape = AttentionShape {
                    batch,
                    heads: q.dims()[1] / self.head_width,
                    kv_heads: self.kv_heads,
                    width: self.head_width,
                    scale: self.scale as f32,
                    window: *window,
                };
                attend(q, k, v, shape)
            }
            (mask, _, cache) => self.attend_by_heads([q, k, v], batch, mask, cache),
        };
        self.o_proj.forward(mixed)
    }

    /// Attention with all scores at hand: over a cache, capped, or with a mask of its own.
    fn attend_by_heads(
        &self,
        queries_keys_values: [Tensor<2>; 3],
        batch: usize,
        mask: &Mask,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let by_head = |x: Tensor<2>| {
            let [rows, columns] = x.dims();
            let heads = columns / self.head_width;
            x.reshape([batch, rows / batch, heads, self.head_width]).swap_dims(1, 2)
        };
        let [q, k, v] = queries_keys_values.map(by_head);
        let [_, heads, time, width] = q.dims();
        let (k, v) = match cache {
            Some((cache, layer)) => cache.append(layer, k, v),
            None => (k, v),
        };
        let hidden = mask.hidden(time, &q.device());
        let mixed = self.mix(q, k, v, hidden);
        mixed.swap_dims(1, 2).reshape([batch * time, heads * width])
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

    /// softmax(cap(q kᵀ · scale)) v for q `[batch, heads, time, width]`, k and v `[batch, kv_heads, keys, width]`.
    ///
    /// The query heads that share a key head stand one below the other, so that no key is copied. The softmax is in f32.
    fn mix(
        &self,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        hidden: Option<Tensor<4, Bool>>,
    ) -> Tensor<4> {
        let [batch, heads, time, width] = q.dims();
        let group = heads / self.kv_heads;
        let q =
            q.mul_scalar(self.scale as f32).reshape([batch, self.kv_heads, group * time, width]);
        let mut scores = cap(q.matmul(k.swap_dims(2, 3)), self.score_cap);
        if let Some(hidden) = hidden {
            let [rows, _, _, keys] = hidden.dims();
            let hidden = hidden.repeat_dim(2, group).expand([
                batch.max(rows),
                self.kv_heads,
                group * time,
                keys,
            ]);
            scores = scores.mask_fill(hidden, MASKED);
        }
        let weights = softmax(scores.cast(DType::F32), 3).cast(v.dtype());
        weights.matmul(v).reshape([batch, heads, time, width])
    }
}
