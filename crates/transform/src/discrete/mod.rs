//! The exact engine for finitely many outcomes of one prompt, with atoms and ties.
//!
//! Where responses can be listed, calibrated rewards are not uniform and outcomes tie, so that the
//! integrals of [`continuous`](crate::continuous) do not apply. Here everything is a finite sum, by the
//! definitions of InfAlign (arXiv 2412.19792):
//!
//! - w(y, z) = 1 where r(y) > r(z), ½ where they are equal, else 0;
//! - C_{r,π}(y) = Σ_z π(z)·w(y, z), the calibrated reward for π = π_ref;
//! - W^T(π ≻ π_ref) = Σ_z C_{r,T(π_ref)}(z)·T(π)(z), with the procedure T on both sides;
//! - 𝓡(y) = ∂W^T/∂π(y): the best policy for W^T − β·KL(π‖π_ref) is π ∝ π_ref·exp(𝓡/β).
//!
//! Two departures. N equal samples of best-of-N are a tie that is broken uniformly over the *samples*,
//! so that T(π) is proportional to π among outcomes of equal reward. And the softmax of soft best-of-n
//! weighs the rewards as given here, its temperature in their units; [`continuous`](crate::continuous)
//! gives it the calibrated reward.

mod acceptance;
mod ascent;
pub mod calibration;
mod contest;
mod groups;
mod optimum;
mod prompts;
mod ranked;
mod rejection;
mod shooting;
mod softmax;

use crate::beta::Beta;
use crate::error::TransformError;
use crate::procedure::Procedure;
use crate::transform::Transform;
pub use calibration::EmpiricalCalibration;
use contest::{Contest, Law};
use groups::TieGroups;
pub use optimum::{DiscreteOptimum, Edge, kl_divergence};
pub use prompts::{Policies, Prompts};

/// How far from 1 probabilities may sum before they are refused.
const SUM_TOLERANCE: f64 = 1e-9;

/// A finite distribution of responses to one prompt with their rewards: π_ref, or any policy.
///
/// ```
/// use infalign_transform::{Beta, discrete::Outcomes};
/// let outcomes = Outcomes::new(vec![0.5, 0.25, 0.25], vec![0.0, 1.0, 1.0])?;
/// assert_eq!(outcomes.calibrated(), [0.25, 0.75, 0.75]);
/// assert_eq!(outcomes.under(&"best-of:2".parse()?)?, [0.25, 0.375, 0.375]);
/// let tilted = outcomes.tilt(&"identity".parse()?, Beta::new(1.0)?);
/// assert!((tilted[0] - 1.0 / (1.0 + 0.5f64.exp())).abs() < 1e-15);
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Outcomes {
    probabilities: Vec<f64>,
    rewards: Vec<f64>,
    groups: TieGroups,
    /// Probability of each tie group.
    masses: Vec<f64>,
}

impl Outcomes {
    /// Outcomes with the given probabilities and rewards, one entry each.
    ///
    /// Probabilities are 0 or more and sum to 1 within 1e-9; they are divided by their sum. Rewards are
    /// finite; only their order counts, except for soft best-of-n.
    ///
    /// # Errors
    /// [`TransformError::OutcomeCount`], [`TransformError::Probability`], [`TransformError::Reward`] or
    /// [`TransformError::ProbabilitySum`] for the first of these that does not hold.
    pub fn new(probabilities: Vec<f64>, rewards: Vec<f64>) -> Result<Self, TransformError> {
        let probabilities = checked(probabilities, rewards.len())?;
        if let Some(index) = rewards.iter().position(|reward| !reward.is_finite()) {
            return Err(TransformError::Reward { index, value: rewards[index] });
        }
        let groups = TieGroups::new(&rewards);
        let masses = groups.sums(&probabilities);
        Ok(Outcomes { probabilities, rewards, groups, masses })
    }

    /// Probabilities, in [0, 1], as given but for their sum.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// Rewards as given.
    pub fn rewards(&self) -> &[f64] {
        &self.rewards
    }

    /// C_{r,π} = p_< + ½·p_= of every outcome, in [0, 1].
    pub fn calibrated(&self) -> Vec<f64> {
        self.groups.spread(&groups::midpoints(&self.masses))
    }

    /// T(π): the probability of every outcome to be returned by `procedure`.
    ///
    /// # Errors
    /// [`TransformError::NotByRank`] for a procedure that does not act on rewards of whole responses
    /// alone, [`TransformError::Temperature`] for a soft best-of-n colder than 0.0001.
    pub fn under(&self, procedure: &Procedure) -> Result<Vec<f64>, TransformError> {
        Ok(self.spread_masses(&Law::new(procedure, &self.groups)?.apply(&self.masses)))
    }

