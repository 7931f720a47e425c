//! Inference-time win rates and rewards of one prompt from stored rewards, by U-statistics.
//!
//! A procedure that keeps the best (or worst) of N responses is evaluated without running it: from
//! M ≥ N stored rewards of each side, the estimate averages over every one of the C(M, N) subsets of
//! each side. Such an average is a U-statistic: it is unbiased for the procedure with N independent
//! draws, and no unbiased estimator that uses the same samples, in whatever order they came, has a
//! smaller variance. The selected reward of a random subset is at most the c-th smallest sample with
//! probability H(c) = C(c, N) / C(M, N), so no subset is ever formed.

use crate::error::{StatsError, check};

/// What one side keeps of its responses to a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// One response, as sampled.
    Sample,
    /// The response of greatest reward among this many, 1 or more.
    Best(usize),
    /// The response of least reward among this many, 1 or more.
    Worst(usize),
}

impl Selection {
    /// How many responses it looks at: N.
    pub fn samples(self) -> usize {
        match self {
            Selection::Sample => 1,
            Selection::Best(n) | Selection::Worst(n) => n,
        }
    }
}

/// Inference-time win rate of a policy over a reference on ONE prompt, in [0, 1].
///
/// Equation: W^T = P(r(y) > r(z)) + ½·P(r(y) = r(z)), y ~ T(π), z ~ T(π_ref), with the procedure T on
/// both sides (InfAlign, arXiv 2412.19792, inference-time win rate).
///
/// - `policy`, `reference`: rewards of independent responses, in any order, N or more of each; the two
///   numbers of samples may differ.
/// - `selection`: what T keeps; N is [`Selection::samples`].
///
/// The estimator is the U-statistic over all subsets of size N of either side: unbiased, and of least
/// variance among unbiased estimators. Costs O(M log M) whatever N.
///
/// # Errors
/// [`StatsError::EmptySelection`] when N is 0, [`StatsError::TooFew`] when a side holds fewer than N
/// rewards, [`StatsError::NotFinite`] for a reward that is NaN or infinite.
///
/// ```
/// use infalign_stats::{Selection, win_rate};
/// let (policy, reference) = ([0.9, 0.4, 0.7], [0.5, 0.1, 0.6]);
/// assert!((win_rate(&policy, &reference, Selection::Sample)? - 7.0 / 9.0).abs() < 1e-15);
/// assert!((win_rate(&policy, &reference, Selection::Best(2))? - 1.0).abs() < 1e-15);
/// # Ok::<(), infalign_stats::StatsError>(())
/// ```
pub fn win_rate(
    policy: &[f64],
    reference: &[f64],
    selection: Selection,
) -> Result<f64, StatsError> {
    let n = checked_size(selection)?;
    check("policy", policy, n)?;
    check("reference", reference, n)?;
    Ok(match selection {
        Selection::Sample | Selection::Best(_) => best_of_n(sorted(policy), &sorted(reference), n),
        // The smallest reward is the greatest of the negated ones, which swaps the sides.
        Selection::Worst(_) => best_of_n(negated(reference), &negated(policy), n),
    })
}

/// Expected reward of what a side keeps of N responses, in units of the reward.
///
/// Equation: Σᵢ s₍ᵢ₎·C(i−1, N−1)/C(M, N) over the M samples in ascending order (for the worst, in
/// descending order): the U-statistic of the expected maximum (minimum) of N independent rewards.
///
/// - `samples`: rewards of independent responses to one prompt, in any order, N or more.
///
/// # Errors
/// As for [`win_rate`].
///
/// ```
/// use infalign_stats::{Selection, expected_selected};
/// let mean_of_maxima = expected_selected(&[1.0, 2.0, 4.0], Selection::Best(2))?;
/// assert!((mean_of_maxima - (2.0 + 4.0 + 4.0) / 3.0).abs() < 1e-15);
/// # Ok::<(), infalign_stats::StatsError>(())
/// ```
pub fn expected_selected(samples: &[f64], selection: Selection) -> Result<f64, StatsError> {
    let n = checked_size(selection)?;
    check("samples", samples, n)?;
    let expected_greatest = |ascending: Vec<f64>| -> f64 {
        let weights = greatest_weights(ascending.len(), n);
        ascending.iter().zip(weights).map(|(reward, weight)| reward * weight).sum()
    };
    Ok(match selection {
        Selection::Sample | Selection::Best(_) => expected_greatest(sorted(samples)),
        Selection::Worst(_) => -expected_greatest(negated(samples)),
    })
}

