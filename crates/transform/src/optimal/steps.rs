//! The optimum for a rank density of steps: Φ* is then linear between points that are known exactly.
//!
//! As long as neither v nor A crosses an edge of a step, L falls at a constant rate c, and A follows
//! from L in closed form. So a shot (see [`shooting`](super::shooting)) goes from crossing to crossing.

use crate::numerics::piecewise::Tails;
use crate::rank::RankDensity;

/// A shot: where L bends, and A at the end.
pub(super) struct Bends {
    /// Distances from the top, ascending from 0 to 1.
    pub(super) v: Vec<f64>,
    /// L(0) − L(v), 0 or more.
    pub(super) depth: Vec<f64>,
    /// A(1).
    pub(super) total: f64,
}

/// Integrates from L(0) = `log` to the bottom; `edges` are those of the steps.
pub(super) fn fire(rank: &RankDensity, edges: &[f64], beta: f64, log: f64) -> Bends {
    let mut bends = Bends { v: vec![0.0], depth: vec![0.0], total: 0.0 };
    let (mut v, mut above, mut depth) = (0.0, 0.0, 0.0);
    let (mut v_step, mut above_step) = (1, 1);
    let height = |step: usize| {
        let middle = 0.5 * (edges[step - 1] + edges[step]);
        rank.density(Tails { below: 1.0 - middle, above: middle })
    };
    while v_step < edges.len() {
        let rate = height(v_step) * height(above_step.min(edges.len() - 1)) / beta;
        let density = f64::exp(log - depth);
        let to_edge = edges[v_step] - v;
        // Beyond A = 1 the last step goes on.
        let room = edges.get(above_step).map_or(f64::INFINITY, |edge| edge - above);
        let to_crossing = width_for(room, rate, density);
        let width = to_edge.min(to_crossing);
        above += gained(width, rate, density);
        depth += rate * width;
        if to_edge <= to_crossing {
            v = edges[v_step];
            v_step += 1;
        } else {
            (v, above) = (v + width, edges[above_step]);
            above_step += 1;
        }
        if v > bends.v[bends.v.len() - 1] {
            bends.v.push(v);
            bends.depth.push(depth);
        }
    }
    bends.total = above;
    bends
}

/// ∫₀^width density·e^{−rate·s} ds.
fn gained(width: f64, rate: f64, density: f64) -> f64 {
    let fall = rate * width;
    let mean = if fall == 0.0 { 1.0 } else { -(-fall).exp_m1() / fall };
    density * width * mean
}

/// The width over which `room` is gained, or infinity if it never is.
fn width_for(room: f64, rate: f64, density: f64) -> f64 {
    let share = rate * room / density;
    if share == 0.0 {
        room / density
    } else if share < 1.0 {
        -(-share).ln_1p() / rate
    } else {
        f64::INFINITY
    }
}
