//! What a finite number of rollouts makes of a calibrated reward: exact moments of the estimate.
//!
//! CTRL estimates C_{r,π_ref}(y) by Ĉ(y) = (1/K)·Σ w(y, zᵢ) from K rollouts zᵢ of π_ref, w = 1, ½ or 0
//! where y wins, ties or loses (InfAlign, arXiv 2412.19792, calibration step). K·Ĉ is a sum of K
//! independent terms of three values each, from which everything below follows in closed form.

use std::num::NonZeroUsize;

use super::Outcomes;
use crate::error::TransformError;
use crate::numerics::log_of_share;

/// The distribution of Ĉ(y) for one outcome y and K rollouts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmpiricalCalibration {
    /// Probability that a rollout has less reward than y.
    below: f64,
    /// Probability that a rollout ties with y.
    equal: f64,
    /// Probability that a rollout has more reward than y.
    above: f64,
    /// K.
    rollouts: f64,
}

impl Outcomes {
    /// The distribution of the calibrated reward of one outcome as K rollouts estimate it.
    ///
    /// # Errors
    /// [`TransformError::NoOutcome`] when there are not that many outcomes.
    ///
    /// ```
    /// use infalign_transform::discrete::Outcomes;
    /// let coin = Outcomes::new(vec![0.5, 0.5], vec![0.0, 1.0])?;
    /// let estimate = coin.empirical_calibration(0, 2.try_into()?)?;
    /// assert_eq!((estimate.mean(), estimate.variance()), (0.25, 0.03125));
    /// assert_eq!(estimate.probability_of_zero(), 0.25);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn empirical_calibration(
        &self,
        outcome: usize,
        rollouts: NonZeroUsize,
    ) -> Result<EmpiricalCalibration, TransformError> {
        let count = self.rewards.len();
        if outcome >= count {
            return Err(TransformError::NoOutcome { index: outcome, count });
        }
        let group = self.groups.of(outcome);
        Ok(EmpiricalCalibration {
            below: self.masses[..group].iter().sum(),
            equal: self.masses[group],
            above: self.masses[group + 1..].iter().sum(),
            rollouts: rollouts.get() as f64,
        })
    }
}

impl EmpiricalCalibration {
    /// E Ĉ = C, in [0, 1].
    pub fn mean(&self) -> f64 {
        self.below + 0.5 * self.equal
    }

    /// Var Ĉ = (C(1 − C) − p_=/4)/K.
    pub fn variance(&self) -> f64 {
        // The same without cancellation, from p_< + p_= + p_> = 1.
        let one = self.below * self.above + 0.25 * self.equal * (self.below + self.above);
        one / self.rollouts
    }

    /// E e^{tĈ}, t any finite number; infinite where `f64` cannot hold it.
    ///
    /// Equation: (p_> + p_=·e^{t/2K} + p_<·e^{t/K})^K, p_> the probability of a rollout above y.
    pub fn mean_exp(&self, t: f64) -> f64 {
        let step = t / self.rollouts;
        let terms = [(self.below, step), (self.equal, 0.5 * step), (self.above, 0.0)];
        let possible = terms.iter().filter(|(probability, _)| *probability > 0.0);
        let greatest = possible.map(|term| term.1).fold(f64::NEG_INFINITY, f64::max);
        let sum = |f: fn(f64) -> f64| {
            terms.iter().map(|(p, x)| if *p > 0.0 { p * f(x - greatest) } else { 0.0 }).sum()
        };
        // ln_1p keeps the digits of a sum near 1, ln those of one near 0.
        let rest: f64 = sum(f64::exp_m1);
        let log = if rest > -0.5 { rest.ln_1p() } else { f64::ln(sum(f64::exp)) };
        (self.rollouts * (greatest + log)).exp()
    }

    /// Probability of Ĉ = 0, where the logarithm is infinite: p_>^K.
    pub fn probability_of_zero(&self) -> f64 {
        (self.rollouts * log_of_share(self.above, self.below + self.equal)).exp()
    }
}
