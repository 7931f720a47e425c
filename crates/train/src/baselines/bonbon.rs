//! BoNBoN (Gui, Gârbacea and Veitch, arXiv 2406.00832): the best and the worst of N reference responses, imitated and compared.
//!
//! The loss is α·(−log π(y_best)) + (1 − α)·(h(y_best, y_worst) − g)², where g is the mean of h under the best-of-N policy of a continuous
//! reward: (N − 1)·(E log u_(N) − E log u_(1)) = (N − 1)·Σ_{k<N} 1/k, as log π_BoN/π_ref = log N + (N − 1) log u.
//! How it departs from the paper:
//! 1. Both parts are sums over a response's tokens, in nats, so that α weighs like with like.
//! 2. Of equal rewards the first is the best and the last the worst: where all N are equal, the pair has no order, and draws h to 0 on
//!    average.
//!
//! With α = 1 the optimum is the best-of-N distribution. The second part alone has it only on average: it draws every pair to the same g.

use burn::tensor::Tensor;

/// g, the mean of h between the best and the worst of N under best-of-N, in nats: 1/(2 β*) of the paper.
///
/// - n: N, at least 2; below that the best is the worst, and g is 0.
pub fn target_gap(n: usize) -> f64 {
    let harmonic: f64 = (1..n).map(|k| 1.0 / k as f64).sum();
    n.saturating_sub(1) as f64 * harmonic
}

/// The mean loss.
///
/// - best: `[pairs, 1]`, log π(y_best | x).
/// - gaps: `[pairs, 1]`, h of the best against the worst.
/// - n: N, at least 2.
/// - alpha: α, in [0, 1].
pub(super) fn bonbon(best: Tensor<2>, gaps: Tensor<2>, n: usize, alpha: f64) -> Tensor<1> {
    let squares = (gaps - target_gap(n)).square().mean();
    super::sft::sft(best) * alpha + squares * (1.0 - alpha)
}

#[cfg(test)]
mod tests {
    use super::{bonbon, target_gap};
    use crate::baselines::offline::testing::{GAP, close, column, losses_and_slopes};

    #[test]
    fn the_target_is_the_mean_gap_of_best_of_n() {
        for (n, expected) in [(0, 0.0), (1, 0.0), (2, 1.0), (4, 5.5), (8, 18.15)] {
            close(target_gap(n), expected, 1e-12);
        }
    }

    #[test]
    fn the_loss_weighs_imitation_against_the_gap() {
        let loss = |alpha| bonbon(column(&[-3.0]), column(&[GAP]), 2, alpha).into_scalar::<f64>();
        close(loss(1.0), 3.0, 1e-6);
        close(loss(0.0), 0.0625, 1e-6);
        close(loss(0.25), 0.75 + 0.046_875, 1e-6);
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        losses_and_slopes(|gaps| bonbon(gaps.clone(), gaps, 3, 0.3));
    }
}
