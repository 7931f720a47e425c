//! Log-probabilities of targets, some rows of logits at a time.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::matrix::{Matrix, add_product, extend_by_product, product};
use crate::functions::{exp, largest, sum};

/// Logits that stand at a time.
const LOGITS: usize = 1 << 21;

/// Rows whose logits stand together.
fn rows(vocabulary: usize) -> usize {
    (LOGITS / vocabulary.max(1)).max(64)
}

pub(super) fn forward(hidden: Matrix<'_>, weight: Matrix<'_>, targets: &[u32]) -> Vec<f32> {
    let (vocabulary, mut found) = (weight.columns(), Vec::with_capacity(targets.len()));
    for (part, targets) in targets.chunks(rows(vocabulary)).enumerate() {
        let first = part * rows(vocabulary);
        let logits = product(hidden.narrow(first, targets.len()), weight);
        let row = |(logits, &target): (&[f32], &u32)| {
            logits[target as usize] - Arch::new().dispatch(LogSum(logits))
        };
        found.par_extend(logits.par_chunks(vocabulary).zip(targets).map(row));
    }
    found
}

/// log q of the target, KL(p‖q), entropy of p and log p of the target for each row, given hidden states and output matrix of p and of q.
pub(super) fn compare(ours: [Matrix<'_>; 2], theirs: [Matrix<'_>; 2], targets: &[u32]) -> Vec<f32> {
    let (vocabulary, mut found) = (ours[1].columns(), Vec::with_capacity(4 * targets.len()));
    for (part, targets) in targets.chunks(rows(vocabulary)).enumerate() {
        let first = part * rows(vocabulary);
        let [ours, theirs] = [ours, theirs]
            .map(|[hidden, weight]| product(hidden.narrow(first, targets.len()), weight));
        let pairs = ours.par_chunks(vocabulary).zip(theirs.par_chunks(vocabulary));
        let row = |((ours, theirs), &target): ((&[f32], &[f32]), &u32)| {
            let [log_sum, their_log_sum, kl, entropy] =
                Arch::new().dispatch(Compare { ours, theirs });
            let target = target as usize;
            [theirs[target] - their_log_sum, kl, entropy, ours[target] - log_sum]
        };
        let rows: Vec<[f32; 4]> = pairs.zip(targets).map(row).collect();
        found.extend_from_slice(rows.as_flattened());
    }
    found
}

/// Gradients of the hidden states and of the weight, each where it is wanted.
pub(super) fn backward(
    hidden: Matrix<'_>,
    weight: Matrix<'_>,
    targets: &[u32],
    grad: &[f32],
    wanted: [bool; 2],
) -> [Option<Vec<f32>>; 2] {
    let vocabulary = weight.columns();
    let mut dhidden = wanted[0].then(|| Vec::with_capacity(targets.len() * hidden.columns()));
    let mut dweight = wanted[1].then(|| vec![0.0; hidden.columns() * vocabulary]);
    for (part, targets) in targets.chunks(rows(vocabulary)).enumerate() {
        let first = part * rows(vocabulary);
        let hidden = hidden.narrow(first, targets.len());
        let mut slopes = product(hidden, weight);
        let row = |(row, target): (&mut [f32], (&u32, &f32))| {
            let (&target, &grad) = target;
            Arch::new().dispatch(Slope { row, grad });
            row[target as usize] += grad;
        };
        let grads = &grad[first..first + targets.len()];
        slopes.par_chunks_mut(vocabulary).zip(targets.par_iter().zip(grads)).for_each(row);
        let slopes = Matrix::rows(&slopes, vocabulary);
        if let Some(dhidden) = &mut dhidden {
            extend_by_product(dhidden, slopes, weight.transposed());
        }
        if let Some(dweight) = &mut dweight {
            add_product(dweight, hidden.transposed(), slopes);
        }
    }
    [dhidden, dweight]
}

/// log Σ e^l.
struct LogSum<'a>(&'a [f32]);

impl WithSimd for LogSum<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        let most = largest(self.0);
        sum(self.0, |l| exp(l - most)).ln() + most
    }
}

/// Turns logits into −grad · softmax.
struct Slope<'a> {
    row: &'a mut [f32],
    grad: f32,
}

impl WithSimd for Slope<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let most = largest(self.row);
        for l in self.row.iter_mut() {
            *l = exp(*l - most);
        }
        let scale = -self.grad / sum(self.row, |e| e);
        for e in self.row.iter_mut() {
            *e *= scale;
        }
    }
}

/// log Σ e^l of the logits of p and of q, KL(p‖q) and the entropy of p.
struct Compare<'a> {
    ours: &'a [f32],
    theirs: &'a [f32],
}

impl WithSimd for Compare<'_> {
    type Output = [f32; 4];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; 4] {
        const LANES: usize = 16;
        let log_sum = LogSum(self.ours).with_simd(simd);
        let their_log_sum = LogSum(self.theirs).with_simd(simd);
        let (mut kl, mut entropy) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        for (ours, theirs) in self.ours.chunks(LANES).zip(self.theirs.chunks(LANES)) {
            for (((l, m), kl), entropy) in
                ours.iter().zip(theirs).zip(kl.iter_mut()).zip(entropy.iter_mut())
            {
                let log_p = l - log_sum;
                let p = exp(log_p);
                *kl += p * (log_p - (m - their_log_sum));
                *entropy -= p * log_p;
            }
        }
        [log_sum, their_log_sum, kl.iter().sum(), entropy.iter().sum()]
    }
}
