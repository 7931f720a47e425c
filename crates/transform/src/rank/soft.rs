//! Soft best-of-n: one of n responses, drawn with probability ∝ e^{u/τ}, u the rank among π_ref's responses whoever draws.
//!
//! Given its own u and those of n − 1 others, a response is returned with probability
//! e^{u/τ}/(e^{u/τ} + Σe^{Uⱼ/τ}). With 1/x = ∫e^{−sx}ds and every weight divided by e^{1/τ}, the mean over
//! the others factors: in v = 1 − u, a(v) = e^{−v/τ} and M(s) = ∫₀¹ f·e^{−s·a(v)} dv for responses of density f,
//! what is returned has the density f·h,
//!
//! h = n·∫₀^∞ a·e^{−s·a}·M(s)^{n−1} ds.
//!
//! π_ref has f = 1. As h depends on f as a whole, and not on a policy's own ranks alone, there is no rank density; the win rate
//! is ∫ f·h·G du, G the distribution function of what is returned of π_ref.
//!
//! In log s the integrand is analytic and falls off double-exponentially on one side and exponentially
//! on the other, so that the trapezoid rule is exact to `f64`.

use crate::numerics::gauss;
use crate::numerics::laplace::{NEGLIGIBLE, STEP, VANISHES};
use crate::numerics::piecewise::Piecewise;

/// Least temperature, in units of the calibrated reward: the nodes grow as its inverse.
pub(crate) const COLDEST: f64 = 1e-4;
/// Panels in units of the temperature: on one of them 20 nodes hold e^{−s·a} to `f64`.
const PANEL: f64 = 2.0;
/// Masses of nodes below this do not count.
const NO_MASS: f64 = 1e-30;

/// Soft best-of-n at one temperature, with M tabulated.
#[derive(Clone, Debug)]
struct SoftBest {
    n: f64,
    temperature: f64,
    /// log s and M(s)^{n−1} at the nodes of the trapezoid rule, ascending in s.
    nodes: Vec<(f64, f64)>,
}

impl SoftBest {
    /// Among responses of π_ref.
    fn new(n: usize, temperature: f64) -> Self {
        Self::among(n, temperature, |log_s| others(log_s, temperature))
    }

    /// Among responses whose M(s) is `mean(log s)`.
    fn among(n: usize, temperature: f64, mean: impl Fn(f64) -> f64) -> Self {
        let first = (NEGLIGIBLE / n as f64).ln();
        let last = VANISHES.ln() + 1.0 / temperature;
        let count = ((last - first) / STEP).ceil() as usize;
        let node = |k: usize| {
            let log_s = first + k as f64 * STEP;
            (log_s, mean(log_s).powf(n as f64 - 1.0))
        };
        // Once the others leave nothing, they leave nothing at any greater s.
        let nodes = (0..=count).map(node).take_while(|(_, rest)| *rest > 1e-30).collect();
        SoftBest { n: n as f64, temperature, nodes }
    }

    /// h at distance v from the top.
    fn density(&self, v: f64) -> f64 {
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

/// Win rate over π_ref of a policy, both under soft best-of-n: ∫ f·h·G du. `None` for a temperature below [`COLDEST`] or not finite.
///
/// - `policy`: f, by v.
pub(crate) fn soft_win_rate(n: usize, temperature: f64, policy: &Piecewise) -> Option<f64> {
    if !temperature.is_finite() || temperature < COLDEST {
        return None;
    }
    let uniform = SoftBest::new(n, temperature);
    let reference = Piecewise::resolve(|v| uniform.density(v))?;
    let mut points = policy.points(PANEL * temperature);
    points.retain(|(_, mass)| *mass > NO_MASS);
    let mut beyond = vec![0.0; points.len() + 1];
    for (k, (_, mass)) in points.iter().enumerate().rev() {
        beyond[k] = beyond[k + 1] + mass;
    }
    let mean = |log_s: f64| left(&points, &beyond, log_s, temperature);
    let kept = SoftBest::among(n, temperature, mean);
    let won = |&(v, mass): &(f64, f64)| mass * kept.density(v) * reference.tails(v).below;
    Some(points.iter().map(won).sum())
}

/// M(s) = Σ mass·exp(−s·e^{−v/τ}), summed only where the exponential is neither 0 nor 1.
///
/// - `points`: v and mass, by ascending v; `beyond`: the mass from each point on, one entry more.
fn left(points: &[(f64, f64)], beyond: &[f64], log_s: f64, temperature: f64) -> f64 {
    let place = |weight: f64| {
        let v = temperature * (log_s - weight.ln());
        points.partition_point(|point| point.0 < v)
    };
    let (low, high) = (place(VANISHES), place(NEGLIGIBLE));
    let term = |&(v, mass): &(f64, f64)| mass * (-(log_s - v / temperature).exp()).exp();
    points[low..high].iter().map(term).sum::<f64>() + beyond[high]
}

/// M(s) = ∫₀¹ exp(−s·e^{−v/τ}) dv of π_ref, integrated only where it is neither 0 nor 1.
fn others(log_s: f64, temperature: f64) -> f64 {
    let place = |weight: f64| (temperature * (log_s - weight.ln())).clamp(0.0, 1.0);
    let (low, high) = (place(VANISHES), place(NEGLIGIBLE));
    let panels = ((high - low) / (PANEL * temperature)).ceil().max(1.0);
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
            let soft = SoftBest::new(2, temperature);
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
            let soft = SoftBest::new(n, temperature);
            let whole = gauss::unit(|log_v| soft.density(log_v.exp()));
            assert!((whole - 1.0).abs() < 1e-12, "n = {n}: {whole}");
        }
    }

    #[test]
    fn temperatures_out_of_reach_are_refused() {
        let uniform = Piecewise::new(vec![0.0, 1.0], vec![[1.0; 20]]);
        for temperature in [0.0, 1e-5, f64::NAN, f64::INFINITY] {
            assert!(soft_win_rate(4, temperature, &uniform).is_none(), "{temperature}");
        }
    }

    #[test]
    fn sums_over_points_are_integrals() {
        let uniform = Piecewise::new(vec![0.0, 0.3, 1.0], vec![[1.0; 20]; 2]);
        for temperature in [0.02, 0.3, 50.0] {
            let points = uniform.points(PANEL * temperature);
            assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0));
            let mut beyond = vec![0.0; points.len() + 1];
            for (k, (_, mass)) in points.iter().enumerate().rev() {
                beyond[k] = beyond[k + 1] + mass;
            }
            for log_s in [-5.0, 0.0, 2.0, 10.0] {
                let (sum, exact) =
                    (left(&points, &beyond, log_s, temperature), others(log_s, temperature));
                assert!((sum - exact).abs() < 1e-13, "τ = {temperature}, log s = {log_s}");
            }
            let won = soft_win_rate(5, temperature, &uniform).unwrap();
            assert!((won - 0.5).abs() < 1e-12, "τ = {temperature}: {won}");
        }
    }

    #[test]
    fn its_limits_are_best_of_n_and_sampling() {
        let (cold, hot) = (SoftBest::new(4, 1e-4), SoftBest::new(4, 1e6));
        for v in [0.01, 0.3, 0.8f64] {
            assert!((cold.density(v) - 4.0 * (1.0 - v).powi(3)).abs() < 1e-2);
            assert!((hot.density(v) - 1.0).abs() < 1e-5);
        }
    }
}
