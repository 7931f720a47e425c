//! What a procedure makes of a policy's responses, itself as what is trained on: the inference-time win rate, or the expected reward.
//!
//! CTRL trains on the Φ of the best policy there is. A policy that cannot become that one, being small or having few steps, has another right reward:
//! the derivative 𝓡(y) = ∂W^T(π ≻ π_ref)/∂π(y) at the policy as it stands (InfAlign, arXiv 2412.19792, whose coupled characterisation of the
//! optimum has it at π*). At the optimum the two are the same but for a constant. So it is for the expected reward of what is kept,
//! Σ_y T(π)(y)·r(y), whose best policy no Φ of the rank alone leads to: max@k, pass@k for rewards of 0 and 1, and maj@k where T takes the most
//! frequent answer.
//!
//! Let each response have a score, its share of wins over what the reference keeps, or its reward. The expected score of what is kept of a group of
//! G > N responses, S(G), is a U-statistic: unbiased. Trained on is the jackknife's pseudo-value of each response,
//!   rᵢ = G·S(G) − (G − 1)·S(G without i).
//! Given yᵢ, its expectation is N·h(yᵢ) − (N − 1)·E\[S\], h(y) being the expected score of what is kept of y and N − 1 others: the derivative of
//! E\[S\] by π(yᵢ) and a constant. So its policy gradient is that of E\[S\], without bias, whatever constant is taken off (for a win rate, that
//! against the reference rewards that are given); its
//! mean over the group is S(G), and less the mean of the others' (leave-one-out) it is G·(S(G) − S(G without i)), which the other responses alone
//! make a baseline for. Estimators of the same gradient, for the reward of the best: arXiv 2412.15287, 2503.19595 and 2505.15201.

use infalign_stats::{Choice, Kept, Selection, StatsError};

