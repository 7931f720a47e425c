//! The optimal transform: the Φ whose policy has the greatest inference-time win rate for its KL.
//!
//! The maximum of W^T(π ≻ π_ref) − β·KL(π‖π_ref) over all policies is itself a tilt e^{Φ*/β} of π_ref,
//! with Φ*(u) = −∫ᵤ¹ g(F(v))·g(v) dv, g the rank density of T and F the distribution function of the
//! policy (InfAlign, arXiv 2412.19792, coupled characterisation of the optimum). Φ* depends on β, so
//! every β has its own.
//!
//! Best-of-N and worst-of-N follow one universal curve per N (`trajectory`); any other rank density is
//! solved for as a boundary value problem (`shooting`), exactly where it is made of steps (`steps`).
//! The fixed point is not iterated: undamped it oscillates, and damped it takes N/β rounds. It is the
//! certificate instead: the residual is what one round of it changes.

mod residual;
mod series;
mod shooting;
mod steps;
mod trajectory;

use std::sync::Arc;

use serde::Serialize;

use crate::beta::Beta;
use crate::continuous::{Tilt, least_known, win};
use crate::error::{TransformError, check_kl};
use crate::numerics::piecewise::Tails;
use crate::numerics::{divergence, gauss, root};
use crate::procedure::Procedure;
use crate::rank::{Kind, RankDensity};
use crate::transform::{Table, Transform};
use shooting::Shot;
use trajectory::Trajectory;

/// The optimum for one rank density and one β, in continuous language.
///
/// ```
/// use infalign_transform::{Beta, Optimum};
/// let best = Optimum::new(&"best-of:4".parse()?, Beta::new(0.1)?)?;
/// assert!((best.win_rate - 0.931169977481).abs() < 1e-11);
/// assert!((best.kl - 0.890858972334).abs() < 1e-11);
/// assert!(best.residual < 1e-12);
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Optimum {
    /// The decoder on both sides.
    pub rank: RankDensity,
    /// The KL coefficient, in win rate per nat.
    pub beta: Beta,
    /// KL(π*‖π_ref) in nats.
    pub kl: f64,
    /// Inference-time win rate of π* over π_ref, in [0, 1].
    pub win_rate: f64,
    /// win_rate − β·kl, the value that no policy exceeds.
    pub objective: f64,
    /// How far one step of the coupled equations moves the distribution function, in [0, 1].
    pub residual: f64,
    solution: Solution,
}

/// The logarithms of β between which a KL is searched for, those that `f64` can hold.
const LOG_BETA: (f64, f64) = (-690.0, 28.0);

/// Most values of β that are tried for a KL above the target.
const MOST_TRIES: usize = 16;

/// How Φ* is known.
#[derive(Clone, Debug)]
enum Solution {
    /// As a transform: u itself for one response, a table for steps.
    Tilted(Transform, Tilt),
    /// Along the universal curve.
    Curve(Trajectory),
    /// As the solution of the boundary value problem.
    Shot(Shot),
}

/// The optimum at given calibrated rewards, for tables and plots.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Calibrated rewards in [0, 1], as given.
    pub u: Vec<f64>,
    /// Φ*(u) on the raw scale, 0 at u = 1 and below 0 elsewhere.
    pub phi: Vec<f64>,
    /// F(u), the distribution function of the calibrated reward under the optimal policy.
    pub cdf: Vec<f64>,
}

/// The decoder and β decide everything else.
impl PartialEq for Optimum {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank && self.beta == other.beta
    }
}

/// Greatest residual that a solution may have.
const CERTIFIED: f64 = 1e-6;

impl Optimum {
    /// Solves for the optimum of `procedure` at `beta`.
    ///
    /// Exact to about 1e-12 for `sample`, `best-of:N` and `worst-of:N`, N to 10,000. Of a rank density by [`RankDensity::from_fn`] digits
    /// are lost as g(1)²/β grows; above a residual of 1e-6 the solution is refused. Soft best-of-N has no optimum here, but one for
    /// responses that can be listed ([`Outcomes::optimum`](crate::Outcomes::optimum)).
    ///
    /// # Errors
    /// Those of [`RankDensity::of`] and [`Optimum::under`].
    pub fn new(procedure: &Procedure, beta: Beta) -> Result<Self, TransformError> {
        Self::under(&RankDensity::of(procedure)?, beta)
    }

