//! Densities without a closed form, integrated on panels that follow their shape.

use crate::beta::Beta;
use crate::numerics::divergence;
use crate::numerics::legendre::{self, Row};
use crate::numerics::piecewise::{Piecewise, Tails};
use crate::transform::Transform;

/// Greatest change of log f over one panel, in nats: its 20 nodes then hold f exactly to `f64`.
const NATS_A_PANEL: f64 = 2.0;
/// Depth below the peak, in nats, past which a panel's mass no longer counts.
const NEGLIGIBLE: f64 = 80.0;
/// Most panels of one density.
const MOST_PANELS: usize = 100_000;

/// f = e^{−shortfall(v)/β} / Z on v in [0, 1], the distance from the top.
#[derive(Clone, Debug)]
pub(super) struct Panels {
    law: Piecewise,
    kl: f64,
}

impl Panels {
    /// `None` where the density changes too fast for `f64` to hold.
    pub(super) fn new(transform: &Transform, beta: Beta) -> Option<Self> {
        let depth = |v: f64| transform.shortfall(v) / beta.get();
        let edges = split(&transform.knots(), depth)?;
        let at_nodes = |ends: &[f64]| legendre::points(ends[0], ends[1]).map(depth);
        let depths: Vec<Row> = edges.windows(2).map(at_nodes).collect();
        let log_z = log_normaliser(&edges, &depths);
        let kl = integral(&edges, &depths, |depth| divergence(-depth - log_z));
        let density = |row: &Row| row.map(|depth| (-depth - log_z).exp());
        let law = Piecewise::new(edges, depths.iter().map(density).collect());
        Some(Panels { law, kl })
    }

    pub(super) fn tails(&self, v: f64) -> Tails {
        self.law.tails(v)
    }

    pub(super) fn kl(&self) -> f64 {
        self.kl
    }

    pub(super) fn law(&self) -> &Piecewise {
        &self.law
    }
}

/// ∫₀¹ f(depth) dv.
fn integral(edges: &[f64], depths: &[Row], f: impl Fn(f64) -> f64) -> f64 {
    let part = |(ends, row): (&[f64], &Row)| {
        0.5 * (ends[1] - ends[0]) * legendre::integral_and_tail(&row.map(&f)).0
    };
    edges.windows(2).zip(depths).map(part).sum()
}

/// log ∫e^{−depth}; through what is missing to 1 when that is little, to keep its digits.
fn log_normaliser(edges: &[f64], depths: &[Row]) -> f64 {
    let missing = integral(edges, depths, |depth| -(-depth).exp_m1());
    if missing < 0.5 {
        (-missing).ln_1p()
    } else {
        integral(edges, depths, |depth| (-depth).exp()).ln()
    }
}

/// Halves the transform's own panels until log f is nearly linear on each that counts; ends in
/// ascending order. `None` where none is narrow enough.
fn split(knots: &[f64], depth: impl Fn(f64) -> f64) -> Option<Vec<f64>> {
    let mut open: Vec<(f64, f64)> = knots.windows(2).rev().map(|pair| (pair[0], pair[1])).collect();
    let mut edges = vec![0.0];
    while let Some((a, b)) = open.pop() {
        let middle = 0.5 * (a + b);
        let (near, far) = (depth(a), depth(b));
        if near.is_nan() || far.is_nan() || edges.len() == MOST_PANELS {
            return None;
        }
        // Neighbouring numbers: the density jumps there, with less than 3e-16 of the mass between.
        let jumps = a > 0.0 && !(a < middle && middle < b);
        if near >= NEGLIGIBLE || far - near <= NATS_A_PANEL || jumps {
            edges.push(b);
        } else if b - a > f64::MIN_POSITIVE {
            open.push((middle, b));
            open.push((a, middle));
        } else {
            return None;
        }
    }
    Some(edges)
}
