//! The stages of an align run. Each ends with a file under its final name; a resumed run skips those that are there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Error, Result};
use infalign_evaluate::{Evaluator, Sampled};
use infalign_record::atomic::write_atomic;
use infalign_reward::{Reward, RewardConfig, RewardError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::calibration::calibrate;
use super::inputs::Inputs;
use super::methods::{self, Sources};
use super::results::{self, Measured, Results};
use super::{optimum, rewards, rollouts};
use crate::progress::Progress;
use crate::resume::Damaged;
use crate::sources::REFERENCE;

/// Runs what is left of the recipe and returns its results.
///
/// # Errors
/// The failure of a stage; what was finished stays.
pub(crate) fn execute(inputs: &Inputs<'_>, interrupted: &AtomicBool) -> Result<Results> {
    let recipe = inputs.recipe;
    let sampled = usize::from(recipe.has_table()) + usize::from(recipe.rollouts.is_some());
    let own = recipe.reward_model.len() + sampled;
    let compared = recipe.method.iter().filter(|m| recipe.evaluation.optimum && m.kind.is_ctrl());
    let mut progress = Progress::new(1 + own + 2 * recipe.method.len() + compared.count());
    rewards::train(&inputs.reward_models, inputs.run, recipe.seed, &mut progress, interrupted)?;
    let reward = build(inputs, &recipe.reward)?;
    let judge = recipe.evaluation.judge.as_ref().map(|judge| build(inputs, judge)).transpose()?;
    let calibration = calibrate(inputs, reward.as_ref(), &mut progress, interrupted)?;
    let rollouts = rollouts::sample(inputs, reward.as_ref(), &mut progress, interrupted)?;
    let evaluator = Evaluator { judge: judge.as_deref(), ..evaluator(inputs, reward.as_ref()) };
    let (reference, base) = reference_samples(inputs, &evaluator, &mut progress)?;
    stop_if(interrupted)?;
    let mut measured = vec![Measured::base(base)];
    let sources = Sources {
        reward: reward.as_ref(),
        calibration: calibration.as_ref(),
        rollouts: rollouts.as_ref(),
        reference: &reference,
    };
    let mut all_responses = None;
    for (index, method) in recipe.method.iter().enumerate() {
        let policy = methods::train(inputs, index, sources, &mut progress, interrupted)?;
        let sampled = methods::evaluate(inputs, method, &policy, &evaluator, &mut progress)?;
        stop_if(interrupted)?;
        optimum::compare(inputs, method, &policy, sources, &mut all_responses, &mut progress)?;
        stop_if(interrupted)?;
        measured.push(Measured::of(method, inputs.run, sampled)?);
    }
    results::write((recipe, inputs.run), &measured, &reference)
}

/// Builds a reward; of one that the run has trained itself, a model that cannot be read is a file of the run.
fn build(inputs: &Inputs<'_>, config: &RewardConfig) -> Result<Box<dyn Reward>> {
    inputs.build(config).map_err(|error| {
        let of_model = matches!(error.downcast_ref::<RewardError>(), Some(RewardError::Model(_)));
        match of_model && rewards::is_own(config) {
            true => error.context(Damaged::at(&inputs.run.join(rewards::FOLDER))),
            false => error,
        }
    })
}

/// Stops between two pieces of work once Ctrl-C was pressed.
///
/// # Errors
/// That it was.
pub(crate) fn stop_if(interrupted: &AtomicBool) -> Result<()> {
    anyhow::ensure!(!interrupted.load(Ordering::Relaxed), "stopped; every finished stage is kept");
    Ok(())
}

/// What samples from models and judges them, on the prompts held out.
pub(crate) fn evaluator<'a>(inputs: &'a Inputs<'_>, reward: &'a dyn Reward) -> Evaluator<'a> {
    Evaluator {
        prompts: &inputs.test,
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
    progress: &mut Progress,
) -> Result<(Sampled, Sampled)> {
    let path = inputs.run.join(REFERENCE);
    if path.exists() {
        progress.skip("reference samples");
        let both: (Sampled, Sampled) = read_json(&path)?;
        check_samples(&path, &both.0, evaluator)?;
        check_samples(&path, &both.1, evaluator)?;
        return Ok(both);
    }
    let bar = progress.stage("reference samples", 2);
    let reference = evaluator.sample(&inputs.reference, "evaluate-reference")?;
    bar.set(1, String::new());
    let base = evaluator.sample(&inputs.reference, methods::EVALUATION_STAGE)?;
    let both = (reference, base);
    write_json(&path, &both)?;
    bar.finish(format!(
        "{} held-out prompts, {} responses each",
        inputs.test.len(),
        evaluator.samples
    ));
    Ok(both)
}

/// Refuses stored samples that are not those of the recipe's prompts.
pub(crate) fn check_samples(
    path: &Path,
    sampled: &Sampled,
    evaluator: &Evaluator<'_>,
) -> Result<()> {
    let ids = sampled.prompts.iter().map(|prompt| &prompt.id);
    let fits = sampled.check().is_ok()
        && ids.eq(evaluator.prompts.iter().map(|prompt| &prompt.id))
        && sampled.rewards.iter().all(|rewards| rewards.len() == evaluator.samples)
        && sampled.judged.is_some() == evaluator.judge.is_some();
    if fits {
        return Ok(());
    }
    Err(Error::msg("it holds samples of other prompts").context(Damaged::at(path)))
}

/// Reads a file that an earlier stage wrote.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| Damaged::at(path))
}

/// Writes a stage's result whole or not at all.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(value)?;
    Ok(write_atomic(path, |file| file.write_all(&bytes))?)
}