    /// Solves for the optimum of a decoder that is given by its rank density.
    ///
    /// Where g does not increase there may be several stationary points; those that a scan finds are
    /// compared, and the one of greatest objective is returned.
    ///
    /// # Errors
    /// [`TransformError::NoOptimum`] for a β so extreme that its optimum is beyond `f64` (for best-of-N
    /// and worst-of-N: below about 1e-130 to 1e-300 or above 1e199), or if no solution has a residual
    /// below 1e-6.
    pub fn under(rank: &RankDensity, beta: Beta) -> Result<Self, TransformError> {
        let solved = Solution::all(rank, beta).into_iter();
        solved
            .map(|solution| Self::certify(rank, beta, solution))
            .filter(|optimum| optimum.residual < CERTIFIED && optimum.objective.is_finite())
            .max_by(|a, b| a.objective.total_cmp(&b.objective))
            .ok_or(TransformError::NoOptimum { beta: beta.get() })
    }

    /// Solves for the optimum of `procedure` whose policy has a KL of `kl` nats.
    ///
    /// # Errors
    /// [`TransformError::Kl`] when `kl` is not positive and finite, [`TransformError::UnreachableKl`]
    /// when no β that `f64` can hold has it, and as for [`Optimum::new`].
    pub fn for_kl(procedure: &Procedure, kl: f64) -> Result<Self, TransformError> {
        check_kl(kl)?;
        let rank = RankDensity::of(procedure)?;
        let kl_at = |log_beta: f64| {
            let solved = Solution::all(&rank, Beta::of_log(log_beta));
            solved.first().map_or(f64::NAN, Solution::kl)
        };
        let (low, high) = around(kl, kl_at);
        let gap = |log_beta: f64| (kl_at(log_beta) / kl).ln();
        let log_beta = root::bracketed(gap, low, high).ok_or_else(|| {
            let transform = format!("optimal:{procedure}");
            let least = least_known(kl_at, LOG_BETA.0, LOG_BETA.1);
            let (infimum, supremum) = (kl_at(LOG_BETA.1), kl_at(least));
            TransformError::UnreachableKl { transform, kl, infimum, supremum }
        })?;
        Self::under(&rank, Beta::of_log(log_beta))
    }

    /// Φ* at the given calibrated rewards, without the certificate where there is only one solution.
    pub(crate) fn phi_under(
        rank: &RankDensity,
        beta: Beta,
        u: &[f64],
    ) -> Result<Vec<f64>, TransformError> {
        match Solution::all(rank, beta).as_slice() {
            [only] => Ok(u.iter().map(|u| 0.0 - only.shortfall(beta, 1.0 - u)).collect()),
            _ => Ok(Self::under(rank, beta)?.curve(u).phi),
        }
    }

    /// Computes what the solution achieves, and how far it is from one.
    fn certify(rank: &RankDensity, beta: Beta, solution: Solution) -> Self {
        let win_rate = match (&solution, rank.kind()) {
            (Solution::Curve(curve), _) => curve.win_rate(beta.get()),
            _ => win::win_rate(rank, |v| solution.tails(v)),
        };
        let kl = solution.kl();
        let edges = solution.edges();
        let residual =
            residual::residual(&edges, |v| solution.tails(v), |at| rank.density(at), beta.get());
        let objective = win_rate - beta.get() * kl;
        Optimum { rank: rank.clone(), beta, kl, win_rate, objective, residual, solution }
    }

    /// Φ*(u) on the raw scale, in win rate: 0 at u = 1 and below 0 elsewhere.
    ///
    /// - `u`: calibrated reward; outside [0, 1] it counts as the nearer end.
    pub fn phi(&self, u: f64) -> f64 {
        0.0 - self.shortfall((1.0 - u).clamp(0.0, 1.0))
    }

    /// F(u), the distribution function of the calibrated reward under the optimal policy.
    ///
    /// - `u`: calibrated reward; outside [0, 1] it counts as the nearer end.
    pub fn cdf(&self, u: f64) -> f64 {
        self.solution.tails((1.0 - u).clamp(0.0, 1.0)).below
    }

    /// Φ* and F at the given calibrated rewards.
    pub fn curve(&self, u: &[f64]) -> Curve {
        let phi = u.iter().map(|&u| self.phi(u)).collect();
        let cdf = u.iter().map(|&u| self.cdf(u)).collect();
        Curve { u: u.to_vec(), phi, cdf }
    }