fn checked_size(selection: Selection) -> Result<usize, StatsError> {
    match selection.samples() {
        0 => Err(StatsError::EmptySelection),
        n => Ok(n),
    }
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut ascending = samples.to_vec();
    ascending.sort_unstable_by(f64::total_cmp);
    ascending
}

fn negated(samples: &[f64]) -> Vec<f64> {
    let mut ascending: Vec<f64> = samples.iter().map(|value| -value).collect();
    ascending.sort_unstable_by(f64::total_cmp);
    ascending
}

/// P(best of `left` > best of `right`) + ½·P(equal); both ascending.
fn best_of_n(left: Vec<f64>, right: &[f64], n: usize) -> f64 {
    let right_at_most = subsets_within(right.len(), n);
    let weights = greatest_weights(left.len(), n);
    let beaten = |reward: f64| {
        let below = right.partition_point(|&other| other < reward);
        let at_most = below + right[below..].partition_point(|&other| other == reward);
        0.5 * (right_at_most[below] + right_at_most[at_most])
    };
    left.iter().zip(weights).map(|(&reward, weight)| weight * beaten(reward)).sum()
}

/// H(c) = C(c, N) / C(M, N) for c = 0..=M: the share of subsets within the c smallest samples.
///
/// Downward from H(M) = 1 by H(c−1) = H(c)·(c−N)/c: no factorials, relative error below M·2⁻⁵³.
fn subsets_within(m: usize, n: usize) -> Vec<f64> {
    let mut share = vec![0.0; m + 1];
    share[m] = 1.0;
    for c in (n + 1..=m).rev() {
        share[c - 1] = share[c] * ((c - n) as f64 / c as f64);
    }
    share
}

