//! Supervised fine-tuning: −log π(y | x), summed over a response's tokens, the one that ended it included.
//!
//! On responses drawn from a distribution its optimum is that distribution: on the best of N reference responses, the best-of-N
//! distribution (the forward half of BOND, arXiv 2407.14622).

use burn::tensor::Tensor;

/// The mean loss in nats per response.
///
/// - log_probs: `[responses, 1]`, log π(y | x).
pub(super) fn sft(log_probs: Tensor<2>) -> Tensor<1> {
    log_probs.mean().neg()
}
