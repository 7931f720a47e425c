//! Densities with closed forms: the exponential (identity transform) and the power (logarithm).

use crate::numerics::piecewise::Tails;
use crate::numerics::{divergence, exp_m1_minus, gauss};

/// f ∝ e^{cu} of rate c = 1/β: the identity transform.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exponential(pub(super) f64);

impl Exponential {
    /// F = (e^{cu} − 1)/(e^c − 1), written in v = 1 − u.
    pub(super) fn tails(self, v: f64) -> Tails {
        let c = self.0;
        let all = (-c).exp_m1();
        Tails {
            below: (-c * v).exp() * (-c * (1.0 - v)).exp_m1() / all,
            above: (-c * v).exp_m1() / all,
        }
    }

    /// KL = log(c/(1 − e^{−c})) + c/(e^c − 1) − 1; by quadrature below c = 1, where that cancels.
    pub(super) fn kl(self) -> f64 {
        let c = self.0;
        if c < 1.0 {
            let log_z = (-exp_m1_minus(-c) / c).ln_1p();
            return gauss::panel(|v| divergence(-c * v - log_z), 0.0, 1.0);
        }
        let all = -(-c).exp_m1();
        c.ln() - all.ln() + c * (-c).exp() / all - 1.0
    }
}

/// f = a·u^{a−1} of excess a − 1 = 1/β, above 0: the logarithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Power(pub(super) f64);

impl Power {
    /// F = u^a, written in v = 1 − u.
    pub(super) fn tails(self, v: f64) -> Tails {
        let log_below = (1.0 + self.0) * (-v).ln_1p();
        Tails { below: log_below.exp(), above: -log_below.exp_m1() }
    }

    /// KL = log a − (a − 1)/a = e^{−log a} − 1 + log a.
    pub(super) fn kl(self) -> f64 {
        exp_m1_minus(-self.0.ln_1p())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_forms_of_the_exponential_divergence_meet() {
        let (below, above) = (Exponential(1.0 - 1e-15).kl(), Exponential(1.0).kl());
        assert!((below / above - 1.0).abs() < 1e-13, "{below} {above}");
    }

    #[test]
    fn small_divergences_follow_their_series() {
        // c²/24 − c⁴/960 + … and ε²/2 − 2ε³/3 + ….
        for c in [1e-3, 1e-6, 1e-9f64] {
            let series = c * c / 24.0 * (1.0 - c * c / 40.0);
            assert!((Exponential(c).kl() / series - 1.0).abs() < 1e-11);
            let series = c * c / 2.0 * (1.0 - 4.0 * c / 3.0 + 1.5 * c * c);
            assert!((Power(c).kl() / series - 1.0).abs() < 1e-8);
        }
    }

    #[test]
    fn extreme_rates_stay_finite() {
        for rate in [1e-300, 1e-12, 1e12, 1e300] {
            for v in [0.0, 1e-300, 0.5, 1.0] {
                for tails in [Exponential(rate).tails(v), Power(rate).tails(v)] {
                    assert!((tails.below + tails.above - 1.0).abs() < 1e-14, "{rate} {v}");
                }
            }
            assert!(Exponential(rate).kl() >= 0.0 && Power(rate).kl() >= 0.0);
        }
        assert!((Exponential(1e300).kl() - (1e300f64.ln() - 1.0)).abs() < 1e-10);
    }
}
