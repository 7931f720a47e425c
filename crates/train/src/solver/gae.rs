//! Generalised advantage estimation (Schulman et al., arXiv 1506.02438), with γ = 1.

/// A_t = Σ_l λ^l δ_{t+l}, δ_t = r_t + V_{t+1} − V_t, of the tokens of one response. The value after the last is 0: the reward is that of the
/// response as it stands, cut or ended.
///
/// - rewards: `[tokens]`; values: `[tokens]`, V of what stands before each; lambda in [0, 1].
pub(crate) fn advantages(rewards: &[f64], values: &[f64], lambda: f64) -> Vec<f64> {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut after, mut next) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        after = rewards[t] + next - values[t] + lambda * after;
        (advantages[t], next) = (after, values[t]);
    }
    advantages
}

#[cfg(test)]
mod tests {
    use super::advantages;

    #[test]
    fn advantages_are_those_of_the_sum() {
        let found = advantages(&[0.0, 0.0, 1.0], &[0.1, 0.4, 0.2], 0.95);
        for (a, b) in found.iter().zip([0.832, 0.56, 0.8]) {
            assert!((a - b).abs() < 1e-12, "{found:?}");
        }
        // λ = 1: what comes, less what was expected.
        let found = advantages(&[0.5, 0.0, 1.0], &[0.1, 0.4, 0.2], 1.0);
        for (a, b) in found.iter().zip([1.4, 0.6, 0.8]) {
            assert!((a - b).abs() < 1e-12, "{found:?}");
        }
    }
}
