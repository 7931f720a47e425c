//! DPO, direct preference optimisation (Rafailov et al., arXiv 2305.18290): −log σ(β h) for the preferred response against the other.
//!
//! How it departs from the paper:
//! 1. A preference is a probability p, so that ties (p = ½) and labels of Bradley and Terry's model count as what they are:
//!    −p log σ(β h) − (1 − p) log σ(−β h). With p = 1 it is the paper's loss.
//!
//! Where p = σ(r(y) − r(z)), the optimum is π ∝ π_ref·exp(r/β). Where the higher reward always wins, there is none: h grows for as long as
//! training goes on.

use burn::tensor::{Tensor, activation::log_sigmoid};

/// The mean loss in nats.
///
/// - gaps: `[pairs, 1]`, h of each pair's first response against its second.
/// - preferences: `[pairs, 1]`, probability that the first is preferred, in [0, 1].
/// - beta: β, above 0.
pub(super) fn dpo(gaps: Tensor<2>, preferences: Tensor<2>, beta: f64) -> Tensor<1> {
    let scaled = gaps * beta;
    let first = log_sigmoid(scaled.clone()) * preferences.clone();
    let second = log_sigmoid(-scaled) * (-preferences + 1.0);
    (first + second).mean().neg()
}

#[cfg(test)]
mod tests {
    use super::dpo;
    use crate::baselines::offline::testing::{GAP, close, column, losses_and_slopes};

    #[test]
    fn losses_are_minus_log_sigmoid() {
        let minus_log_sigmoid = |x: f64| (1.0 + (-x).exp()).ln();
        for beta in [0.1, 0.5, 1.0] {
            let loss = |gap, preference| {
                dpo(column(&[gap]), column(&[preference]), beta).into_scalar::<f64>()
            };
            let expected = minus_log_sigmoid(beta * GAP);
            close(loss(GAP, 1.0), expected, 1e-6);
            close(loss(-GAP, 0.0), expected, 1e-6);
            // A tie is half of each: log σ(x) − log σ(−x) = x.
            close(loss(GAP, 0.5), expected + beta * GAP / 2.0, 1e-6);
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        for (preference, beta) in [(1.0, 0.5), (0.3, 2.0)] {
            losses_and_slopes(|gaps| dpo(gaps, column(&[preference]), beta));
        }
    }
}
