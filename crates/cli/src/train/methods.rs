//! One method: train its policy, with checkpoints and metrics, and sample from it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result};
use infalign_calibrate::Calibration;
use infalign_calibrate::rollouts::Rollouts;
use infalign_evaluate::{Evaluator, KlSample, Sampled};
use infalign_model::CausalLm;
use infalign_record::atomic::{write_atomic, write_dir_atomic};
use infalign_reward::Reward;
use infalign_train::{Calibrator, CtrlTrainer, StepMetrics};
use serde::Serialize;

use super::baselines::{train_bond, train_offline};
use super::inputs::Inputs;
use super::stages::{check_samples, read_json, write_json};
use crate::progress::Progress;
use crate::recipe::{Kind, Method};
use crate::sources::{METHODS, SAMPLES};

/// Random streams of every policy's evaluation: common ones, so that differences between methods vary less.
pub(crate) const EVALUATION_STAGE: &str = "evaluate-policy";

/// Where a method's files are.
fn folder(inputs: &Inputs<'_>, method: &Method) -> PathBuf {
    inputs.run.join(METHODS).join(&method.name)
}

/// What methods learn from besides the prompts.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) reward: &'a dyn Reward,
    pub(crate) calibration: Option<&'a Calibration>,
    pub(crate) rollouts: Option<&'a Rollouts>,
}

/// Trains the policy of a method, given by its index, into `RUN/methods/NAME/policy`, or reads it back.
///
/// # Errors
/// What stopped the training; the newest checkpoint stays.
pub(crate) fn train(
    inputs: &Inputs<'_>,
    index: usize,
    sources: Sources<'_>,
    progress: &mut Progress,
    interrupted: &AtomicBool,
) -> Result<CausalLm> {
    let (method, given) = (&inputs.recipe.method[index], &inputs.given[index]);
    let folder = folder(inputs, method);
    let policy_dir = folder.join("policy");
    let title = format!("train {}", method.name);
    if policy_dir.exists() {
        progress.skip(&title);
        return Ok(inputs.reference.load_trained(&policy_dir)?);
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let place = (title.as_str(), folder.as_path());
    let policy = match (&method.kind, method.kind.offline()) {
        (Kind::Bond { train }, _) => {
            train_bond(inputs, train, sources, place, progress, interrupted)?
        }
        (kind, Some(config)) => {
            let kind = (kind, given);
            train_offline(inputs, kind, config, sources, place, progress, interrupted)?
        }
        _ => train_ctrl(inputs, method, sources, place, progress, interrupted)?,
    };
    write_dir_atomic::<anyhow::Error>(&policy_dir, |dir| {
        policy.save(dir)?;
        Ok(inputs.tokenizer.save(dir)?)
    })?;
    Ok(policy)
}

/// Trains a policy by CTRL, with checkpoints and metrics in `folder`.
fn train_ctrl(
    inputs: &Inputs<'_>,
    method: &Method,
    Sources { reward, calibration, rollouts }: Sources<'_>,
    (title, folder): (&str, &Path),
    progress: &mut Progress,
    interrupted: &AtomicBool,
) -> Result<CausalLm> {
    let config = inputs.recipe.ctrl(&method.kind).context("the recipe has no [train]")?;
    let objective = inputs.objective(method)?.context("the method has no objective")?;
    let trainer = CtrlTrainer {
        config: &config,
        objective: &objective,
        prompts: &inputs.train,
        reference: &inputs.reference,
        tokenizer: &inputs.tokenizer,
        reward,
        calibrator: calibration.map_or(Calibrator::Group, Calibrator::Table),
        rollouts,
        sampling: inputs.recipe.generation,
        batch: inputs.recipe.batch,
        seed: inputs.recipe.seed,
        checkpoints: folder.join("checkpoints"),
    };
    let mut metrics = MetricsFile::open(&folder.join("metrics.jsonl"), trainer.steps_done()?)?;
    let responses = config.prompts_per_step * config.samples_per_prompt;
    let bar = progress.stage(title, config.steps);
    let (mut clock, mut last) = (Instant::now(), String::new());
    let mut observe = |step: &StepMetrics| {
        let tokens = step.response_length * responses as f64;
        let tokens_per_second = tokens / clock.elapsed().as_secs_f64();
        clock = Instant::now();
        metrics.append(&Line { metrics: step, tokens_per_second });
        last = describe(step, tokens_per_second);
        bar.set(step.step, last.clone());
    };
    let policy = trainer.run(&mut observe, interrupted)?;
    metrics.finish()?;
    bar.finish(last);
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
    let path = folder(inputs, method).join(SAMPLES);
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
    let mean = |kl: &[KlSample]| kl.iter().map(|kl| kl.exact).sum::<f64>() / kl.len() as f64;
    let kl =
        sampled.kl.as_deref().map_or("not known".to_owned(), |kl| format!("{:.3} nats", mean(kl)));
    let length = sampled.response_length().unwrap_or(f64::NAN);
    bar.finish(format!("KL {kl}, {length:.1} tokens a response"));
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

/// A line of a method that CTRL trains.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    metrics: &'a StepMetrics,
    tokens_per_second: f64,
}

/// `metrics.jsonl`: a line a step. What an interrupted run wrote past its last checkpoint is cut off, since those steps are done again.
pub(super) struct MetricsFile {
    path: PathBuf,
    file: File,
    failed: Option<std::io::Error>,
}

impl MetricsFile {
    pub(super) fn open(path: &Path, steps_done: usize) -> Result<Self> {
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
        Ok(Self { path: path.into(), file, failed: None })
    }

    /// Appends a step.
    pub(super) fn append(&mut self, line: &impl Serialize) {
        let written = serde_json::to_string(line).map_err(std::io::Error::from);
        let written = written.and_then(|line| writeln!(self.file, "{line}"));
        self.failed = self.failed.take().or(written.err());
    }

    /// Reports the first line that could not be written.
    pub(super) fn finish(&mut self) -> Result<()> {
        match self.failed.take() {
            Some(error) => {
                Err(error).with_context(|| format!("cannot write {}", self.path.display()))
            }
            None => Ok(()),
        }
    }
}
