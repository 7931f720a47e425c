//! Every solver: what it refuses, what it writes of a step, and that a run which is stopped and resumed gives the same policy.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod kept;
mod refusals;
mod resuming;
mod steps;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use infalign_calibrate::rollouts::Rollouts;
use infalign_calibrate::{Calibration, CalibrationMeta};
use infalign_decode::{EncodedPrompt, Generator, Sampling, Stream};
use infalign_model::{CausalLm, Tokenizer, TransformerConfig, write_word_tokenizer};
use infalign_reward::{Length, LengthUnit};
use infalign_train::{
    Calibrator, CtrlConfig, CtrlTrainer, Filled, Keep, Objective, OptimizerConfig,
    ReferenceRewards, StepMetrics, TrainError,
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

/// RLOO without a schedule.
fn wild(learning_rate: f64) -> CtrlConfig {
    let config = config(r#"{"kind": "rloo"}"#, 8);
    let optimizer = OptimizerConfig { learning_rate, ..config.optimizer.clone() };
    CtrlConfig { optimizer, ..config }
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
    let mut rollouts = Rollouts::new(CalibrationMeta::default(), STORED);
    fill(&mut rollouts, model, tokenizer, prompts, usize::MAX);
    rollouts
}

/// Adds what stored responses lack, until those of some prompts are there, and returns how many were drawn for that.
fn fill(
    rollouts: &mut Rollouts,
    model: &CausalLm,
    tokenizer: &Tokenizer,
    prompts: &[EncodedPrompt],
    stop_at: usize,
) -> usize {
    let model = model.clone().for_inference();
    let sampling = Sampling { max_tokens: MAX_TOKENS, ..Sampling::default() };
    let sampler =
        Generator::new(model.as_ref(), tokenizer.stops(), &sampling, 1, "reference-rollouts", 16);
    let reward = &Length { unit: LengthUnit::Words };
    let reference =
        ReferenceRewards { sampler: &sampler, tokenizer, reward, samples: STORED, block: STORED };
    let mut observe = |_: &Rollouts, filled: &Filled| match filled.prompts >= stop_at {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    reference.fill_rollouts(rollouts, prompts, &mut observe).unwrap().responses
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
