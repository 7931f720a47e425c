//! A certificate of optimality that does not trust the solver.

use crate::numerics::gauss;
use crate::numerics::piecewise::Tails;

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
    let mut depth = 0.0;
    let mut above = vec![0.0];
    for ends in edges.windows(2) {
        let (near, far) = (ends[0], ends[1]);
        let density = |v: f64| (-depth - gauss::panel(slope, near, v)).exp();
        above.push(above[above.len() - 1] + gauss::panel(density, near, far));
        depth += gauss::panel(slope, near, far);
    }
    let whole = above[above.len() - 1];
    let gap = |(v, above): (&f64, f64)| (above / whole - tails(*v).above).abs();
    edges.iter().zip(above).map(gap).fold(0.0, f64::max)
}
