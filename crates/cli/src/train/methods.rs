//! One method: train its policy, with checkpoints and metrics, and sample from it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use infalign_calibrate::Calibration;
use infalign_calibrate::rollouts::Rollouts;
use infalign_decode::DecodeError;
use infalign_evaluate::{EvaluateError, Evaluator, KlSample, Sampled};
use infalign_model::CausalLm;
use infalign_record::atomic::write_dir_atomic;
use infalign_reward::{Reward, RewardError};
use infalign_train::{Calibrator, CtrlConfig, CtrlTrainer, StepMetrics, TrainError, fitted_steps};
use serde::Serialize;

use super::baselines::{train_bond, train_offline};
use super::inputs::Inputs;
use super::made_by::MadeBy;
use super::metrics::{CHECKPOINTS, Metrics, is_kept};
use super::stages::{check_samples, evaluator, once, sample_all, stop_if_asked};
use super::watch::Watch;
use crate::files::make_folder;
use crate::interrupt;
use crate::progress::{KL, Progress, Stage};
use crate::recipe::{Kind, Method};
use crate::resume::Damaged;
use crate::sources::{METHODS, SAMPLES};

/// Random streams of every policy's evaluation: common ones, so that differences between methods vary less.
pub(crate) const EVALUATION_STAGE: &str = "evaluate-policy";

/// Where a method's files are.
pub(super) fn folder(inputs: &Inputs<'_>, method: &Method) -> PathBuf {
    inputs.run.join(METHODS).join(&method.name)
}

/// What methods learn from besides the prompts.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) reward: &'a dyn Reward,
    pub(crate) calibration: Option<&'a Calibration>,
    pub(crate) rollouts: Option<&'a Rollouts>,
    /// The reference's responses to the prompts held out, which policies are compared with.
    pub(crate) reference: &'a Sampled,
    pub(crate) made_by: &'a MadeBy,
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
) -> Result<CausalLm> {
    let (method, given) = (&inputs.recipe.method[index], &inputs.given[index]);
    let folder = folder(inputs, method);
    let policy_dir = folder.join("policy");
    let title = format!("train {}", method.name);
    if policy_dir.exists() {
        progress.skip(&title);
        sources.made_by.check_trained(&policy_dir, &folder.join(CHECKPOINTS))?;
        return inputs
            .reference
            .load_trained(&policy_dir)
            .with_context(|| Damaged::at(&policy_dir));
    }
    make_folder(&folder)?;
    sources.made_by.check_checkpoints(&folder.join(CHECKPOINTS))?;
    let place = (title.as_str(), folder.as_path());
    let policy = match (&method.kind, method.kind.offline()) {
        (Kind::Bond { train }, _) => train_bond(inputs, train, sources, place, progress)?,
        (kind, Some(config)) => {
            train_offline(inputs, (kind, given), config, sources, place, progress)?
        }
        _ => train_ctrl(inputs, method, sources, place, progress)?,
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
    sources: Sources<'_>,
    (title, folder): (&str, &Path),
    progress: &mut Progress,
) -> Result<CausalLm> {
    let config = inputs.recipe.ctrl(&method.kind).context("the recipe has no [train]")?;
    let objective = inputs.objective(method)?.context("the method has no objective")?;
    let trainer = CtrlTrainer {
        config: &config,
        objective: &objective,
        prompts: &inputs.train,
        reference: &inputs.reference,
        tokenizer: &inputs.tokenizer,
        reward: sources.reward,
        calibrator: sources.calibration.map_or(Calibrator::Group, Calibrator::Table),
        rollouts: sources.rollouts,
        sampling: inputs.recipe.generation.clone(),
        batch: inputs.recipe.batch,
        seed: inputs.recipe.seed,
        checkpoints: folder.join(CHECKPOINTS),
    };
    let steps_done =
        fitted_steps(&trainer.checkpoints).with_context(|| Damaged::at(&trainer.checkpoints))?;
    let place = (title, folder);
    let mut followed = Followed::open(inputs, &config, sources, place, steps_done, progress)?;
    let mut observe = |step: &StepMetrics, policy: &CausalLm| followed.observe(step, policy);
    let policy = trainer.run(&mut observe, interrupt::flag());
    if matches!(
        policy,
        Err(TrainError::Decode(DecodeError::Cancelled { .. })
            | TrainError::Reward(RewardError::Stopped))
    ) {
        // In the middle of a look at the policy: the steps since the newest checkpoint are done again, with that look.
        stop_if_asked()?;
    }
    if matches!(policy, Err(TrainError::Interrupted { .. })) {
        // A reward that is stopped has a checkpoint of the step before, after which none was to follow. A power cut between the two leaves
        // it without lines, as is told then.
        followed.metrics.sync()?;
        followed.watch.as_ref().map_or(Ok(()), Watch::sync)?;
    }
    let policy = policy?;
    followed.finish();
    Ok(policy)
}

/// A training that CTRL does, as it is shown and written down.
struct Followed<'a> {
    metrics: Metrics,
    watch: Option<Watch<'a>>,
    /// Why the watch was given up: the training goes on without it.
    failed: Option<EvaluateError>,
    bar: Stage,
    /// Of the whole training.
    steps: usize,
    /// Steps from one checkpoint to the next.
    checkpoint_every: usize,
    /// What was shown of the last step.
    last: String,
}

