//! β: fixed, or steered to a target KL.

use serde::{Deserialize, Serialize};

/// Share of the run during which β is left alone: the policy is still on its way from the reference.
const START: f64 = 0.15;
/// Weight of the past in the running mean of the measured KL.
const MEMORY: f64 = 0.7;
/// The same in the slower mean, which the first is compared with.
const LONG_MEMORY: f64 = 0.95;
/// Change of log β a step for an error of 1 that lasts.
const INTEGRAL: f64 = 0.03;
/// Change of log β for an error of 1 now.
const PROPORTIONAL: f64 = 0.3;
/// Share of the first β below which it does not settle while the KL is on its way to the target.
const LEAST: f64 = 0.25;

/// The KL coefficient and what steers it: a proportional-integral controller of log β on the error log(KL / target).
///
/// A policy follows β with a lag of some ten steps, and KL falls with about the square of β: larger gains oscillate. A policy that learns
/// slowly lags by far more: β would go on sinking for as long as the KL is below the target, and the KL then overshoot. `LEAST` bounds
/// that wind-up. It gives way where the KL stands still, as it may with rewards that tie, whose optimum needs a smaller β than the theory's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Controller {
    /// The coefficient, on the scale of the trained reward.
    beta: f64,
    /// That of the first step: with a target, the theory's for that KL.
    first: f64,
    /// The coefficient without the proportional part.
    settled: f64,
    /// Absent before the first step.
    kl: Option<RunningKl>,
    target: Option<f64>,
    /// Those of the whole run.
    steps: usize,
}

/// Running means of the measured KL, in nats per response.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct RunningKl {
    short: f64,
    long: f64,
}

impl Controller {
    pub(crate) fn new(beta: f64, target: Option<f64>, steps: usize) -> Self {
        Self { beta, first: beta, settled: beta, kl: None, target, steps }
    }

    /// The coefficient of the next step.
    pub(crate) fn beta(&self) -> f64 {
        self.beta
    }

    /// Takes in the KL measured at a step, counted from 1.
    pub(crate) fn observe(&mut self, kl: f64, step: usize) {
        let means = self.kl.map_or(RunningKl { short: kl, long: kl }, |before| before.with(kl));
        self.kl = Some(means);
        let (step, steps) = (step as f64, self.steps as f64);
        let Some(target) = self.target.filter(|_| step / steps >= START) else { return };
        // A KL of 0, or a little less by rounding, is as far below the target as the controller reacts to.
        let error = (means.short.max(0.0) / target).ln().clamp(-1.0, 1.0);
        let settled = self.settled * (INTEGRAL * error).exp();
        let on_its_way = error < 0.0 && means.after(steps - step) >= target;
        if settled >= LEAST * self.first || !on_its_way {
            self.settled = settled;
        }
        self.beta = self.settled * (PROPORTIONAL * error).exp();
    }
}

impl RunningKl {
    fn with(self, kl: f64) -> Self {
        let mean = |before: f64, memory: f64| memory * before + (1.0 - memory) * kl;
        Self { short: mean(self.short, MEMORY), long: mean(self.long, LONG_MEMORY) }
    }

    /// The KL in so many steps if it goes on as it does: a mean of memory m lags m/(1 − m) steps behind what changes evenly.
    fn after(self, steps: f64) -> f64 {
        let lag = |memory: f64| memory / (1.0 - memory);
        self.short + steps * (self.short - self.long) / (lag(LONG_MEMORY) - lag(MEMORY))
    }
}

#[cfg(test)]
mod tests {
    use super::Controller;

    /// The KL after every step of a policy whose KL is moved by `change(KL, β, share of the run)`.
    fn follow(mut controller: Controller, change: impl Fn(f64, f64, f64) -> f64) -> Vec<f64> {
        let (mut kl, steps) = (0.0, controller.steps);
        (1..=steps)
            .map(|step| {
                kl += change(kl, controller.beta(), step as f64 / steps as f64);
                controller.observe(kl, step);
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
        // From 1.6 the β that is needed is a fifth of the first.
        for (beta, steps) in [(0.1, 200), (0.3, 200), (0.9, 200), (1.6, 300)] {
            let kl = follow(Controller::new(beta, Some(0.5), steps), quick);
            let end = &kl[steps - 30..];
            assert!(end.iter().all(|kl| (kl - 0.5).abs() < 0.025), "from β = {beta}: {end:?}");
        }
    }

    #[test]
    fn a_policy_that_learns_slowly_overshoots_little() {
        let kl = follow(Controller::new(0.32, Some(0.5), 300), slow);
        let greatest = kl.iter().copied().fold(0.0, f64::max);
        assert!(greatest < 0.85, "KL rose to {greatest}: {kl:?}");
    }

    #[test]
    fn a_fixed_beta_stays() {
        let mut controller = Controller::new(0.3, None, 50);
        (1..=50).for_each(|step| controller.observe(2.0, step));
        assert_eq!(controller.beta(), 0.3);
        let mut steered = Controller::new(0.3, Some(0.5), 3);
        (1..=3).for_each(|step| steered.observe(-1e-8, step));
        assert!(steered.beta() > 0.0 && steered.beta() < 0.3, "a KL that rounds below 0 lowers β");
    }
}
