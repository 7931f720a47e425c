//! What the KL of a procedure to the policy that it draws from is, or is at most, response by response.

use std::fmt;
use std::num::NonZeroUsize;

use infalign_transform::Procedure;
use serde::{Deserialize, Serialize};

/// A statement about KL(T(π)‖π), in nats, from one response: its mean over responses is what `kind` says.
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
    /// The KL is at most that.
    Bound,
    /// It comes near it, from either side.
    Estimate,
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

    /// What a selection among independent responses costs, by the procedure alone.
    ///
    /// Equation: log N − (N−1)/N for the best or the worst of N (controlled decoding, arXiv 2310.17022, §2); log N for any choice of one of N.
    pub(crate) fn of_selection(selection: Procedure) -> Self {
        match selection {
            Procedure::BestOf(n) | Procedure::WorstOf(n) => Self::bound(best_of_kl_bound(n)),
            other => match other.samples() {
                1 => Self::exact(0.0),
                n => Self::bound((n as f64).ln()),
            },
        }
    }
}

/// The most that one selection of the best of K can cost, in nats: log K − (K−1)/K. Blockwise decoding costs at most this times the
/// expected number of blocks (controlled decoding, arXiv 2310.17022, §3).
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

    #[test]
    fn the_estimate_goes_from_the_bound_to_nothing() {
        for samples in [1, 2, 64] {
            let bound = best_of_kl_bound(n(samples));
            assert!((best_of_kl_estimate(n(samples), -40.0) - bound).abs() < 1e-6);
            assert_eq!(best_of_kl_estimate(n(samples), 0.0), 0.0);
        }
    }
}
