//! Inference-time win rates and rewards of one prompt from stored rewards, by U-statistics.
//!
//! A procedure that keeps the best (or worst) of N responses is evaluated without running it: from
//! M ≥ N stored responses of each side, the estimate averages over every one of the C(M, N) subsets of
//! each side. Such an average is a U-statistic: it is unbiased for the procedure with N independent
//! draws, and no unbiased estimator that uses the same samples, in whatever order they came, has a
//! smaller variance. The greatest of a random subset is the i-th smallest sample with probability
//! C(i−1, N−1) / C(M, N), so no subset is ever formed: [`Kept`] holds these probabilities. So it is for a
//! procedure that draws one of the N by their rewards, which takes an integral in place of a binomial.

use std::cmp::Ordering;
use std::ops::Sub;

use crate::error::{StatsError, check};
use crate::soft;

/// What one side keeps of its responses to a prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Selection {
    /// One response, as sampled.
    Sample,
    /// The response of greatest reward among this many, 1 or more.
    Best(usize),
    /// The response of least reward among this many, 1 or more.
    Worst(usize),
    /// One of some, drawn with probability ∝ e^{r/τ}.
    SoftBest {
        /// How many they are, 1 or more.
        samples: usize,
        /// τ, above 0, in units of the reward r.
        temperature: f64,
    },
}

impl Selection {
    /// How many responses it looks at: N.
    pub fn samples(self) -> usize {
        match self {
            Selection::Sample => 1,
            Selection::Best(n) | Selection::Worst(n) | Selection::SoftBest { samples: n, .. } => n,
        }
    }

    /// The place of the one that it keeps of N responses: the first of equals, or one that is drawn.
    ///
    /// - `rewards`: of the N, finite; their differences are taken in their own precision.
    /// - `uniform`: a number in [0, 1), asked for where it draws.
    ///
    /// ```
    /// use infalign_stats::Selection;
    /// assert_eq!(Selection::Best(3).keep(&[1.0_f64, 2.0, 2.0], || 0.5), 1);
    /// ```
    pub fn keep<R>(self, rewards: &[R], uniform: impl FnOnce() -> f64) -> usize
    where
        R: Copy + PartialOrd + Sub<Output = R> + Into<f64>,
    {
        match self {
            Selection::Sample => 0,
            Selection::Best(_) => first(rewards, |a, b| a > b),
            Selection::Worst(_) => first(rewards, |a, b| a < b),
            Selection::SoftBest { temperature, .. } => {
                let greatest = first(rewards, |a, b| a > b);
                soft::draw(rewards, greatest, temperature, uniform())
            }
        }
    }
}

/// The place of the first than which no other is better.
fn first<R: Copy>(rewards: &[R], better: impl Fn(R, R) -> bool) -> usize {
    (1..rewards.len()).fold(0, |kept, i| if better(rewards[i], rewards[kept]) { i } else { kept })
}

/// How likely each stored sample is to be what the selection keeps of N of them, over all subsets of N: `[samples]`, summing to 1.
///
/// Equation: C(i−1, N−1) / C(M, N) for the i-th smallest of M rewards (for the worst, the i-th greatest), shared evenly among equal ones; for
/// soft best-of-N, the mean of e^{r/τ} / Σ e^{r/τ} over the subsets.
///
/// - `rewards`: of independent responses to one prompt, in any order, N or more: what the selection goes by.
///
/// # Errors
/// [`StatsError::EmptySelection`] when N is 0, [`StatsError::TooFew`] for fewer than N rewards, [`StatsError::NotFinite`] for a reward that
/// is NaN or infinite, [`StatsError::Temperature`] for a τ that is not above 0, or 10,000 times less than rewards lie apart.
pub fn selection_weights(rewards: &[f64], selection: Selection) -> Result<Vec<f64>, StatsError> {
    let n = selection.samples();
    if n == 0 {
        return Err(StatsError::EmptySelection);
    }
    check("rewards", rewards, n)?;
    match selection {
        Selection::Sample | Selection::Best(_) => Ok(last_weights(rewards, n, f64::total_cmp)),
        Selection::Worst(_) => Ok(last_weights(rewards, n, |a, b| b.total_cmp(a))),
        Selection::SoftBest { temperature, .. } => soft::weights(rewards, n, temperature),
    }
}

