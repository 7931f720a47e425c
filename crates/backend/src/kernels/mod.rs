//! Operations that training spends its time on, each as one pass over memory with a backward pass of its own.
//!
//! Made of tensor operations, each of these would write and read a dozen temporaries as large as its input, which on a CPU costs more than the
//! arithmetic; and on a GPU it would be a dozen launches, which cost more than either. They are [`AlignmentKernels`] of burn's flex backend and,
//! written once for wgpu and CUDA, of its CubeCL backend. What has no kernel is made of tensor operations (`composed`): bf16 and caches on the
//! CPU, scores with a cap, and sizes that kernels of GPUs do not take. All are the same functions to within rounding, and are tested against
//! each other, here on the CPU and in `crates/train/tests/devices` on every device.
//!
//! Tensors are f32, or, of frozen models, bf16 where it is said; and of the sizes that are said. Others are errors of the caller, who is told
//! by a panic, as by burn's operations.
//!
//! Work is cut up by sizes alone and sums are taken in a fixed order, so the number of threads changes no bit. (With the feature `autotune`
//! products and sums on GPUs are taken by whatever was fastest.)

mod autodiff;
mod composed;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
#[cfg(feature = "flex")]
mod flex;
mod joint;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use joint::{project_gated, project_onto, project_three};

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
#[cfg(any(feature = "wgpu", feature = "cuda"))]
use burn::tensor::TensorData;
use burn::tensor::{DType, Int, Tensor, activation::log_softmax};

/// Logits that may stand at a time on every GPU: 128 MiB of f32.
const LOGITS_AT_ONCE: usize = 1 << 25;

/// Rows of a block that is larger, for a vocabulary of which those are too few for products to pay.
const ROWS_AT_ONCE: usize = 1 << 10;

/// Rows of logits that stand at a time on a GPU, of `rows` that are cut into blocks as even as can be: at most as many as fill 128 MiB, or 1,024
/// where those are more.
///
/// - buffer: bytes that a buffer of the device holds, of which a block of more than 128 MiB takes half at most.
pub fn rows_at_once(rows: usize, vocabulary: usize, buffer: u64) -> usize {
    let held = usize::try_from(buffer / 2).unwrap_or(usize::MAX) / size_of::<f32>();
    let logits = LOGITS_AT_ONCE.max(ROWS_AT_ONCE.saturating_mul(vocabulary).min(held));
    let blocks = rows.div_ceil((logits / vocabulary).max(1));
    rows.div_ceil(blocks.max(1)).max(1)
}

/// The most numbers of a tensor that kernels of GPUs take, which count in 32 bits.
pub const MOST_NUMBERS: usize = u32::MAX as usize - 1;

/// Sizes of causal self-attention over a batch of texts of one length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Texts.
    pub batch: usize,
    /// Heads of the queries: a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of the keys and values.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub width: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// c of c·tanh(score/c), which keeps scores within ±c; None: they are as they are.
    pub cap: Option<f32>,
    /// Tokens that each looks back on, itself included; None: all.
    pub window: Option<usize>,
}

/// Angles that the tokens of a batch are rotated by: `[batch or 1, time, half]` each.
#[derive(Clone, Debug)]
pub struct Angles {
    /// Cosines.
    pub cos: Tensor<3>,
    /// Sines.
    pub sin: Tensor<3>,
}

/// One step of AdamW (Loshchilov and Hutter, arXiv 1711.05101), as PyTorch takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// β₁, of the mean gradient.
    pub beta_1: f32,
    /// β₂, of the mean squared gradient.
    pub beta_2: f32,
    /// ε, added to the root of the mean square.
    pub epsilon: f32,
    /// Decoupled weight decay, a share of the learning rate.
    pub weight_decay: f32,
    /// Of this step.
    pub learning_rate: f32,
    /// Number of this step, from 1: means over few steps are corrected for having begun at 0.
    pub time: i32,
}

