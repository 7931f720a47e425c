//! The stages of an align run. Each ends with a file or a folder under its final name; a resumed run skips those that are there.

use std::path::Path;

use anyhow::{Error, Result, ensure};
use infalign_decode::{DecodeError, Event};
use infalign_evaluate::{Drawing, EvaluateError, Evaluator, Sampled};
use infalign_model::CausalLm;
use infalign_reward::{Reward, RewardConfig, RewardError};

use super::calibration::calibrate;
use super::inputs::Inputs;
use super::made_by::{MadeBy, Product};
use super::methods::{self, Sources};
use super::results::{self, Measured, Results};
use super::{optimum, rewards, rollouts};
use crate::interrupt;
use crate::progress::{KL, Progress, Stage};
use crate::resume::Damaged;
use crate::sources::REFERENCE;

/// Runs what is left of the recipe and returns its results.
///
/// # Errors
/// The failure of a stage; what was finished stays.
pub(crate) fn execute(inputs: &Inputs<'_>) -> Result<Results> {
    let recipe = inputs.recipe;
    let sampled = usize::from(recipe.has_table()) + usize::from(recipe.rollouts.is_some());
    let own = recipe.reward_model.len() + sampled;
    let compared = recipe.method.iter().filter(|m| recipe.evaluation.optimum && m.kind.is_ctrl());
    let mut progress = Progress::new(1 + own + 2 * recipe.method.len() + compared.count());
    let made_by = MadeBy::of(inputs.run)?;
    rewards::train(&inputs.reward_models, &made_by, inputs.run, recipe.seed, &mut progress)?;
    let reward = build(inputs, &recipe.reward)?;
    let judge = recipe.evaluation.judge.as_ref().map(|judge| build(inputs, judge)).transpose()?;
    let calibration = calibrate(inputs, reward.as_ref(), &mut progress)?;
    let rollouts = rollouts::sample(inputs, reward.as_ref(), &mut progress)?;
    let evaluator = Evaluator { judge: judge.as_deref(), ..evaluator(inputs, reward.as_ref()) };
    let (reference, base) = reference_samples(inputs, &evaluator, &made_by, &mut progress)?;
    stop_if_asked()?;
    let mut measured = vec![Measured::base(base)];
    let sources = Sources {
        reward: reward.as_ref(),
        calibration: calibration.as_ref(),
        rollouts: rollouts.as_ref(),
        reference: &reference,
        made_by: &made_by,
    };
    let mut all_responses = None;
    for (index, method) in recipe.method.iter().enumerate() {
        let policy = methods::train(inputs, index, sources, &mut progress)?;
        let sampled =
            methods::evaluate(inputs, method, &policy, &evaluator, &made_by, &mut progress)?;
        stop_if_asked()?;
        optimum::compare(inputs, method, &policy, sources, &mut all_responses, &mut progress)?;
        stop_if_asked()?;
        measured.push(Measured::of(method, inputs.run, sampled)?);
    }
    results::write((recipe, inputs.run), &measured, &reference)
}

/// Builds a reward; of one that the run has trained itself, a model that cannot be read is a file of the run.
fn build(inputs: &Inputs<'_>, config: &RewardConfig) -> Result<Box<dyn Reward>> {
    rewards::build_to_work(config, inputs.run, &inputs.device).map_err(|error| {
        let of_model = matches!(error.downcast_ref::<RewardError>(), Some(RewardError::Model(_)));
        let unreadable = || rewards::unreadable(config, inputs.run, &inputs.device);
        match of_model.then(unreadable).flatten() {
            Some(model) => error.context(Damaged::at(&model)),
            None => error,
        }
    })
}

/// Stops between two pieces of work once it was asked to.
///
/// # Errors
/// That it was.
pub(crate) fn stop_if_asked() -> Result<()> {
    ensure!(!interrupt::asked(), "stopped; every finished stage is kept");
    Ok(())
}

/// Samples from a model, until it is asked to stop.
///
/// - measured: told now and then of how many prompts the KL is measured.
///
/// # Errors
/// As [`Evaluator::sample`]; [`DecodeError::Cancelled`], [`RewardError::Stopped`] or [`EvaluateError::Stopped`] where it was stopped.
pub(crate) fn sample(
    evaluator: &Evaluator<'_>,
    model: &CausalLm,
    stage: &str,
    measured: &dyn Fn(usize),
) -> Result<Sampled, EvaluateError> {
    let watch = |_: Event<'_>| interrupt::flow();
    let measuring = |prompts: usize| {
        measured(prompts);
        interrupt::flow()
    };
    evaluator.sample(model, &Drawing { stage, watch: Some(&watch) }, &measuring)
}

