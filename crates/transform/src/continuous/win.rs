//! Win-rate integrals of a distribution F against the uniform one, both through an order statistic.

use super::Tails;
use crate::numerics::gauss;
use crate::soft::SoftBest;

/// 1 − N∫F^N u^{N−1} du = ∫₀¹ (1 − F(y^{1/N})^N) dy, an integrand within [0, 1] for every N.
pub(super) fn best_of(n: usize, tails: impl Fn(f64) -> Tails) -> f64 {
    let n = n as f64;
    gauss::unit(|log_y| {
        let v = -(log_y / n).exp_m1();
        let Tails { below, above } = tails(v);
        -(n * log_of_share(below, above)).exp_m1()
    })
}

/// N∫(1−F)^N (1−u)^{N−1} du = ∫₀¹ (1 − F)^N dz at 1 − u = z^{1/N}.
pub(super) fn worst_of(n: usize, tails: impl Fn(f64) -> Tails) -> f64 {
    let n = n as f64;
    gauss::unit(|log_z| {
        let v = (log_z / n).exp();
        let Tails { below, above } = tails(v);
        (n * log_of_share(above, below)).exp()
    })
}

/// ∫₀¹ (1 − G(F(u)))·g(u) du for soft best-of-n.
pub(super) fn soft_best_of(soft: &SoftBest, tails: impl Fn(f64) -> Tails) -> f64 {
    gauss::unit(|log_v| {
        let v = log_v.exp();
        soft.above(tails(v).above) * soft.density(v)
    })
}

/// log p of a probability p, from 1 − p when that is the smaller of the two.
fn log_of_share(p: f64, complement: f64) -> f64 {
    if complement < 0.5 { (-complement).ln_1p() } else { p.ln() }
}
