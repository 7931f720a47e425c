//! What was stopped goes on where it was, and ends as if it had not been stopped.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use infalign_calibrate::CalibrationMeta;
use infalign_calibrate::rollouts::Rollouts;
use infalign_model::CausalLm;
use infalign_reward::{Length, LengthUnit, Reward, RewardError};
use infalign_train::{CtrlConfig, CtrlTrainer, StepMetrics, TrainError, fitted_steps};

use super::{
    Fixture, SOLVERS, STEPS, STORED, config, fill, fixture, parameters, wild, without_time,
};

#[test]
fn reference_responses_that_were_stopped_go_on_where_they_were() {
    let Fixture { model, tokenizer, prompts, rollouts, .. } = fixture();
    let mut parts = Rollouts::new(CalibrationMeta::default(), STORED);
    let fill = |stop_at| fill(&mut parts, &model, &tokenizer, &prompts, stop_at);
    // Of three prompts, one at a time; then nothing is lacking.
    assert_eq!([1, 2, 3, 3].map(fill), [STORED, STORED, STORED, 0]);
    assert_eq!(parts, rollouts);
}

#[test]
fn a_resumed_run_gives_the_same_policy_with_every_solver() {
    let fixture = fixture();
    for solver in SOLVERS {
        let config = config(solver, 8);
        let [whole, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let mut seen = Vec::new();
        let mut observe = |metrics: &StepMetrics| seen.push(metrics.clone());
        let expected = fixture.train(&config, whole.path(), 0, &mut observe).unwrap();
        let mut again = Vec::new();
        let mut observe = |metrics: &StepMetrics| again.push(metrics.clone());
        let stop = fixture.train(&config, stopped.path(), 2, &mut observe);
        assert!(matches!(stop, Err(TrainError::Interrupted { step: 2, .. })), "{solver}: {stop:?}");
        let resumed = fixture.train(&config, stopped.path(), 0, &mut observe).unwrap();
        assert!(parameters(&resumed) == parameters(&expected), "{solver}");
        assert_eq!(seen, again, "{solver}");
        assert!(parameters(&expected) != parameters(&fixture.model), "{solver}");
    }
}

/// Rewards as the fixture does, and is told to stop at a call, counted from 0.
struct Stopping(AtomicUsize);

impl Reward for Stopping {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        match self.0.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(RewardError::Stopped),
            _ => Length { unit: LengthUnit::Words }.score(pairs),
        }
    }
}

#[test]
fn a_reward_that_is_stopped_costs_no_step_before() {
    let fixture = fixture();
    let config = CtrlConfig { checkpoint_every: 100, ..config(SOLVERS[0], 8) };
    let (expected, policy) = fixture.run(&config);
    let (dir, objective) = (tempfile::tempdir().unwrap(), "identity".parse().unwrap());
    let mut seen = Vec::new();
    let mut stopped_at = |call: usize| {
        let reward = Stopping(AtomicUsize::new(call));
        let trainer = fixture.trainer(&config, &objective, dir.path());
        let mut observe = |metrics: &StepMetrics, _: &CausalLm| {
            seen.push(without_time(metrics));
            Ok(())
        };
        let trainer = CtrlTrainer { reward: &reward, ..trainer };
        trainer.run(&mut observe, &AtomicBool::new(false)).unwrap_err()
    };
    assert!(matches!(stopped_at(0), TrainError::Reward(RewardError::Stopped)));
    for (call, step) in [(2, 2), (0, 2), (1, 3)] {
        let error = stopped_at(call);
        assert!(matches!(error, TrainError::Interrupted { step: of, .. } if of == step), "{error}");
        assert_eq!(fitted_steps(dir.path()).unwrap(), step);
    }
    let mut observe = |metrics: &StepMetrics| seen.push(metrics.clone());
    let resumed = fixture.train(&config, dir.path(), 0, &mut observe).unwrap();
    assert_eq!(seen, expected);
    assert!(parameters(&resumed) == parameters(&policy));
}

#[test]
fn what_an_observer_cannot_take_ends_the_run_without_a_checkpoint_of_it() {
    let fixture = fixture();
    let config = CtrlConfig { checkpoint_every: 2, ..wild(0.05) };
    let (dir, objective) = (tempfile::tempdir().unwrap(), "identity".parse().unwrap());
    let trainer = fixture.trainer(&config, &objective, dir.path());
    let mut observe = |metrics: &StepMetrics, _: &CausalLm| match metrics.step {
        STEPS => Err(TrainError::Data("the disk is full".into())),
        _ => Ok(()),
    };
    let error = trainer.run(&mut observe, &AtomicBool::new(false)).unwrap_err().to_string();
    assert_eq!(
        (error.as_str(), fitted_steps(&trainer.checkpoints).unwrap()),
        ("the disk is full", 2)
    );
}
