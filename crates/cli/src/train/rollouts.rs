//! Stored reference responses, which all methods that learn from such share.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use infalign_calibrate::rollouts::{self, Rollouts};
use infalign_evaluate::Evaluator;
use infalign_record::atomic::write_atomic;
use infalign_reward::Reward;
use infalign_train::{Filled, ReferenceRewards};

use super::calibration::{BATCHES_PER_BLOCK, meta};
use super::inputs::Inputs;
use super::stages::evaluator;
use crate::progress::Progress;
use crate::resume::Damaged;

/// The run's file of them.
const FILE: &str = "reference-rollouts.parquet";
/// Names this stage, and the random streams of its draws.
const STAGE: &str = "reference-rollouts";

/// The responses of the reference to every training prompt with rewards and log-probabilities, as `RUN/reference-rollouts.parquet`; none
/// where no method learns from them.
///
/// # Errors
/// When sampling or scoring fails, or those that are there were made from something else.
pub(crate) fn sample(
    inputs: &Inputs<'_>,
    reward: &dyn Reward,
    progress: &mut Progress,
    interrupted: &AtomicBool,
) -> Result<Option<Rollouts>> {
    let Some(config) = inputs.recipe.rollouts else { return Ok(None) };
    let (samples, path) = (config.samples, inputs.run.join(FILE));
    let meta = meta(inputs)?;
    if path.exists() {
        progress.skip(STAGE);
        let rollouts = rollouts::read(&path).with_context(|| Damaged::at(&path))?;
        rollouts.check(&meta, samples).with_context(|| Damaged::at(&path))?;
        return Ok(Some(rollouts));
    }
    let bar = progress.stage(STAGE, inputs.train.len());
    let model = inputs.reference.clone().for_inference();
    let evaluator = Evaluator { prompts: &inputs.train, samples, ..evaluator(inputs, reward) };
    let sampler = evaluator.generator(model.as_ref(), STAGE);
    let responses = ReferenceRewards {
        sampler: &sampler,
        tokenizer: &inputs.tokenizer,
        reward,
        samples,
        block: BATCHES_PER_BLOCK.saturating_mul(inputs.recipe.batch),
    };
    let mut observe = |filled: &Filled| {
        bar.set(filled.prompts, format!("{samples} responses a prompt"));
        let stop = interrupted.load(Ordering::Relaxed);
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let rollouts = responses.rollouts(meta, &inputs.train, &mut observe)?.context(
        "stopped; reference responses are stored once all are there, and are drawn again",
    )?;
    let mut bytes = Vec::new();
    rollouts::write_to(&rollouts, &mut bytes)?;
    write_atomic(&path, |file| file.write_all(&bytes))?;
    bar.finish(format!("{} prompts, {samples} responses each", rollouts.len()));
    Ok(Some(rollouts))
}
