//! Settings and inputs that a solver refuses.

use std::sync::atomic::AtomicBool;

use infalign_decode::Sampling;
use infalign_train::{Calibrator, CtrlConfig, CtrlTrainer, Keep, TrainError};

use super::{STORED, config, fixture, wild};

#[test]
fn settings_without_meaning_or_effect_are_refused() {
    let sampling = Sampling::default();
    for (solver, samples, says) in [
        (r#"{"kind": "rloo"}"#, 1, "samples_per_prompt is 1"),
        (r#"{"kind": "grpo"}"#, 1, "samples_per_prompt is 1"),
        (r#"{"kind": "rloo", "kl_estimator": "k3"}"#, 8, "solver.kl_estimator is k3"),
        (r#"{"kind": "ppo", "kl_estimator": "exact"}"#, 8, "use kl = \"loss\""),
        (r#"{"kind": "grpo", "kl_estimator": "k1"}"#, 8, "use kl = \"reward\""),
        (r#"{"kind": "reinforce", "baseline_memory": 1.0}"#, 8, "solver.baseline_memory is 1"),
        (r#"{"kind": "grpo", "clip": 0.2}"#, 8, "every ratio is 1 then"),
        (r#"{"kind": "grpo", "epochs": 2, "clip": 0.0}"#, 8, "solver.clip is 0"),
        (
            r#"{"kind": "grpo", "clip_high": 0.2}"#,
            8,
            "solver.clip_high is 0.2, but it must be left",
        ),
        (r#"{"kind": "ppo", "clip_high": 0.0}"#, 8, "solver.clip_high is 0"),
        (r#"{"kind": "grpo", "epochs": 0}"#, 8, "solver.epochs is 0"),
        (r#"{"kind": "ppo", "minibatches": 17}"#, 8, "solver.minibatches is 17"),
        (r#"{"kind": "ppo", "gae_lambda": 1.5}"#, 8, "solver.gae_lambda is 1.5"),
        (r#"{"kind": "ppo", "value_clip": -1.0}"#, 8, "solver.value_clip is -1"),
        (r#"{"kind": "ppo", "epochs": 1, "value_clip": 0.2}"#, 8, "no value has moved then"),
        (r#"{"kind": "ppo", "value_learning_rate": 0.0}"#, 8, "solver.value_learning_rate is 0"),
        (r#"{"kind": "ppo", "value_learning_rate": 1e-50}"#, 8, "value_learning_rate is 1e-50"),
        (r#"{"kind": "ppo", "value_learning_rate": 1e300}"#, 8, "value_learning_rate is 1e300"),
        (r#"{"kind": "ppo", "value_clip": 1e-50}"#, 8, "solver.value_clip is 1e-50"),
    ] {
        let message = config(solver, samples).check(&sampling).unwrap_err().to_string();
        assert!(message.contains(says), "{solver}: {message}");
    }
    for solver in [r#"{"kind": "ppo"}"#, r#"{"kind": "reinforce"}"#, r#"{"kind": "regression"}"#] {
        config(solver, 1).check(&sampling).unwrap();
    }
    let infinite = [
        CtrlConfig { target_kl: Some(f64::INFINITY), beta: None, ..wild(0.1) },
        CtrlConfig { beta: Some(f64::INFINITY), ..wild(0.1) },
        wild(f64::INFINITY),
    ];
    for (config, key) in infinite.iter().zip(["target_kl", "beta", "learning_rate"]) {
        let message = config.check(&sampling).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("{key} is inf, but it must be finite and above 0")),
            "{message}"
        );
    }
    let message =
        CtrlConfig { beta: Some(0.0), ..wild(0.1) }.check(&sampling).unwrap_err().to_string();
    assert!(message.starts_with("beta is 0, but it must be above 0, since"), "{message}");
    assert!(message.contains("take 1e-6, and a `max_grad_norm` a million times"), "{message}");
    let regression = CtrlConfig { beta: Some(0.0), ..config(r#"{"kind": "regression"}"#, 8) };
    let message = regression.check(&sampling).unwrap_err().to_string();
    assert!(message.starts_with("beta is 0.0, but it must be finite and above 0"), "{message}");
    let vanishing = [
        CtrlConfig { target_kl: Some(1e-50), beta: None, ..wild(0.1) },
        CtrlConfig { beta: Some(1e-50), ..wild(0.1) },
    ];
    for (config, key) in vanishing.iter().zip(["target_kl", "beta"]) {
        let message = config.check(&sampling).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{key} is 1e-50")), "{message}");
    }
    for unknown in [r#"{"kind": "rloo", "clip": 0.2}"#, r#"{"kind": "regression", "kl": "loss"}"#] {
        let error = serde_json::from_str::<infalign_train::SolverConfig>(unknown).unwrap_err();
        assert!(error.to_string().contains("unknown field"), "{error}");
    }
}

#[test]
fn regression_needs_a_table_and_as_many_stored_responses_as_a_step_takes() {
    let fixture = fixture();
    let dir = tempfile::tempdir().unwrap();
    let objective = "identity".parse().unwrap();
    let refusal = |config: &CtrlConfig, change: fn(&mut CtrlTrainer<'_>)| {
        let mut trainer = fixture.trainer(config, &objective, dir.path());
        change(&mut trainer);
        trainer.run(&mut |_, _| Ok(()), &AtomicBool::new(false)).unwrap_err()
    };
    let regression = config(r#"{"kind": "regression"}"#, 8);
    let error = refusal(&regression, |trainer| trainer.calibrator = Calibrator::Group);
    assert!(matches!(error, TrainError::NeedsTable { .. }), "{error}");
    let win_rate = "win-rate:best-of:2".parse().unwrap();
    let rloo = config(r#"{"kind": "rloo"}"#, 8);
    let by_group = CtrlTrainer {
        calibrator: Calibrator::Group,
        ..fixture.trainer(&rloo, &win_rate, dir.path())
    };
    let error = by_group.run(&mut |_, _| Ok(()), &AtomicBool::new(false)).unwrap_err();
    assert!(error.to_string().starts_with("objective win-rate:best-of:2 needs the"), "{error}");
    let offline = |samples| config(r#"{"kind": "regression", "rollouts": "reference"}"#, samples);
    let message = refusal(&offline(STORED + 1), |_| ()).to_string();
    assert!(message.contains("learns from 41") && message.contains("there are 40"), "{message}");
    let message = refusal(&offline(8), |trainer| trainer.rollouts = None).to_string();
    assert!(message.contains("learns from 8") && message.contains("there are 0"), "{message}");
}

#[test]
fn groups_calibrate_two_responses_or_more_and_choose_no_policy() {
    let fixture = fixture();
    let dir = tempfile::tempdir().unwrap();
    let objective = "identity".parse().unwrap();
    let refusal = |config: &CtrlConfig| {
        let trainer = CtrlTrainer {
            calibrator: Calibrator::Group,
            ..fixture.trainer(config, &objective, dir.path())
        };
        trainer.run(&mut |_, _| Ok(()), &AtomicBool::new(false)).unwrap_err().to_string()
    };
    for solver in [r#"{"kind": "reinforce"}"#, r#"{"kind": "ppo"}"#] {
        let message = refusal(&config(solver, 1));
        assert!(
            message.contains("samples_per_prompt is 1, but it must be at least 2"),
            "{message}"
        );
        config(solver, 2).check_groups().unwrap();
    }
    let message = refusal(&CtrlConfig { keep: Keep::Best, ..wild(0.1) });
    for needle in ["keep = \"best\"", "calibration.group", "calibration.table", "keep = \"last\""] {
        assert!(message.contains(needle), "{message}");
    }
}
