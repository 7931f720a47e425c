//! Advantages of the responses of one prompt.

/// REINFORCE leave-one-out: A_i = R_i − mean of the other rewards of the same prompt. Unbiased, since the baseline does not depend on
/// response i.
///
/// - rewards: `[samples]` of one prompt, at least 2.
pub fn leave_one_out(rewards: &[f64]) -> Vec<f64> {
    let (n, total) = (rewards.len() as f64, rewards.iter().sum::<f64>());
    rewards.iter().map(|r| r - (total - r) / (n - 1.0)).collect()
}

/// A_i = R_i − mean of all rewards of the same prompt: (n − 1)/n of those of [`leave_one_out`].
///
/// - rewards: `[samples]` of one prompt.
pub(crate) fn centred(rewards: &[f64]) -> Vec<f64> {
    let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
    rewards.iter().map(|r| r - mean).collect()
}

/// A_i = (R_i − mean)/(σ + epsilon), σ the standard deviation of the group as a population.
///
/// - rewards: `[samples]` of one prompt.
pub(crate) fn standardised(rewards: &[f64], epsilon: f64) -> Vec<f64> {
    let centred = centred(rewards);
    let variance = centred.iter().map(|a| a * a).sum::<f64>() / rewards.len() as f64;
    centred.iter().map(|a| a / (variance.sqrt() + epsilon)).collect()
}

#[cfg(test)]
mod tests {
    use super::{leave_one_out, standardised};

    #[test]
    fn each_reward_is_compared_with_the_others() {
        assert_eq!(leave_one_out(&[1.0, 2.0, 6.0]), [-3.0, -1.5, 4.5]);
        assert_eq!(leave_one_out(&[0.7, 0.7]), [0.0, 0.0]);
    }

    #[test]
    fn groups_are_standardised_by_their_own_spread() {
        // (R − mean)/σ with σ² = 0.3225, computed to 34 digits elsewhere.
        let found = standardised(&[0.2, 1.0, -0.5, 0.7], 0.0);
        let expected = [
            -0.264_135_271_897_687_14,
            1.144_586_178_223_310_8,
            -1.496_766_540_753_560_4,
            0.616_315_634_427_936_7,
        ];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14), "{found:?}");
        assert_eq!(standardised(&[0.7, 0.7], 1e-4), [0.0, 0.0]);
    }
}
