//! The inference-time win rate itself as what is trained on, from the policy's own responses.
//!
//! CTRL trains on the Φ of the best policy there is. A policy that cannot become that one, being small or having few steps, has another right reward:
//! the derivative 𝓡(y) = ∂W^T(π ≻ π_ref)/∂π(y) at the policy as it stands (InfAlign, arXiv 2412.19792, whose coupled characterisation of the
//! optimum has it at π*). At the optimum the two are the same but for a constant.
//!
//! The win rate of a group of G > N responses, W(G), is a U-statistic: unbiased. Trained on is the jackknife's pseudo-value of each response,
//!   rᵢ = G·W(G) − (G − 1)·W(G without i).
//! Given yᵢ, its expectation is 𝓡(yᵢ) and a constant, so that its policy gradient is that of W against the reference rewards that are given, without
//! bias, whatever constant is taken off; its
//! mean over the group is W(G), and less the mean of the others' (leave-one-out) it is G·(W(G) − W(G without i)), which the other responses alone
//! make a baseline for. Estimators of the same gradient, for the reward of the best in place of a win rate: arXiv 2505.15201.

use infalign_stats::{Kept, Selection, StatsError};

/// rᵢ of each response to one prompt; their mean is the win rate of the group over the reference.
///
/// - `rewards`: of the policy's responses, finite, more than N.
/// - `reference`: rewards of the reference's responses, N or more.
///
/// # Errors
/// As [`Kept::new`]: too few of either.
pub(crate) fn pseudo_values(
    rewards: &[f32],
    reference: &[f32],
    selection: Selection,
) -> Result<Vec<f64>, StatsError> {
    let widened = |rewards: &[f32]| rewards.iter().copied().map(f64::from).collect::<Vec<f64>>();
    let (rewards, count) = (widened(rewards), rewards.len() as f64);
    let won = Kept::new(&widened(reference), selection)?.won_by(&rewards);
    let win_rate = |rewards: &[f64], won: &[f64]| Ok(Kept::judged(rewards, won, selection)?.mean());
    let whole = win_rate(&rewards, &won)?;
    let without = |left_out: usize| {
        let others = |of: &[f64]| [&of[..left_out], &of[left_out + 1..]].concat();
        Ok(count * whole - (count - 1.0) * win_rate(&others(&rewards), &others(&won))?)
    };
    (0..rewards.len()).map(without).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leave_one_out;

    /// r of the outcomes, two of which tie, and of the reference's responses, some of which tie with them.
    const OUTCOMES: [f32; 4] = [0.0, 1.0, 1.0, 2.0];
    const REFERENCE: [f32; 5] = [-1.0, 0.0, 1.0, 1.0, 3.0];
    const SELECTIONS: [Selection; 5] = [
        Selection::Sample,
        Selection::Best(2),
        Selection::Worst(2),
        Selection::Best(3),
        Selection::SoftBest { samples: 2, temperature: 0.7 },
    ];

    fn softmax(logits: [f64; 4]) -> [f64; 4] {
        let total: f64 = logits.iter().map(|l| l.exp()).sum();
        logits.map(|logit| logit.exp() / total)
    }

    /// Every tuple of `count` outcomes with its probability.
    fn tuples(policy: [f64; 4], count: u32) -> impl Iterator<Item = (Vec<usize>, f64)> {
        (0..4_usize.pow(count)).map(move |code| {
            let drawn: Vec<usize> = (0..count).map(|place| code / 4_usize.pow(place) % 4).collect();
            let probability = drawn.iter().map(|&outcome| policy[outcome]).product();
            (drawn, probability)
        })
    }

    fn rewards(drawn: &[usize]) -> Vec<f32> {
        drawn.iter().map(|&outcome| OUTCOMES[outcome]).collect()
    }

    /// W of a policy, from every tuple that the decoder may look at.
    fn win_rate(policy: [f64; 4], selection: Selection) -> f64 {
        let reference = Kept::new(&REFERENCE.map(f64::from), selection).unwrap();
        let won = |drawn: &[usize]| {
            let rewards: Vec<f64> = rewards(drawn).into_iter().map(f64::from).collect();
            Kept::new(&rewards, selection).unwrap().win_rate(&reference)
        };
        tuples(policy, selection.samples() as u32).map(|(drawn, p)| p * won(&drawn)).sum()
    }

    /// E[Σᵢ Aᵢ ∇log π(yᵢ)]/G by the logits, over every group of four.
    fn policy_gradient(
        logits: [f64; 4],
        selection: Selection,
        advantages: impl Fn(&[f64]) -> Vec<f64>,
    ) -> [f64; 4] {
        let policy = softmax(logits);
        let mut gradient = [0.0; 4];
        for (drawn, probability) in tuples(policy, 4) {
            let values = pseudo_values(&rewards(&drawn), &REFERENCE, selection).unwrap();
            for (outcome, advantage) in drawn.iter().zip(advantages(&values)) {
                for (k, sum) in gradient.iter_mut().enumerate() {
                    let score = f64::from(u8::from(k == *outcome)) - policy[k];
                    *sum += probability * advantage * score / 4.0;
                }
            }
        }
        gradient
    }

    #[test]
    fn the_policy_gradient_is_that_of_the_win_rate() {
        let logits = [0.3, -0.4, 0.1, -0.2];
        for selection in SELECTIONS {
            let by = |k: usize, step: f64| {
                let mut moved = logits;
                moved[k] += step;
                win_rate(softmax(moved), selection)
            };
            let exact: Vec<f64> = (0..4).map(|k| (by(k, 1e-5) - by(k, -1e-5)) / 2e-5).collect();
            let without = policy_gradient(logits, selection, |values| values.to_vec());
            let constant = policy_gradient(logits, selection, |values| {
                values.iter().map(|v| v - 0.7).collect()
            });
            let left_out = policy_gradient(logits, selection, leave_one_out);
            for k in 0..4 {
                for found in [without[k], constant[k], left_out[k]] {
                    assert!((found - exact[k]).abs() < 1e-9, "{selection:?}: {found} {exact:?}");
                }
            }
        }
    }

    #[test]
    fn their_mean_is_the_win_rate_of_the_group_and_without_bias() {
        let policy = softmax([0.3, -0.4, 0.1, -0.2]);
        for selection in SELECTIONS {
            let reference = Kept::new(&REFERENCE.map(f64::from), selection).unwrap();
            let mut expected = 0.0;
            for (drawn, probability) in tuples(policy, 4) {
                let rewards = rewards(&drawn);
                let values = pseudo_values(&rewards, &REFERENCE, selection).unwrap();
                let mean = values.iter().sum::<f64>() / 4.0;
                let widened: Vec<f64> = rewards.into_iter().map(f64::from).collect();
                let group = Kept::new(&widened, selection).unwrap().win_rate(&reference);
                assert!((mean - group).abs() < 1e-12);
                expected += probability * mean;
            }
            assert!((expected - win_rate(policy, selection)).abs() < 1e-12);
        }
    }

    #[test]
    fn too_few_are_refused() {
        let refused = |rewards: &[f32], reference: &[f32]| {
            pseudo_values(rewards, reference, Selection::Best(2)).is_err()
        };
        assert!(refused(&[1.0, 2.0], &REFERENCE), "each is left out once");
        assert!(refused(&[1.0, 2.0, 3.0], &[1.0]));
        assert!(!refused(&[1.0, 2.0, 3.0], &[1.0, 2.0]));
    }
}
