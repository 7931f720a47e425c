//! Every solver: what it refuses, what it writes of a step, and that a run which is stopped and resumed gives the same policy.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use infalign_calibrate::rollouts::Rollouts;
use infalign_calibrate::{Calibration, CalibrationMeta};
use infalign_decode::{EncodedPrompt, Generator, Sampling, Stream};
use infalign_model::{CausalLm, Tokenizer, TransformerConfig, write_word_tokenizer};
use infalign_reward::{Length, LengthUnit, Reward, RewardError};
use infalign_train::{
    Calibrator, CtrlConfig, CtrlTrainer, Filled, Keep, Objective, OptimizerConfig,
    ReferenceRewards, StepMetrics, TrainError, fitted_steps,
};

const STEPS: usize = 4;
/// Stored responses to each prompt.
const STORED: usize = 40;
const MAX_TOKENS: usize = 4;

const SOLVERS: [&str; 6] = [
    r#"{"kind": "rloo", "kl": "loss", "kl_estimator": "exact"}"#,
    r#"{"kind": "reinforce"}"#,
    r#"{"kind": "grpo", "epochs": 2, "minibatches": 3, "clip": 0.05}"#,
    r#"{"kind": "ppo", "minibatches": 2, "clip": 0.05, "value_learning_rate": 0.02}"#,
    r#"{"kind": "regression"}"#,
    r#"{"kind": "regression", "rollouts": "reference"}"#,
];

fn config(solver: &str, samples: usize) -> CtrlConfig {
    let optimizer =
        OptimizerConfig { final_share: 1.0, weight_decay: 0.1, ..OptimizerConfig::new(1e-2) };
    CtrlConfig {
        steps: STEPS,
        prompts_per_step: 2,
        samples_per_prompt: samples,
        target_kl: None,
        beta: Some(0.1),
        checkpoint_every: 1,
        keep: Keep::Last,
        solver: serde_json::from_str(solver).unwrap(),
        optimizer,
        lora: None,
    }
}

/// A random model of a few words, its tokenizer, prompts, a table for them, and stored responses to them.
struct Fixture {
    model: CausalLm,
    tokenizer: Tokenizer,
    prompts: Vec<EncodedPrompt>,
    table: Calibration,
    rollouts: Rollouts,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let vocabulary = write_word_tokenizer(dir.path(), ["a b c"].into_iter()).unwrap();
    let config = TransformerConfig::llama(vocabulary, 16, 24, 2, 2, 16);
    let tokenizer = Tokenizer::load(dir.path(), &config).unwrap();
    let mut normal = Stream::new(3, "weights", "", 0).normals(0);
    let device = infalign_backend::device(None).unwrap();
    let model = CausalLm::random(config, &mut || 6.0 * normal(), &device).unwrap();
    let prompt = |text| EncodedPrompt::new(text, text, &tokenizer).unwrap();
    let prompts = vec![prompt("a"), prompt("a b"), prompt("c")];
    let mut table = Calibration::new(CalibrationMeta::default());
    for prompt in &prompts {
        table.insert(&prompt.id, &prompt.text, vec![0.0, 1.0, 2.0, 3.0, 4.0]).unwrap();
    }
    let rollouts = stored(&model, &tokenizer, &prompts);
    Fixture { model, tokenizer, prompts, table, rollouts }
}

fn stored(model: &CausalLm, tokenizer: &Tokenizer, prompts: &[EncodedPrompt]) -> Rollouts {
    sampled(model, tokenizer, prompts, usize::MAX).unwrap()
}

