//! β: fixed, or steered to a target KL.

use serde::{Deserialize, Serialize};

/// Share of the run during which β is left alone: the policy is still on its way from the reference.
const START: f64 = 0.15;
/// Weight of the past in the running mean of the measured KL.
const MEMORY: f64 = 0.7;
/// Change of log β a step for an error of 1 that lasts.
const INTEGRAL: f64 = 0.03;
/// Change of log β for an error of 1 now.
const PROPORTIONAL: f64 = 0.3;

/// The least β without the proportional part, as a share of the first.
const LEAST: f64 = 0.25;

/// The KL coefficient and what steers it: a proportional-integral controller of log β on the error log(KL / target).
///
/// A policy follows β with a lag of some ten steps, and KL falls with about the square of β: larger gains oscillate. A policy that learns
/// slowly does not follow: β would sink for as long as the KL lies below the target, and the KL then rise past it, for noise more than for
/// reward. So β stops at a share of the first, which is the theory's for that KL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Controller {
    /// The coefficient, on the scale of the trained reward.
    beta: f64,
    first: f64,
    /// The coefficient without the proportional part.
    settled: f64,
    /// Running mean of the measured KL, in nats per response; absent before the first step.
    kl: Option<f64>,
    target: Option<f64>,
}

impl Controller {
    pub(crate) fn new(beta: f64, target: Option<f64>) -> Self {
        Self { beta, first: beta, settled: beta, kl: None, target }
    }

    /// The coefficient of the next step.
    pub(crate) fn beta(&self) -> f64 {
        self.beta
    }

    /// Takes in the KL measured at a step; `progress` is the share of the run that is done.
    pub(crate) fn observe(&mut self, kl: f64, progress: f64) {
        let kl = self.kl.map_or(kl, |before| MEMORY * before + (1.0 - MEMORY) * kl);
        self.kl = Some(kl);
        let Some(target) = self.target.filter(|_| progress >= START) else { return };
        // A KL of 0, or a little less by rounding, is as far below the target as the controller reacts to.
        let error = (kl.max(0.0) / target).ln().clamp(-1.0, 1.0);
        self.settled = (self.settled * (INTEGRAL * error).exp()).max(LEAST * self.first);
        self.beta = self.settled * (PROPORTIONAL * error).exp();
    }
}

#[cfg(test)]
mod tests {
    use super::Controller;

    /// The KL after every step of a policy whose KL is moved by `change(KL, β, share of the run)`.
    fn follow(
        mut controller: Controller,
        steps: u32,
        change: impl Fn(f64, f64, f64) -> f64,
    ) -> Vec<f64> {
        let mut kl = 0.0;
        (0..steps)
            .map(|step| {
                let progress = f64::from(step) / f64::from(steps);
                kl += change(kl, controller.beta(), progress);
                controller.observe(kl, progress);
                kl
            })
            .collect()
    }

    /// Goes to KL = 0.05/β² with a lag of ten steps.
    fn quick(kl: f64, beta: f64, _progress: f64) -> f64 {
        0.1 * (0.05 / beta.powi(2) - kl)
    }

    /// KL = θ²/2 of a θ that drifts, and follows a slope which grows with θ, at a rate that falls to nothing.
    fn slow(kl: f64, beta: f64, progress: f64) -> f64 {
        let theta = (2.0 * kl).sqrt();
        let slope = 0.12 * (0.05 + (0.1 - beta) * theta) + 0.004;
        (theta + (1.0 - progress) * slope).powi(2) / 2.0 - kl
    }

    #[test]
    fn a_target_is_reached_and_kept() {
        for beta in [0.1, 0.3, 0.9] {
            let kl = follow(Controller::new(beta, Some(0.5)), 200, quick);
            assert!(
                kl[170..].iter().all(|kl| (kl - 0.5).abs() < 0.025),
                "from β = {beta}: {:?}",
                &kl[170..]
            );
        }
    }

    #[test]
    fn a_policy_that_learns_slowly_does_not_run_past_the_target() {
        let kl = follow(Controller::new(0.32, Some(0.5)), 300, slow);
        let greatest = kl.iter().copied().fold(0.0, f64::max);
        assert!(greatest < 0.85, "KL rose to {greatest}: {kl:?}");
    }

    #[test]
    fn a_fixed_beta_stays() {
        let mut controller = Controller::new(0.3, None);
        (0..50).for_each(|_| controller.observe(2.0, 0.9));
        assert_eq!(controller.beta(), 0.3);
        let mut steered = Controller::new(0.3, Some(0.5));
        (0..3).for_each(|_| steered.observe(-1e-8, 0.9));
        assert!(steered.beta() > 0.0 && steered.beta() < 0.3, "a KL that rounds below 0 lowers β");
    }
}
