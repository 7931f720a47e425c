//! Where tensors become the rows that kernels take.

use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::tensor::{FloatDType, Shape, Slice, TensorData};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};

use super::{Rows, adamw, attention, gate, log_probs, norm, product, rotation};
use crate::kernels::{AdamWStep, AlignmentKernels, AttentionShape, rows_at_once};

/// Rows `first .. end` of a matrix.
fn rows(x: &CubeTensor, first: usize, end: usize) -> CubeTensor {
    let columns = x.meta.shape()[1];
    let slices = [Slice::from(first..end), Slice::from(0..columns)];
    CubeBackend::float_slice(x.clone(), &slices)
}

fn transposed(x: CubeTensor) -> CubeTensor {
    CubeBackend::float_transpose(x)
}

/// The columns of targets, on the device.
fn columns(targets: Vec<u32>, like: &CubeTensor) -> CubeTensor {
    let count = targets.len();
    CubeBackend::int_from_data(TensorData::new(targets, [count]), &like.device)
}

/// Blocks of rows of which logits stand at a time.
fn blocks(rows: usize, weight: &CubeTensor) -> impl Iterator<Item = (usize, usize)> + use<> {
    let buffer = weight.client.properties().memory.max_page_size;
    let block = rows_at_once(rows, weight.meta.shape()[1], buffer);
    (0..rows).step_by(block).map(move |first| (first, (first + block).min(rows)))
}

/// `[batch · time, heads · width]` as `[batch, heads, time, width]`.
fn by_head(x: CubeTensor, shape: &AttentionShape, heads: usize) -> CubeTensor {
    let time = x.meta.shape()[0] / shape.batch;
    let x = CubeBackend::float_reshape(x, Shape::from([shape.batch, time, heads, shape.width]));
    CubeBackend::float_swap_dims(x, 1, 2)
}

/// Back from [`by_head`].
fn by_token(x: CubeTensor, shape: &AttentionShape, heads: usize) -> CubeTensor {
    let x = CubeBackend::float_swap_dims(x, 1, 2);
    let rows = x.meta.shape()[0] * x.meta.shape()[1];
    CubeBackend::float_reshape(x, Shape::from([rows, heads * shape.width]))
}

/// Query heads that share a key head, one below the other, so that no key is copied: `[batch, kv_heads, group · time, width]`.
fn grouped(x: CubeTensor, shape: &AttentionShape) -> CubeTensor {
    let time = x.meta.shape()[0] / shape.batch;
    let x = by_head(x, shape, shape.heads);
    let group = shape.heads / shape.kv_heads;
    let dims = [shape.batch, shape.kv_heads, group * time, shape.width];
    if group == 1 { x } else { CubeBackend::float_reshape(x, Shape::from(dims)) }
}

/// Back from [`grouped`].
fn ungrouped(x: CubeTensor, shape: &AttentionShape, time: usize) -> CubeTensor {
    let dims = [shape.batch, shape.heads, time, shape.width];
    by_token(CubeBackend::float_reshape(x, Shape::from(dims)), shape, shape.heads)
}

/// Texts whose scores so many bytes hold: at least one.
///
/// - size: bytes of a score.
fn texts_at_once(bytes: u64, time: usize, size: usize, shape: &AttentionShape) -> usize {
    let scores = (shape.heads * time * time * size).max(1);
    usize::try_from(bytes).map_or(shape.batch, |held| (held / scores).clamp(1, shape.batch))
}

/// `work` on as many texts at a time as have their scores in so many bytes and in a buffer of the device, their results one below the other.
fn by_texts<const N: usize, const M: usize>(
    inputs: [CubeTensor; N],
    (shape, bytes): (AttentionShape, u64),
    work: impl Fn([CubeTensor; N], AttentionShape) -> [CubeTensor; M],
) -> [CubeTensor; M] {
    let q = &inputs[0];
    let time = q.meta.shape()[0] / shape.batch;
    let held = bytes.min(q.client.properties().memory.max_page_size);
    let at_once = texts_at_once(held, time, q.dtype.size(), &shape);
    if at_once == shape.batch {
        return work(inputs, shape);
    }
    let mut found: [Vec<CubeTensor>; M] = std::array::from_fn(|_| Vec::new());
    for first in (0..shape.batch).step_by(at_once) {
        let end = (first + at_once).min(shape.batch);
        let block = inputs.each_ref().map(|x| rows(x, first * time, end * time));
        let parts = work(block, AttentionShape { batch: end - first, ..shape });
        found.iter_mut().zip(parts).for_each(|(all, part)| all.push(part));
    }
    found.map(|parts| CubeBackend::float_cat(parts, 0))
}

/// What each token takes of each: `[batch, kv_heads, group · time, time]`.
fn shares(q: CubeTensor, k: CubeTensor, time: usize, shape: &AttentionShape) -> CubeTensor {
    let scores = product(q, CubeBackend::float_swap_dims(k, 2, 3));
    attention::softmax(scores, time, shape.window, shape.scale)
}

impl AlignmentKernels for CubeBackend {
    fn rms_norm(x: CubeTensor, weight: CubeTensor, epsilon: f32) -> CubeTensor {
        norm::forward(x, weight, epsilon)
    }

    fn rms_norm_backward(
        x: CubeTensor,
        weight: CubeTensor,
        grad: CubeTensor,
        epsilon: f32,
    ) -> (CubeTensor, CubeTensor) {
        let width = weight.meta.shape()[0];
        let (dx, parts) = norm::backward(x, weight, grad, epsilon);
        let sum = CubeBackend::float_sum_dim(parts, 0);
        (dx, CubeBackend::float_reshape(sum, Shape::from([width])))
    }