/// rᵢ of each response to one prompt; their mean is the expected score of what is kept of the group.
///
/// - `rewards`, `answers`: what the procedure chooses by, of the policy's responses, more than N; the answers may be left out where it goes by
///   rewards, which are finite.
/// - `scores`: what each counts for where it is kept, finite, in the same order.
///
/// # Errors
/// As [`Choice::weights`]: too few.
pub(crate) fn pseudo_values(
    (rewards, answers): (&[f32], &[Option<&str>]),
    scores: &[f64],
    choice: Choice,
) -> Result<Vec<f64>, StatsError> {
    let (rewards, count) = (widened(rewards), rewards.len() as f64);
    let expected = |responses: &[usize]| {
        let of = |all: &[f64]| -> Vec<f64> { responses.iter().map(|&one| all[one]).collect() };
        let given = || responses.iter().filter_map(|&one| answers.get(one).copied()).collect();
        let weights = choice.weights(&of(&rewards), given)?;
        Kept::weighted(&of(scores), &weights).map(|kept| kept.mean())
    };
    let whole = expected(&(0..rewards.len()).collect::<Vec<_>>())?;
    let without = |left_out: usize| {
        let others: Vec<usize> = (0..rewards.len()).filter(|&one| one != left_out).collect();
        Ok(count * whole - (count - 1.0) * expected(&others)?)
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

/// Standard deviation over responses of what rᵢ is in expectation, in units of that of the reward, where a vote of `n` is between a right answer
/// and a wrong one that are equally likely.
///
/// Equation: of an odd N = 2m + 1, with P(p) = Σ_{j>m} C(N, j) p^j (1 − p)^{N−j}, P′(½) = N·C(2m, m)/2^{2m}; an even N decides as N − 1 does.
pub(crate) fn vote_deviation(n: usize) -> f64 {
    let half = n.saturating_sub(1) / 2;
    // C(2m, m)/2^{2m} = Π (2j − 1)/2j
    let ratio = |j: usize| (2 * j - 1) as f64 / (2 * j) as f64;
    (2 * half + 1) as f64 * (1..=half).map(ratio).product::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leave_one_out;

    /// r of the outcomes, two of which tie, and of the reference's responses, some of which tie with them.
    const OUTCOMES: [f32; 4] = [0.0, 1.0, 1.0, 2.5];
    const REFERENCE: [f32; 5] = [-1.0, 0.0, 1.0, 1.0, 3.0];
    /// What the outcomes answer.
    const ANSWERS: [Option<&str>; 4] = [Some("7"), None, Some("8"), Some("7")];
    const SELECTIONS: [Selection; 5] = [
        Selection::Sample,
        Selection::Best(2),
        Selection::Worst(2),
        Selection::Best(3),
        Selection::SoftBest { samples: 2, temperature: 0.7 },
    ];

    /// What is trained on.
    #[derive(Clone, Copy, Debug)]
    enum Aim {
        WinRate(Selection),
        Reward(Choice),
    }

    impl Aim {
        fn choice(self) -> Choice {
            match self {
                Self::WinRate(selection) => Choice::Ranked(selection),
                Self::Reward(choice) => choice,
            }
        }

        /// Of a group, by another way than the scores of single responses.
        fn of_group(self, drawn: &[usize]) -> f64 {
            let rewards = widened(&rewards(drawn));
            let weights = self.choice().weights(&rewards, || answers(drawn)).unwrap();
            let kept = Kept::weighted(&rewards, &weights).unwrap();
            match self {
                Self::WinRate(selection) => {
                    kept.win_rate(&Kept::new(&widened(&REFERENCE), selection).unwrap())
                }
                Self::Reward(_) => kept.mean(),
            }
        }

        /// Of a policy, from every tuple that the procedure may look at.
        fn of_policy(self, policy: [f64; 4]) -> f64 {
            let all = tuples(policy, self.choice().samples() as u32);
            all.map(|(drawn, p)| p * self.of_group(&drawn)).sum()
        }

        fn pseudo_values(self, drawn: &[usize]) -> Vec<f64> {
            let rewards = rewards(drawn);
            let scores = match self {
                Self::WinRate(selection) => shares_won(&rewards, &REFERENCE, selection).unwrap(),
                Self::Reward(_) => widened(&rewards),
            };
            pseudo_values((&rewards, &answers(drawn)), &scores, self.choice()).unwrap()
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

    fn answers(drawn: &[usize]) -> Vec<Option<&'static str>> {
        drawn.iter().map(|&outcome| ANSWERS[outcome]).collect()
    }

    /// E[Σᵢ Aᵢ ∇log π(yᵢ)]/G by the logits, over every group of four.
    fn policy_gradient(
        logits: [f64; 4],
        aim: Aim,
        advantages: impl Fn(&[f64]) -> Vec<f64>,
    ) -> [f64; 4] {
        let policy = softmax(logits);
        let mut gradient = [0.0; 4];
        for (drawn, probability) in tuples(policy, 4) {
            let values = aim.pseudo_values(&drawn);
            for (outcome, advantage) in drawn.iter().zip(advantages(&values)) {
                for (k, sum) in gradient.iter_mut().enumerate() {
                    let score = f64::from(u8::from(k == *outcome)) - policy[k];
                    *sum += probability * advantage * score / 4.0;
                }
            }
        }
        gradient
    }

    fn cases() -> impl Iterator<Item = Aim> {
        let choices = SELECTIONS.map(Choice::Ranked).into_iter();
        let choices = choices.chain([2, 3].map(Choice::Majority));
        SELECTIONS.into_iter().map(Aim::WinRate).chain(choices.map(Aim::Reward))
    }

    #[test]
    fn the_policy_gradient_is_that_of_what_is_expected() {
        let logits = [0.3, -0.4, 0.1, -0.2];
        for aim in cases() {
            let by = |k: usize, step: f64| {
                let mut moved = logits;
                moved[k] += step;
                aim.of_policy(softmax(moved))
            };
            let exact: Vec<f64> = (0..4).map(|k| (by(k, 1e-5) - by(k, -1e-5)) / 2e-5).collect();
            let without = policy_gradient(logits, aim, |values| values.to_vec());
            let constant =
                policy_gradient(logits, aim, |values| values.iter().map(|v| v - 0.7).collect());
            let left_out = policy_gradient(logits, aim, leave_one_out);
            for k in 0..4 {
                for found in [without[k], constant[k], left_out[k]] {
                    assert!((found - exact[k]).abs() < 1e-9, "{aim:?}: {found} {exact:?}");
                }
            }
        }
    }

    #[test]
    fn their_mean_is_that_of_the_group_and_without_bias() {
        let policy = softmax([0.3, -0.4, 0.1, -0.2]);
        for aim in cases() {
            let mut expected = 0.0;
            for (drawn, probability) in tuples(policy, 4) {
                let mean = aim.pseudo_values(&drawn).iter().sum::<f64>() / 4.0;
                assert!((mean - aim.of_group(&drawn)).abs() < 1e-12);
                expected += probability * mean;
            }
            assert!((expected - aim.of_policy(policy)).abs() < 1e-12);
        }
    }

    /// Of rewards of 0 and 1, w(y, z) = ½ + ½(r(y) − r(z)).
    #[test]
    fn of_a_verdict_the_win_rate_has_half_of_the_gradient() {
        let (verdicts, reference) = ([0.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0]);
        for selection in SELECTIONS {
            let won = shares_won(&verdicts, &reference, selection).unwrap();
            let of = |scores: &[f64]| {
                let values = pseudo_values((&verdicts, &[]), scores, Choice::Ranked(selection));
                leave_one_out(&values.unwrap())
            };
            for (won, right) in of(&won).iter().zip(of(&widened(&verdicts))) {
                assert!((won - 0.5 * right).abs() < 1e-12, "{selection:?}");
            }
        }
    }

    #[test]
    fn too_few_are_refused() {
        let best = Selection::Best(2);
        let refused = |rewards: &[f32], choice: Choice| {
            pseudo_values((rewards, &[]), &widened(rewards), choice).is_err()
        };
        assert!(refused(&[1.0, 2.0], Choice::Ranked(best)), "each is left out once");
        assert!(!refused(&[1.0, 2.0, 3.0], Choice::Ranked(best)));
        assert!(refused(&[1.0, 2.0, 3.0], Choice::Majority(2)), "answers are not known");
        assert!(shares_won(&[1.0, 2.0, 3.0], &[1.0], best).is_err());
        assert!(shares_won(&[1.0, 2.0, 3.0], &[1.0, 2.0], best).is_ok());
    }

    #[test]
    fn a_vote_of_two_answers_is_steepest_in_the_middle() {
        for n in 1..12_u32 {
            // P(right) by enumeration of all votes, ties halved.
            let right = |p: f64| -> f64 {
                let of = |votes: u32| {
                    let each = |voter: u32| if votes >> voter & 1 == 1 { p } else { 1.0 - p };
                    let chance: f64 = (0..n).map(each).product();
                    let (yes, no) = (votes.count_ones(), n - votes.count_ones());
                    chance * 0.5 * (f64::from(u8::from(yes > no)) + f64::from(u8::from(yes >= no)))
                };
                (0..1 << n).map(of).sum()
            };
            // The reward's deviation is ½, and answers differ by the derivative.
            let slope = (right(0.5 + 1e-4) - right(0.5 - 1e-4)) / 2e-4;
            assert!((vote_deviation(n as usize) - slope).abs() < 1e-5, "{n}: {slope}");
        }
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