/// As [`sample`], in a stage that is done again as a whole where it was stopped.
///
/// # Errors
/// As [`sample`]; where it was stopped, as [`stop_if_asked`].
pub(crate) fn sample_all(
    evaluator: &Evaluator<'_>,
    model: &CausalLm,
    stage: &str,
    measured: &dyn Fn(usize),
) -> Result<Sampled> {
    let sampled = sample(evaluator, model, stage, measured);
    if matches!(
        sampled,
        Err(EvaluateError::Decode(DecodeError::Cancelled { .. })
            | EvaluateError::Reward(RewardError::Stopped)
            | EvaluateError::Stopped)
    ) {
        stop_if_asked()?;
    }
    Ok(sampled?)
}

/// What a stage makes and writes into a file, or what the file holds where an earlier process has finished the stage.
///
/// - made_by: by which it has to be made.
/// - title, length: of the stage, as it is shown.
/// - summary: what is shown of it in the end.
///
/// # Errors
/// Those of `make`, and when the file cannot be written, or, where it is there, cannot be read or is of something else.
pub(crate) fn once<T: Product>(
    (made_by, path): (&MadeBy, &Path),
    (title, length): (&str, usize),
    progress: &mut Progress,
    make: impl FnOnce(&Stage) -> Result<T>,
    summary: impl FnOnce(&T) -> String,
) -> Result<T> {
    if path.exists() {
        progress.skip(title);
        return made_by.read(path);
    }
    let bar = progress.stage(title, length);
    let made = make(&bar)?;
    made_by.write(path, &made)?;
    bar.finish(summary(&made));
    Ok(made)
}

/// What samples from models and judges them, on the prompts held out.
pub(crate) fn evaluator<'a>(inputs: &'a Inputs<'_>, reward: &'a dyn Reward) -> Evaluator<'a> {
    Evaluator {
        prompts: &inputs.test,
        prompts_sha256: &inputs.test_sha256,
        samples: inputs.recipe.evaluation.samples,
        reference: Some(&inputs.reference),
        tokenizer: &inputs.tokenizer,
        reward,
        judge: None,
        sampling: inputs.recipe.generation.clone(),
        batch: inputs.recipe.batch,
        seed: inputs.recipe.seed,
    }
}

/// Two independent sets of the reference's samples: what policies are compared with, and the reference's own row.
fn reference_samples(
    inputs: &Inputs<'_>,
    evaluator: &Evaluator<'_>,
    made_by: &MadeBy,
    progress: &mut Progress,
) -> Result<(Sampled, Sampled)> {
    let path = inputs.run.join(REFERENCE);
    let (prompts, samples) = (inputs.test.len(), evaluator.samples);
    let make = |bar: &Stage| -> Result<_> {
        let sample = |stage, before: usize| {
            let measured = |prompts: usize| bar.set(before + prompts, KL.to_owned());
            sample_all(evaluator, &inputs.reference, stage, &measured)
        };
        let reference = sample("evaluate-reference", 0)?;
        bar.set(prompts, String::new());
        Ok((reference, sample(methods::EVALUATION_STAGE, prompts)?))
    };
    let summary = |_: &_| format!("{prompts} held-out prompts, {samples} responses each");
    let stage = ("reference samples", 2 * prompts);
    let both = once((made_by, &path), stage, progress, make, summary)?;
    check_samples(&path, &both.0, evaluator)?;
    check_samples(&path, &both.1, evaluator)?;
    Ok(both)
}

/// Refuses stored samples that are not those of the recipe's prompts.
pub(crate) fn check_samples(
    path: &Path,
    sampled: &Sampled,
    evaluator: &Evaluator<'_>,
) -> Result<()> {
    let ids = sampled.prompts.iter().map(|prompt| &prompt.id);
    // Those of older versions do not tell their texts.
    let mut texts = sampled.prompts.iter().zip(evaluator.prompts_sha256);
    let fits = sampled.check().is_ok()
        && ids.eq(evaluator.prompts.iter().map(|prompt| &prompt.id))
        && texts.all(|(stored, given)| stored.may_have(Some(given)))
        && sampled.rewards.iter().all(|rewards| rewards.len() == evaluator.samples)
        && sampled.judged.is_some() == evaluator.judge.is_some();
    if fits {
        return Ok(());
    }
    Err(Error::msg("it holds samples of other prompts").context(Damaged::at(path)))
}
