//! Grouped-query causal self-attention: the one place where attention is computed.

use burn::module::Module;
use burn::tensor::{Bool, Tensor, activation::softmax};

use crate::cache::KvCache;
use crate::rope::Rotation;
use crate::transformer::Projection;

/// Score of a masked key. Every token sees at least itself, so that no row is without a key; and exp(−∞) is quicker than an exponential
/// that underflows.
const MASKED: f32 = f32::NEG_INFINITY;

/// Self-attention of one block.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    pub(crate) q_proj: Projection,
    pub(crate) k_proj: Projection,
    pub(crate) v_proj: Projection,
    pub(crate) o_proj: Projection,
    pub(crate) kv_heads: usize,
    pub(crate) head_width: usize,
}

/// What the tokens of a batch may look at.
pub(crate) struct Context<'a> {
    /// Rotation of the tokens' positions.
    pub(crate) rotation: &'a Rotation,
    /// True where a key is hidden: `[batch or 1, 1, time, keys]`. None: every key is visible.
    pub(crate) hidden: Option<Tensor<4, Bool>>,
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
        let time = x.dims()[0] / batch;
        let heads = |x: Tensor<2>| {
            let n_heads = x.dims()[1] / self.head_width;
            x.reshape([batch, time, n_heads, self.head_width]).swap_dims(1, 2)
        };
        let q = context.rotation.apply(heads(self.q_proj.forward(x.clone())));
        let k = context.rotation.apply(heads(self.k_proj.forward(x.clone())));
        let v = heads(self.v_proj.forward(x));
        let (k, v) = match cache {
            Some((cache, layer)) => cache.append(layer, k, v),
            None => (k, v),
        };
        let mixed = self.mix(q, k, v, context.hidden.clone());
        let width = mixed.dims()[1] * self.head_width;
        self.o_proj.forward(mixed.swap_dims(1, 2).reshape([batch * time, width]))
    }

    /// softmax(q kᵀ / √head_width) v for q `[batch, heads, time, width]`, k and v `[batch, kv_heads, keys, width]`.
    ///
    /// The query heads that share a key head stand one below the other, so that no key is copied.
    fn mix(
        &self,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        hidden: Option<Tensor<4, Bool>>,
    ) -> Tensor<4> {
        let [batch, heads, time, width] = q.dims();
        let group = heads / self.kv_heads;
        let q = q.mul_scalar((width as f32).powf(-0.5)).reshape([
            batch,
            self.kv_heads,
            group * time,
            width,
        ]);
        let mut scores = q.matmul(k.swap_dims(2, 3));
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
        softmax(scores, 3).matmul(v).reshape([batch, heads, time, width])
    }
}
