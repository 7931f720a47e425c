//! What a procedure makes of a policy's responses, itself as what is trained on: the inference-time win rate, or the expected reward.
//!
//! CTRL trains on the Φ of the best policy there is. A policy that cannot become that one, being small or having few steps, has another right reward:
//! the derivative 𝓡(y) = ∂W^T(π ≻ π_ref)/∂π(y) at the policy as it stands (InfAlign, arXiv 2412.19792, whose coupled characterisation of the
//! optimum has it at π*). At the optimum the two are the same but for a constant. So it is for the expected reward of what is kept,
//! Σ_y T(π)(y)·r(y), whose best policy no Φ of the rank alone leads to: max@k, and pass@k for rewards of 0 and 1.
//!
//! Let each response have a score, its share of wins over what the reference keeps, or its reward. The expected score of what is kept of a group of
//! G > N responses, S(G), is a U-statistic: unbiased. Trained on is the jackknife's pseudo-value of each response,
//!   rᵢ = G·S(G) − (G − 1)·S(G without i).
//! Given yᵢ, its expectation is N·h(yᵢ) − (N − 1)·E\[S\], h(y) being the expected score of what is kept of y and N − 1 others: the derivative of
//! E\[S\] by π(yᵢ) and a constant. So its policy gradient is that of E\[S\], without bias, whatever constant is taken off (for a win rate, that
//! against the reference rewards that are given); its
//! mean over the group is S(G), and less the mean of the others' (leave-one-out) it is G·(S(G) − S(G without i)), which the other responses alone
//! make a baseline for. Estimators of the same gradient, for the reward of the best: arXiv 2412.15287, 2503.19595 and 2505.15201.

use infalign_stats::{Kept, Selection, StatsError};

/// rᵢ of each response to one prompt; their mean is the expected score of what is kept of the group.
///
/// - `rewards`: what the procedure selects by, of the policy's responses, finite, more than N.
/// - `scores`: what each counts for where it is kept, finite, in the same order.
///
/// # Errors
/// As [`Kept::judged`]: too few.
pub(crate) fn pseudo_values(
    rewards: &[f32],
    scores: &[f64],
    selection: Selection,
) -> Result<Vec<f64>, StatsError> {
    let (rewards, count) = (widened(rewards), rewards.len() as f64);
    let expected = |rewards: &[f64], scores: &[f64]| {
        Kept::judged(rewards, scores, selection).map(|kept| kept.mean())
    };
    let whole = expected(&rewards, scores)?;
    let without = |left_out: usize| {
        let others = |of: &[f64]| [&of[..left_out], &of[left_out + 1..]].concat();
        Ok(count * whole - (count - 1.0) * expected(&others(&rewards), &others(scores))?)
    };
    (0..rewards.len()).map(without).collect()
}

/// The share of what the reference keeps that each response wins over, ties counted half.
///
/// - `rewards`: of the policy's responses to one prompt, finite.
/// - `reference`: rewards of the reference's responses, N or more.
///
/// # Errors
/// As [`Kept::new`]: too few of the reference.
pub(crate) fn shares_won(
    rewards: &[f32],
    reference: &[f32],
    selection: Selection,
) -> Result<Vec<f64>, StatsError> {
    Ok(Kept::new(&widened(reference), selection)?.won_by(&widened(rewards)))
}

fn widened(rewards: &[f32]) -> Vec<f64> {
    rewards.iter().copied().map(f64::from).collect()
}

