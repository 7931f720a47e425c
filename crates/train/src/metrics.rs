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
    /// The same from the sampled tokens' log-ratios alone. Divided by `response_length`, TRL's `kl` of RLOO.
    pub kl_k1: f64,
    /// r. TRL's `reward` of GRPO; from that of its RLOO, the KL is taken off.
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
    /// Tokens. TRL's `completions/mean_length`.
    pub response_length: f64,
    /// Share of its responses that were cut at `max_tokens`, and are rewarded as they stand. TRL's `completions/clipped_ratio`.
    #[serde(default)]
    pub cut: f64,
    /// Tokens of all its responses, however these are weighed. Not written.
    #[serde(skip)]
    pub tokens: usize,
    /// Seconds that it took, without what observes it, and without checkpoints. Not written.
    #[serde(skip)]
    pub seconds: f64,
    /// Share of tokens whose gradient was cut since their probability had moved far enough; 0 where a rollout is used once. TRL's
    /// `clip_ratio/region_mean`.
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

#[cfg(test)]
mod tests {
    use super::StepMetrics;

    #[test]
    fn lines_of_older_programs_are_read() {
        let line = r#"{"step": 1, "kl": 0.0, "kl_k1": 0.0, "reward/raw": 2.0, "reward/calibrated": 0.5,
            "reward/transformed": 0.5, "beta": 0.1, "entropy": 1.0, "response_length": 4.0,
            "clip_fraction": 0.0, "log_prob_gap": 0.0, "grad_norm": 1.0, "learning_rate": 0.1}"#;
        let metrics: StepMetrics = serde_json::from_str(line).unwrap();
        assert_eq!((metrics.cut, metrics.reward_raw), (0.0, 2.0));
    }
}