/// Stored responses, unless they are stopped before the last prompt.
fn sampled(
    model: &CausalLm,
    tokenizer: &Tokenizer,
    prompts: &[EncodedPrompt],
    stop_at: usize,
) -> Option<Rollouts> {
    let model = model.clone().for_inference();
    let sampling = Sampling { max_tokens: MAX_TOKENS, ..Sampling::default() };
    let sampler =
        Generator::new(model.as_ref(), tokenizer.stops(), &sampling, 1, "reference-rollouts", 16);
    let reward = &Length { unit: LengthUnit::Words };
    let reference =
        ReferenceRewards { sampler: &sampler, tokenizer, reward, samples: STORED, block: STORED };
    let mut observe = |filled: &Filled| match filled.prompts >= stop_at {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    reference.rollouts(CalibrationMeta::default(), prompts, &mut observe).unwrap()
}

#[test]
fn reference_responses_that_are_all_there_when_they_are_stopped_stay() {
    let Fixture { model, tokenizer, prompts, rollouts, .. } = fixture();
    let n = prompts.len();
    assert_eq!(sampled(&model, &tokenizer, &prompts, n - 1), None);
    assert_eq!(sampled(&model, &tokenizer, &prompts, n), Some(rollouts));
}

impl Fixture {
    /// A trainer with everything that there is to learn from.
    fn trainer<'a>(
        &'a self,
        config: &'a CtrlConfig,
        objective: &'a Objective,
        checkpoints: &Path,
    ) -> CtrlTrainer<'a> {
        CtrlTrainer {
            config,
            objective,
            prompts: &self.prompts,
            reference: &self.model,
            tokenizer: &self.tokenizer,
            reward: &Length { unit: LengthUnit::Words },
            calibrator: Calibrator::Table(&self.table),
            rollouts: Some(&self.rollouts),
            sampling: Sampling { max_tokens: MAX_TOKENS, ..Sampling::default() },
            batch: 16,
            seed: 1,
            checkpoints: checkpoints.to_path_buf(),
        }
    }

    /// Trains, and stops where `stop_after` steps are done. Times are left out.
    fn train(
        &self,
        config: &CtrlConfig,
        checkpoints: &Path,
        stop_after: usize,
        observe: &mut dyn FnMut(&StepMetrics),
    ) -> Result<CausalLm, TrainError> {
        let objective = "identity".parse().unwrap();
        let trainer = self.trainer(config, &objective, checkpoints);
        let interrupted = AtomicBool::new(false);
        let mut observe = |metrics: &StepMetrics, _: &CausalLm| {
            interrupted.store(metrics.step == stop_after, Ordering::Relaxed);
            observe(&without_time(metrics));
            Ok(())
        };
        trainer.run(&mut observe, &interrupted)
    }

    /// The metrics of a whole run, and its policy.
    fn run(&self, config: &CtrlConfig) -> (Vec<StepMetrics>, CausalLm) {
        let (dir, mut seen) = (tempfile::tempdir().unwrap(), Vec::new());
        let mut observe = |metrics: &StepMetrics| seen.push(metrics.clone());
        let policy = self.train(config, dir.path(), 0, &mut observe).unwrap();
        (seen, policy)
    }
}

/// The metrics of a step, but for how long it took.
fn without_time(metrics: &StepMetrics) -> StepMetrics {
    StepMetrics { seconds: 0.0, ..metrics.clone() }
}

/// The parameters of a network in their order.
#[derive(Default)]
struct Parameters(Vec<f32>);

impl ModuleVisitor for Parameters {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.extend(param.val().into_data().iter::<f32>());
    }
}