/// How likely each sample is to be the last of N of them in an order; equal rewards share evenly.
fn last_weights(rewards: &[f64], n: usize, compare: impl Fn(&f64, &f64) -> Ordering) -> Vec<f64> {
    let mut order: Vec<usize> = (0..rewards.len()).collect();
    order.sort_unstable_by(|&a, &b| compare(&rewards[a], &rewards[b]));
    let by_rank = greatest_weights(rewards.len(), n);
    let mut weights = vec![0.0; rewards.len()];
    let mut rank = 0;
    for ties in order.chunk_by(|&a, &b| rewards[a] == rewards[b]) {
        let share = by_rank[rank..rank + ties.len()].iter().sum::<f64>() / ties.len() as f64;
        ties.iter().for_each(|&sample| weights[sample] = share);
        rank += ties.len();
    }
    weights
}

/// The response to ONE prompt that a side keeps, as a distribution over its stored samples.
///
/// ```
/// use infalign_stats::{Kept, Selection};
/// // The decoder keeps the best of two by its own reward; a judge decides whose response is better.
/// let reward = [0.9, 0.4, 0.7];
/// let policy = Kept::judged(&reward, &[3.0, 1.0, 5.0], Selection::Best(2))?;
/// let reference = Kept::new(&[2.0, 4.0], Selection::Sample)?;
/// assert!((policy.mean() - (3.0 + 3.0 + 5.0) / 3.0).abs() < 1e-15);
/// assert!((policy.win_rate(&reference) - (0.5 + 0.5 + 1.0) / 3.0).abs() < 1e-15);
/// # Ok::<(), infalign_stats::StatsError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// What decides who wins, ascending, with the probability of each.
    scores: Vec<(f64, f64)>,
}

impl Kept {
    /// Selected and judged by the same rewards.
    ///
    /// # Errors
    /// As for [`selection_weights`].
    pub fn new(rewards: &[f64], selection: Selection) -> Result<Self, StatsError> {
        Self::judged(rewards, rewards, selection)
    }

    /// Selected by `rewards`, judged by `scores`: the two numbers of each response, in the same order.
    ///
    /// # Errors
    /// As for [`selection_weights`], and [`StatsError::Unpaired`] for lists of different lengths.
    pub fn judged(
        rewards: &[f64],
        scores: &[f64],
        selection: Selection,
    ) -> Result<Self, StatsError> {
        check("scores", scores, 1)?;
        Self::weighted(scores, &selection_weights(rewards, selection)?)
    }