impl<'a> Followed<'a> {
    /// Opens what is written down of a training in its folder.
    fn open(
        inputs: &'a Inputs<'_>,
        config: &CtrlConfig,
        Sources { reward, reference, .. }: Sources<'a>,
        (title, folder): (&str, &Path),
        steps_done: usize,
        progress: &mut Progress,
    ) -> Result<Self> {
        let evaluation = &inputs.recipe.evaluation;
        let watch = evaluation.watch.map(|config| {
            let evaluator = evaluator(inputs, reward);
            Watch::open(config, evaluator, &evaluation.procedures, reference, folder, steps_done)
        });
        Ok(Self {
            metrics: Metrics::open(folder, steps_done)?,
            watch: watch.transpose()?,
            failed: None,
            bar: progress.resumed(title, config.steps, steps_done),
            steps: config.steps,
            checkpoint_every: config.checkpoint_every,
            last: String::new(),
        })
    }

    /// Shows a step and writes it down.
    ///
    /// # Errors
    /// When it cannot be written down, without which no checkpoint may follow; [`DecodeError::Cancelled`] where a look at the policy was stopped.
    fn observe(&mut self, step: &StepMetrics, policy: &CausalLm) -> Result<(), TrainError> {
        let tokens_per_second = step.tokens as f64 / step.seconds;
        self.metrics.append(&Line { metrics: step, tokens_per_second })?;
        self.last = describe(step, tokens_per_second);
        self.bar.set(step.step, self.last.clone());
        if let Some(watch) = self.watch.as_mut().filter(|_| self.failed.is_none()) {
            match watch.look(step.step, policy) {
                Ok(Some(seen)) => watch.keep(&seen, &mut self.metrics)?,
                Ok(None) => {}
                Err(EvaluateError::Decode(stopped @ DecodeError::Cancelled { .. })) => {
                    return Err(stopped.into());
                }
                Err(EvaluateError::Reward(RewardError::Stopped) | EvaluateError::Stopped) => {
                    return Err(RewardError::Stopped.into());
                }
                Err(error) => self.failed = Some(error),
            }
        }
        if is_kept(step.step, self.checkpoint_every, self.steps) {
            self.metrics.sync()?;
            self.watch.as_ref().map_or(Ok(()), Watch::sync)?;
        }
        Ok(())
    }

    fn finish(self) {
        self.bar.finish(self.last);
        if let Some(error) = self.failed {
            tell!("      evaluation on the way was given up: {error:#}");
        }
    }
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
    made_by: &MadeBy,
    progress: &mut Progress,
) -> Result<Sampled> {
    let path = folder(inputs, method).join(SAMPLES);
    let title = format!("evaluate {}", method.name);
    let make = |bar: &Stage| {
        let measured = |prompts: usize| bar.set(prompts, KL.to_owned());
        sample_all(evaluator, policy, EVALUATION_STAGE, &measured)
    };
    let stage = (title.as_str(), inputs.test.len());
    let sampled = once((made_by, &path), stage, progress, make, summary)?;
    check_samples(&path, &sampled, evaluator)?;
    Ok(sampled)
}

fn summary(sampled: &Sampled) -> String {
    let mean = |kl: &[KlSample]| kl.iter().map(|kl| kl.exact).sum::<f64>() / kl.len() as f64;
    let kl =
        sampled.kl.as_deref().map_or("not known".to_owned(), |kl| format!("{:.3} nats", mean(kl)));
    let length = sampled.response_length().unwrap_or(f64::NAN);
    format!("KL {kl}, {length:.1} tokens a response")
}

fn describe(step: &StepMetrics, tokens_per_second: f64) -> String {
    let StepMetrics { kl, beta, entropy, grad_norm, .. } = step;
    let share = |what: &str, share: f64| match share {
        0.0 => String::new(),
        share => format!("  {what} {:.1} %", 100.0 * share),
    };
    let (cut, clipped) = (share("cut", step.cut), share("clipped", step.clip_fraction));
    format!(
        "KL {kl:.3}  r {:.3}  u {:.3}  Φ {:.3}  β {beta:.3}  entropy {entropy:.2}  length {:.1}{cut}{clipped}  |g| {grad_norm:.2}  {tokens_per_second:.0} tokens/s",
        step.reward_raw, step.reward_calibrated, step.reward_transformed, step.response_length
    )
}

/// A line of a method that CTRL trains: means over the responses of a step, before the update, weighted by π/π_ref where they are stored ones of
/// the reference. `clip_fraction`, `value_loss` and `grad_norm` are means over the step's updates.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    metrics: &'a StepMetrics,
    /// Tokens of the step's responses, by the seconds that it took: the one key by which a repeated run differs.
    tokens_per_second: f64,
}
