//! Rank density of soft best-of-n: one of n responses, drawn with probability ∝ e^{u/τ}.
//!
//! Given its own rank u and those of n − 1 others, a response is returned with probability
//! e^{u/τ}/(e^{u/τ} + Σe^{Uⱼ/τ}). With 1/x = ∫e^{−sx}ds and every weight divided by e^{1/τ}, the mean over
//! the others factors: in v = 1 − u, a(v) = e^{−v/τ} and M(s) = ∫₀¹ e^{−s·a(v)} dv,
//!
//! g = n·∫₀^∞ a·e^{−s·a}·M(s)^{n−1} ds.
//!
//! In log s the integrand is analytic and falls off double-exponentially on one side and exponentially
//! on the other, so that the trapezoid rule is exact to `f64`.

use crate::numerics::gauss;
use crate::numerics::laplace::{NEGLIGIBLE, STEP, VANISHES};

/// Least temperature, in units of the calibrated reward: the nodes grow as its inverse.
pub(crate) const COLDEST: f64 = 1e-4;

/// Soft best-of-n at one temperature, with M tabulated.
#[derive(Clone, Debug)]
pub(super) struct SoftBest {
    n: f64,
    temperature: f64,
    /// log s and M(s)^{n−1} at the nodes of the trapezoid rule, ascending in s.
    nodes: Vec<(f64, f64)>,
}

impl SoftBest {
    /// `None` for a temperature below [`COLDEST`] or not finite.
    pub(super) fn new(n: usize, temperature: f64) -> Option<Self> {
        if !temperature.is_finite() || temperature < COLDEST {
            return None;
        }
        let first = (NEGLIGIBLE / n as f64).ln();
        let last = VANISHES.ln() + 1.0 / temperature;
        let count = ((last - first) / STEP).ceil() as usize;
        let node = |k: usize| {
            let log_s = first + k as f64 * STEP;
            (log_s, others(log_s, temperature).powf(n as f64 - 1.0))
        };
        // Once the others leave nothing, they leave nothing at any greater s.
        let nodes = (0..=count).map(node).take_while(|(_, rest)| *rest > 1e-30).collect();
        Some(SoftBest { n: n as f64, temperature, nodes })
    }

    /// g at distance v from the top.
    pub(super) fn density(&self, v: f64) -> f64 {
        let cold = v / self.temperature;
        let first = self.first_above(cold + (NEGLIGIBLE / self.n).ln());
        let term = |&(log_s, rest): &(f64, f64)| {
            let weighted = (log_s - cold).exp();
            weighted * (-weighted).exp() * rest
        };
        self.n * STEP * self.until(first, cold).iter().map(term).sum::<f64>()
    }

    fn first_above(&self, log_s: f64) -> usize {
        self.nodes.partition_point(|node| node.0 < log_s)
    }

    /// The nodes from `first` up to where e^{−s·a} vanishes, a = e^{−cold}.
    fn until(&self, first: usize, cold: f64) -> &[(f64, f64)] {
        let end = self.first_above(cold + VANISHES.ln());
        &self.nodes[first.min(end)..end]
    }
}

/// M(s) = ∫₀¹ exp(−s·e^{−v/τ}) dv, integrated only where it is neither 0 nor 1.
fn others(log_s: f64, temperature: f64) -> f64 {
    let place = |weight: f64| (temperature * (log_s - weight.ln())).clamp(0.0, 1.0);
    let (low, high) = (place(VANISHES), place(NEGLIGIBLE));
    let panels = ((high - low) / (2.0 * temperature)).ceil().max(1.0);
    let width = (high - low) / panels;
    let start = |k: usize| low + k as f64 * width;
    let weight = |v: f64| (-(log_s - v / temperature).exp()).exp();
    let middle = (0..panels as usize).map(|k| gauss::panel(weight, start(k), start(k) + width));
    middle.sum::<f64>() + (1.0 - high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_responses_have_a_closed_form() {
        // g = 2∫σ((u−w)/τ)dw = 2τ·(softplus(u/τ) − softplus((u−1)/τ)).
        let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        for temperature in [0.01, 0.1, 1.0, 30.0] {
            let soft = SoftBest::new(2, temperature).unwrap();
            for u in [0.0, 0.1, 0.5, 0.99, 1.0] {
                let gap = softplus(u / temperature) - softplus((u - 1.0) / temperature);
                let (got, exact) = (soft.density(1.0 - u), 2.0 * temperature * gap);
                assert!((got - exact).abs() < 1e-12, "τ = {temperature}, u = {u}: {got} {exact}");
            }
        }
    }

    #[test]
    fn density_integrates_to_one() {
        for (n, temperature) in [(1, 0.2), (3, 0.05), (8, 0.3), (1000, 0.1), (10_000, 2.0)] {
            let soft = SoftBest::new(n, temperature).unwrap();
            let whole = gauss::unit(|log_v| soft.density(log_v.exp()));
            assert!((whole - 1.0).abs() < 1e-12, "n = {n}: {whole}");
        }
    }

    #[test]
    fn temperatures_out_of_reach_are_refused() {
        for temperature in [0.0, 1e-5, f64::NAN, f64::INFINITY] {
            assert!(SoftBest::new(4, temperature).is_none(), "{temperature}");
        }
    }

    #[test]
    fn its_limits_are_best_of_n_and_sampling() {
        let (cold, hot) = (SoftBest::new(4, 1e-4).unwrap(), SoftBest::new(4, 1e6).unwrap());
        for v in [0.01, 0.3, 0.8f64] {
            assert!((cold.density(v) - 4.0 * (1.0 - v).powi(3)).abs() < 1e-2);
            assert!((hot.density(v) - 1.0).abs() < 1e-5);
        }
    }
}
