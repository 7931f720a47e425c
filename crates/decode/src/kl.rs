//! What the KL of a procedure to the policy that it draws from is, or is at most, response by response.

use std::fmt;
use std::num::NonZeroUsize;

use infalign_transform::Procedure;
use serde::{Deserialize, Serialize};

/// A statement about KL(T(π)‖π), in nats, from one response: its mean over responses is what `kind` says. π is what tokens are drawn from: the
/// model at the temperature, top-k and top-p asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kl {
    /// Nats of this response.
    pub nats: f64,
    /// What their mean is.
    pub kind: KlKind,
}

/// What the mean of some numbers says of a KL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KlKind {
    /// It is the KL but for the noise of sampling: exact for every token that was drawn, given those before it.
    Exact,
    /// The KL is at most that, also where rewards or values tie.
    Bound,
    /// It comes near it, from either side, where no two rewards or values are equal. Where they tie the KL may be far less: 0, if all do.
    Estimate,
}

impl KlKind {
    /// What stands before such a number in a table: `≤ ` before a bound, `≈ ` before an estimate.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Exact => "",
            Self::Bound => "≤ ",
            Self::Estimate => "≈ ",
        }
    }
}

impl fmt::Display for KlKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Bound => "bound",
            Self::Estimate => "estimate",
        })
    }
}

impl Kl {
    pub(crate) fn exact(nats: f64) -> Self {
        Self { nats, kind: KlKind::Exact }
    }

    pub(crate) fn bound(nats: f64) -> Self {
        Self { nats, kind: KlKind::Bound }
    }

    pub(crate) fn estimate(nats: f64) -> Self {
        Self { nats, kind: KlKind::Estimate }
    }

    /// What a selection among independent responses costs, by the procedure alone: at most [`best_of_kl_bound`], whichever it keeps.
    pub fn of_selection(selection: Procedure) -> Self {
        match NonZeroUsize::new(selection.samples()) {
            Some(n) if n > NonZeroUsize::MIN => Self::bound(best_of_kl_bound(n)),
            _ => Self::exact(0.0),
        }
    }
}

/// The most that any choice of one of K independent draws can cost, in nats: log K − (K−1)/K, as for the best of K (controlled decoding,
/// arXiv 2310.17022, §2). Blockwise decoding costs at most this times the expected number of blocks (§3 there).
///
/// For all sets A, P(the kept one ∈ A) ≤ P(some draw ∈ A) = 1 − (1 − π(A))ᴷ, so the density of what is kept, relative to π, is majorised by
/// K·v^{K−1} on \[0, 1\], whose mean of x·log x, a convex function, is then the greater. Atoms are no exception: with a number drawn uniformly
/// beside each response there are none, and the KL of responses alone is at most that of both.
pub fn best_of_kl_bound(samples: NonZeroUsize) -> f64 {
    let k = samples.get() as f64;
    k.ln() - (k - 1.0) / k
}

