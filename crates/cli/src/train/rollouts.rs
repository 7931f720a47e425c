//! Stored reference responses, which all methods that learn from such share.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use infalign_calibrate::CalibrationMeta;
use infalign_calibrate::rollouts::{self, Rollouts};
use infalign_decode::EncodedPrompt;
use infalign_evaluate::Evaluator;
use infalign_reward::Reward;
use infalign_train::{Filled, ReferenceRewards, TrainError};

use super::calibration::{BATCHES_PER_BLOCK, meta};
use super::inputs::Inputs;
use super::stages::evaluator;
use crate::calibrate::{Observe, fill_stored};
use crate::progress::Progress;
use crate::resume::Damaged;
use crate::{files, interrupt};

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
) -> Result<Option<Rollouts>> {
    let Some(config) = inputs.recipe.rollouts else { return Ok(None) };
    let samples = config.samples;
    let draw = |rollouts: &mut Rollouts, observe: Observe<'_, Rollouts>| {
        let model = inputs.reference.clone().for_inference();
        let evaluator = Evaluator {
            prompts: &inputs.train,
            prompts_sha256: &[],
            samples,
            ..evaluator(inputs, reward)
        };
        let sampler = evaluator.generator(model.as_ref(), STAGE);
        let responses = ReferenceRewards {
            sampler: &sampler,
            tokenizer: &inputs.tokenizer,
            reward,
            samples,
            block: BATCHES_PER_BLOCK.saturating_mul(inputs.recipe.batch),
        };
        responses.fill_rollouts(rollouts, &inputs.train, observe)
    };
    let (path, of) = (inputs.run.join(FILE), (meta(inputs)?, samples));
    stored((&path, of), (STAGE, &inputs.train), progress, draw).map(Some)
}

/// Reference responses with rewards and log-probabilities: those of a file, and what it lacks, which is added to it while it is drawn.
///
/// - of: what they are made from, and how many there are to a prompt.
/// - title: of the stage, as it is shown.
/// - prompts: of which they have to be.
/// - draw: samples and scores what is lacking, in the order of the prompts.
///
/// # Errors
/// When it was stopped, or sampling or scoring fails: what was finished is in the file. When those that are there were made from something
/// else or are not of the first prompts.
pub(super) fn stored(
    (path, (meta, samples)): (&Path, (CalibrationMeta, usize)),
    (title, prompts): (&str, &[EncodedPrompt]),
    progress: &mut Progress,
    draw: impl FnOnce(&mut Rollouts, Observe<'_, Rollouts>) -> Result<Filled, TrainError>,
) -> Result<Rollouts> {
    let mut seen = HashSet::new();
    let texts = prompts.iter().map(|prompt| prompt.text.as_str());
    let texts: Vec<&str> = texts.filter(|text| seen.insert(*text)).collect();
    let mut rollouts = begun(path, (meta, samples), &texts)?;
    let (done, all) = (rollouts.len(), texts.len());
    if done >= all {
        progress.skip(title);
        return Ok(rollouts);
    }
    let bar = progress.resumed(title, all, done);
    let show = |filled: &Filled| bar.set(filled.prompts, format!("{samples} responses a prompt"));
    fill_stored((&mut rollouts, path), show, write, draw)?;
    ensure!(!interrupt::asked(), "stopped; what was drawn is kept");
    bar.finish(format!("{} prompts, {samples} responses each", rollouts.len()));
    Ok(rollouts)
}

/// What there is of them: a run that was stopped has left those of the first prompts.
fn begun(
    path: &Path,
    (meta, samples): (CalibrationMeta, usize),
    texts: &[&str],
) -> Result<Rollouts> {
    if !path.exists() {
        return Ok(Rollouts::new(meta, samples));
    }
    let rollouts = rollouts::read(path).with_context(|| Damaged::at(path))?;
    rollouts.check(&meta, samples).with_context(|| Damaged::at(path))?;
    let mut first = texts.iter().take(rollouts.len());
    first.try_for_each(|text| rollouts.of(text).map(drop)).with_context(|| Damaged::at(path))?;
    Ok(rollouts)
}

/// Writes them whole or not at all, and no file without any.
fn write(rollouts: &Rollouts, path: &Path) -> Result<()> {
    if rollouts.is_empty() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    rollouts::write_to(rollouts, &mut bytes)?;
    files::write(path, bytes)
}

#[cfg(test)]
mod tests {
    use infalign_calibrate::rollouts::ReferenceResponse;
    use infalign_reward::RewardError;

    use super::*;

    fn insert(rollouts: &mut Rollouts, text: &str) {
        let response = ReferenceResponse { tokens: vec![1], log_probs: vec![-1.0], reward: 0.5 };
        rollouts.insert(text, text, vec![response]).unwrap();
    }

    /// One response to each prompt.
    fn stored_of(
        path: &Path,
        texts: &[&str],
        draw: &dyn Fn(&mut Rollouts) -> Result<Filled, TrainError>,
    ) -> Result<Rollouts> {
        let prompt = |text: &&str| EncodedPrompt {
            id: (*text).to_owned(),
            text: (*text).to_owned(),
            tokens: vec![1],
        };
        let prompts: Vec<EncodedPrompt> = texts.iter().map(prompt).collect();
        let meta = CalibrationMeta { model_sha256: "ab".into(), ..CalibrationMeta::default() };
        let draw = |rollouts: &mut Rollouts, _: Observe<'_, Rollouts>| draw(rollouts);
        stored((path, (meta, 1)), (STAGE, &prompts), &mut Progress::new(1), draw)
    }

    #[test]
    fn what_was_drawn_before_a_failure_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let [whole, failed] = ["whole", "failed"].map(|name| dir.path().join(name));
        let all = |rollouts: &mut Rollouts| {
            ["a", "b"].iter().for_each(|text| insert(rollouts, text));
            Ok(Filled::default())
        };
        stored_of(&whole, &["a", "b", "a"], &all).unwrap();

        let first = |rollouts: &mut Rollouts| {
            insert(rollouts, "a");
            Err(TrainError::Reward(RewardError::Stopped))
        };
        let none = |_: &mut Rollouts| Err(TrainError::Reward(RewardError::Stopped));
        stored_of(&failed, &["a", "b"], &none).unwrap_err();
        assert!(!failed.exists());
        stored_of(&failed, &["a", "b"], &first).unwrap_err();
        assert_eq!(rollouts::read(&failed).unwrap().len(), 1);
        let rest = |rollouts: &mut Rollouts| {
            insert(rollouts, "b");
            Ok(Filled::default())
        };
        let both = stored_of(&failed, &["a", "b"], &rest).unwrap();
        assert!(std::fs::read(&failed).unwrap() == std::fs::read(&whole).unwrap());
        // What is all there is not drawn again.
        assert_eq!(stored_of(&failed, &["a", "b"], &rest).unwrap(), both);
    }

    #[test]
    fn stored_responses_have_to_be_of_the_first_prompts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let only = |rollouts: &mut Rollouts| {
            insert(rollouts, "a");
            Ok(Filled::default())
        };
        stored_of(&path, &["a"], &only).unwrap();
        let error = stored_of(&path, &["b", "a"], &only).unwrap_err();
        assert!(error.is::<Damaged>(), "{error:#}");
        let told = format!("{error:#}");
        assert!(told.contains(FILE) && told.contains("\"b\" is not among the 1 prompts"), "{told}");
    }
}
