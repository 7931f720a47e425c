//! The most frequent of N answers from stored samples, averaged over every subset of N: majority voting without running it.
//!
//! Let m_b of M samples give the answer b. A subset of N keeps the answer a where it holds c that give a, no other answer more often than that,
//! and a comes first of the 1 + t that it holds c of. Draws come in any order, so each of these comes first equally often:
//!
//! P(a) = 1/C(M, N)·Σ_{c≥1} C(m_a, c)·Σ_t \[x^{N−c} y^t\] Π_{b≠a} (Σ_{j<c} C(m_b, j)·x^j + y·C(m_b, c)·x^c) / (1 + t)
//!
//! and each of the m_a samples has an equal share of it. Samples without an answer have a factor (1 + x)^{m_0} and are kept where nothing but
//! such are drawn. Every C(m, j) is taken times p^j·(1 − p)^{m−j} with p = N/M, which are factors that all terms share: they make
//! probabilities of binomial coefficients, and no number is too great.

use std::collections::BTreeMap;

use statrs::function::factorial::ln_binomial;

use crate::StatsError;

/// How likely each stored sample is to be the first that gives the most frequent answer of N of them, of equally frequent ones that which is
/// given first, over all subsets of N: `[samples]`, summing to 1.
///
/// - `answers`: of independent responses to one prompt, in any order, N or more. Those that are none do not count, and where a subset has no
///   other, its first is kept.
///
/// # Errors
/// [`StatsError::EmptySelection`] when N is 0, [`StatsError::TooFew`] for fewer than N answers.
///
/// ```
/// use infalign_stats::plurality_weights;
/// // Two of "7", "7" and "8": "7" alone in one of three subsets, and half of the other two.
/// let weights = plurality_weights(&[Some("7"), Some("8"), Some("7")], 2)?;
/// assert!((weights[1] - 1.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), infalign_stats::StatsError>(())
/// ```
pub fn plurality_weights(answers: &[Option<&str>], n: usize) -> Result<Vec<f64>, StatsError> {
    let found = answers.len();
    if n == 0 {
        return Err(StatsError::EmptySelection);
    }
    if found < n {
        return Err(StatsError::TooFew { what: "answers", needed: n, found });
    }
    let mut given: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in answers.iter().copied().flatten() {
        *given.entry(answer).or_default() += 1;
    }
    if n == found {
        let votes = |answer: &Option<&str>| answer.map_or(0, |answer| given[&answer]);
        return Ok(of_all(&answers.iter().map(votes).collect::<Vec<_>>()));
    }
    let counts: Vec<usize> = given.values().copied().collect();
    let blank = found - counts.iter().sum::<usize>();
    let vote = Vote { n, p: n as f64 / found as f64, counts, blank };
    // Of equal counts, answers are kept equally often.
    let mut kept: BTreeMap<usize, f64> = BTreeMap::new();
    for (answer, &count) in vote.counts.iter().enumerate() {
        kept.entry(count).or_insert_with(|| vote.kept(answer) / count as f64);
    }
    let none = vote.no_answer() / blank.max(1) as f64;
    let weight = |answer: &Option<&str>| answer.map_or(none, |answer| kept[&given[answer]]);
    let mut weights: Vec<f64> = answers.iter().map(weight).collect();
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
    Ok(weights)
}

/// The same of the one subset that has all samples: in some order, each whose answer has the most votes comes first equally often.
///
/// - `votes`: `[samples]`, for the answer of each; 0 for none.
fn of_all(votes: &[usize]) -> Vec<f64> {
    let most = votes.iter().copied().max().unwrap_or(0);
    let is_kept = |votes: &usize| *votes == most;
    let kept = votes.iter().filter(|votes| is_kept(votes)).count();
    votes.iter().map(|votes| f64::from(is_kept(votes)) / kept as f64).collect()
}

/// N draws among samples; probabilities are up to a factor that all of them share.
struct Vote {
    n: usize,
    /// N/M.
    p: f64,
    /// `[answers]`: how many samples give each.
    counts: Vec<usize>,
    /// How many samples give none.
    blank: usize,
}

impl Vote {
    /// How likely an answer is to be kept.
    fn kept(&self, answer: usize) -> f64 {
        let count = self.counts[answer];
        let with = |votes| self.chance(count, votes) * self.wins(answer, votes);
        (1..=count.min(self.n)).map(with).sum()
    }

    /// How likely it is that the others have all votes that are left, no answer more than so many, and that none with as many comes first.
    fn wins(&self, answer: usize, votes: usize) -> f64 {
        let left = self.n - votes;
        // `[answers with as many votes][votes]`, of those that are looked at already.
        let mut law = vec![vec![0.0; left + 1]; left / votes + 1];
        for (drawn, chance) in law[0].iter_mut().enumerate() {
            *chance = self.chance(self.blank, drawn);
        }
        for (other, &count) in self.counts.iter().enumerate() {
            if other != answer {
                let chances = (0..=votes.min(count)).map(|drawn| self.chance(count, drawn));
                law = joined(&law, &chances.collect::<Vec<_>>(), votes);
            }
        }
        law.iter().enumerate().map(|(ties, row)| row[left] / (1 + ties) as f64).sum()
    }

