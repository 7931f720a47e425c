//! Rejection above a quantile on tie groups.
//!
//! A group is accepted where its mid-rank is at least φ. With a the probability of an accepted draw, and N draws of which the last is taken as
//! it is,
//!
//! - T(π)(y) = π(y)·s for accepted y, s = 1 + (1 − a) + … + (1 − a)^{N−1} = (1 − (1 − a)^N)/a;
//! - T(π)(y) = π(y)·q for all others, q = (1 − a)^{N−1}.
//!
//! Which groups are accepted changes with π where a mid-rank passes φ, an edge at which the win rate jumps; 𝓡 is
//! that between edges.

use super::groups::midpoints;
use crate::procedure::accepts;

/// A mid-rank less than φ by this is not accepted; nearer ones may count as φ itself.
const SHORT_BY: f64 = 2e-9;
/// How far from an edge rounding puts a policy that lies on it.
const ON_EDGE: f64 = 1e-12;

/// Rejection at a quantile φ in at most N draws.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rejection {
    pub(super) quantile: f64,
    /// N as a number.
    pub(super) draws: f64,
}

/// s and q, and their derivatives by a.
pub(super) struct Factors {
    pub(super) accepted: [f64; 2],
    pub(super) rejected: [f64; 2],
}

impl Rejection {
    /// Probability of each group to be returned.
    pub(super) fn apply(self, masses: &[f64]) -> Vec<f64> {
        self.taken(&self.accepted(masses), masses)
    }

    /// The same where `accepted` groups are accepted, whatever their mid-ranks.
    pub(super) fn taken(self, accepted: &[bool], masses: &[f64]) -> Vec<f64> {
        let factors = self.factors(share(accepted, masses));
        let factor = |accepted: &bool| factors.of(*accepted)[0];
        masses.iter().zip(accepted).map(|(mass, accepted)| mass * factor(accepted)).collect()
    }

    /// 𝓡 of each group, less that of the group of greatest reward.
    ///
    /// - `wins`: C, the win rate of each group against T(π_ref).
    pub(super) fn coupled(self, wins: &[f64], masses: &[f64]) -> Vec<f64> {
        let accepted = self.accepted(masses);
        let factors = self.factors(share(&accepted, masses));
        // What one more accepted draw changes for all others.
        let all = wins.iter().zip(masses).zip(&accepted);
        let others: f64 =
            all.map(|((win, mass), accepted)| win * mass * factors.of(*accepted)[1]).sum();
        let value = |(win, accepted): (&f64, &bool)| {
            win * factors.of(*accepted)[0] + if *accepted { others } else { 0.0 }
        };
        let values: Vec<f64> = wins.iter().zip(&accepted).map(value).collect();
        let top = values.last().copied().unwrap_or(0.0);
        values.iter().map(|value| value - top).collect()
    }

    /// Whether each group is accepted.
    pub(super) fn accepted(self, masses: &[f64]) -> Vec<bool> {
        midpoints(masses).into_iter().map(|rank| accepts(self.quantile, rank)).collect()
    }

    /// The greatest mid-rank that is taken for not accepted.
    pub(super) fn short(self) -> f64 {
        self.quantile - SHORT_BY
    }

    /// The group whose mid-rank lies on either side of the edge, if there is one.
    ///
    /// - `reference`: masses of π_ref; what it does not give does not count, nor does all there is.
    pub(super) fn edge(self, reference: &[f64], masses: &[f64]) -> Option<usize> {
        let on = |edge: f64, rank: f64| (rank - edge).abs() <= ON_EDGE;
        let lies = |(g, rank): (usize, &f64)| {
            let counts = reference[g] > 0.0 && masses[g] < 1.0;
            counts && (on(self.quantile, *rank) || on(self.short(), *rank))
        };
        midpoints(masses).iter().enumerate().position(lies)
    }

