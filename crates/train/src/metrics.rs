//! What is written of every step.

use serde::{Deserialize, Serialize};

/// Diagnostics of one step, means over its responses before the update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// From 1.
    pub step: usize,
    /// Digest of the token ids of its responses: equal where the same was sampled.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rollout: String,
    /// KL(π‖π_ref) in nats per response: exact per token, summed over sampled responses.
    pub kl: f64,
    /// The same from the sampled tokens' log-ratios alone.
    pub kl_k1: f64,
    /// r.
    #[serde(rename = "reward/raw")]
    pub reward_raw: f64,
    /// u in [0, 1]: the standard win rate against the reference.
    #[serde(rename = "reward/calibrated")]
    pub reward_calibrated: f64,
    /// What is maximised, before the KL is taken off.
    #[serde(rename = "reward/transformed")]
    pub reward_transformed: f64,
    /// KL coefficient on the scale of `reward/transformed`.
    pub beta: f64,
    /// Entropy of the next-token distribution, nats per token.
    pub entropy: f64,
    /// Tokens.
    pub response_length: f64,
    /// Tokens of all its responses, however these are weighed. Not written.
    #[serde(skip)]
    pub tokens: usize,
    /// Seconds that it took, without what observes it, and without checkpoints. Not written.
    #[serde(skip)]
    pub seconds: f64,
    /// Share of tokens whose gradient was cut since their probability had moved far enough; 0 where a rollout is used once.
    pub clip_fraction: f64,
    /// Loss of the value model, ½ (V − what came of it)², in squared units of Φ. Of PPO alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_loss: Option<f64>,
    /// Greatest difference of a token's log-probability between the sampler and the trainer, in nats: rounding.
    pub log_prob_gap: f64,
    /// Euclidean norm of the whole gradient, before clipping; a mean where a rollout is good for several.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
}
