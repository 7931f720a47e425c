//! The policy of greatest W^T − β·KL for one prompt.

use super::contest::{Contest, Law};
use super::{Outcomes, acceptance, ascent, groups, shooting};
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
    /// Greatest change of a probability by one undamped step π' ∝ π_ref·exp(𝓡/β) at π*, in [0, 1]. On an
    /// edge the step stays on it: exp((𝓡 + λ·c)/β), with c = 1 below the group of the edge, ½ at it and
    /// 0 above, and λ the multiplier.
    pub residual: f64,
    /// Local maxima of the objective that were found, those on an edge among them: 1 where it is concave,
    /// possibly more under worst-of-N and under rejection. `policy` is the best of them.
    pub stationary_points: usize,
    /// Where π* lies on an edge of rejection.
    pub edge: Option<Edge>,
    /// 𝓡 at π*, less its value at the outcome of least reward, in win rate.
    pub transform: Vec<f64>,
}

/// An edge of rejection at a quantile φ: the mid-rank of one group of equal rewards is φ, and a policy beyond
/// it accepts this group or no longer does, so that the win rate jumps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// The reward of the group.
    pub reward: f64,
    /// Whether the group is accepted. If not, no policy is the best: the group's mid-rank is 2e-9 short of φ,
    /// and the nearer it is, the more is won.
    pub accepted: bool,
}

impl Outcomes {
    /// The policy of greatest W^T(π ≻ π_ref) − β·KL(π‖π_ref) over all policies, these outcomes being
    /// those of π_ref.
    ///
    /// For `sample`, `best-of:N` and `worst-of:N` every local maximum is found by exact shooting, and
    /// the best returned: the global optimum, for any N and any β of 1e-15 or more.
    ///
    /// For `soft-best-of` it is the best that a damped iteration finds from π_ref and from up to 16 starts
    /// (fewer above 1,000 groups) towards single groups of equal reward. For `rejection`, for each set of accepted groups, the best
    /// policy is known at a given share of accepted draws; these shares are scanned in steps of 1/32 of their log-odds, and the 16 best
    /// maxima worked out. The best may lie on an [`Edge`]. Neither is a proof that there is none better; where n/β is above about 1e7,
    /// rounding may keep either from its end.
    ///
    /// # Errors
    /// [`TransformError::NotByRank`] and [`TransformError::Temperature`] as for [`Outcomes::under`];
    /// [`TransformError::NotConverged`] if no policy is found that one step of the coupled equations
    /// moves by 1e-10 or less.
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
            Law::Soft(_) => ascent::maxima(&contest, beta).map_err(not_converged)?,
            Law::Rejection(rejection) => acceptance::maxima(*rejection, &contest, beta),
        };
        let optima = maxima.iter().map(|masses| self.describe(&contest, masses, beta));
        let best = optima.max_by(|a, b| a.objective.total_cmp(&b.objective));
        let mut best = best.ok_or_else(|| not_converged(f64::INFINITY))?;
        best.stationary_points = maxima.len();
        if best.residual <= ascent::STATIONARY {
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
        let edge = contest
            .edge(masses)
            .map(|(group, accepted)| Edge { reward: self.groups.rewards[group], accepted });
        DiscreteOptimum {
            residual: self.residual(contest, &policy, beta),
            transform: self.groups.spread(&transform),
            objective: win_rate - beta.get() * kl,
            stationary_points: 1,
            edge,
            policy,
            kl,
            win_rate,
        }
    }

    /// sup |π' − π| over outcomes, π' ∝ π_ref·exp(𝓡/β), 𝓡 at π; on an edge the step that stays on it.
    fn residual(&self, contest: &Contest<'_>, policy: &[f64], beta: Beta) -> f64 {
        let masses = self.groups.sums(policy);
        let mut values = contest.coupled(&masses);
        if let Some((edge, _)) = contest.edge(&masses) {
            let pulls = acceptance::constraint(edge, &values, &masses, contest.reference, beta);
            values.iter_mut().zip(pulls).for_each(|(value, pull)| *value += pull);
        }
        let values = self.groups.spread(&values);
        let log = |(p, value): (&f64, &f64)| p.ln() + value / beta.get();
        let logs: Vec<f64> = self.probabilities.iter().zip(&values).map(log).collect();
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