    fn gated_silu(gate: CubeTensor, up: CubeTensor) -> CubeTensor {
        gate::forward(gate, up)
    }

    fn gated_silu_backward(
        gate: CubeTensor,
        up: CubeTensor,
        grad: CubeTensor,
    ) -> (CubeTensor, CubeTensor) {
        gate::backward(gate, up, grad)
    }

    fn rotate(
        x: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
        width: usize,
        turn: f32,
    ) -> CubeTensor {
        rotation::rotate(x, cos, sin, width, turn)
    }

    fn attend(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        shape: (AttentionShape, u64),
    ) -> CubeTensor {
        let [y] = by_texts([q, k, v], shape, |[q, k, v], shape| {
            let time = q.meta.shape()[0] / shape.batch;
            let q = grouped(q, &shape);
            let [k, v] = [k, v].map(|x| by_head(x, &shape, shape.kv_heads));
            [ungrouped(product(shares(q, k, time, &shape), v), &shape, time)]
        });
        y
    }

    fn attend_backward(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        grad: CubeTensor,
        shape: (AttentionShape, u64),
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let [dq, dk, dv] = by_texts([q, k, v, grad], shape, |[q, k, v, grad], shape| {
            let time = q.meta.shape()[0] / shape.batch;
            let [q, grad] = [q, grad].map(|x| grouped(x, &shape));
            let [k, v] = [k, v].map(|x| by_head(x, &shape, shape.kv_heads));
            let turned = |x: CubeTensor| CubeBackend::float_swap_dims(x, 2, 3);
            let shares = shares(q.clone(), k.clone(), time, &shape);
            let of_shares = product(grad.clone(), turned(v));
            let dv = product(turned(shares.clone()), grad);
            let of_scores = attention::softmax_backward(&shares, of_shares, shape.scale);
            let dk = product(turned(of_scores.clone()), q);
            let dq = product(of_scores, k);
            let [dk, dv] = [dk, dv].map(|x| by_token(x, &shape, shape.kv_heads));
            [ungrouped(dq, &shape, time), dk, dv]
        });
        (dq, dk, dv)
    }

    fn project(x: CubeTensor, weight: CubeTensor) -> CubeTensor {
        product(x, weight)
    }

    fn log_probs(hidden: CubeTensor, weight: CubeTensor, targets: Vec<u32>) -> CubeTensor {
        let y = log_probs::results(&hidden, targets.len(), 1);
        let count = targets.len();
        let targets = columns(targets, &hidden);
        for (first, end) in blocks(count, &weight) {
            log_probs::pick(rows(&hidden, first, end), weight.clone(), &targets, first, &y);
        }
        y
    }

    fn log_probs_backward(
        hidden: CubeTensor,
        weight: CubeTensor,
        targets: Vec<u32>,
        grad: CubeTensor,
        wanted: [bool; 2],
    ) -> (CubeTensor, CubeTensor) {
        let (count, targets) = (targets.len(), columns(targets, &hidden));
        let grad = Rows::of(grad);
        let mut of_hidden = Vec::new();
        let mut of_weight: Option<CubeTensor> = None;
        for (first, end) in blocks(count, &weight) {
            let block = rows(&hidden, first, end);
            let slopes = log_probs::slopes(block.clone(), weight.clone(), &targets, first, &grad);
            if wanted[1] {
                let part = product(transposed(block), slopes.clone());
                of_weight = Some(match of_weight {
                    Some(sum) => CubeBackend::float_add(sum, part),
                    None => part,
                });
            }
            if wanted[0] {
                of_hidden.push(product(slopes, transposed(weight.clone())));
            }
        }
        let none = |like: &CubeTensor, wanted: bool| {
            let shape = if wanted { like.meta.shape().clone() } else { Shape::from([0, 0]) };
            CubeBackend::float_zeros(shape, &like.device, FloatDType::F32)
        };
        let of_hidden = match of_hidden.len() {
            0 => none(&hidden, wanted[0]),
            1 => of_hidden.remove(0),
            _ => CubeBackend::float_cat(of_hidden, 0),
        };
        (of_hidden, of_weight.unwrap_or_else(|| none(&weight, wanted[1])))
    }

    fn compare(
        ours: CubeTensor,
        our_weight: CubeTensor,
        theirs: CubeTensor,
        their_weight: CubeTensor,
        targets: Vec<u32>,
    ) -> CubeTensor {
        let y = log_probs::results(&ours, targets.len(), 4);
        let (count, targets) = (targets.len(), columns(targets, &ours));
        for (first, end) in blocks(count, &our_weight) {
            let side = |hidden: &CubeTensor, weight: &CubeTensor| {
                [rows(hidden, first, end), weight.clone()]
            };
            let (p, q) = (side(&ours, &our_weight), side(&theirs, &their_weight));
            log_probs::compare(p, q, &targets, first, &y);
        }
        y
    }

    fn adamw(
        weight: CubeTensor,
        grad: CubeTensor,
        mean: CubeTensor,
        mean_square: CubeTensor,
        step: AdamWStep,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        adamw::step([weight, grad, mean, mean_square], step)
    }

    fn square_sum(x: CubeTensor) -> CubeTensor {
        let sum = CubeBackend::float_sum_dim(adamw::square_sums(x), 0);
        CubeBackend::float_reshape(sum, Shape::from([1]))
    }
}