    /// The policy of CTRL: π ∝ π_ref·exp(Φ(C_{r,π_ref})/β), these outcomes being those of π_ref.
    ///
    /// - `beta`: belongs to the raw scale of the transform.
    pub fn tilt(&self, transform: &Transform, beta: Beta) -> Vec<f64> {
        let mut logs = vec![f64::NEG_INFINITY; self.masses.len()];
        let ranks = groups::midpoints(&self.masses);
        let ascending = logs.iter_mut().zip(&self.masses).zip(ranks);
        // From group to group downwards, since Φ may be far below its own top where the best group is.
        let (mut above, mut depth, mut better) = (0.0, 0.0, None);
        for ((log, mass), u) in ascending.rev().filter(|((_, mass), _)| **mass > 0.0) {
            if let Some((v, half)) = better {
                depth += transform.fall(v, half + 0.5 * mass, u);
            }
            better = Some((above + 0.5 * mass, 0.5 * mass));
            above += mass;
            *log = mass.ln() - depth / beta.get();
        }
        self.spread_masses(&groups::normalised(&logs))
    }

    /// KL(π‖π_ref) in nats, these outcomes being those of π_ref; infinite where π leaves its support.
    ///
    /// # Errors
    /// As for [`Outcomes::new`], about `policy`.
    pub fn kl(&self, policy: &[f64]) -> Result<f64, TransformError> {
        let policy = checked(policy.to_vec(), self.rewards.len())?;
        Ok(optimum::kl_divergence(&policy, &self.probabilities))
    }

    /// W^T(π ≻ π_ref) in [0, 1], ties counted half, these outcomes being those of π_ref.
    ///
    /// # Errors
    /// As for [`Outcomes::new`], about `policy`, and as for [`Outcomes::under`].
    pub fn win_rate(&self, procedure: &Procedure, policy: &[f64]) -> Result<f64, TransformError> {
        let policy = checked(policy.to_vec(), self.rewards.len())?;
        let contest = Contest::new(Law::new(procedure, &self.groups)?, &self.masses);
        Ok(contest.win_rate(&self.groups.sums(&policy)))
    }

    /// The coupled transform 𝓡(y) = Σ_z C_{r,T(π_ref)}(z)·∂T(π)(z)/∂π(y), less its value at the outcome
    /// of least reward: only its differences have a meaning.
    ///
    /// # Errors
    /// As for [`Outcomes::win_rate`].
    pub fn coupled(
        &self,
        procedure: &Procedure,
        policy: &[f64],
    ) -> Result<Vec<f64>, TransformError> {
        let policy = checked(policy.to_vec(), self.rewards.len())?;
        let contest = Contest::new(Law::new(procedure, &self.groups)?, &self.masses);
        let values = contest.coupled(&self.groups.sums(&policy));
        let differences: Vec<f64> = values.iter().map(|value| value - values[0]).collect();
        Ok(self.groups.spread(&differences))
    }

    /// Masses of groups, shared out among their outcomes as π_ref shares them.
    fn spread_masses(&self, masses: &[f64]) -> Vec<f64> {
        let density = |(mass, of): (&f64, &f64)| if *of > 0.0 { mass / of } else { 0.0 };
        let densities: Vec<f64> = masses.iter().zip(&self.masses).map(density).collect();
        let densities = self.groups.spread(&densities);
        self.probabilities.iter().zip(densities).map(|(p, density)| p * density).collect()
    }
}

/// Probabilities that are `count` in number, at least 0, and sum to 1; divided by their sum.
fn checked(mut probabilities: Vec<f64>, count: usize) -> Result<Vec<f64>, TransformError> {
    if probabilities.is_empty() || probabilities.len() != count {
        let (probabilities, rewards) = (probabilities.len(), count);
        return Err(TransformError::OutcomeCount { probabilities, rewards });
    }
    let valid = |p: &f64| *p >= 0.0 && p.is_finite();
    if let Some(index) = probabilities.iter().position(|p| !valid(p)) {
        return Err(TransformError::Probability { index, value: probabilities[index] });
    }
    let sum: f64 = probabilities.iter().sum();
    if (sum - 1.0).abs() > SUM_TOLERANCE {
        return Err(TransformError::ProbabilitySum(sum));
    }
    probabilities.iter_mut().for_each(|p| *p /= sum);
    Ok(probabilities)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected numbers by mpmath with 50 digits.
    #[test]
    fn the_logarithm_keeps_its_digits_down_to_the_rarest_outcomes() {
        for (rarest, beta, expected) in [
            (1e-13, 100.0, 7.425_177_152_070_297e-14),
            (1e-15, 100.0, 7.090_989_130_123_436e-16),
            (3e-16, 100.0, 2.101_838_229_127_122e-16),
            (1e-20, 1.0, 1e-40),
        ] {
            let outcomes = Outcomes::new(vec![rarest, 0.4, 0.6], vec![0.0, 2.0, 3.0]).unwrap();
            let policy = outcomes.tilt(&Transform::Log, Beta::new(beta).unwrap());
            assert!((policy[0] / expected - 1.0).abs() < 1e-13, "{rarest:e}: {policy:?}");
        }
    }
}
