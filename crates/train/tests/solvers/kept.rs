//! The policy that is kept: that of the greatest objective, as it was written.

use std::sync::atomic::{AtomicBool, Ordering};

use infalign_model::CausalLm;
use infalign_train::{CtrlConfig, Keep, StepMetrics, TrainError};

use super::{fixture, parameters, wild};

#[test]
fn the_best_policy_is_that_before_whose_checkpoint_the_objective_was_greatest() {
    let fixture = fixture();
    // A learning rate at which the policy gets worse again.
    let config = CtrlConfig { keep: Keep::Best, checkpoint_every: 2, steps: 6, ..wild(0.5) };
    let dir = tempfile::tempdir().unwrap();
    let (mut objectives, mut policies) = (Vec::new(), Vec::new());
    let objective = "identity".parse().unwrap();
    let mut observe = |metrics: &StepMetrics, policy: &CausalLm| {
        objectives.push(metrics.reward_transformed - config.beta.unwrap() * metrics.kl);
        policies.push(parameters(policy));
        Ok(())
    };
    let trainer = fixture.trainer(&config, &objective, dir.path());
    let kept = trainer.run(&mut observe, &AtomicBool::new(false)).unwrap();
    let means: Vec<f64> = objectives.chunks(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
    let best = (0..means.len()).max_by(|&a, &b| means[a].total_cmp(&means[b])).unwrap();
    assert!(best < 2, "the last is not the best: {means:?}");
    assert!(parameters(&kept) == policies[2 * best + 1], "{means:?}");

    let stopped = tempfile::tempdir().unwrap();
    let trainer = fixture.trainer(&config, &objective, stopped.path());
    let interrupted = AtomicBool::new(false);
    let mut stop = |metrics: &StepMetrics, _: &CausalLm| {
        interrupted.store(metrics.step == 5, Ordering::Relaxed);
        Ok(())
    };
    trainer.run(&mut stop, &interrupted).unwrap_err();
    let resumed = trainer.run(&mut |_, _| Ok(()), &AtomicBool::new(false)).unwrap();
    assert!(parameters(&resumed) == parameters(&kept), "resumed in the middle of two checkpoints");
}

#[test]
fn a_best_policy_that_is_not_as_it_was_written_is_not_taken() {
    let fixture = fixture();
    let config = CtrlConfig { keep: Keep::Best, ..wild(0.05) };
    let (dir, objective) = (tempfile::tempdir().unwrap(), "identity".parse().unwrap());
    let checkpoints = dir.path().join("checkpoints");
    let trainer = fixture.trainer(&config, &objective, &checkpoints);
    let run = || trainer.run(&mut |_, _| Ok(()), &AtomicBool::new(false));
    let kept = parameters(&run().unwrap());
    assert!(parameters(&run().unwrap()) == kept, "read back");
    let weights = checkpoints.join("best/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let check = |name: &str| {
        let error = run().unwrap_err();
        assert!(matches!(error, TrainError::State { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(name), "{error}");
        assert!(error.contains("delete the folder of the training's checkpoints"), "{error}");
    };
    check("model.safetensors");
    let more = CtrlConfig { steps: config.steps + 1, ..config.clone() };
    let longer = fixture.trainer(&more, &objective, &checkpoints);
    let mut steps = 0;
    let mut count = |_: &StepMetrics, _: &CausalLm| {
        steps += 1;
        Ok(())
    };
    assert!(longer.run(&mut count, &AtomicBool::new(false)).is_err());
    assert_eq!(steps, 0, "it is looked at before the training goes on");
    std::fs::remove_dir_all(checkpoints.join("best")).unwrap();
    check("best");
    std::fs::remove_dir_all(&checkpoints).unwrap();
    assert!(parameters(&run().unwrap()) == kept, "as advised");
}

#[test]
fn the_best_policy_is_judged_at_the_first_beta() {
    let fixture = fixture();
    let steered = CtrlConfig { target_kl: Some(0.2), beta: None, ..wild(0.05) };
    let config = CtrlConfig { keep: Keep::Best, checkpoint_every: 2, steps: 2, ..steered };
    let (dir, mut seen) = (tempfile::tempdir().unwrap(), Vec::new());
    let mut observe = |metrics: &StepMetrics| seen.push(metrics.clone());
    fixture.train(&config, dir.path(), 0, &mut observe).unwrap();
    let state = std::fs::read(dir.path().join("step-000002/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let found = state["best"].as_f64().unwrap();
    let [first, second] =
        [0, 1].map(|step| seen[step].reward_transformed - seen[0].beta * seen[step].kl);
    assert!((found - f64::midpoint(first, second)).abs() < 1e-9, "{found}: {seen:?}");
    assert!(seen[1].beta < 0.9 * seen[0].beta && seen[1].kl > 1e-4, "it matters: {seen:?}");
}
