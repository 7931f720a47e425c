//! The optimal transform: the Φ whose policy has the greatest inference-time win rate for its KL.
//!
//! The maximum of W^T(π ≻ π_ref) − β·KL(π‖π_ref) over all policies is itself a tilt e^{Φ*/β} of π_ref,
//! with Φ*(u) = −∫ᵤ¹ g(F(v))·g(v) dv, g the rank density of T and F the distribution function of the
//! policy (InfAlign, arXiv 2412.19792, coupled characterisation of the optimum). Φ* depends on β, so
//! every β has its own.

mod residual;
mod series;
mod trajectory;

use serde::Serialize;

use crate::beta::Beta;
use crate::continuous::{Tails, Tilt};
use crate::error::TransformError;
use crate::numerics::root;
use crate::procedure::Procedure;
use crate::transform::Transform;
use trajectory::Trajectory;

/// The optimum for one procedure and one β, in continuous language.
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
    /// The procedure on both sides.
    pub procedure: Procedure,
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

/// The logarithms of β between which a KL is searched for: e^{p} of the solution stays within `f64`.
const LOG_BETA: (f64, f64) = (-300.0, 28.0);

/// How Φ* is known.
#[derive(Clone, Debug)]
enum Solution {
    /// Φ* = u: one response, of which the calibrated reward is the win rate.
    Linear(Tilt),
    /// Along the universal curve.
    Curve(Trajectory),
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

/// Procedure and β decide everything else.
impl PartialEq for Optimum {
    fn eq(&self, other: &Self) -> bool {
        self.procedure == other.procedure && self.beta == other.beta
    }
}

impl Optimum {
    /// Solves for the optimum of `procedure` at `beta`.
    ///
    /// Exact to about 1e-12 for `sample`, `best-of:N` and `worst-of:N`, N to 10,000 and more.
    ///
    /// # Errors
    /// [`TransformError::NoSolver`] for another procedure, [`TransformError::NoOptimum`] for a β so
    /// extreme (below about 1e-130 or above 1e199) that its optimum is beyond `f64`.
    pub fn new(procedure: &Procedure, beta: Beta) -> Result<Self, TransformError> {
        let (procedure, n, rising) = match *procedure {
            Procedure::Sample => (Procedure::Sample, 1, true),
            Procedure::BestOf(n) => (Procedure::BestOf(n), n.get(), true),
            Procedure::WorstOf(n) => (Procedure::WorstOf(n), n.get(), false),
            _ => return Err(TransformError::NoSolver(procedure.to_string())),
        };
        if n == 1 {
            return Self::linear(procedure, beta);
        }
        let solved = Trajectory::solve(n, rising, beta.get().ln());
        let curve = solved.ok_or_else(|| TransformError::NoOptimum {
            procedure: procedure.to_string(),
            beta: beta.get(),
        })?;
        let (kl, win_rate) = (curve.kl(), curve.win_rate(beta.get()));
        let rank_density =
            |at: Tails| procedure.density_between(at.below, at.above).unwrap_or(f64::NAN);
        let residual =
            residual::residual(curve.edges(), |v| curve.tails(v), rank_density, beta.get());
        let objective = win_rate - beta.get() * kl;
        let solution = Solution::Curve(curve);
        Ok(Optimum { procedure, beta, kl, win_rate, objective, residual, solution })
    }

    /// Solves for the optimum of `procedure` whose policy has a KL of `kl` nats.
    ///
    /// # Errors
    /// [`TransformError::Kl`] when `kl` is not positive and finite, [`TransformError::UnreachableKl`]
    /// when no β that `f64` can hold has it, and as for [`Optimum::new`].
    pub fn for_kl(procedure: &Procedure, kl: f64) -> Result<Self, TransformError> {
        if !(kl > 0.0 && kl.is_finite()) {
            return Err(TransformError::Kl(kl));
        }
        let kl_at = |log_beta: f64| Self::kl_at(procedure, log_beta);
        let (low, high) = LOG_BETA;
        let (supremum, infimum) = (kl_at(low)?, kl_at(high)?);
        let gap = |log_beta: f64| kl_at(log_beta).map_or(f64::NAN, |found| (found / kl).ln());
        let log_beta = root::bracketed(gap, low, high).ok_or_else(|| {
            let transform = format!("optimal:{procedure}");
            TransformError::UnreachableKl { transform, kl, infimum, supremum }
        })?;
        Self::new(procedure, Beta::of_log(log_beta))
    }

    /// Φ*(u) on the raw scale, in win rate: 0 at u = 1 and below 0 elsewhere.
    ///
    /// - `u`: calibrated reward; outside [0, 1] it counts as the nearer end.
    pub fn phi(&self, u: f64) -> f64 {
        -self.shortfall((1.0 - u).clamp(0.0, 1.0))
    }

    /// F(u), the distribution function of the calibrated reward under the optimal policy.
    ///
    /// - `u`: calibrated reward; outside [0, 1] it counts as the nearer end.
    pub fn cdf(&self, u: f64) -> f64 {
        match &self.solution {
            Solution::Linear(tilt) => tilt.cdf(u),
            Solution::Curve(curve) => curve.tails((1.0 - u).clamp(0.0, 1.0)).below,
        }
    }

    /// Φ* and F at the given calibrated rewards.
    pub fn curve(&self, u: &[f64]) -> Curve {
        let phi = u.iter().map(|&u| self.phi(u)).collect();
        let cdf = u.iter().map(|&u| self.cdf(u)).collect();
        Curve { u: u.to_vec(), phi, cdf }
    }

    /// −Φ* at distance v from the top.
    pub(crate) fn shortfall(&self, v: f64) -> f64 {
        match &self.solution {
            Solution::Linear(_) => v,
            Solution::Curve(curve) => self.beta.get() * curve.depth(v),
        }
    }

    /// Distances from the top between which Φ* is smooth, ascending from 0 to 1.
    pub(crate) fn edges(&self) -> Vec<f64> {
        match &self.solution {
            Solution::Linear(_) => vec![0.0, 1.0],
            Solution::Curve(curve) => curve.edges().to_vec(),
        }
    }

    fn linear(procedure: Procedure, beta: Beta) -> Result<Self, TransformError> {
        let tilt = Tilt::new(&Transform::Identity, beta);
        let (kl, win_rate) = (tilt.kl(), tilt.win_rate(&Procedure::Sample)?);
        let objective = win_rate - beta.get() * kl;
        let solution = Solution::Linear(tilt);
        Ok(Optimum { procedure, beta, kl, win_rate, objective, residual: 0.0, solution })
    }

    /// The KL alone, without the certificate, for the search over β.
    fn kl_at(procedure: &Procedure, log_beta: f64) -> Result<f64, TransformError> {
        let beta = Beta::of_log(log_beta);
        let curve = match *procedure {
            Procedure::BestOf(n) if n.get() > 1 => Trajectory::solve(n.get(), true, log_beta),
            Procedure::WorstOf(n) if n.get() > 1 => Trajectory::solve(n.get(), false, log_beta),
            _ => return Self::new(procedure, beta).map(|optimum| optimum.kl),
        };
        curve.map(|curve| curve.kl()).ok_or_else(|| TransformError::NoOptimum {
            procedure: procedure.to_string(),
            beta: beta.get(),
        })
    }
}
