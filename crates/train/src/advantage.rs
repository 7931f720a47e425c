//! Advantages of the responses of one prompt.

/// REINFORCE leave-one-out: A_i = R_i − mean of the other rewards of the same prompt. Unbiased where the others' rewards do not depend on
/// response i. Where they do, as Φ of ranks within the group ([`Calibrator::Group`](crate::Calibrator::Group)), the gradient of the mean Φ
/// comes out n/(n − 1) times as great, as if β were (n − 1)/n of itself; what a win rate or an expected reward under a procedure gives each
/// response is unbiased with this baseline for a reason of its own (see `pseudo_values.rs`).
///
/// - rewards: `[samples]` of one prompt, at least 2; a single one has no others, whose mean counts as 0 then.
pub fn leave_one_out(rewards: &[f64]) -> Vec<f64> {
    let total = rewards.iter().sum::<f64>();
    let others = rewards.len().saturating_sub(1).max(1) as f64;
    rewards.iter().map(|r| r - (total - r) / others).collect()
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
        assert_eq!(leave_one_out(&[0.7]), [0.7]);
        assert!(leave_one_out(&[]).is_empty());
    }

    /// Of ranks within a group, Φ adds up to a constant c: A_i = Φ_i·n/(n − 1) − c/(n − 1).
    #[test]
    fn ranks_within_a_group_count_for_more() {
        let phi = infalign_calibrate::group_quantiles(&[0.3, 2.0, -1.0, 5.0]);
        let constant = phi.iter().sum::<f64>() / 3.0;
        for (advantage, phi) in leave_one_out(&phi).iter().zip(&phi) {
            assert!((advantage - (phi * 4.0 / 3.0 - constant)).abs() < 1e-12);
        }
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