    /// How likely it is that nothing but samples without an answer is drawn.
    fn no_answer(&self) -> f64 {
        let none_of = |&count: &usize| self.chance(count, 0);
        self.chance(self.blank, self.n) * self.counts.iter().map(none_of).product::<f64>()
    }

    /// Of `count` samples, each drawn with probability p, how likely it is that `drawn` are.
    fn chance(&self, count: usize, drawn: usize) -> f64 {
        if drawn > count {
            return 0.0;
        }
        let rest = count - drawn;
        // Where all are drawn, 1 − p is 0.
        let log_rest = if rest == 0 { 0.0 } else { rest as f64 * (-self.p).ln_1p() };
        let log_drawn = drawn as f64 * self.p.ln();
        (ln_binomial(count as u64, drawn as u64) + log_drawn + log_rest).exp()
    }
}

/// The law of votes and ties with one more answer.
///
/// - `chances`: of its votes from 0 on; `most`: the votes with which it ties.
fn joined(law: &[Vec<f64>], chances: &[f64], most: usize) -> Vec<Vec<f64>> {
    let mut all = vec![vec![0.0; law[0].len()]; law.len()];
    for (ties, row) in law.iter().enumerate() {
        for (votes, p) in row.iter().enumerate().filter(|(_, p)| **p > 0.0) {
            for (more, chance) in chances.iter().enumerate() {
                let row = all.get_mut(ties + usize::from(more == most));
                if let Some(sum) = row.and_then(|row| row.get_mut(votes + more)) {
                    *sum += p * chance;
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SplitMix;

    /// By drawing N of the samples in every order, and keeping the first of the most frequent.
    fn enumerated(answers: &[Option<&str>], n: usize) -> Vec<f64> {
        let m = answers.len();
        let (mut weights, mut all) = (vec![0.0; m], 0.0);
        for code in 0..m.pow(n as u32) {
            let drawn: Vec<usize> = (0..n).map(|place| code / m.pow(place as u32) % m).collect();
            if (1..n).any(|place| drawn[..place].contains(&drawn[place])) {
                continue;
            }
            let votes = |sample: usize| {
                let same = drawn.iter().filter(|&&other| answers[other] == answers[sample]);
                if answers[sample].is_some() { same.count() } else { 0 }
            };
            let first = |kept: usize, &sample: &usize| {
                if votes(sample) > votes(kept) { sample } else { kept }
            };
            weights[drawn.iter().fold(drawn[0], first)] += 1.0;
            all += 1.0;
        }
        weights.iter().map(|weight| weight / all).collect()
    }

    #[test]
    fn equals_the_enumeration_of_all_draws_in_every_order() {
        let mut random = SplitMix(23);
        let names = [None, Some("a"), Some("b"), Some("c"), Some("d")];
        for case in 0..40_usize {
            let m = 2 + case % 5;
            let answers: Vec<Option<&str>> =
                (0..m).map(|_| names[(random.uniform() * 5.0) as usize]).collect();
            for n in 1..=m.min(5) {
                let exact = enumerated(&answers, n);
                let got = plurality_weights(&answers, n).unwrap();
                for (got, exact) in got.iter().zip(&exact) {
                    assert!((got - exact).abs() < 1e-12, "{answers:?}, {n}: {got}, {exact}");
                }
            }
        }
    }

    #[test]
    fn of_all_samples_those_of_the_most_votes_have_equal_shares() {
        let (a, b, c) = (Some("a"), Some("b"), Some("c"));
        let third = 1.0 / 3.0;
        for (answers, expected) in [
            ([a, b, a], [0.5, 0.0, 0.5]),
            ([a, a, a], [third; 3]),
            ([c, a, b], [third; 3]),
            ([a, None, b], [0.5, 0.0, 0.5]),
            ([None, None, a], [0.0, 0.0, 1.0]),
            ([None; 3], [third; 3]),
        ] {
            let found = plurality_weights(&answers, 3).unwrap();
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-15, "{answers:?}: {found}, {expected}");
            }
        }
    }

    #[test]
    fn many_samples_are_no_harder() {
        // Python: sum(comb(140, c) * comb(160, N - c) * (1 if 2 * c > N else 0.5 * (2 * c == N)) for c in range(N + 1)) / comb(300, N)
        let answers: Vec<Option<&str>> =
            (0..300).map(|sample| Some(if sample < 140 { "a" } else { "b" })).collect();
        for (n, expected) in
            [(1, 140.0 / 300.0), (100, 0.208_285_970_778), (101, 0.204_789_561_171), (300, 0.0)]
        {
            let weights = plurality_weights(&answers, n).unwrap();
            let first: f64 = weights[..140].iter().sum();
            assert!((first - expected).abs() < 1e-11, "{n}: {first} against {expected}");
        }
    }

    #[test]
    fn fewer_than_n_are_refused() {
        let refused = plurality_weights(&[Some("a")], 2).unwrap_err();
        assert_eq!(refused, StatsError::TooFew { what: "answers", needed: 2, found: 1 });
        assert_eq!(plurality_weights(&[None], 0), Err(StatsError::EmptySelection));
    }
}
