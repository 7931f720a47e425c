//! The operations made of tensor operations: for backends without kernels of their own, and what kernels are tested against.

use burn::tensor::{
    Bool, Device, Int, Tensor, TensorData,
    activation::{log_softmax, silu, softmax},
};

use super::{AdamWStep, AttentionShape};

pub(super) fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let scale = x.clone().square().mean_dim(1).add_scalar(epsilon).sqrt().recip();
    x * scale * weight.unsqueeze()
}

pub(super) fn gated_silu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    silu(gate) * up
}

pub(super) fn rotate(x: Tensor<2>, cos: Tensor<3>, sin: Tensor<3>, width: usize) -> Tensor<2> {
    let [rows, columns] = x.dims();
    let [_, time, half] = cos.dims();
    let x = x.reshape([rows / time, time, columns / width, width]);
    let (cos, sin) = (cos.unsqueeze_dim::<4>(2), sin.unsqueeze_dim::<4>(2));
    let rest = (2 * half < width).then(|| x.clone().narrow(3, 2 * half, width - 2 * half));
    let (first, second) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let low = first.clone() * cos.clone() - second.clone() * sin.clone();
    let high = second * cos + first * sin;
    let turned = Tensor::cat([low, high].into_iter().chain(rest).collect(), 3);
    turned.reshape([rows, columns])
}

pub(super) fn attend(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, shape: AttentionShape) -> Tensor<2> {
    let AttentionShape { batch, heads, kv_heads, width, scale, window } = shape;
    let (time, device) = (q.dims()[0] / batch, q.device());
    let by_head =
        |x: Tensor<2>, heads: usize| x.reshape([batch, time, heads, width]).swap_dims(1, 2);
    // The query heads that share a key head stand one below the other, so that no key is copied.
    let group = heads / kv_heads;
    let q = by_head(q, heads).mul_scalar(scale).reshape([batch, kv_heads, group * time, width]);
    let (k, v) = (by_head(k, kv_heads), by_head(v, kv_heads));
    let mut hidden = Tensor::<2, Bool>::tril_mask([time, time], 0, &device);
    if let Some(window) = window.filter(|window| *window < time) {
        let offset = 1 - window as i64;
        hidden = hidden.bool_or(Tensor::<2, Bool>::triu_mask([time, time], offset, &device));
    }
    let hidden = hidden.unsqueeze::<4>().repeat_dim(2, group);
    let hidden = hidden.expand([batch, kv_heads, group * time, time]);
    // exp(−∞) is quicker than an exponential that underflows, and no row is without a key.
    let scores = q.matmul(k.swap_dims(2, 3)).mask_fill(hidden, f32::NEG_INFINITY);
    let weights = softmax(scores.cast(burn::tensor::DType::F32), 3).cast(v.dtype());
    let mixed = weights.matmul(v).reshape([batch, heads, time, width]);
    mixed.swap_dims(1, 2).reshape([batch * time, heads * width])
}

pub(super) fn log_probs(hidden: Tensor<2>, weight: Tensor<2>, targets: &[u32]) -> Tensor<2> {
    let targets = ids(targets, &hidden.device());
    log_softmax(super::logits(hidden, weight), 1).gather(1, targets)
}

pub(super) fn compare(ours: Tensor<2>, theirs: Tensor<2>, targets: &[u32]) -> Tensor<2> {
    let picked = theirs.clone().gather(1, ids(targets, &theirs.device()));
    let probabilities = ours.clone().exp();
    let kl = (probabilities.clone() * (ours.clone() - theirs)).sum_dim(1);
    let entropy = (probabilities * ours).sum_dim(1).neg();
    Tensor::cat(vec![picked, kl, entropy], 1)
}

pub(super) fn adamw<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    [mean, mean_square]: [Tensor<D>; 2],
    step: AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let AdamWStep { beta_1, beta_2, epsilon, weight_decay, learning_rate, time } = step;
    let mean = mean.mul_scalar(beta_1) + grad.clone().mul_scalar(1.0 - beta_1);
    let mean_square = mean_square.mul_scalar(beta_2) + grad.square().mul_scalar(1.0 - beta_2);
    let root = mean_square.clone().div_scalar(1.0 - beta_2.powi(time)).sqrt();
    let direction = mean.clone().div_scalar(1.0 - beta_1.powi(time)) / root.add_scalar(epsilon);
    let kept = weight.mul_scalar(1.0 - learning_rate * weight_decay);
    (kept - direction.mul_scalar(learning_rate), [mean, mean_square])
}

/// A mean times a count, since a full sum is not the same every time on every backend.
pub(super) fn square_sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let count = x.shape().num_elements() as f32;
    x.square().mean().mul_scalar(count)
}

fn ids(targets: &[u32], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
    Tensor::from_data(TensorData::new(ids, [targets.len(), 1]), device)
}
