//! The operations made of tensor operations: for what has no kernel, and what kernels are tested against.

use burn::tensor::{
    Bool, DType, Device, Int, Tensor, TensorData,
    activation::{log_softmax, silu, softmax},
};

use super::{Angles, AttentionShape};

pub(super) fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let dtype = x.dtype();
    let (x, weight) = (x.cast(DType::F32), weight.cast(DType::F32));
    let scale = x.clone().square().mean_dim(1).add_scalar(epsilon).sqrt().recip();
    (x * scale * weight.unsqueeze()).cast(dtype)
}

pub(super) fn gated_silu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    silu(gate) * up
}

pub(super) fn rotate(x: Tensor<2>, angles: &Angles, width: usize) -> Tensor<2> {
    let ([rows, columns], dtype) = (x.dims(), x.dtype());
    let Angles { cos, sin } = angles.clone();
    let [_, time, half] = cos.dims();
    let x = x.cast(DType::F32).reshape([rows / time, time, columns / width, width]);
    let (cos, sin) = (cos.unsqueeze_dim::<4>(2), sin.unsqueeze_dim::<4>(2));
    let rest = (2 * half < width).then(|| x.clone().narrow(3, 2 * half, width - 2 * half));
    let (first, second) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let low = first.clone() * cos.clone() - second.clone() * sin.clone();
    let high = second * cos + first * sin;
    let turned = Tensor::cat([low, high].into_iter().chain(rest).collect(), 3);
    turned.reshape([rows, columns]).cast(dtype)
}

pub(super) fn attend(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, shape: AttentionShape) -> Tensor<2> {
    let (time, device) = (q.dims()[0] / shape.batch, q.device());
    let by_head =
        |x: Tensor<2>| x.reshape([shape.batch, time, shape.kv_heads, shape.width]).swap_dims(1, 2);
    let mut hidden = Tensor::<2, Bool>::tril_mask([time, time], 0, &device);
    if let Some(window) = shape.window.filter(|window| *window < time) {
        let offset = 1 - window as i64;
        hidden = hidden.bool_or(Tensor::<2, Bool>::triu_mask([time, time], offset, &device));
    }
    mix(q, by_head(k), by_head(v), hidden.unsqueeze(), shape)
}

/// Behind the filled columns.
pub(super) fn append(cache: Tensor<4>, new: Tensor<2>, filled: usize) -> Tensor<4> {
    let [batch, heads, _, width] = cache.dims();
    let time = new.dims()[0] / batch;
    let columns = [0..batch, 0..heads, filled..filled + time, 0..width];
    cache.slice_assign(columns, new.reshape([batch, time, heads, width]).swap_dims(1, 2))
}

pub(super) fn attend_cached(
    q: Tensor<2>,
    [keys, values]: [Tensor<4>; 2],
    starts: Tensor<1, Int>,
    filled: usize,
    shape: AttentionShape,
) -> Tensor<2> {
    let (time, device) = (q.dims()[0] / shape.batch, q.device());
    let end = filled + time;
    let range = |range: std::ops::Range<usize>| {
        Tensor::<1, Int>::arange(range.start as i64..range.end as i64, &device)
    };
    let key = range(0..end).reshape([1, 1, 1, end as i32]);
    let column = range(filled..end).reshape([1, 1, time as i32, 1]);
    // Padding before the text, and what the window has left behind; but each sees itself.
    let mut unseen = key.clone().lower(starts.reshape([shape.batch as i32, 1, 1, 1]));
    if let Some(window) = shape.window {
        let left = column.clone().sub_scalar(window as i64).greater_equal(key.clone());
        unseen = unseen.bool_or(left);
    }
    let others = key.clone().not_equal(column.clone());
    let hidden = unseen.bool_and(others).bool_or(key.greater(column));
    let filled = |cache: Tensor<4>| cache.narrow(2, 0, end);
    mix(q, filled(keys), filled(values), hidden, shape)
}

/// softmax(cap(q kᵀ · scale)) v for k and v `[batch, kv_heads, keys, width]`, but for keys where `hidden`, `[batch or 1, 1, time, keys]`, is true.
/// The softmax is in f32.
fn mix(
    q: Tensor<2>,
    k: Tensor<4>,
    v: Tensor<4>,
    hidden: Tensor<4, Bool>,
    shape: AttentionShape,
) -> Tensor<2> {
    let AttentionShape { batch, heads, kv_heads, width, scale, cap, .. } = shape;
    let (rows, time) = (q.dims()[0], q.dims()[0] / batch);
    let group = heads / kv_heads;
    let keys = k.dims()[2];
    // The query heads that share a key head stand one below the other, so that no key is copied.
    let q = q.reshape([batch, time, heads, width]).swap_dims(1, 2);
    let q = q.mul_scalar(scale).reshape([batch, kv_heads, group * time, width]);
    let mut scores = q.matmul(k.swap_dims(2, 3));
    if let Some(cap) = cap {
        scores = scores.div_scalar(cap).tanh().mul_scalar(cap);
    }
    let hidden = hidden.repeat_dim(2, group).expand([batch, kv_heads, group * time, keys]);
    // exp(−∞) is quicker than an exponential that underflows, and no row is without a key.
    let scores = scores.mask_fill(hidden, f32::NEG_INFINITY);
    let weights = softmax(scores.cast(DType::F32), 3).cast(v.dtype());
    let mixed = weights.matmul(v).reshape([batch, heads, time, width]);
    mixed.swap_dims(1, 2).reshape([rows, heads * width])
}

pub(super) fn log_probs(hidden: Tensor<2>, weight: Tensor<2>, targets: &[u32]) -> Tensor<2> {
    let targets = ids(targets, &hidden.device());
    log_softmax(super::logits(hidden, weight), 1).gather(1, targets)
}

pub(super) fn compare(ours: Tensor<2>, theirs: Tensor<2>, targets: &[u32]) -> Tensor<2> {
    let targets = ids(targets, &theirs.device());
    let [own, picked] = [&ours, &theirs].map(|side| side.clone().gather(1, targets.clone()));
    let probabilities = ours.clone().exp();
    let kl = (probabilities.clone() * (ours.clone() - theirs)).sum_dim(1);
    let entropy = (probabilities * ours).sum_dim(1).neg();
    Tensor::cat(vec![picked, kl, entropy, own], 1)
}

fn ids(targets: &[u32], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
    Tensor::from_data(TensorData::new(ids, [targets.len(), 1]), device)
}
