//! Win rates at a KL that no run had, from those at KLs that runs had.
//!
//! What a policy gains on the reference, W − ½, is taken as a share of what the best policy there is gains at the same KL, and the share is
//! linear in √KL between runs, and below the first what it is there. A chord from (0, ½) would judge too low whoever went farther: a win rate
//! bends away from it, and under best-of-N much, by 0.04 for `exp:10` under best-of-4 at half a nat from a run at 0.8. The share of a transform
//! that is for the procedure hardly changes, and that of another falls as policies come nearer, so that it is judged too high rather than too low.
//! Where there is no theory of an optimum, the gain is taken as a share of √KL, as it rises near KL 0. Nothing is extrapolated beyond the last run.

use infalign_transform::{Procedure, optimal_frontier};

/// What the optimum gains on the reference by √KL.
#[derive(Clone, Debug)]
pub(crate) struct Gain {
    /// (√KL, W* − ½), ascending from (0, 0); empty where there is no theory.
    optimum: Vec<(f64, f64)>,
}

impl Gain {
    /// Points of the optimum's curve, between which it is taken as linear in √KL.
    const POINTS: usize = 200;

    /// Under a procedure on both sides, from KL 0 to `farthest` nats.
    pub(crate) fn of(procedure: Option<&Procedure>, farthest: f64) -> Self {
        let range = (1e-4 * farthest, farthest);
        let known = procedure.and_then(|of| optimal_frontier(of, range, Self::POINTS).ok());
        let points = known.into_iter().flatten();
        let points = points.filter_map(|at| Some((at.kl.sqrt(), at.win_rates.first()? - 0.5)));
        let mut optimum: Vec<(f64, f64)> = std::iter::once((0.0, 0.0)).chain(points).collect();
        if optimum.len() == 1 {
            optimum.clear();
        }
        Self { optimum }
    }

    /// At a √KL; beyond the farthest what it is there.
    fn at(&self, root: f64) -> f64 {
        let Some(&(_, last)) = self.optimum.last() else { return root };
        let above = self.optimum.partition_point(|&(place, _)| place <= root);
        let Some(&(next, gain)) = self.optimum.get(above) else { return last };
        let (place, before) = self.optimum[above - 1];
        before + (gain - before) * (root - place) / (next - place)
    }

    /// The win rate at a KL, from points (KL, win rate); NaN beyond the last, or where there is none.
    pub(crate) fn interpolated(&self, points: impl Iterator<Item = (f64, f64)>, kl: f64) -> f64 {
        let place = kl.sqrt();
        if place == 0.0 {
            return 0.5;
        }
        // An estimate of a KL near 0 may be below it; there a win rate tells of no share.
        let share = |(kl, win_rate): (f64, f64)| {
            let root = kl.max(0.0).sqrt();
            (root, (win_rate - 0.5) / self.at(root))
        };
        let mut shares: Vec<(f64, f64)> =
            points.map(share).filter(|(_, share)| share.is_finite()).collect();
        shares.sort_by(|a, b| a.0.total_cmp(&b.0));
        let above = shares.partition_point(|&(root, _)| root < place);
        let Some(&(next, after)) = shares.get(above) else { return f64::NAN };
        let share = match above.checked_sub(1).map(|below| shares[below]) {
            Some((root, before)) => before + (after - before) * (place - root) / (next - root),
            None => after,
        };
        0.5 + share * self.at(place)
    }
}

#[cfg(test)]
mod tests {
    use infalign_transform::{Optimum, Tilt, Transform, beta_for_kl};

    use super::*;

    #[test]
    fn without_a_theory_gains_are_shares_of_the_root() {
        let gain = Gain::of(None, 1.0);
        let at = |kl| gain.interpolated([(0.36, 0.8), (0.04, 0.6)].into_iter(), kl);
        assert_eq!(at(0.0), 0.5);
        assert!((at(0.01) - 0.55).abs() < 1e-12 && (at(0.16) - 0.7).abs() < 1e-12);
        assert!((at(0.36) - 0.8).abs() < 1e-12 && at(0.37).is_nan());
        assert!(gain.interpolated(std::iter::empty(), 0.1).is_nan());
    }

    #[test]
    fn the_curve_is_the_optimums() {
        let procedure: Procedure = "best-of:4".parse().unwrap();
        let gain = Gain::of(Some(&procedure), 2.0);
        for kl in [0.001, 0.05, 0.3, 1.0, 1.9] {
            let exact = Optimum::for_kl(&procedure, kl).unwrap().win_rate - 0.5;
            assert!((gain.at(kl.sqrt()) - exact).abs() < 1e-4, "at {kl}");
        }
    }

    #[test]
    fn who_went_farther_is_not_judged_too_low() {
        let win_rate = |transform: &str, procedure: &Procedure, kl: f64| {
            let transform: Transform = transform.parse().unwrap();
            let beta = beta_for_kl(&transform, kl).unwrap();
            Tilt::new(&transform, beta).unwrap().win_rate(procedure).unwrap()
        };
        for procedure in ["sample", "best-of:4", "worst-of:4"] {
            let procedure: Procedure = procedure.parse().unwrap();
            let gain = Gain::of(Some(&procedure), 2.0);
            for transform in ["identity", "log", "exp:10", "exp:-10"] {
                for from in [0.52, 0.6, 0.8] {
                    let run = (from, win_rate(transform, &procedure, from));
                    let found = gain.interpolated(std::iter::once(run), 0.5);
                    let error = found - win_rate(transform, &procedure, 0.5);
                    // It is too high where a transform is for another procedure: 0.049 for exp:-10 under best-of-4 from 0.8 nats.
                    let most = 0.18 * (from - 0.5);
                    let told = format!("{transform} under {procedure} from {from}: {error}");
                    assert!((-0.003..most + 1e-4).contains(&error), "{told}");
                }
            }
        }
    }
}
