//! Win-rate integrals: 1 − G(F) of the policy's ranks, averaged over what the decoder makes of π_ref.

use crate::numerics::piecewise::{Piecewise, Tails};
use crate::numerics::{gauss, root};
use crate::rank::{Kind, RankDensity};

/// ∫₀¹ (1 − G(F(u)))·g(u) du; through y = G(u) where that is known, so that all is within [0, 1].
///
/// - `tails`: F and 1 − F at v = 1 − u.
pub(crate) fn win_rate(rank: &RankDensity, tails: impl Fn(f64) -> Tails) -> f64 {
    let beats = |v: f64| rank.probability_above(tails(v));
    match rank.kind() {
        Kind::Best(n) => gauss::unit(|log_y| beats(-(log_y / n).exp_m1())),
        Kind::Worst(n) => gauss::unit(|log_y| beats((log_y / n).exp())),
        Kind::Smooth(law) | Kind::Steps(law) => {
            let integrand = |v: f64| beats(v) * law.density(v);
            let panel = |ends: &[f64]| gauss::adaptive(&integrand, ends[0], ends[1]);
            let mut edges = law.edges().to_vec();
            if let Kind::Steps(_) = rank.kind() {
                edges.extend(bends(law, &tails));
                edges.sort_by(f64::total_cmp);
            }
            edges.windows(2).map(panel).sum()
        }
    }
}

/// Where 1 − G(F) bends: where the policy's rank comes to a jump of g.
fn bends(law: &Piecewise, tails: impl Fn(f64) -> Tails) -> impl Iterator<Item = f64> {
    let jumps = law.edges().iter().copied().filter(|edge| *edge > 0.0 && *edge < 1.0);
    jumps.filter_map(move |jump| root::bracketed(|v| tails(v).above - jump, 0.0, 1.0))
}
