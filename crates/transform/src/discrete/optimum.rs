//! The policy of greatest W^T − β·KL for one prompt.

use super::ascent;
use super::contest::{Contest, Law};
use super::shooting;
use super::{Outcomes, groups};
use crate::beta::Beta;
use crate::error::TransformError;
use crate::numerics::divergence;
use crate::procedure::Procedure;

/// The optimum for one prompt, one procedure and one β. Vectors have an entry an outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscreteOptimum {
    /// Probabilities of the optimal policy π*, which sum to 1.
    pub policy: Vec<f64>,
    /// KL(π*‖π_ref) in nats.
    pub kl: f64,
    /// Inference-time win rate W^T(π* ≻ π_ref), in [0, 1].
    pub win_rate: f64,
    /// win_rate − β·kl.
    pub objective: f64,
    /// Greatest change of a probability by one undamped step π' ∝ π_ref·exp(𝓡/β) at π*, in [0, 1].
    pub residual: f64,
    /// Local maxima of the objective: 1 where it is concave, possibly more under worst-of-N. `policy`
    /// is the best of them.
    pub stationary_points: usize,
    /// 𝓡 at π*, less its value at the outcome of least reward, in win rate.
    pub transform: Vec<f64>,
}

impl Outcomes {
    /// The policy of greatest W^T(π ≻ π_ref) − β·KL(π‖π_ref) over all policies, these outcomes being
    /// those of π_ref.
    ///
    /// For `sample`, `best-of:N` and `worst-of:N` every local maximum is found by exact shooting, and
    /// the best returned: the global optimum, for any N and any β of 1e-15 or more. For
    /// `soft-best-of` and `rejection` it is the best that a damped iteration finds from π_ref and from up to 16 starts
    /// (fewer above 1,000 groups) towards single groups of equal reward, which is no proof that there is none better; where n/β is
    /// above about 1e7, rounding may keep it from its end.
    ///
    /// # Errors
    /// [`TransformError::NotByRank`] and [`TransformError::Temperature`] as for [`Outcomes::under`];
    /// [`TransformError::NotConverged`] if no policy is found that one step of the coupled equations
    /// moves by 1e-10 or less, or under rejection only one that is worse than π_ref.
    ///
    /// ```
    /// use infalign_transform::{Beta, discrete::Outcomes};
    /// let outcomes = Outcomes::new(vec![0.5, 0.3, 0.2], vec![0.0, 1.0, 2.0])?;
    /// let best = outcomes.optimum(&"worst-of:16".parse()?, Beta::new(0.3)?)?;
    /// // One local maximum stays near π_ref; the better one gives up the worst outcome.
    /// assert_eq!(best.stationary_points, 2);
    /// assert!(best.policy[0] < 1e-11 && (best.policy[1] - 0.6).abs() < 1e-9);
    /// # Ok::<(), infalign_transform::TransformError>(())
    /// ```
    pub fn optimum(
        &self,
        procedure: &Procedure,
        beta: Beta,
    ) -> Result<DiscreteOptimum, TransformError> {
        let contest = Contest::new(Law::new(procedure, &self.groups)?, &self.masses);
        let not_converged = |residual| TransformError::NotConverged {
            procedure: procedure.to_string(),
            beta: beta.get(),
            residual,
        };
        let maxima = match &contest.law {
            Law::Ranked(ranked) => shooting::maxima(*ranked, &self.masses, beta),
            Law::Soft(_) | Law::Rejection(_) => {
                ascent::maxima(&contest, beta).map_err(not_converged)?
            }
        };
        let optima = maxima.iter().map(|masses| self.describe(&contest, masses, beta));
        let best = optima.max_by(|a, b| a.objective.total_cmp(&b.objective));
        let mut best = best.ok_or_else(|| not_converged(f64::INFINITY))?;
        best.stationary_points = maxima.len();
        // π_ref itself has ½ without any KL; under rejection, where the win rate jumps, a stationary policy may have less.
        let jumps = matches!(contest.law, Law::Rejection(_));
        let worse = jumps && best.objective < 0.5 - ascent::STATIONARY;
        if best.residual <= ascent::STATIONARY && !worse {
            Ok(best)
        } else {
            Err(not_converged(best.residual))
        }
    }

    /// Everything about a stationary policy, given as masses of groups.
    fn describe(&self, contest: &Contest<'_>, masses: &[f64], beta: Beta) -> DiscreteOptimum {
        let policy = self.spread_masses(masses);
        let (kl, win_rate) = (kl_divergence(masses, &self.masses), contest.win_rate(masses));
        let coupled = contest.coupled(masses);
        let transform: Vec<f64> = coupled.iter().map(|value| value - coupled[0]).collect();
        DiscreteOptimum {
            residual: self.residual(contest, &policy, beta),
            transform: self.groups.spread(&transform),
            objective: win_rate - beta.get() * kl,
            stationary_points: 1,
            policy,
            kl,
            win_rate,
        }
    }

    /// sup |π' − π| over outcomes, π' ∝ π_ref·exp(𝓡/β), 𝓡 at π.
    fn residual(&self, contest: &Contest<'_>, policy: &[f64], beta: Beta) -> f64 {
        let coupled = self.groups.spread(&contest.coupled(&self.groups.sums(policy)));
        let log = |(p, value): (&f64, &f64)| p.ln() + value / beta.get();
        let logs: Vec<f64> = self.probabilities.iter().zip(&coupled).map(log).collect();
        ascent::sup_distance(&groups::normalised(&logs), policy)
    }
}

/// KL of `policy` from `reference` in nats, with its digits where they are close; infinite where the policy
/// gives what the reference does not.
///
/// - `policy`, `reference`: probabilities of the same outcomes.
pub fn kl_divergence(policy: &[f64], reference: &[f64]) -> f64 {
    let term = |(p, q): (&f64, &f64)| match (*p, *q) {
        (0.0, q) => q,
        (_, 0.0) => f64::INFINITY,
        (p, q) => q * divergence((p / q).ln()),
    };
    policy.iter().zip(reference).map(term).sum()
}
