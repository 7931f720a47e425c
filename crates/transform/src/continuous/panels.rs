//! Densities without a closed form, integrated on panels that follow their shape.

use super::Tails;
use crate::beta::Beta;
use crate::numerics::{divergence, gauss};
use crate::transform::Transform;

/// Greatest change of log f over one panel, in nats: the 20-point rule is then exact to `f64`.
const NATS_A_PANEL: f64 = 2.0;
/// Depth below the peak, in nats, past which a panel's mass no longer counts.
const NEGLIGIBLE: f64 = 80.0;

/// f = e^{−shortfall(v)/β} / Z on v in [0, 1], the distance from the top.
#[derive(Clone, Debug)]
pub(super) struct Panels {
    transform: Transform,
    beta: f64,
    log_z: f64,
    /// Panel ends in ascending v, from 0 to 1.
    edges: Vec<f64>,
    /// Probability between the top and each edge.
    above: Vec<f64>,
    /// Probability between each edge and the bottom.
    below: Vec<f64>,
}

impl Panels {
    pub(super) fn new(transform: &Transform, beta: Beta) -> Self {
        let (transform, beta) = (transform.clone(), beta.get());
        let edges = split(&transform, beta);
        let mut law = Panels { transform, beta, log_z: 0.0, edges, above: vec![], below: vec![] };
        law.log_z = law.log_normaliser();
        let masses: Vec<f64> = law.pairs().map(|(a, b)| law.mass(a, b)).collect();
        law.above = cumulative(masses.iter().copied());
        law.below = cumulative(masses.iter().rev().copied());
        law.below.reverse();
        law
    }

    pub(super) fn tails(&self, v: f64) -> Tails {
        let after = self.edges.partition_point(|&edge| edge <= v).clamp(1, self.edges.len() - 1);
        Tails {
            above: self.above[after - 1] + self.mass(self.edges[after - 1], v),
            below: self.below[after] + self.mass(v, self.edges[after]),
        }
    }

    pub(super) fn kl(&self) -> f64 {
        let part = |(a, b)| gauss::panel(|v| divergence(self.log_density(v)), a, b);
        self.pairs().map(part).sum()
    }

    fn log_density(&self, v: f64) -> f64 {
        -self.transform.shortfall(v) / self.beta - self.log_z
    }

    fn mass(&self, a: f64, b: f64) -> f64 {
        gauss::panel(|v| self.log_density(v).exp(), a, b)
    }

    fn pairs(&self) -> impl Iterator<Item = (f64, f64)> {
        self.edges.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// log ∫e^{−shortfall/β}; through what is missing to 1 when that is little, to keep its digits.
    fn log_normaliser(&self) -> f64 {
        let depth = |v: f64| self.transform.shortfall(v) / self.beta;
        let integral = |f: &dyn Fn(f64) -> f64| -> f64 {
            self.pairs().map(|(a, b)| gauss::panel(f, a, b)).sum()
        };
        let missing = integral(&|v| -(-depth(v)).exp_m1());
        if missing < 0.5 { (-missing).ln_1p() } else { integral(&|v| (-depth(v)).exp()).ln() }
    }
}

/// Running sums, from 0 to the whole.
fn cumulative(masses: impl Iterator<Item = f64>) -> Vec<f64> {
    let sums = masses.scan(0.0, |sum, mass| {
        *sum += mass;
        Some(*sum)
    });
    std::iter::once(0.0).chain(sums).collect()
}

/// Halves the transform's own panels until log f is nearly linear on each that counts; ends in
/// ascending order.
fn split(transform: &Transform, beta: f64) -> Vec<f64> {
    let depth = |v: f64| transform.shortfall(v) / beta;
    let knots = transform.knots();
    let mut open: Vec<(f64, f64)> = knots.windows(2).rev().map(|pair| (pair[0], pair[1])).collect();
    let mut edges = vec![0.0];
    while let Some((a, b)) = open.pop() {
        let middle = 0.5 * (a + b);
        let splits = middle > a && b - a > f64::MIN_POSITIVE;
        if splits && depth(a) < NEGLIGIBLE && depth(b) - depth(a) > NATS_A_PANEL {
            open.push((middle, b));
            open.push((a, middle));
        } else {
            edges.push(b);
        }
    }
    edges
}