/// The operations as kernels, with their gradients.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda")),
    Autodiff
)]
pub trait AlignmentKernels: Backend {
    /// [`rms_norm`].
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32)
    -> FloatTensor<Self>;

    /// Gradients of `x` and of `weight`, given that of the result.
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// [`gated_silu`].
    fn gated_silu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradients of `gate` and of `up`.
    fn gated_silu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// [`rotate`]; `turn` is 1, or −1 to rotate back.
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        width: usize,
        turn: f32,
    ) -> FloatTensor<Self>;

    /// [`attend_within`], with its bytes behind the shape.
    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: (AttentionShape, u64),
    ) -> FloatTensor<Self>;

    /// Gradients of `q`, `k` and `v`.
    fn attend_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        shape: (AttentionShape, u64),
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// [`project`].
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// [`log_probs`].
    fn log_probs(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: Vec<u32>,
    ) -> FloatTensor<Self>;

    /// [`known_log_probs`]: what is known, where nobody asks for gradients.
    fn known_log_probs(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: Vec<u32>,
        known: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let _ = (hidden, weight, targets);
        known
    }

    /// [`compare`], which has no gradient.
    fn compare(
        ours: FloatTensor<Self>,
        our_weight: FloatTensor<Self>,
        theirs: FloatTensor<Self>,
        their_weight: FloatTensor<Self>,
        targets: Vec<u32>,
    ) -> FloatTensor<Self>;

    /// Gradients of `hidden` and of `weight`; one that is not wanted is an empty tensor.
    fn log_probs_backward(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: Vec<u32>,
        grad: FloatTensor<Self>,
        wanted: [bool; 2],
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// [`adamw`], which has no gradient: the weight and both means after the step.
    fn adamw(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        mean_square: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// [`square_sum`], which has no gradient.
    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Whether the kernels are there for a tensor: everywhere for f32, and elsewhere than on the CPU for less.
fn has_kernel<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 || !crate::is_cpu(&x.device())
}

/// Whether the scores are more than kernels of GPUs, which count in 32 bits, can tell apart.
fn exceeds_kernels(q: &Tensor<2>, shape: &AttentionShape) -> bool {
    let time = q.dims()[0] / shape.batch;
    let scores = (shape.batch * shape.heads * time) as u64 * time as u64;
    scores > u64::from(u32::MAX) && !crate::is_cpu(&q.device())
}

/// x / √(mean(x²) + ε) · weight for each row; f32 or bf16, computed in f32.
///
/// - x: `[rows, width]`, and of its type the result.
/// - weight: `[width]`.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.dims()[0], "a row is as wide as the weight");
    if has_kernel(&x) && has_kernel(&weight) {
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        return Tensor::from_dispatch(Dispatch::rms_norm(x, weight, epsilon as f32));
    }
    composed::rms_norm(x, weight, epsilon)
}

/// gate · sigmoid(gate) · up, of the same shape; f32 or bf16.
pub fn gated_silu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    assert_eq!(gate.dims(), up.dims(), "what is gated has the shape of the gate");
    if has_kernel(&gate) {
        return Tensor::from_dispatch(Dispatch::gated_silu(
            gate.into_dispatch(),
            up.into_dispatch(),
        ));
    }
    composed::gated_silu(gate, up)
}

/// Rotates the pairs (i, i + half) of every head's first 2·half numbers by the angles of the token's position. Computed in f32.
///
/// - x: `[batch * time, heads * width]`.
pub fn rotate(x: Tensor<2>, angles: &Angles, width: usize) -> Tensor<2> {
    if has_kernel(&x) {
        let [cos, sin] = [&angles.cos, &angles.sin].map(|of| of.clone().into_dispatch());
        return Tensor::from_dispatch(Dispatch::rotate(x.into_dispatch(), cos, sin, width, 1.0));
    }
    composed::rotate(x, angles, width)
}

/// softmax(cap(q kᵀ · scale)) v, each token looking at itself and those before it; f32 or bf16, the softmax in f32.
///
/// - q: `[batch * time, heads * width]`, and so the result.
/// - k, v: `[batch * time, kv_heads * width]`.
pub fn attend(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, shape: AttentionShape) -> Tensor<2> {
    attend_within(u64::MAX, [q, k, v], shape)
}

/// [`attend`] of q, k and v, which on a GPU takes as many texts at a time as have their scores in so many bytes, or in a buffer of the device where
/// that holds less; at least one.
pub fn attend_within(bytes: u64, [q, k, v]: [Tensor<2>; 3], shape: AttentionShape) -> Tensor<2> {
    let [rows, _] = q.dims();
    assert_eq!(q.dims(), [rows, shape.heads * shape.width], "queries");
    assert_eq!(k.dims(), [rows, shape.kv_heads * shape.width], "keys");
    assert_eq!(v.dims(), k.dims(), "values");
    if rows == 0 {
        return q;
    }
    if has_kernel(&q) && shape.cap.is_none() && !exceeds_kernels(&q, &shape) {
        let (k, v) = (k.into_dispatch(), v.into_dispatch());
        return Tensor::from_dispatch(Dispatch::attend(q.into_dispatch(), k, v, (shape, bytes)));
    }
    composed::attend(q, k, v, shape)
}