    /// −Φ* at distance v from the top.
    pub(crate) fn shortfall(&self, v: f64) -> f64 {
        self.solution.shortfall(self.beta, v)
    }

    /// Distances from the top between which Φ* is smooth, ascending from 0 to 1.
    pub(crate) fn edges(&self) -> Vec<f64> {
        self.solution.edges()
    }
}

impl Solution {
    /// Every stationary point that is found.
    fn all(rank: &RankDensity, beta: Beta) -> Vec<Self> {
        let tilted = |transform: Transform| {
            let tilt = Tilt::new(&transform, beta).ok()?;
            Some(Solution::Tilted(transform, tilt))
        };
        let curve = |n: f64, rising| {
            Trajectory::solve(n, rising, beta.get().ln()).map(Solution::Curve).into_iter().collect()
        };
        match rank.kind() {
            Kind::Best(n) | Kind::Worst(n) if *n == 1.0 => {
                tilted(Transform::Identity).into_iter().collect()
            }
            Kind::Best(n) => curve(*n, true),
            Kind::Worst(n) => curve(*n, false),
            Kind::Smooth(law) => {
                let fire = |log: f64| Shot::fire(rank, beta.get(), log);
                let total = |log: f64| fire(log).map_or(f64::NAN, |shot| shot.total());
                let roots = shooting::roots(total, law.falls());
                roots.into_iter().filter_map(fire).map(Solution::Shot).collect()
            }
            Kind::Steps(law) => {
                let fire = |log: f64| steps::fire(rank, law.edges(), beta.get(), log);
                let roots = shooting::roots(|log| fire(log).total, law.falls());
                let table = |bends: steps::Bends| {
                    let phi = bends.depth.iter().map(|depth| depth * beta.get()).collect();
                    tilted(Transform::Table(Arc::new(Table::from_top(bends.v, phi))))
                };
                roots.into_iter().filter_map(|log| table(fire(log))).collect()
            }
        }
    }

    /// −Φ* at distance v from the top.
    fn shortfall(&self, beta: Beta, v: f64) -> f64 {
        match self {
            Solution::Tilted(transform, _) => transform.shortfall(v),
            Solution::Curve(curve) => beta.get() * curve.depth(v),
            Solution::Shot(shot) => beta.get() * shot.depth(v),
        }
    }

    fn kl(&self) -> f64 {
        match self {
            Solution::Tilted(_, tilt) => tilt.kl(),
            Solution::Curve(curve) => kl(curve.edges(), |v| curve.log_density(v)),
            Solution::Shot(shot) => kl(shot.edges(), |v| shot.log_density(v)),
        }
    }

    fn tails(&self, v: f64) -> Tails {
        match self {
            Solution::Tilted(_, tilt) => tilt.tails(v),
            Solution::Curve(curve) => curve.tails(v),
            Solution::Shot(shot) => shot.tails(v),
        }
    }

    fn edges(&self) -> Vec<f64> {
        match self {
            Solution::Tilted(transform, _) => transform.knots(),
            Solution::Curve(curve) => curve.edges().to_vec(),
            Solution::Shot(shot) => shot.edges().to_vec(),
        }
    }
}

/// Two logarithms of β with `kl` between the KL at them, as far as that can be found.
fn around(kl: f64, kl_at: impl Fn(f64) -> f64) -> (f64, f64) {
    let (mut low, mut high) = (0.0, 1.0);
    while kl_at(high) > kl && high < LOG_BETA.1 {
        (low, high) = (high, (2.0 * high + 1.0).min(LOG_BETA.1));
    }
    for _ in 0..MOST_TRIES {
        let found = kl_at(low);
        if found >= kl || low <= LOG_BETA.0 {
            break;
        }
        // Where nothing is found, β was too small: back half of the way.
        (high, low) = if found.is_nan() {
            (high, 0.5 * (low + high))
        } else {
            (low, (2.0 * low - 1.0).max(LOG_BETA.0))
        };
    }
    (low, high)
}

/// KL = ∫ f·log f in nats, f smooth between `edges`.
fn kl(edges: &[f64], log_density: impl Fn(f64) -> f64) -> f64 {
    let part = |ends: &[f64]| gauss::panel(|v| divergence(log_density(v)), ends[0], ends[1]);
    edges.windows(2).map(part).sum()
}