/// Standard deviation over responses of what rᵢ is in expectation, of standard normal rewards that the best (or worst) of `n` is kept of.
///
/// Equation: that of H(x), H′(x) = n·F(x)^{n−1}, F being the normal distribution function; by midpoint sums, to three digits up to n = 1000.
pub(crate) fn normal_deviation(n: usize) -> f64 {
    /// Of the sums, in standard deviations.
    const STEP: f64 = 0.01;
    let n = n as f64;
    let [mut below, mut value, mut mean, mut square] = [0.0_f64; 4];
    for place in -900_i32..900 {
        let x = (f64::from(place) + 0.5) * STEP;
        let mass = STEP * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        let half = 0.5 * STEP * n * (below + 0.5 * mass).powf(n - 1.0);
        let middle = value + half;
        mean += mass * middle;
        square += mass * middle * middle;
        value = middle + half;
        below += mass;
    }
    (square - mean * mean).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leave_one_out;

    /// r of the outcomes, two of which tie, and of the reference's responses, some of which tie with them.
    const OUTCOMES: [f32; 4] = [0.0, 1.0, 1.0, 2.5];
    const REFERENCE: [f32; 5] = [-1.0, 0.0, 1.0, 1.0, 3.0];
    const SELECTIONS: [Selection; 5] = [
        Selection::Sample,
        Selection::Best(2),
        Selection::Worst(2),
        Selection::Best(3),
        Selection::SoftBest { samples: 2, temperature: 0.7 },
    ];
    /// What is trained on.
    const AIMS: [Aim; 2] = [Aim::WinRate, Aim::Reward];

    #[derive(Clone, Copy, Debug)]
    enum Aim {
        WinRate,
        Reward,
    }

    impl Aim {
        fn scores(self, rewards: &[f32], selection: Selection) -> Vec<f64> {
            match self {
                Self::WinRate => shares_won(rewards, &REFERENCE, selection).unwrap(),
                Self::Reward => widened(rewards),
            }
        }

        /// Of a group, by another way than the scores of single responses.
        fn of_group(self, rewards: &[f32], selection: Selection) -> f64 {
            let kept = Kept::new(&widened(rewards), selection).unwrap();
            match self {
                Self::WinRate => {
                    kept.win_rate(&Kept::new(&widened(&REFERENCE), selection).unwrap())
                }
                Self::Reward => kept.mean(),
            }
        }

        /// Of a policy, from every tuple that the procedure may look at.
        fn of_policy(self, policy: [f64; 4], selection: Selection) -> f64 {
            let all = tuples(policy, selection.samples() as u32);
            all.map(|(drawn, p)| p * self.of_group(&rewards(&drawn), selection)).sum()
        }

        fn pseudo_values(self, rewards: &[f32], selection: Selection) -> Vec<f64> {
            pseudo_values(rewards, &self.scores(rewards, selection), selection).unwrap()
        }
    }

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

    /// E[Σᵢ Aᵢ ∇log π(yᵢ)]/G by the logits, over every group of four.
    fn policy_gradient(
        logits: [f64; 4],
        (aim, selection): (Aim, Selection),
        advantages: impl Fn(&[f64]) -> Vec<f64>,
    ) -> [f64; 4] {
        let policy = softmax(logits);
        let mut gradient = [0.0; 4];
        for (drawn, probability) in tuples(policy, 4) {
            let values = aim.pseudo_values(&rewards(&drawn), selection);
            for (outcome, advantage) in drawn.iter().zip(advantages(&values)) {
                for (k, sum) in gradient.iter_mut().enumerate() {
                    let score = f64::from(u8::from(k == *outcome)) - policy[k];
                    *sum += probability * advantage * score / 4.0;
                }
            }
        }
        gradient
    }

    fn cases() -> impl Iterator<Item = (Aim, Selection)> {
        AIMS.into_iter().flat_map(|aim| SELECTIONS.map(|selection| (aim, selection)))
    }

    #[test]
    fn the_policy_gradient_is_that_of_what_is_expected() {
        let logits = [0.3, -0.4, 0.1, -0.2];
        for (aim, selection) in cases() {
            let by = |k: usize, step: f64| {
                let mut moved = logits;
                moved[k] += step;
                aim.of_policy(softmax(moved), selection)
            };
            let exact: Vec<f64> = (0..4).map(|k| (by(k, 1e-5) - by(k, -1e-5)) / 2e-5).collect();
            let of = (aim, selection);
            let without = policy_gradient(logits, of, |values| values.to_vec());
            let constant =
                policy_gradient(logits, of, |values| values.iter().map(|v| v - 0.7).collect());
            let left_out = policy_gradient(logits, of, leave_one_out);
            for k in 0..4 {
                for found in [without[k], constant[k], left_out[k]] {
                    assert!((found - exact[k]).abs() < 1e-9, "{of:?}: {found} {exact:?}");
                }
            }
        }
    }

    #[test]
    fn their_mean_is_that_of_the_group_and_without_bias() {
        let policy = softmax([0.3, -0.4, 0.1, -0.2]);
        for (aim, selection) in cases() {
            let mut expected = 0.0;
            for (drawn, probability) in tuples(policy, 4) {
                let rewards = rewards(&drawn);
                let mean = aim.pseudo_values(&rewards, selection).iter().sum::<f64>() / 4.0;
                assert!((mean - aim.of_group(&rewards, selection)).abs() < 1e-12);
                expected += probability * mean;
            }
            assert!((expected - aim.of_policy(policy, selection)).abs() < 1e-12);
        }
    }

    /// Of rewards of 0 and 1, w(y, z) = ½ + ½(r(y) − r(z)).
    #[test]
    fn of_a_verdict_the_win_rate_has_half_of_the_gradient() {
        let (verdicts, reference) = ([0.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0]);
        for selection in SELECTIONS {
            let won = shares_won(&verdicts, &reference, selection).unwrap();
            let won = leave_one_out(&pseudo_values(&verdicts, &won, selection).unwrap());
            let right = pseudo_values(&verdicts, &widened(&verdicts), selection).unwrap();
            for (won, right) in won.iter().zip(leave_one_out(&right)) {
                assert!((won - 0.5 * right).abs() < 1e-12, "{selection:?}");
            }
        }
    }

    #[test]
    fn too_few_are_refused() {
        let best = Selection::Best(2);
        let refused = |rewards: &[f32]| pseudo_values(rewards, &widened(rewards), best).is_err();
        assert!(refused(&[1.0, 2.0]), "each is left out once");
        assert!(!refused(&[1.0, 2.0, 3.0]));
        assert!(shares_won(&[1.0, 2.0, 3.0], &[1.0], best).is_err());
        assert!(shares_won(&[1.0, 2.0, 3.0], &[1.0, 2.0], best).is_ok());
    }

    #[test]
    fn normal_rewards_spread_as_they_do_elsewhere() {
        // By numerical integration elsewhere, to three decimals.
        for (n, expected) in
            [(1, 1.0), (2, 1.078), (4, 1.263), (8, 1.545), (16, 1.942), (32, 2.489)]
        {
            let found = normal_deviation(n);
            assert!((found - expected).abs() < 1e-3, "{n}: {found}");
        }
    }
}
