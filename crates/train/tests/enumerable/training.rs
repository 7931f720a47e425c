//! A policy that CTRL trains on such a problem.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use infalign_calibrate::CalibrationMeta;
use infalign_calibrate::rollouts::Rollouts;
use infalign_decode::{Generator, Sampling};
use infalign_model::{CausalLm, LoraConfig};
use infalign_train::{
    Calibrator, CtrlConfig, CtrlTrainer, Filled, Keep, OptimizerConfig, ReferenceRewards,
};

use super::{LENGTH, Ordered, Problem};

/// The default.
pub(crate) const RLOO: &str = r#"{"kind": "rloo"}"#;
/// The same with the KL in the loss.
pub(crate) const EXACT: &str = r#"{"kind": "rloo", "kl": "loss"}"#;
/// Two optimiser steps a round.
pub(crate) const PPO: &str = r#"{"kind": "ppo", "epochs": 2}"#;
pub(crate) const REGRESSION: &str = r#"{"kind": "regression"}"#;
/// The same on responses of the reference.
pub(crate) const STORED: &str = r#"{"kind": "regression", "rollouts": "reference"}"#;
/// Reference responses that are stored for it.
const N_STORED: usize = 8192;

/// What stands against the reward: a fixed β, or the KL to reach.
pub(crate) enum Cost {
    Beta(f64),
    Kl(f64),
}

/// Independent responses of the reference.
fn stored(problem: &Problem) -> Rollouts {
    let model = problem.model.clone().for_inference();
    let (model, stops) = (model.as_ref(), problem.tokenizer.stops());
    let sampling = Sampling { max_tokens: LENGTH, ..Sampling::default() };
    let sampler = Generator::new(model, stops, &sampling, 1, "reference-rollouts", 256);
    let reference = ReferenceRewards {
        sampler: &sampler,
        tokenizer: &problem.tokenizer,
        reward: &Ordered,
        samples: N_STORED,
        block: N_STORED,
    };
    let prompts = std::slice::from_ref(&problem.prompt);
    let mut rollouts = Rollouts::new(CalibrationMeta::default(), N_STORED);
    let observe = &mut |_: &Rollouts, _: &Filled| ControlFlow::Continue(());
    reference.fill_rollouts(&mut rollouts, prompts, observe).unwrap();
    rollouts
}

/// A trained policy.
///
/// - `solver`: and how many steps it makes.
pub(crate) fn train(
    problem: &Problem,
    objective: &str,
    cost: &Cost,
    (solver, steps): (&str, usize),
    lora: Option<LoraConfig>,
) -> CausalLm {
    let (beta, target_kl) = match *cost {
        Cost::Beta(beta) => (Some(beta), None),
        Cost::Kl(kl) => (None, Some(kl)),
    };
    let optimizer =
        OptimizerConfig { warmup_steps: 10, max_grad_norm: 5.0, ..OptimizerConfig::new(5e-3) };
    let config = CtrlConfig {
        steps,
        prompts_per_step: 1,
        samples_per_prompt: 256,
        target_kl,
        beta,
        checkpoint_every: 1000,
        keep: Keep::Last,
        solver: serde_json::from_str(solver).unwrap(),
        optimizer,
        lora,
    };
    let stored = (solver == STORED).then(|| stored(problem));
    let dir = tempfile::tempdir().unwrap();
    let trainer = CtrlTrainer {
        config: &config,
        objective: &objective.parse().unwrap(),
        prompts: std::slice::from_ref(&problem.prompt),
        reference: &problem.model,
        tokenizer: &problem.tokenizer,
        reward: &Ordered,
        calibrator: Calibrator::Table(&problem.calibration),
        rollouts: stored.as_ref(),
        sampling: Sampling { max_tokens: LENGTH, ..Sampling::default() },
        batch: 256,
        seed: 1,
        checkpoints: dir.path().to_path_buf(),
    };
    trainer.run(&mut |_, _| Ok(()), &AtomicBool::new(false)).unwrap()
}