/// [`attend`] of the newest tokens of texts whose keys and values are kept in caches, to which it adds those of the new tokens, in place where
/// nobody else holds them. Queries and keys are rotated before. The caches, and the result, of the queries' shape. Without gradients.
///
/// - q, k, v: `[batch * time, heads * width]` and `[batch * time, kv_heads * width]`, of columns `filled .. filled + time`.
/// - caches: of keys and of values, `[batch, kv_heads, capacity, width]`.
/// - angles: as [`rotate`] takes them; None: nothing is rotated.
/// - starts: `[batch]`, the column of each text's first token; what comes before it is seen by nobody but itself.
pub fn attend_cached(
    [q, k, v]: [Tensor<2>; 3],
    caches: [Tensor<4>; 2],
    angles: Option<&Angles>,
    starts: Tensor<1, Int>,
    filled: usize,
    shape: AttentionShape,
) -> ([Tensor<4>; 2], Tensor<2>) {
    let [batch, kv_heads, capacity, width] = caches[0].dims();
    let rows = q.dims()[0];
    assert_eq!(q.dims()[1], shape.heads * shape.width, "queries");
    assert_eq!([k.dims(), v.dims()], [[rows, kv_heads * width]; 2], "a key and a value each");
    assert_eq!(caches[0].dims(), caches[1].dims(), "a value for each key");
    assert!(filled + rows / batch <= capacity, "room for the new columns");
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if !crate::is_cpu(&q.device()) && shape.width <= cube::WIDEST_HEAD {
        use cube::CachedAttention;
        let none = || Tensor::empty([1, 1, 0], (&q.device(), DType::F32));
        let turn = angles.map_or_else(|| [none(), none()], |of| [of.cos.clone(), of.sin.clone()]);
        let [cos, sin] = turn.map(Tensor::into_dispatch);
        let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
        let [keys, values] = caches.map(Tensor::into_dispatch);
        let (keys, values) = Dispatch::append(k, v, keys, values, cos.clone(), sin.clone(), filled);
        let at = (filled, shape);
        let starts = starts.into_dispatch();
        let y = Dispatch::mix_cached(q, keys.clone(), values.clone(), starts, cos, sin, at);
        return ([keys, values].map(Tensor::from_dispatch), Tensor::from_dispatch(y));
    }
    let rotated = |x: Tensor<2>| match angles {
        Some(angles) => rotate(x, angles, shape.width),
        None => x,
    };
    let [keys, values] = caches;
    let (keys, values) =
        (composed::append(keys, rotated(k), filled), composed::append(values, v, filled));
    let caches = [keys, values];
    let y = composed::attend_cached(rotated(q), caches.clone(), starts, filled, shape);
    (caches, y)
}

/// One token of each row of logits, by inverting its cumulative distribution, with its log-probability at temperature 1. None on the CPU, where
/// there is no way to save. Of logits that are no distribution the log-probability is no number. Without gradients.
///
/// - logits: `[rows, vocabulary]`, f32.
/// - how: of each row a number in [0, 1) and the temperature; at 0 the first of the most probable tokens is taken.
pub fn draw(logits: &Tensor<2>, how: &[[f32; 2]]) -> Option<Vec<(u32, f32)>> {
    assert_eq!(logits.dims()[0], how.len(), "a number for each row");
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if !crate::is_cpu(&logits.device()) && !how.is_empty() {
        use cube::Drawing;
        let how = TensorData::new(how.concat(), [how.len(), 2]);
        let how = Tensor::<2>::from_data(how, &logits.device());
        let drawn = Dispatch::draw(logits.clone().into_dispatch(), how.into_dispatch());
        let drawn: Vec<f32> = Tensor::<2>::from_dispatch(drawn).into_data().iter().collect();
        let vocabulary = logits.dims()[1];
        let draw = |row: &[f32]| match row[0] as usize {
            token if token < vocabulary => (token as u32, row[1]),
            _ => (0, f32::NAN),
        };
        return Some(drawn.chunks_exact(2).map(draw).collect());
    }
    None
}

