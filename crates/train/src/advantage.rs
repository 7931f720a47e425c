//! Advantages of the responses of one prompt.

/// REINFORCE leave-one-out: A_i = R_i − mean of the other rewards of the same prompt. Unbiased, since the baseline does not depend on
/// response i.
///
/// - rewards: `[samples]` of one prompt, at least 2.
pub fn leave_one_out(rewards: &[f64]) -> Vec<f64> {
    let (n, total) = (rewards.len() as f64, rewards.iter().sum::<f64>());
    rewards.iter().map(|r| r - (total - r) / (n - 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::leave_one_out;

    #[test]
    fn each_reward_is_compared_with_the_others() {
        assert_eq!(leave_one_out(&[1.0, 2.0, 6.0]), [-3.0, -1.5, 4.5]);
        assert_eq!(leave_one_out(&[0.7, 0.7]), [0.0, 0.0]);
    }
}
