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

/// The KL coefficient and what steers it: a proportional-integral controller of log β on the error log(KL / target).
///
/// A policy follows β with a lag of some ten steps, and KL falls with about the square of β: larger gains oscillate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Controller {
    /// The coefficient, on the scale of the trained reward.
    beta: f64,
    /// The coefficient without the proportional part.
    settled: f64,
    /// Running mean of the measured KL, in nats per response; absent before the first step.
    kl: Option<f64>,
    target: Option<f64>,
}

impl Controller {
    pub(crate) fn new(beta: f64, target: Option<f64>) -> Self {
        Self { beta, settled: beta, kl: None, target }
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
        self.settled *= (INTEGRAL * error).exp();
        self.beta = self.settled * (PROPORTIONAL * error).exp();
    }
}

#[cfg(test)]
mod tests {
    use super::Controller;

    /// A policy that goes to KL = 0.05/β² with a lag of ten steps.
    fn follow(mut controller: Controller, steps: u32) -> Vec<f64> {
        let mut kl = 0.0;
        (0..steps)
            .map(|step| {
                kl += 0.1 * (0.05 / controller.beta().powi(2) - kl);
                controller.observe(kl, f64::from(step) / f64::from(steps));
                kl
            })
            .collect()
    }

    #[test]
    fn a_target_is_reached_and_kept() {
        for beta in [0.1, 0.3, 0.9] {
            let kl = follow(Controller::new(beta, Some(0.5)), 200);
            assert!(
                kl[170..].iter().all(|kl| (kl - 0.5).abs() < 0.025),
                "from β = {beta}: {:?}",
                &kl[170..]
            );
        }
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