/// C(i−1, N−1) / C(M, N) = H(i)·N/i for i = 1..=M: the share of subsets whose greatest is the i-th.
fn greatest_weights(m: usize, n: usize) -> impl Iterator<Item = f64> {
    let within = subsets_within(m, n);
    (1..=m).map(move |i| within[i] * (n as f64 / i as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SplitMix;

    /// Every subset of size `n`, by bit masks.
    fn subsets(samples: &[f64], n: usize) -> Vec<Vec<f64>> {
        (0..1u32 << samples.len())
            .filter(|mask| mask.count_ones() as usize == n)
            .map(|mask| {
                let chosen = samples.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
                chosen.map(|(_, &value)| value).collect()
            })
            .collect()
    }

    fn select(subset: &[f64], selection: Selection) -> f64 {
        match selection {
            Selection::Worst(_) => subset.iter().copied().fold(f64::INFINITY, f64::min),
            _ => subset.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    fn selected(samples: &[f64], selection: Selection) -> Vec<f64> {
        let all = subsets(samples, selection.samples());
        all.iter().map(|subset| select(subset, selection)).collect()
    }

    fn enumerated_win_rate(policy: &[f64], reference: &[f64], selection: Selection) -> f64 {
        let (ours, theirs) = (selected(policy, selection), selected(reference, selection));
        let mut won = 0.0;
        for y in &ours {
            for z in &theirs {
                won += if y > z {
                    1.0
                } else if y == z {
                    0.5
                } else {
                    0.0
                };
            }
        }
        won / (ours.len() * theirs.len()) as f64
    }

    #[test]
    fn equals_the_enumeration_of_all_subsets_with_ties() {
        let mut random = SplitMix(11);
        for case in 0..60 {
            let (m, k) = (4 + case % 4, 4 + case % 3);
            let mut draw = |len: usize| -> Vec<f64> {
                (0..len).map(|_| (random.uniform() * 6.0).floor() - 2.0).collect()
            };
            let (policy, reference) = (draw(m), draw(k));
            for n in 1..=4 {
                for selection in [Selection::Best(n), Selection::Worst(n)] {
                    let exact = enumerated_win_rate(&policy, &reference, selection);
                    let got = win_rate(&policy, &reference, selection).unwrap();
                    assert!((got - exact).abs() < 1e-14, "{selection:?}: {got} against {exact}");
                    let kept = selected(&policy, selection);
                    let mean = kept.iter().sum::<f64>() / kept.len() as f64;
                    let got = expected_selected(&policy, selection).unwrap();
                    assert!((got - mean).abs() < 1e-14, "{selection:?}: {got} against {mean}");
                }
            }
        }
    }

    #[test]
    fn one_sample_is_the_plain_win_rate() {
        let (policy, reference) = ([1.0, 2.0, 2.0, 5.0], [2.0, 2.0, 3.0]);
        let plain = win_rate(&policy, &reference, Selection::Sample).unwrap();
        // The policy's 1, 2, 2, 5 win 0, 1, 1 and 3 of the 3 comparisons.
        assert!((plain - 5.0 / 12.0).abs() < 1e-15);
        assert_eq!(plain, win_rate(&policy, &reference, Selection::Best(1)).unwrap());
        let worst = win_rate(&policy, &reference, Selection::Worst(1)).unwrap();
        assert!((plain - worst).abs() < 1e-15);
    }

    #[test]
    fn a_policy_against_itself_wins_half_however_many_samples() {
        let mut random = SplitMix(5);
        let samples: Vec<f64> = (0..10_000).map(|_| random.uniform()).collect();
        for n in [1, 2, 100, 5_000, 10_000] {
            for selection in [Selection::Best(n), Selection::Worst(n)] {
                let half = win_rate(&samples, &samples, selection).unwrap();
                assert!((half - 0.5).abs() < 1e-11, "{selection:?}: {half}");
            }
        }
    }

    #[test]
    fn is_unbiased_for_the_continuous_win_rate() {
        // Policy reward u^(1/a), a = 2, against uniform: best-of-N wins a/(a+1) for every N.
        let mut random = SplitMix(17);
        let rounds = 4_000;
        for n in [2, 4] {
            let mut sum = 0.0;
            for _ in 0..rounds {
                let policy: Vec<f64> = (0..6).map(|_| random.uniform().sqrt()).collect();
                let reference: Vec<f64> = (0..5).map(|_| random.uniform()).collect();
                sum += win_rate(&policy, &reference, Selection::Best(n)).unwrap();
            }
            let mean = sum / rounds as f64;
            assert!((mean - 2.0 / 3.0).abs() < 0.015, "N = {n}: {mean}");
        }
    }

    #[test]
    fn expected_best_of_uniform_ranks_is_the_known_fraction() {
        // The samples 1..=M: the expected greatest of N without replacement is N(M+1)/(N+1).
        let samples: Vec<f64> = (1..=10_000).map(f64::from).collect();
        for n in [1usize, 7, 128, 9_999] {
            let exact = n as f64 * 10_001.0 / (n as f64 + 1.0);
            let best = expected_selected(&samples, Selection::Best(n)).unwrap();
            let worst = expected_selected(&samples, Selection::Worst(n)).unwrap();
            assert!((best / exact - 1.0).abs() < 1e-11, "{best} against {exact}");
            assert!(((10_001.0 - worst) / exact - 1.0).abs() < 1e-11);
        }
    }

    #[test]
    fn refuses_what_it_cannot_estimate() {
        let one = [1.0];
        assert_eq!(win_rate(&one, &one, Selection::Best(0)), Err(StatsError::EmptySelection));
        assert_eq!(
            win_rate(&one, &[1.0, 2.0], Selection::Worst(2)),
            Err(StatsError::TooFew { what: "policy", needed: 2, found: 1 })
        );
        let message = expected_selected(&[0.0, f64::INFINITY], Selection::Sample).unwrap_err();
        assert_eq!(message.to_string(), "value 1 of samples is inf; every value must be finite");
    }
}