    /// Judged by `scores`, and kept as often as `weights` say, which add up to 1: the two numbers of each response, in the same order.
    ///
    /// # Errors
    /// [`StatsError::Unpaired`] for lists of different lengths, [`StatsError::TooFew`] for none at all and [`StatsError::NotFinite`] for a score
    /// or weight that is NaN or infinite.
    pub fn weighted(scores: &[f64], weights: &[f64]) -> Result<Self, StatsError> {
        if weights.len() != scores.len() {
            return Err(StatsError::Unpaired { first: weights.len(), second: scores.len() });
        }
        check("scores", scores, 1)?;
        check("weights", weights, 1)?;
        let weights = weights.iter().copied();
        let mut scores: Vec<(f64, f64)> = scores.iter().copied().zip(weights).collect();
        scores.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Self { scores })
    }

    /// Expected score of what is kept: the U-statistic of the expected maximum (minimum) of N independent rewards.
    pub fn mean(&self) -> f64 {
        self.scores.iter().map(|(score, weight)| score * weight).sum()
    }

    /// P(score > what is kept) + ½·P(score = what is kept) for each of some scores, in their order: each in [0, 1]. Costs O(M) and O(log M) a score.
    ///
    /// ```
    /// use infalign_stats::{Kept, Selection};
    /// let kept = Kept::new(&[2.0, 4.0], Selection::Sample)?;
    /// assert_eq!(kept.won_by(&[5.0, 4.0, 1.0]), [1.0, 0.75, 0.0]);
    /// # Ok::<(), infalign_stats::StatsError>(())
    /// ```
    pub fn won_by(&self, scores: &[f64]) -> Vec<f64> {
        let mut total = 0.0;
        let sums = self.scores.iter().map(|(_, weight)| {
            total += weight;
            total
        });
        let below: Vec<f64> = std::iter::once(0.0).chain(sums).collect();
        let won = |score: &f64| {
            let under = self.scores.partition_point(|(kept, _)| kept < score);
            let upto = self.scores.partition_point(|(kept, _)| kept <= score);
            0.5 * (below[under] + below[upto])
        };
        scores.iter().map(won).collect()
    }

    /// P(ours > theirs) + ½·P(ours = theirs), in [0, 1]: the inference-time win rate on this prompt (InfAlign, arXiv 2412.19792).
    ///
    /// The two sides may keep by different procedures, and out of different numbers of samples. Costs O(M).
    pub fn win_rate(&self, theirs: &Self) -> f64 {
        let theirs = &theirs.scores;
        let (mut below, mut at_most, mut under, mut upto) = (0, 0, 0.0, 0.0);
        let mut won = 0.0;
        for &(score, weight) in &self.scores {
            while below < theirs.len() && theirs[below].0 < score {
                under += theirs[below].1;
                below += 1;
            }
            while at_most < theirs.len() && theirs[at_most].0 <= score {
                upto += theirs[at_most].1;
                at_most += 1;
            }
            won += weight * 0.5 * (under + upto);
        }
        // Weights add up to 1 up to rounding.
        won.min(1.0)
    }
}

