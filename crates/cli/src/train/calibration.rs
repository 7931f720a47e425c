//! Step 1 of a run: the table by which rewards are calibrated.

use anyhow::{Context, Result};
use infalign_calibrate::summary::Summary;
use infalign_calibrate::{Calibration, CalibrationMeta, store};
use infalign_decode::EncodedPrompt;
use infalign_evaluate::Evaluator;
use infalign_reward::Reward;
use infalign_train::{Filled, ReferenceRewards};

use super::inputs::{Inputs, check_responses};
use super::rewards;
use super::stages::{evaluator, stop_if_asked};
use crate::calibrate::{fill_table, filled};
use crate::identity;
use crate::progress::Progress;
use crate::recipe::{AlignRecipe, Paths, PromptsConfig};
use crate::resume::Damaged;

/// The run's own table.
const TABLE: &str = "calibration.parquet";

/// Batches of reference responses generated from one look at Ctrl-C to the next.
pub(super) const BATCHES_PER_BLOCK: usize = 16;

/// The table that the recipe names, or one of K reference responses to every training prompt, as `RUN/calibration.parquet`; none where
/// rewards are calibrated within groups.
///
/// # Errors
/// When a table was made from something else or lacks prompts, or sampling or scoring fails.
pub(crate) fn calibrate(
    inputs: &Inputs<'_>,
    reward: &dyn Reward,
    progress: &mut Progress,
) -> Result<Option<Calibration>> {
    let Some(config) = &inputs.recipe.calibration else { return Ok(None) };
    if let Some(path) = &config.table {
        return given(inputs, &Paths { run: inputs.run }.resolve(path)?, progress).map(Some);
    }
    let Some(samples) = config.samples else { return Ok(None) };
    let path = inputs.run.join(TABLE);
    let meta = meta(inputs)?;
    let mut table = match path.exists() {
        true => store::read(&path).with_context(|| Damaged::at(&path))?,
        false => Calibration::new(meta.clone()),
    };
    table.check(&meta).with_context(|| Damaged::at(&path))?;
    fill(inputs, reward, samples, &mut table, progress)?;
    Ok(Some(table))
}

/// A table that was made before.
fn given(
    inputs: &Inputs<'_>,
    path: &std::path::Path,
    progress: &mut Progress,
) -> Result<Calibration> {
    progress.skip("calibration");
    let table = store::read(path)?;
    check_given(inputs, &table, reward_identity(inputs)?)
        .with_context(|| path.display().to_string())?;
    Ok(table)
}

/// Refuses a table that was made from something else, before any work is begun. Of a reward that the run is yet to train all but the reward
/// is compared.
///
/// # Errors
/// The first thing that differs, or what cannot be read.
pub(super) fn check_early(inputs: &Inputs<'_>, table: &Calibration) -> Result<()> {
    let is_own = rewards::is_own(&inputs.recipe.reward);
    let reward = if is_own { table.meta().reward.clone() } else { reward_identity(inputs)? };
    check_given(inputs, table, reward)
}

/// Refuses a table by what it was made from: its draws may be others, and quantiles do as well; anything else would be another distribution.
fn check_given(inputs: &Inputs<'_>, table: &Calibration, reward: String) -> Result<()> {
    let CalibrationMeta { seed, quantiles, .. } = *table.meta();
    let expected = CalibrationMeta { seed, quantiles, ..made_from(inputs, reward)? };
    Ok(table.check(&expected)?)
}

/// Refuses more responses than could be kept at once: those to the prompts of a block, since the table keeps rewards alone.
pub(super) fn check_block(batch: usize, prompts: &[EncodedPrompt], samples: usize) -> Result<()> {
    let block = &prompts[..prompts_per_block(batch, samples).min(prompts.len())];
    check_responses("calibration.samples", block, samples).with_context(|| {
        format!(
            "the calibration samples for {} of {} prompts at a time",
            block.len(),
            prompts.len()
        )
    })
}

/// About how many responses are sampled and scored before their rewards are put into the table.
fn responses_per_block(batch: usize) -> usize {
    BATCHES_PER_BLOCK.saturating_mul(batch)
}

/// Of how many prompts these are.
fn prompts_per_block(batch: usize, samples: usize) -> usize {
    (responses_per_block(batch) / samples.max(1)).max(1)
}

