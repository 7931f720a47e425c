//! Log-probabilities of tokens, and comparisons of two distributions, a block of rows of logits at a time.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{LEAST, Rows, UNITS, cubes, greatest, product, room, size, total};

/// The greatest logit of a row, and Σ e^(logit − greatest).
#[cube]
fn partition<F: Float>(
    logits: &[F],
    from: usize,
    width: usize,
    shared: &mut Shared<[f32]>,
    #[comptime] units: usize,
) -> (f32, f32) {
    let mut most = f32::new(LEAST);
    let mut k = UNIT_POS as usize;
    while k < width {
        let logit = f32::cast_from(logits[from + k]);
        if logit > most {
            most = logit;
        }
        k += units;
    }
    let most = greatest(most, shared, units);
    let mut sum = 0.0f32;
    let mut k = UNIT_POS as usize;
    while k < width {
        sum += (f32::cast_from(logits[from + k]) - most).exp();
        k += units;
    }
    (most, total(sum, shared, units))
}

#[cube(launch)]
fn picked<F: Float>(
    logits: &[F],
    targets: &[u32],
    y: &mut [f32],
    rows: u32,
    width: u32,
    stride: u32,
    first: u32,
    #[comptime] units: usize,
    #[define(F)] _stored: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let from = row * stride as usize;
    let mut shared = Shared::<[f32]>::new_slice(units);
    let (most, sum) = partition::<F>(logits, from, width as usize, &mut shared, units);
    if UNIT_POS == 0 {
        let at = first as usize + row;
        let target = targets[at] as usize;
        y[at] = f32::cast_from(logits[from + target]) - most - sum.ln();
    }
}

/// grad · (1 at the target − softmax), in place of the logits.
#[cube(launch)]
fn logit_gradient(
    logits: &mut [f32],
    targets: &[u32],
    grad: &[f32],
    rows: u32,
    width: u32,
    logit_stride: u32,
    grad_stride: u32,
    first: u32,
    #[comptime] units: usize,
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let (from, width) = (row * logit_stride as usize, width as usize);
    let at = first as usize + row;
    let mut shared = Shared::<[f32]>::new_slice(units);
    let (most, sum) = partition::<f32>(&*logits, from, width, &mut shared, units);
    let slope = grad[at * grad_stride as usize];
    let target = targets[at] as usize;
    let mut k = UNIT_POS as usize;
    while k < width {
        let mut change = -(logits[from + k] - most).exp() / sum;
        if k == target {
            change += 1.0f32;
        }
        logits[from + k] = change * slope;
        k += units;
    }
}

/// log q of the target, KL(p‖q), the entropy of p and log p of the target.
#[cube(launch)]
fn compared<F: Float, G: Float>(
    ours: &[F],
    theirs: &[G],
    targets: &[u32],
    y: &mut [f32],
    rows: u32,
    width: u32,
    our_stride: u32,
    their_stride: u32,
    first: u32,
    #[comptime] units: usize,
    #[define(F, G)] _stored: [ElemType; 2],
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let (of_p, of_q) = (row * our_stride as usize, row * their_stride as usize);
    let width = width as usize;
    let mut shared = Shared::<[f32]>::new_slice(units);
    let (most_p, sum_p) = partition::<F>(ours, of_p, width, &mut shared, units);
    let (most_q, sum_q) = partition::<G>(theirs, of_q, width, &mut shared, units);
    let (log_p, log_q) = (most_p + sum_p.ln(), most_q + sum_q.ln());
    let mut kl = 0.0f32;
    let mut entropy = 0.0f32;
    let mut k = UNIT_POS as usize;
    while k < width {
        let p = f32::cast_from(ours[of_p + k]) - log_p;
        let q = f32::cast_from(theirs[of_q + k]) - log_q;
        kl += p.exp() * (p - q);
        entropy -= p.exp() * p;
        k += units;
    }
    let kl = total(kl, &mut shared, units);
    let entropy = total(entropy, &mut shared, units);
    if UNIT_POS == 0 {
        let at = first as usize + row;
        let target = targets[at] as usize;
        y[4 * at] = f32::cast_from(theirs[of_q + target]) - log_q;
        y[4 * at + 1] = kl;
        y[4 * at + 2] = entropy;
        y[4 * at + 3] = f32::cast_from(ours[of_p + target]) - most_p - sum_p.ln();
    }
}

/// Log-probabilities of the targets of rows `first ..`, into `y`.
pub(super) fn pick(
    hidden: CubeTensor,
    weight: CubeTensor,
    targets: &CubeTensor,
    first: usize,
    y: &CubeTensor,
) {
    let logits = Rows::of(product(hidden, weight));
    picked::launch(
        &y.client,
        cubes(logits.count),
        CubeDim::new_1d(UNITS as u32),
        logits.arg(),
        targets.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        size(logits.count),
        size(logits.width),
        size(logits.stride),
        size(first),
        UNITS,
        logits.elem(),
    );
}

/// The gradient of the logits of rows `first ..`.
pub(super) fn slopes(
    hidden: CubeTensor,
    weight: CubeTensor,
    targets: &CubeTensor,
    first: usize,
    grad: &Rows,
) -> CubeTensor {
    let logits = Rows::floats(product(hidden, weight));
    logit_gradient::launch(
        &logits.tensor.client,
        cubes(logits.count),
        CubeDim::new_1d(UNITS as u32),
        logits.arg(),
        targets.clone().into_buffer_arg(),
        grad.arg(),
        size(logits.count),
        size(logits.width),
        size(logits.stride),
        size(grad.stride),
        size(first),
        UNITS,
    );
    logits.tensor
}

/// Comparisons of rows `first ..`, into `y`.
pub(super) fn compare(
    [ours, our_weight]: [CubeTensor; 2],
    [theirs, their_weight]: [CubeTensor; 2],
    targets: &CubeTensor,
    first: usize,
    y: &CubeTensor,
) {
    let ours = Rows::of(product(ours, our_weight));
    let theirs = Rows::of(product(theirs, their_weight));
    compared::launch(
        &y.client,
        cubes(ours.count),
        CubeDim::new_1d(UNITS as u32),
        ours.arg(),
        theirs.arg(),
        targets.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        size(ours.count),
        size(ours.width),
        size(ours.stride),
        size(theirs.stride),
        size(first),
        UNITS,
        [ours.elem(), theirs.elem()],
    );
}

/// Room for results of `columns` a row.
pub(super) fn results(like: &CubeTensor, rows: usize, columns: usize) -> CubeTensor {
    room(like, [rows, columns], DType::F32)
}