/// x · weight; f32 or bf16.
///
/// - x: `[rows, inputs]`.
/// - weight: `[inputs, outputs]`.
pub fn project(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.dims()[0], "as many inputs as the weight takes");
    if has_kernel(&x) {
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        return Tensor::from_dispatch(Dispatch::project(x, weight));
    }
    x.matmul(weight)
}

/// log softmax(hidden · weight) at one target a row: `[rows, 1]`. The matrix `[rows, vocabulary]` never stands as a whole: on a GPU
/// [`rows_at_once`] of it.
/// Of f32 or bf16, to which logits are rounded, too; the softmax and the result are f32.
///
/// - hidden: `[rows, width]`.
/// - weight: `[width, vocabulary]`.
/// - targets: a column for each row.
pub fn log_probs(hidden: Tensor<2>, weight: Tensor<2>, targets: &[u32]) -> Tensor<2> {
    assert_eq!(hidden.dims(), [targets.len(), weight.dims()[0]], "a row for each target");
    if has_kernel(&hidden) {
        let (hidden, weight) = (hidden.into_dispatch(), weight.into_dispatch());
        return Tensor::from_dispatch(Dispatch::log_probs(hidden, weight, targets.to_vec()));
    }
    composed::log_probs(hidden, weight, targets)
}

/// [`log_probs`] of f32 that are known already, as from [`compare`]: themselves, with the gradients that they have there.
///
/// - known: `[rows, 1]`.
pub fn known_log_probs(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &[u32],
    known: Tensor<2>,
) -> Tensor<2> {
    assert_eq!(hidden.dims(), [targets.len(), weight.dims()[0]], "a row for each target");
    assert_eq!(known.dims(), [targets.len(), 1], "a number for each target");
    let [hidden, weight, known] = [hidden, weight, known].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::known_log_probs(hidden, weight, targets.to_vec(), known))
}

/// Two distributions a row, p = softmax(ours · weight) and q likewise: `[rows, 4]` with log q of the target, KL(p‖q), the entropy of p and
/// log p of the target, in nats; the last as from [`log_probs`]. Without gradients. Each side is f32 or bf16, the rest f32.
///
/// - ours, theirs: hidden states and the output matrix, `[rows, width]` and `[width, vocabulary]`; widths may differ.
/// - targets: a column for each row.
pub fn compare(
    (ours, our_weight): (Tensor<2>, Tensor<2>),
    (theirs, their_weight): (Tensor<2>, Tensor<2>),
    targets: &[u32],
) -> Tensor<2> {
    assert_eq!(our_weight.dims()[1], their_weight.dims()[1], "both have one vocabulary");
    if has_kernel(&ours) && has_kernel(&theirs) {
        let [ours, our_weight, theirs, their_weight] =
            [ours, our_weight, theirs, their_weight].map(Tensor::into_dispatch);
        let targets = targets.to_vec();
        return Tensor::from_dispatch(Dispatch::compare(
            ours,
            our_weight,
            theirs,
            their_weight,
            targets,
        ));
    }
    let log_probs = |hidden: Tensor<2>, weight| log_softmax(logits(hidden, weight), 1);
    compare_distributions(log_probs(ours, our_weight), log_probs(theirs, their_weight), targets)
}

/// hidden · weight, rounded to the type of both, as f32.
fn logits(hidden: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    hidden.matmul(weight).cast(DType::F32)
}

/// [`compare`] of log-probabilities `[rows, vocabulary]`.
pub fn compare_distributions(ours: Tensor<2>, theirs: Tensor<2>, targets: &[u32]) -> Tensor<2> {
    composed::compare(ours, theirs, targets)
}

/// A step of AdamW on a weight, given its gradient and the running means of the gradient and of its square. Without gradients.
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    [mean, mean_square]: [Tensor<D>; 2],
    step: AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    assert_eq!(weight.dims(), grad.dims(), "a gradient has the shape of its weight");
    assert_eq!(weight.dims(), mean.dims(), "so have the means");
    assert_eq!(weight.dims(), mean_square.dims(), "so have the means");
    let [weight, grad, mean, mean_square] =
        [weight, grad, mean, mean_square].map(Tensor::into_dispatch);
    let (weight, mean, mean_square) = Dispatch::adamw(weight, grad, mean, mean_square, step);
    (Tensor::from_dispatch(weight), [mean, mean_square].map(Tensor::from_dispatch))
}

/// Σ x² over a whole tensor as one number `[1]`. Without gradients.
pub fn square_sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::square_sum(x.into_dispatch()))
}