    /// s and q where a share `a` of draws is accepted.
    pub(super) fn factors(self, a: f64) -> Factors {
        let n = self.draws;
        let a = a.clamp(0.0, 1.0);
        let rest = |exponent: f64| if exponent <= 0.0 { 1.0 } else { (1.0 - a).powf(exponent) };
        let sum = if a == 0.0 { n } else { -(n * (-a).ln_1p()).exp_m1() / a };
        let slope = if a == 0.0 { -n * (n - 1.0) / 2.0 } else { (n * rest(n - 1.0) - sum) / a };
        let falls = if n == 1.0 { 0.0 } else { -(n - 1.0) * rest(n - 2.0) };
        Factors { accepted: [sum, slope], rejected: [rest(n - 1.0), falls] }
    }
}

impl Factors {
    fn of(&self, accepted: bool) -> [f64; 2] {
        if accepted { self.accepted } else { self.rejected }
    }
}

fn share(accepted: &[bool], masses: &[f64]) -> f64 {
    accepted.iter().zip(masses).filter(|(accepted, _)| **accepted).map(|(_, mass)| mass).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASSES: [f64; 4] = [0.4, 0.3, 0.2, 0.1];

    #[test]
    fn what_is_returned_is_what_drawing_by_drawing_adds_up_to() {
        for (quantile, accepted) in [(0.0, 4), (0.5, 3), (0.8, 2), (0.95, 1), (0.96, 0)] {
            for n in [1, 2, 7] {
                let law = Rejection { quantile, draws: f64::from(n) };
                let taken = law.apply(&MASSES);
                let a: f64 = MASSES[4 - accepted..].iter().sum();
                for (group, taken) in taken.iter().enumerate() {
                    let accepts = group >= 4 - accepted;
                    // The k-th draw is the first that is accepted, or all are not and this is the last.
                    let first: f64 = (0..n).map(|k| (1.0 - a).powi(k)).sum();
                    let expected = if accepts { first } else { (1.0 - a).powi(n - 1) };
                    let expected = MASSES[group] * expected;
                    assert!((taken - expected).abs() < 1e-14, "φ = {quantile}, N = {n}, {group}");
                }
                assert!((taken.iter().sum::<f64>() - 1.0).abs() < 1e-14);
            }
        }
    }

    #[test]
    fn a_mid_rank_is_on_an_edge_on_either_side_of_the_quantile() {
        let law = Rejection { quantile: 0.55, draws: 5.0 };
        let reference = [0.25; 4];
        for (shift, edge, accepted) in [
            (0.0, Some(1), true),
            (SHORT_BY, Some(1), false),
            (1e-3, None, false),
            (-1e-3, None, true),
        ] {
            let masses = [0.4 - shift, 0.3, 0.2, 0.1 + shift];
            assert_eq!(law.edge(&reference, &masses), edge, "{shift}");
            assert_eq!(law.accepted(&masses)[1], accepted, "{shift}");
        }
        // What cannot be drawn lies on no edge, nor does all there is.
        assert_eq!(law.edge(&[0.5, 0.0, 0.5], &[0.55, 0.0, 0.45]), None);
        let all = Rejection { quantile: 0.5, draws: 5.0 };
        assert_eq!(all.edge(&[1.0], &[1.0]), None);
    }

    #[test]
    fn the_coupled_transform_is_the_gradient() {
        let wins = [0.1, 0.35, 0.6, 0.95];
        let total = |law: Rejection, masses: &[f64]| -> f64 {
            law.apply(masses).iter().zip(wins).map(|(p, win)| p * win).sum()
        };
        for quantile in [0.3, 0.6, 0.9] {
            let law = Rejection { quantile, draws: 5.0 };
            let coupled = law.coupled(&wins, &MASSES);
            for group in 0..3 {
                // Mass goes from the group of greatest reward to this one.
                let moved = |step: f64| {
                    let mut masses = MASSES;
                    masses[group] += step;
                    masses[3] -= step;
                    total(law, &masses)
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((coupled[group] - slope).abs() < 1e-8, "{quantile}, {group}: {slope}");
            }
        }
    }
}
