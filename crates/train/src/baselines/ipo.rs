//! IPO, identity preference optimisation (Azar et al., arXiv 2310.12036): (h − 1/(2τ))² for the preferred response against the other.
//!
//! How it departs from the paper:
//! 1. A preference is a probability p: p·(h − 1/(2τ))² + (1 − p)·(h + 1/(2τ))². With p = 1 it is the paper's loss; a tie, p = ½, draws h to 0.
//!
//! On independent pairs of reference responses the optimum is π ∝ π_ref·exp(p*(y)/τ), p*(y) the probability that y is preferred to another
//! reference response. Where the higher reward wins and ties count half, p*(y) is the calibrated reward u, and this is the optimum of CTRL
//! for the identity at β = τ.

use burn::tensor::Tensor;

/// The mean loss.
///
/// - gaps: `[pairs, 1]`, h of each pair's first response against its second.
/// - preferences: `[pairs, 1]`, probability that the first is preferred, in [0, 1].
/// - tau: τ, above 0.
pub(super) fn ipo(gaps: Tensor<2>, preferences: Tensor<2>, tau: f64) -> Tensor<1> {
    let target = 0.5 / tau;
    let first = (gaps.clone() - target).square() * preferences.clone();
    let second = (gaps + target).square() * (-preferences + 1.0);
    (first + second).mean()
}

#[cfg(test)]
mod tests {
    use super::ipo;
    use crate::baselines::offline::testing::{GAP, close, column, losses_and_slopes};

    #[test]
    fn losses_are_squares_around_the_target() {
        // (0.75 − 1/(2τ))².
        for (tau, expected) in [(0.1, 18.0625), (0.5, 0.0625), (1.0, 0.0625)] {
            close(ipo(column(&[GAP]), column(&[1.0]), tau).into_scalar(), expected, 1e-5);
            close(ipo(column(&[-GAP]), column(&[0.0]), tau).into_scalar(), expected, 1e-5);
        }
        close(ipo(column(&[GAP]), column(&[0.5]), 1.0).into_scalar(), 0.5625 + 0.25, 1e-6);
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        losses_and_slopes(|gaps| ipo(gaps, column(&[0.7]), 0.4));
    }
}
