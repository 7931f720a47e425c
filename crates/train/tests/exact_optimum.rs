//! CTRL against the exact optimum: a transformer whose every response can be enumerated.
//!
//! For a prompt with reference probabilities p(y) and trained rewards Φ(u(y)), the optimum of E[Φ] − β KL is π* ∝ p exp(Φ/β), and its value
//! is β log Σ p exp(Φ/β). The trained policy must come close to that value and to π* itself.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod enumerable;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use enumerable::{LENGTH, Ordered, Problem, kl, probabilities, problem};
use infalign_decode::Sampling;
use infalign_model::{LoraConfig, TargetModules};
use infalign_train::baselines::vbon;
use infalign_train::{Calibrator, CtrlConfig, CtrlTrainer, OptimizerConfig};
use infalign_transform::Transform;

/// What stands against the reward: a fixed β, or the KL to reach.
enum Cost {
    Beta(f64),
    Kl(f64),
}

/// An adapter of every linear module.
fn adapter() -> LoraConfig {
    LoraConfig {
        r: 8,
        lora_alpha: 16.0,
        use_rslora: false,
        target_modules: TargetModules::Pattern("all-linear".into()),
        layers_to_transform: None,
        modules_to_save: Vec::new(),
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
    }
}

/// Probabilities of every response under a trained policy.
fn train(
    problem: &Problem,
    transform: &Transform,
    cost: &Cost,
    lora: Option<LoraConfig>,
) -> Vec<f64> {
    let (beta, target_kl) = match *cost {
        Cost::Beta(beta) => (Some(beta), None),
        Cost::Kl(kl) => (None, Some(kl)),
    };
    let optimizer = OptimizerConfig {
        learning_rate: 5e-3,
        warmup_steps: 10,
        final_share: 0.0,
        weight_decay: 0.0,
        max_grad_norm: 5.0,
    };
    let config = CtrlConfig {
        steps: 400,
        prompts_per_step: 1,
        samples_per_prompt: 256,
        target_kl,
        beta,
        checkpoint_every: 1000,
        optimizer,
        lora,
    };
    let dir = tempfile::tempdir().unwrap();
    let trainer = CtrlTrainer {
        config: &config,
        objective: &transform.to_string().parse().unwrap(),
        prompts: std::slice::from_ref(&problem.prompt),
        reference: &problem.model,
        tokenizer: &problem.tokenizer,
        reward: &Ordered,
        calibrator: Calibrator::Table(&problem.calibration),
        sampling: Sampling { max_tokens: LENGTH, ..Sampling::default() },
        batch: 256,
        seed: 1,
        checkpoints: dir.path().to_path_buf(),
    };
    let policy = trainer.run(&mut |_| (), &AtomicBool::new(false)).unwrap();
    probabilities(&policy, &problem.prompt, &problem.responses)
}

fn reaches_the_optimum(transform: &str, beta: f64, lora: Option<LoraConfig>) {
    let problem = problem();
    // An adapter leaves the embedding alone, which is the output matrix here.
    let tolerance = if lora.is_some() { 0.03 } else { 0.01 };
    let transform: Transform = transform.parse().unwrap();
    let phi: Vec<f64> = problem
        .rewards
        .iter()
        .map(|&r| transform.apply(problem.calibration.quantile("a", r).unwrap()))
        .collect();
    let weights: Vec<f64> =
        problem.reference.iter().zip(&phi).map(|(p, phi)| p * (phi / beta).exp()).collect();
    let z: f64 = weights.iter().sum();
    let optimum: Vec<f64> = weights.iter().map(|w| w / z).collect();
    let value = |policy: &[f64]| {
        policy.iter().zip(&phi).map(|(q, phi)| q * phi).sum::<f64>()
            - beta * kl(policy, &problem.reference)
    };
    let policy = train(&problem, &transform, &Cost::Beta(beta), lora);
    let (start, reached, best) = (value(&problem.reference), value(&policy), beta * z.ln());
    let distance = kl(&policy, &optimum);
    println!(
        "{transform}: start {start:.5}, reached {reached:.5}, optimum {best:.5}, KL to the optimum {distance:.5}"
    );
    assert!(
        (value(&optimum) - best).abs() < 1e-6 && best > start + 0.02,
        "the problem is worth solving"
    );
    assert!(
        (best - reached).abs() <= tolerance * best.abs(),
        "{transform}: value {reached} against {best}, from {start}"
    );
    assert!(distance <= tolerance, "{transform}: KL(π‖π*) = {distance} nats");
}

#[test]
fn a_target_kl_is_reached() {
    let problem = problem();
    for (transform, target) in [("identity", 0.2), ("exp:10", 0.5)] {
        let policy = train(&problem, &transform.parse().unwrap(), &Cost::Kl(target), None);
        let reached = kl(&policy, &problem.reference);
        assert!((reached / target - 1.0).abs() < 0.1, "{transform}: {reached} nats for {target}");
    }
}

#[test]
fn identity_reaches_the_optimum() {
    reaches_the_optimum("identity", 0.25, None);
}

#[test]
fn exp_for_best_of_n_reaches_the_optimum() {
    reaches_the_optimum("exp:10", 0.3, None);
}

#[test]
fn exp_for_worst_of_n_reaches_the_optimum() {
    reaches_the_optimum("exp:-10", 0.2, None);
}

#[test]
fn an_adapter_comes_close_to_the_optimum() {
    reaches_the_optimum("identity", 0.25, Some(adapter()));
}

#[test]
fn variational_best_of_n_reaches_its_tilt() {
    let (objective, beta) = vbon(4);
    reaches_the_optimum(&objective.to_string(), beta, None);
}
