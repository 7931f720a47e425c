//! One method: train its policy, with checkpoints and metrics, and sample from it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result};
use infalign_calibrate::Calibration;
use infalign_evaluate::{Evaluator, Sampled};
use infalign_model::CausalLm;
use infalign_record::atomic::{write_atomic, write_dir_atomic};
use infalign_reward::Reward;
use infalign_train::{Calibrator, CtrlTrainer, StepMetrics};
use serde::Serialize;

use super::inputs::Inputs;
use super::stages::{check_samples, read_json, write_json};
use crate::progress::Progress;
use crate::recipe::Method;

/// Random streams of every policy's evaluation: common ones, so that differences between methods vary less.
pub(crate) const EVALUATION_STAGE: &str = "evaluate-policy";

/// Where a method's files are.
fn folder(inputs: &Inputs<'_>, method: &Method) -> PathBuf {
    inputs.run.join("methods").join(&method.name)
}

/// Trains the method's policy into `RUN/methods/NAME/policy`, or reads it back.
///
/// # Errors
/// What stopped the training; the newest checkpoint stays.
pub(crate) fn train(
    inputs: &Inputs<'_>,
    method: &Method,
    reward: &dyn Reward,
    calibration: Option<&Calibration>,
    progress: &mut Progress,
    interrupted: &AtomicBool,
) -> Result<CausalLm> {
    let folder = folder(inputs, method);
    let policy_dir = folder.join("policy");
    let title = format!("train {}", method.name);
    if policy_dir.exists() {
        progress.skip(&title);
        return Ok(inputs.reference.load_trained(&policy_dir)?);
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let config = &inputs.recipe.train;
    let objective = inputs.objective(method)?;
    let trainer = CtrlTrainer {
        config,
        objective: &objective,
        prompts: &inputs.train,
        reference: &inputs.reference,
        tokenizer: &inputs.tokenizer,
        reward,
        calibrator: calibration.map_or(Calibrator::Group, Calibrator::Table),
        sampling: inputs.recipe.generation,
        batch: inputs.recipe.batch,
        seed: inputs.recipe.seed,
        checkpoints: folder.join("checkpoints"),
    };
    let mut metrics = MetricsFile::open(&folder.join("metrics.jsonl"), trainer.steps_done()?)?;
    let responses = config.prompts_per_step * config.samples_per_prompt;
    let bar = progress.stage(&title, config.steps);
    let mut observe = |step: &StepMetrics| {
        let speed = metrics.append(step, responses);
        bar.set(step.step, describe(step, speed));
    };
    let policy = trainer.run(&mut observe, interrupted)?;
    metrics.finish()?;
    write_dir_atomic::<anyhow::Error>(&policy_dir, |dir| {
        policy.save(dir)?;
        Ok(inputs.tokenizer.save(dir)?)
    })?;
    bar.finish(metrics.last);
    Ok(policy)
}

/// Samples the method's policy on the held-out prompts into `RUN/methods/NAME/samples.json`, or reads them back.
///
/// # Errors
/// When a prompt does not fit or the judge fails.
pub(crate) fn evaluate(
    inputs: &Inputs<'_>,
    method: &Method,
    policy: &CausalLm,
    evaluator: &Evaluator<'_>,
    progress: &mut Progress,
) -> Result<Sampled> {
    let path = folder(inputs, method).join("samples.json");
    let title = format!("evaluate {}", method.name);
    if path.exists() {
        progress.skip(&title);
        let sampled = read_json(&path)?;
        check_samples(&path, &sampled, evaluator)?;
        return Ok(sampled);
    }
    let bar = progress.stage(&title, 1);
    let sampled = evaluator.sample(policy, EVALUATION_STAGE)?;
    write_json(&path, &sampled)?;
    let kl = sampled.kl.iter().sum::<f64>() / sampled.kl.len() as f64;
    bar.finish(format!("KL {kl:.3} nats, {:.1} tokens a response", sampled.response_length));
    Ok(sampled)
}

fn describe(step: &StepMetrics, tokens_per_second: f64) -> String {
    format!(
        "KL {:.3}  u {:.3}  Φ {:.3}  β {:.3}  entropy {:.2}  |g| {:.2}  {tokens_per_second:.0} tokens/s",
        step.kl,
        step.reward_calibrated,
        step.reward_transformed,
        step.beta,
        step.entropy,
        step.grad_norm
    )
}

/// `metrics.jsonl`: a line a step. What an interrupted run wrote past its last checkpoint is cut off, since those steps are done again.
struct MetricsFile {
    path: PathBuf,
    file: File,
    clock: Instant,
    failed: Option<std::io::Error>,
    last: String,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    metrics: &'a StepMetrics,
    tokens_per_second: f64,
}

impl MetricsFile {
    fn open(path: &Path, steps_done: usize) -> Result<Self> {
        let kept: Vec<String> = match File::open(path) {
            Ok(file) => {
                BufReader::new(file).lines().map_while(Result::ok).take(steps_done).collect()
            }
            Err(_) => Vec::new(),
        };
        write_atomic(path, |file| kept.iter().try_for_each(|line| writeln!(file, "{line}")))?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path: path.into(),
            file,
            clock: Instant::now(),
            failed: None,
            last: String::new(),
        })
    }

    /// Appends a step and returns its response tokens per second.
    fn append(&mut self, metrics: &StepMetrics, responses: usize) -> f64 {
        let seconds = self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
        let tokens_per_second = metrics.response_length * responses as f64 / seconds;
        let written = serde_json::to_string(&Line { metrics, tokens_per_second })
            .map_err(std::io::Error::from);
        let written = written.and_then(|line| writeln!(self.file, "{line}"));
        self.failed = self.failed.take().or(written.err());
        self.last = describe(metrics, tokens_per_second);
        tokens_per_second
    }

    /// Reports the first line that could not be written.
    fn finish(&mut self) -> Result<()> {
        match self.failed.take() {
            Some(error) => {
                Err(error).with_context(|| format!("cannot write {}", self.path.display()))
            }
            None => Ok(()),
        }
    }
}
