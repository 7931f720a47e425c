//! Best-of-N and worst-of-N on tie groups, without cancellation.
//!
//! One formula serves both. Groups are taken in the order in which the procedure passes them over:
//! ascending rewards for best-of-N, descending for worst-of-N. With Sᵢ = P₁ + … + Pᵢ along that order,
//! the i-th group is returned with probability Sᵢ^N − Sᵢ₋₁^N.

use crate::numerics::log_of_share;

/// Best-of-N (`rising`) or worst-of-N.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked {
    /// N as a number.
    pub(super) n: f64,
    /// Whether the greatest reward is returned.
    pub(super) rising: bool,
}

impl Ranked {
    /// `ascending` values in the order of passing over; its own inverse.
    pub(super) fn ordered(self, ascending: &[f64]) -> Vec<f64> {
        let mut values = ascending.to_vec();
        if !self.rising {
            values.reverse();
        }
        values
    }

    /// Probability of each group to be returned, from and in ascending order.
    pub(super) fn apply(self, masses: &[f64]) -> Vec<f64> {
        let ordered = self.ordered(masses);
        let logs = log_cumulative(&ordered);
        let taken: Vec<f64> =
            ordered.iter().zip(&logs).map(|(&mass, &log)| self.step(mass, log)).collect();
        self.ordered(&taken)
    }

    /// ±N·(Cᵢ₊₁ − Cᵢ) in the order of passing over, C the win rate against T(`reference`): what
    /// 𝓡ᵢ₊₁ − 𝓡ᵢ is per unit of Sᵢ^{N−1}. Positive for best-of-N, negative for worst-of-N.
    ///
    /// Equation: C = (Sᵢ^N + Sᵢ₋₁^N)/2 under best-of-N, its complement under worst-of-N.
    pub(super) fn slopes(self, reference: &[f64]) -> Vec<f64> {
        let logs = log_cumulative(reference);
        let sign = if self.rising { 0.5 } else { -0.5 };
        let slope =
            |(pair, log): (&[f64], &f64)| sign * self.n * self.step(pair[0] + pair[1], *log);
        reference.windows(2).zip(&logs[1..]).map(slope).collect()
    }

    /// 𝓡 of each group, ascending, less that of the group of greatest reward.
    ///
    /// Equation: 𝓡ᵢ₊₁ − 𝓡ᵢ = slopeᵢ·Sᵢ^{N−1} in the order of passing over.
    pub(super) fn coupled(self, reference: &[f64], masses: &[f64]) -> Vec<f64> {
        let logs = log_cumulative(&self.ordered(masses));
        let rest = |log: &f64| power(*log, self.n - 1.0);
        let slopes = self.slopes(&self.ordered(reference));
        let steps: Vec<f64> =
            slopes.iter().zip(&logs).map(|(slope, log)| slope * rest(log)).collect();
        // Down from the group of greatest reward, so that groups of weight keep their digits.
        let down = |sum: &mut f64, step: f64| {
            *sum -= step.abs();
            Some(*sum)
        };
        let mut falls = vec![0.0];
        if self.rising {
            falls.extend(steps.iter().rev().copied().scan(0.0, down));
        } else {
            falls.extend(steps.iter().copied().scan(0.0, down));
        }
        falls.reverse();
        falls
    }

    /// S^N − (S − mass)^N from log S.
    fn step(self, mass: f64, log: f64) -> f64 {
        if mass == 0.0 {
            return 0.0;
        }
        let share = (mass / log.exp()).min(1.0);
        -power(log, self.n) * (self.n * (-share).ln_1p()).exp_m1()
    }
}

/// e^{exponent·log}, with 0⁰ = 1.
pub(super) fn power(log: f64, exponent: f64) -> f64 {
    if exponent == 0.0 { 1.0 } else { (exponent * log).exp() }
}

/// log(P₁ + … + Pᵢ) of masses that sum to 1, from whichever side of i has the digits.
pub(super) fn log_cumulative(masses: &[f64]) -> Vec<f64> {
    let mut above = vec![0.0; masses.len()];
    for i in (1..masses.len()).rev() {
        above[i - 1] = above[i] + masses[i];
    }
    let mut below = 0.0;
    let log = |(mass, above): (&f64, &f64)| {
        below += mass;
        log_of_share(below, *above)
    };
    masses.iter().zip(&above).map(log).collect()
}