/// Warns where the calibration samples responses to many more prompts than the steps reach.
pub(super) fn warn_of_unreached(recipe: &AlignRecipe, prompts: usize) {
    let samples = recipe.calibration.as_ref().and_then(|calibration| calibration.samples);
    let (Some(samples), Some(train)) = (samples, &recipe.train) else { return };
    let reached = reached(train.steps, train.prompts_per_step, prompts);
    // The exact optimum is that of all prompts.
    let Some(reached) = reached.filter(|_| !recipe.evaluation.optimum) else { return };
    let key = match recipe.prompts {
        PromptsConfig::Files { .. } => "prompts.train",
        PromptsConfig::StoryOpenings { .. } | PromptsConfig::ParagraphOpenings { .. } => {
            "prompts.file"
        }
        PromptsConfig::Preferences { .. } => "prompts.files",
    };
    tell!(
        "warning: {} steps of train.prompts_per_step = {} reach {reached} of {prompts} training prompts, but calibration.samples = {samples} responses are sampled to each: take fewer prompts ({key}), or more steps (train.steps)",
        train.steps,
        train.prompts_per_step
    );
}

/// How many prompts the steps of every method reach, where that leaves out a tenth of them or more: so they are within the first epoch, whose order
/// all methods share.
fn reached(steps: usize, per_step: usize, prompts: usize) -> Option<usize> {
    let reached = steps.saturating_mul(per_step);
    let left_out = prompts.saturating_sub(reached);
    (left_out.saturating_mul(10) >= prompts).then_some(reached)
}

/// Samples and scores what the table lacks, and writes it when that is much and when it is all.
fn fill(
    inputs: &Inputs<'_>,
    reward: &dyn Reward,
    samples: usize,
    table: &mut Calibration,
    progress: &mut Progress,
) -> Result<()> {
    let (done, all) = filled(table, &inputs.train, samples);
    if done == all {
        progress.skip("calibration");
        return Ok(());
    }
    let bar = progress.resumed("calibration", all, done);
    let model = inputs.reference.clone().for_inference();
    let evaluator = Evaluator {
        prompts: &inputs.train,
        prompts_sha256: &[],
        samples,
        ..evaluator(inputs, reward)
    };
    let sampler = evaluator.generator(model.as_ref(), "calibration");
    let block = responses_per_block(inputs.recipe.batch);
    let rewards = ReferenceRewards {
        sampler: &sampler,
        tokenizer: &inputs.tokenizer,
        reward,
        samples,
        block,
    };
    let path = inputs.run.join(TABLE);
    let show = |filled: &Filled| bar.set(filled.prompts, format!("{samples} responses a prompt"));
    fill_table(&rewards, &inputs.train, (&mut *table, &path), show)?;
    stop_if_asked()?;
    let ties = Summary::of(table)?.ties;
    bar.finish(format!(
        "{} prompts, {samples} responses each, {:.0} % of pairs tie",
        table.len(),
        100.0 * ties
    ));
    Ok(())
}

/// What reference responses and their rewards are made from.
pub(super) fn meta(inputs: &Inputs<'_>) -> Result<CalibrationMeta> {
    made_from(inputs, reward_identity(inputs)?)
}

/// What the reward is.
fn reward_identity(inputs: &Inputs<'_>) -> Result<String> {
    identity::recipe_reward(&inputs.recipe.reward, &Paths { run: inputs.run })
}

/// The same, where the reward is known.
fn made_from(inputs: &Inputs<'_>, reward: String) -> Result<CalibrationMeta> {
    let recipe = inputs.recipe;
    let folder = Paths { run: inputs.run }.model(&recipe.model)?;
    let template = inputs.template_sha256.clone();
    let tokenizer = &inputs.tokenizer;
    identity::calibration(&folder, tokenizer, reward, template, &recipe.generation, recipe.seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_at_once_is_a_block_however_many_prompts_there_are() {
        // 16 batches of 128 are 2,048 responses.
        assert_eq!(
            [64, 512, 2048, 4096].map(|samples| prompts_per_block(128, samples)),
            [32, 4, 1, 1]
        );
        let prompt = EncodedPrompt { id: "a".into(), text: "the".into(), tokens: vec![1] };
        let prompts = vec![prompt; 3];
        check_block(128, &prompts, 100_000_000).unwrap();
        let message = format!("{:#}", check_block(128, &prompts, 100_000_001).unwrap_err());
        assert!(message.starts_with("the calibration samples for 1 of 3 prompts at a time: calibration.samples is 100000001 "), "{message}");
        // Larger batches take several prompts: 16 × 6,250,000 responses are 100 million.
        check_block(6_250_000, &prompts, 50_000_000).unwrap();
        let message = format!("{:#}", check_block(9_375_000, &prompts, 50_000_000).unwrap_err());
        assert!(message.starts_with("the calibration samples for 3 of 3 prompts"), "{message}");
    }

    #[test]
    fn prompts_count_as_left_out_where_they_are_a_tenth_of_all() {
        assert_eq!(reached(10, 16, 20_000), Some(160));
        assert_eq!((reached(9, 10, 100), reached(13, 7, 100)), (Some(90), None));
        assert_eq!((reached(10, 10, 100), reached(50, 10, 100)), (None, None));
        assert_eq!(reached(1, 1, 1), None);
    }
}