/// Inference-time win rate of a policy over a reference on ONE prompt, in [0, 1].
///
/// Equation: W^T = P(r(y) > r(z)) + ½·P(r(y) = r(z)), y ~ T(π), z ~ T(π_ref), with the procedure T on
/// both sides (InfAlign, arXiv 2412.19792, inference-time win rate). [`Kept`] has what differs between the sides.
///
/// - `policy`, `reference`: rewards of independent responses, in any order, N or more of each; the two
///   numbers of samples may differ.
/// - `selection`: what T keeps; N is [`Selection::samples`].
///
/// # Errors
/// As for [`selection_weights`].
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
    Ok(Kept::new(policy, selection)?.win_rate(&Kept::new(reference, selection)?))
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
fn greatest_weights(m: usize, n: usize) -> Vec<f64> {
    let within = subsets_within(m, n);
    (1..=m).map(|i| within[i] * (n as f64 / i as f64)).collect()
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
                    let got = Kept::new(&policy, selection).unwrap().mean();
                    assert!((got - mean).abs() < 1e-14, "{selection:?}: {got} against {mean}");
                }
            }
        }
    }

    #[test]
    fn a_group_keeps_the_first_of_equals_or_a_draw_by_its_weights() {
        let rewards = [1.0, 3.0, 0.0, 3.0, 0.0];
        let never = || -> f64 { unreachable!("nothing is drawn") };
        assert_eq!(Selection::Sample.keep(&rewards[..1], never), 0);
        assert_eq!(Selection::Best(5).keep(&rewards, never), 1);
        assert_eq!(Selection::Worst(5).keep(&rewards, never), 2);
        let (soft, n) = (Selection::SoftBest { samples: 5, temperature: 2.0 }, 10_000);
        let mut shares = [0.0; 5];
        for i in 0..n {
            let kept = soft.keep(&rewards, || (f64::from(i) + 0.5) / f64::from(n));
            shares[kept] += 1.0 / f64::from(n);
        }
        let weights = selection_weights(&rewards, soft).unwrap();
        for (share, weight) in shares.iter().zip(&weights) {
            assert!((share - weight).abs() < 1e-3, "{shares:?} against {weights:?}");
        }
        let cold = Selection::SoftBest { samples: 3, temperature: 1e-3 };
        let last = cold.keep(&[0.0_f64, 5.0, 0.0], || 1.0 - f64::EPSILON / 2.0);
        assert_eq!(last, 1, "a weight of 0 is never drawn");
        // Of these, 32 bits have the difference 1e8, and 64 bits 3 less.
        let wide = Selection::SoftBest { samples: 2, temperature: 1e8 };
        assert_eq!(wide.keep(&[1e8_f32, 3.0], || 0.731_058_575), 0);
        assert_eq!(wide.keep(&[1e8_f64, 3.0], || 0.731_058_575), 1);
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
            let best = Kept::new(&samples, Selection::Best(n)).unwrap().mean();
            let worst = Kept::new(&samples, Selection::Worst(n)).unwrap().mean();
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
            Err(StatsError::TooFew { what: "rewards", needed: 2, found: 1 })
        );
        let message = Kept::new(&[0.0, f64::INFINITY], Selection::Sample).unwrap_err();
        assert_eq!(message.to_string(), "value 1 of scores is inf; every value must be finite");
        let unpaired = Kept::judged(&one, &[1.0, 2.0], Selection::Sample);
        assert_eq!(unpaired, Err(StatsError::Unpaired { first: 1, second: 2 }));
        for weight in [f64::NAN, f64::INFINITY] {
            let weighted = Kept::weighted(&[1.0, 2.0], &[0.0, weight]);
            assert!(matches!(
                weighted,
                Err(StatsError::NotFinite { what: "weights", index: 1, .. })
            ));
        }
    }

    /// The pairs (reward, score) that subsets keep; of equal rewards one subset keeps each as often as another.
    fn kept_scores(rewards: &[f64], scores: &[f64], selection: Selection) -> Vec<(f64, f64)> {
        let indices: Vec<f64> = (0..rewards.len()).map(|i| i as f64).collect();
        let mut kept = Vec::new();
        for subset in subsets(&indices, selection.samples()) {
            let of = |i: &f64| rewards[*i as usize];
            let best = select(&subset.iter().map(of).collect::<Vec<_>>(), selection);
            let ties: Vec<&f64> = subset.iter().filter(|i| of(i) == best).collect();
            kept.extend(ties.iter().map(|i| (scores[**i as usize], 1.0 / ties.len() as f64)));
        }
        kept
    }

    #[test]
    fn a_judge_and_another_procedure_on_the_other_side_equal_the_enumeration() {
        let mut random = SplitMix(13);
        let mut draw = |len: usize, levels: f64| -> Vec<f64> {
            (0..len).map(|_| (random.uniform() * levels).floor()).collect()
        };
        for (ours, theirs) in [
            (Selection::Best(3), Selection::Best(2)),
            (Selection::Sample, Selection::Worst(2)),
            (Selection::Worst(4), Selection::Best(1)),
        ] {
            let (rewards, scores) = (draw(7, 4.0), draw(7, 5.0));
            let (their_rewards, their_scores) = (draw(5, 3.0), draw(5, 5.0));
            let policy = Kept::judged(&rewards, &scores, ours).unwrap();
            let reference = Kept::judged(&their_rewards, &their_scores, theirs).unwrap();
            let (a, b) = (
                kept_scores(&rewards, &scores, ours),
                kept_scores(&their_rewards, &their_scores, theirs),
            );
            let (mut won, mut all) = (0.0, 0.0);
            for (y, v) in &a {
                for (z, w) in &b {
                    let wins = f64::from(y > z) + 0.5 * f64::from(y == z);
                    (won, all) = (won + v * w * wins, all + v * w);
                }
            }
            let got = policy.win_rate(&reference);
            assert!((got - won / all).abs() < 1e-14, "{ours:?} {theirs:?}: {got}");
            assert!((got + reference.win_rate(&policy) - 1.0).abs() < 1e-14);
        }
    }
}
