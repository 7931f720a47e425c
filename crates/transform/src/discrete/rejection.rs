//! Rejection above a quantile on tie groups.
//!
//! A group is accepted where its mid-rank is at least φ. With a the probability of an accepted draw, and N draws of which the last is taken as
//! it is,
//!
//! - T(π)(y) = π(y)·s for accepted y, s = 1 + (1 − a) + … + (1 − a)^{N−1} = (1 − (1 − a)^N)/a;
//! - T(π)(y) = π(y)·q for all others, q = (1 − a)^{N−1}.
//!
//! Which groups are accepted changes with π at isolated points only; 𝓡 is that between them.

use super::groups::midpoints;
use crate::procedure::accepts;

/// Rejection at a quantile φ in at most N draws.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rejection {
    pub(super) quantile: f64,
    /// N as a number.
    pub(super) draws: f64,
}

/// s and q, and their derivatives by a.
struct Factors {
    accepted: [f64; 2],
    rejected: [f64; 2],
}

impl Rejection {
    /// Probability of each group to be returned.
    pub(super) fn apply(self, masses: &[f64]) -> Vec<f64> {
        let accepted = self.accepted(masses);
        let factors = self.factors(share(&accepted, masses));
        let factor = |accepted: &bool| factors.of(*accepted)[0];
        masses.iter().zip(&accepted).map(|(mass, accepted)| mass * factor(accepted)).collect()
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

    fn accepted(self, masses: &[f64]) -> Vec<bool> {
        midpoints(masses).into_iter().map(|rank| accepts(self.quantile, rank)).collect()
    }

    fn factors(self, a: f64) -> Factors {
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
