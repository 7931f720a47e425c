//! A certificate of optimality that does not trust the solver.

use crate::numerics::piecewise::Tails;
use crate::numerics::{gauss, greatest};

/// sup |F̂ − F| over the panel ends, F̂ the distribution that one step of the coupled equations makes
/// of F: Φ̂(u) = −∫ᵤ¹ g(F)·g dv, f̂ ∝ e^{Φ̂/β}. Zero exactly at a stationary point of W − β·KL.
///
/// - `edges`: panels in v = 1 − u, ascending from 0 to 1, on which F is smooth.
/// - `tails`: F and 1 − F at v.
/// - `rank_density`: g at a rank, given as the probabilities below and above it.
pub(super) fn residual(
    edges: &[f64],
    tails: impl Fn(f64) -> Tails,
    rank_density: impl Fn(Tails) -> f64,
    beta: f64,
) -> f64 {
    let slope = |v: f64| {
        let reference = Tails { below: 1.0 - v, above: v };
        rank_density(tails(v)) * rank_density(reference) / beta
    };
    let (mut depth, mut above) = (0.0, vec![0.0]);
    for ends in edges.windows(2) {
        let mut whole = above[above.len() - 1];
        for [near, far] in parts([ends[0], ends[1]], depth, slope) {
            let density = |v: f64| (-depth - gauss::panel(slope, near, v)).exp();
            whole += gauss::panel(density, near, far);
            depth += gauss::panel(slope, near, far);
        }
        above.push(whole);
    }
    let whole = above[above.len() - 1];
    let gap = |(v, above): (&f64, f64)| (above / whole - tails(*v).above).abs();
    greatest(edges.iter().zip(above).map(gap))
}

/// Halves a panel that begins `depth` nats below the top until log f, which falls by ∫`slope`, changes little on each part that counts.
fn parts(panel: [f64; 2], depth: f64, slope: impl Fn(f64) -> f64) -> Vec<[f64; 2]> {
    // Twenty nodes have the digits of an exponential over so many.
    const NATS_A_PART: f64 = 8.0;
    const NEGLIGIBLE: f64 = 80.0;
    let (mut open, mut depth, mut parts) = (vec![panel], depth, Vec::new());
    while let Some([near, far]) = open.pop() {
        let (middle, fall) = (0.5 * (near + far), gauss::panel(&slope, near, far));
        if fall > NATS_A_PART && depth < NEGLIGIBLE && near < middle && middle < far {
            open.extend([[middle, far], [near, middle]]);
        } else {
            depth += fall;
            parts.push([near, far]);
        }
    }
    parts
}