/// KL of best-of-N as Beirami et al. (arXiv 2401.01879) estimate it from the response that was selected, in nats: the exact KL where that
/// response is the best there is and no other has an atom, and no bound in general.
///
/// Equation: (1−ε)ᴺ·(log N + (N−1)·log(1−ε) − (N−1)/N) + (1−(1−ε)ᴺ)·log((1−(1−ε)ᴺ)/ε), with ε = π(y).
///
/// - `log_prob`: log ε in nats, at most 0.
pub fn best_of_kl_estimate(samples: NonZeroUsize, log_prob: f64) -> f64 {
    let n = samples.get() as f64;
    let log_prob = log_prob.min(0.0);
    // log(1 − ε), which is −∞ for a response that is certain.
    let log_rest = (-log_prob.exp_m1()).ln();
    let rest = (n * log_rest).exp();
    let others =
        if rest > 0.0 { rest * (n.ln() + (n - 1.0) * log_rest - (n - 1.0) / n) } else { 0.0 };
    let taken = -(n * log_rest).exp_m1();
    others + if taken > 0.0 { taken * (taken.ln() - log_prob) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shares with which each of some draws is kept.
    type Choice<'a> = &'a dyn Fn(&[usize]) -> Vec<f64>;

    fn n(samples: usize) -> NonZeroUsize {
        NonZeroUsize::new(samples).unwrap()
    }

    #[test]
    fn the_estimate_is_exact_for_one_atom_at_the_top() {
        // The best response has probability ε, and the others, which are many, share the rest: summed over a fine grid.
        let (epsilon, samples, cells) = (0.3, 4_usize, 200_000);
        let cell = (1.0 - epsilon) / f64::from(cells);
        let power = |x: f64| x.powi(samples as i32);
        let kl_of = |above: f64, below: f64, p: f64| {
            let q = power(above) - power(below);
            q * (q / p).ln()
        };
        let rest: f64 =
            (0..cells).map(|i| kl_of(f64::from(i + 1) * cell, f64::from(i) * cell, cell)).sum();
        let exact = rest + kl_of(1.0, 1.0 - epsilon, epsilon);
        let estimate = best_of_kl_estimate(n(samples), epsilon.ln());
        assert!((estimate - exact).abs() < 1e-5, "{estimate} against {exact}");
    }

    /// KL(T(π)‖π) of a choice of one of some draws from π, by adding up everything that may be drawn.
    ///
    /// - `kept`: given what was drawn, how likely each draw is to be kept.
    fn kl_of_choice(
        probabilities: &[f64],
        samples: usize,
        kept: &dyn Fn(&[usize]) -> Vec<f64>,
    ) -> f64 {
        let m = probabilities.len();
        let mut law = vec![0.0; m];
        for code in 0..m.pow(samples as u32) {
            let drawn: Vec<usize> =
                (0..samples).map(|draw| code / m.pow(draw as u32) % m).collect();
            let p: f64 = drawn.iter().map(|&y| probabilities[y]).product();
            drawn.iter().zip(kept(&drawn)).for_each(|(&y, share)| law[y] += p * share);
        }
        let possible = law.iter().zip(probabilities).filter(|(q, _)| **q > 0.0);
        possible.map(|(q, p)| q * (q / p).ln()).sum()
    }

    /// All for the first draw that is the greatest by `value`.
    fn first_greatest(drawn: &[usize], value: impl Fn(usize) -> f64) -> Vec<f64> {
        let values: Vec<f64> = drawn.iter().map(|&y| value(y)).collect();
        let first = (1..values.len()).fold(0, |a, b| if values[b] > values[a] { b } else { a });
        (0..drawn.len()).map(|place| f64::from(place == first)).collect()
    }

    /// Probabilities and rewards of some responses, and a temperature.
    fn drawn_at_random(m: usize, case: usize) -> (Vec<f64>, Vec<f64>, f64) {
        let mut stream = crate::Stream::new(3, "choice", &case.to_string(), 0);
        let mut number = |place: usize| stream.uniform(place as u64);
        let masses: Vec<f64> = (0..m).map(|y| -(1.0 - number(y)).ln()).collect();
        let total: f64 = masses.iter().sum();
        let rewards = (0..m).map(|y| number(m + y)).collect();
        let temperature = 10_f64.powf(-2.0 * number(2 * m));
        (masses.iter().map(|mass| mass / total).collect(), rewards, temperature)
    }

    #[test]
    fn no_choice_of_one_of_n_costs_more_than_the_bound() {
        let mut greatest: f64 = 0.0;
        for case in 0..60_usize {
            let (m, samples) = (2 + case % 4, 2 + case / 4 % 3);
            let (probabilities, rewards, temperature) = drawn_at_random(m, case);
            let soft = |drawn: &[usize]| -> Vec<f64> {
                let weights = drawn.iter().map(|&y| (rewards[y] / temperature).exp());
                let weights: Vec<f64> = weights.collect();
                let sum: f64 = weights.iter().sum();
                weights.iter().map(|weight| weight / sum).collect()
            };
            let majority = |drawn: &[usize]| -> Vec<f64> {
                first_greatest(drawn, |y| drawn.iter().filter(|&&other| other == y).count() as f64)
            };
            let rejection = |drawn: &[usize]| -> Vec<f64> {
                let accepted = drawn.iter().position(|&y| rewards[y] >= 0.7);
                let taken = accepted.unwrap_or(drawn.len() - 1);
                (0..drawn.len()).map(|place| f64::from(place == taken)).collect()
            };
            // A response that is rare under π, whenever it is drawn.
            let rarest =
                |drawn: &[usize]| -> Vec<f64> { first_greatest(drawn, |y| -probabilities[y]) };
            for choice in [&soft as Choice<'_>, &majority, &rejection, &rarest] {
                let share =
                    kl_of_choice(&probabilities, samples, choice) / best_of_kl_bound(n(samples));
                assert!(share <= 1.0 + 1e-12, "case {case}: {share} of the bound");
                greatest = greatest.max(share);
            }
        }
        assert!(greatest > 0.8, "the bound is near: {greatest}");
    }

    #[test]
    fn every_selection_among_n_has_the_bound_of_the_best() {
        for text in ["best-of:4", "soft-best-of:4,temperature=1", "majority:4", "worst-of:4"] {
            let bound = Kl::of_selection(text.parse().unwrap());
            assert_eq!(bound, Kl::bound(4f64.ln() - 0.75), "{text}");
        }
        let rejection = Kl::of_selection("rejection:quantile=0.9,draws=4".parse().unwrap());
        assert_eq!(rejection, Kl::bound(4f64.ln() - 0.75));
        for text in ["sample", "best-of:1", "majority:1"] {
            assert_eq!(Kl::of_selection(text.parse().unwrap()), Kl::exact(0.0), "{text}");
        }
    }

    #[test]
    fn the_estimate_goes_from_the_bound_to_nothing() {
        for samples in [1, 2, 64] {
            let bound = best_of_kl_bound(n(samples));
            assert!((best_of_kl_estimate(n(samples), -40.0) - bound).abs() < 1e-6);
            assert_eq!(best_of_kl_estimate(n(samples), 0.0), 0.0);
        }
    }
}
