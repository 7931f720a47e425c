//! Where the KL stands against the reward, and how it is estimated.
//!
//! With ρ = log π(y_t)/π_ref(y_t) of a sampled token, k1 = ρ, k2 = ρ²/2 and k3 = e^{−ρ} − 1 + ρ; exact is the KL of the two next-token
//! distributions. KL(π‖π_ref) of a response is the expectation of Σ_t k1, Σ_t k3 and Σ_t exact alike, but their gradients are not:
//!
//! ∇E_π[f_π(y)] = E_π[f_π(y) ∇log π(y) + ∇f_π(y)].
//!
//! - `kl = "reward"` has the first term alone, which is all of it for k1, since E[∇k1] = 0. For the others the second term would be missing.
//! - `kl = "loss"`, exact: both terms, the first with Σ_t exact as a reward. Since the KL of a position is known before its token is drawn,
//!   this is E[Σ_t ∇KL_t + Σ_t ∇log π(y_t) Σ_{s>t} KL_s], the right gradient. The past KLs stay in as a baseline.
//! - `kl = "loss"`, k2: the second term alone is, in the mean, Σ_t ∇KL_t, without what a token does to the KL of later ones: biased for
//!   responses of more than one token.
//! - `kl = "loss"`, k3: the second term alone is, in the mean, the gradient of the forward KL, KL(π_ref‖π), of each position: biased.
//! - `kl = "loss"`, k1: the second term alone is 0 in the mean, so that nothing would hold the policy.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Where the KL is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KlPlace {
    /// Taken off the reward.
    #[default]
    Reward,
    /// A term of the loss, differentiated.
    Loss,
}

/// How the KL of a token is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KlEstimator {
    /// log π/π_ref.
    K1,
    /// ½ (log π/π_ref)².
    K2,
    /// π_ref/π − 1 + log π/π_ref.
    K3,
    /// The KL of the two next-token distributions.
    Exact,
}

/// A place and an estimator that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KlTerm {
    /// k1 in the reward.
    Reward,
    /// k2 in the loss.
    K2,
    /// k3 in the loss.
    K3,
    /// Exact in the loss, with what a token does to later KLs as a reward.
    Exact,
}

impl KlTerm {
    /// - in_loss: the estimator where the KL is in the loss and none is named.
    pub(crate) fn new(
        place: KlPlace,
        estimator: Option<KlEstimator>,
        in_loss: KlEstimator,
    ) -> Result<Self, TrainError> {
        let refuse =
            |value: &str, valid| Err(TrainError::setting("solver.kl_estimator", value, valid));
        match (place, estimator.unwrap_or(in_loss)) {
            (KlPlace::Reward, _) if estimator.is_none_or(|e| e == KlEstimator::K1) => {
                Ok(Self::Reward)
            }
            (KlPlace::Reward, estimator) => refuse(
                &format!("{estimator:?}").to_lowercase(),
                "k1 with kl = \"reward\": the gradient of the others is not in what they are worth alone; use kl = \"loss\"",
            ),
            (KlPlace::Loss, KlEstimator::K1) => refuse(
                "k1",
                "k2, k3 or exact with kl = \"loss\": the gradient of k1 is 0 in the mean; use kl = \"reward\"",
            ),
            (KlPlace::Loss, KlEstimator::K2) => Ok(Self::K2),
            (KlPlace::Loss, KlEstimator::K3) => Ok(Self::K3),
            (KlPlace::Loss, KlEstimator::Exact) => Ok(Self::Exact),
        }
    }

    /// Whether the loss has a term of it.
    pub(crate) fn is_in_loss(self) -> bool {
        self != Self::Reward
    }

    /// Whether something of it is taken off the reward.
    pub(crate) fn is_penalty(self) -> bool {
        matches!(self, Self::Reward | Self::Exact)
    }

    /// What is taken off the reward at each token, in nats.
    ///
    /// - log_ratios: log π/π_ref of the sampled tokens; exact: the KL of their distributions.
    pub(crate) fn penalties(self, log_ratios: &[f32], exact: &[f32]) -> Vec<f32> {
        match self {
            Self::Reward => log_ratios.to_vec(),
            Self::Exact => exact.to_vec(),
            Self::K2 | Self::K3 => vec![0.0; log_ratios.len()],
        }
    }

    /// The term of the loss at each token, `[tokens, 1]`, in nats, where it is one of log π/π_ref of the sampled tokens.
    pub(crate) fn loss(self, log_ratios: Tensor<2>) -> Option<Tensor<2>> {
        match self {
            Self::Reward | Self::Exact => None,
            Self::K2 => Some(log_ratios.square().mul_scalar(0.5)),
            Self::K3 => Some(log_ratios.clone().neg().exp().sub_scalar(1.0) + log_ratios),
        }
    }
}

/// KL of next-token distributions given as log-probabilities `[tokens, vocabulary]`: `[tokens, 1]`.
pub(crate) fn exact_kl(ours: Tensor<2>, theirs: Tensor<2>) -> Tensor<2> {
    (ours.clone().exp() * (ours - theirs)).sum_dim(1)
}

#[cfg(test)]
mod tests {
    use super::KlTerm;
    use crate::passes::column;

    #[test]
    fn the_terms_of_the_loss_are_those_of_the_log_ratio() {
        let device = infalign_backend::device(None).unwrap();
        for (term, expected) in [
            (KlTerm::K2, [0.125, 0.125]),
            // e^−½ − ½ and e^½ − 3/2.
            (KlTerm::K3, [0.106_530_66, 0.148_721_27]),
        ] {
            let found = term.loss(column(vec![0.5, -0.5], &device)).unwrap().into_data();
            let found: Vec<f64> = found.iter::<f64>().collect();
            let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(near, "{term:?}: {found:?}");
        }
    }
}