fn parameters(model: &CausalLm) -> Vec<f32> {
    let mut parameters = Parameters::default();
    model.net().visit(&mut parameters);
    parameters.0
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

#[test]
fn the_time_of_a_step_is_its_own() {
    let fixture = fixture();
    let (config, objective) = (wild(0.05), "identity".parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (start, pause, mut all) = (Instant::now(), Duration::from_millis(50), 0.0);
    let mut observe = |metrics: &StepMetrics, _: &CausalLm| {
        assert!(metrics.seconds > 0.0 && metrics.tokens > 0, "{metrics:?}");
        all += metrics.seconds;
        std::thread::sleep(pause);
        Ok(())
    };
    fixture
        .trainer(&config, &objective, dir.path())
        .run(&mut observe, &AtomicBool::new(false))
        .unwrap();
    let most = start.elapsed().saturating_sub(STEPS as u32 * pause);
    assert!(all < most.as_secs_f64(), "{all} s of {most:?}");
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

#[test]
fn the_learning_rate_warms_up_and_decays() {
    let optimizer = OptimizerConfig { warmup_steps: 1, final_share: 0.2, ..wild(1e-2).optimizer };
    let (seen, _) = fixture().run(&CtrlConfig { optimizer, ..wild(1e-2) });
    // 1/2, 1, 0.2 + 0.8·2/3 and 0.2 + 0.8·1/3 of the peak.
    let expected = [5e-3, 1e-2, 7.333_333_333e-3, 4.666_666_667e-3];
    for (metrics, expected) in seen.iter().zip(expected) {
        assert!((metrics.learning_rate - expected).abs() < 1e-11, "{metrics:?}");
    }
    assert_eq!(seen.len(), STEPS);
}

#[test]
fn options_that_differ_make_policies_that_differ() {
    let fixture = fixture();
    for (one, other) in [
        (r#"{"kind": "ppo"}"#, r#"{"kind": "ppo", "value_learning_rate": 0.02}"#),
        (r#"{"kind": "ppo"}"#, r#"{"kind": "ppo", "gae_lambda": 0.5}"#),
        (
            r#"{"kind": "grpo", "scale_by_std": false}"#,
            r#"{"kind": "grpo", "scale_by_std": false, "length_normalised": false}"#,
        ),
    ] {
        // What a value model has learned at one step shows in the policy at the next.
        let policies = [one, other].map(|solver| {
            let config = CtrlConfig { steps: 2, ..config(solver, 8) };
            parameters(&fixture.run(&config).1)
        });
        assert!(policies[0] != policies[1], "{other}");
    }
}

#[test]
fn each_time_that_a_prompt_comes_up_it_has_other_stored_responses() {
    let fixture = fixture();
    let offline = config(r#"{"kind": "regression", "rollouts": "reference"}"#, 8);
    let config = CtrlConfig { prompts_per_step: 1, ..offline };
    let (dir, objective) = (tempfile::tempdir().unwrap(), "identity".parse().unwrap());
    let trainer = CtrlTrainer {
        prompts: &fixture.prompts[..1],
        ..fixture.trainer(&config, &objective, dir.path())
    };
    let mut seen = BTreeSet::new();
    let mut observe = |metrics: &StepMetrics, _: &CausalLm| {
        seen.insert(metrics.rollout.clone());
        Ok(())
    };
    trainer.run(&mut observe, &AtomicBool::new(false)).unwrap();
    assert_eq!(seen.len(), STEPS);
}

/// RLOO without a schedule.
fn wild(learning_rate: f64) -> CtrlConfig {
    let config = config(r#"{"kind": "rloo"}"#, 8);
    let optimizer = OptimizerConfig { learning_rate, ..config.optimizer.clone() };
    CtrlConfig { optimizer, ..config }
}

#[test]
fn the_metrics_of_a_step_say_what_the_solver_did() {
    let fixture = fixture();
    for solver in SOLVERS {
        let (seen, _) = fixture.run(&config(solver, 32));
        let clips = solver.contains("clip");
        for metrics in &seen {
            assert!(metrics.log_prob_gap < 1e-4, "{solver}: {metrics:?}");
            assert_eq!(metrics.clip_fraction > 0.0, clips, "{solver}: {metrics:?}");
            assert_eq!(metrics.value_loss.is_some(), solver.contains("ppo"), "{solver}");
        }
        let first = &seen[0];
        assert!(first.kl.abs() < 1e-5 && first.kl_k1.abs() < 1e-5, "π is π_ref: {first:?}");
        assert!(seen[STEPS - 1].kl > 1e-3, "{solver}: the policy has moved: {seen:?}");
    }
}

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
