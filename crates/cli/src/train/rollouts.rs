//! Stored reference responses, which all methods that learn from such share.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result};
use infalign_calibrate::CalibrationMeta;
use infalign_calibrate::rollouts::{self, Rollouts};
use infalign_decode::EncodedPrompt;
use infalign_evaluate::Evaluator;
use infalign_reward::{Reward, RewardError};
use infalign_train::{Filled, ReferenceRewards, TrainError};

use super::calibration::{BATCHES_PER_BLOCK, meta};
use super::inputs::Inputs;
use super::stages::evaluator;
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
    let draw = |meta, observe: Observe<'_>| {
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
        responses.rollouts(meta, &inputs.train, observe)
    };
    let (path, of) = (inputs.run.join(FILE), (meta(inputs)?, samples));
    stored((&path, of), (STAGE, &inputs.train), progress, draw).map(Some)
}

/// What is called after every block of responses.
pub(super) type Observe<'o> = &'o mut dyn FnMut(&Filled) -> ControlFlow<()>;

/// Reference responses with rewards and log-probabilities: those of a file, which others of this kind are written into once all are there.
///
/// - of: what they are made from, and how many there are to a prompt.
/// - title: of the stage, as it is shown.
/// - prompts: of which they have to be.
/// - draw: samples and scores them; None where it was stopped.
///
/// # Errors
/// When sampling or scoring fails, or those that are there were made from something else or are not of all prompts.
pub(super) fn stored(
    (path, (meta, samples)): (&Path, (CalibrationMeta, usize)),
    (title, prompts): (&str, &[EncodedPrompt]),
    progress: &mut Progress,
    draw: impl FnOnce(CalibrationMeta, Observe<'_>) -> Result<Option<Rollouts>, TrainError>,
) -> Result<Rollouts> {
    if path.exists() {
        progress.skip(title);
        let rollouts = rollouts::read(path).with_context(|| Damaged::at(path))?;
        rollouts.check(&meta, samples).with_context(|| Damaged::at(path))?;
        let mut all = prompts.iter();
        all.try_for_each(|prompt| rollouts.of(&prompt.text).map(drop))
            .with_context(|| Damaged::at(path))?;
        return Ok(rollouts);
    }
    let texts: HashSet<&str> = prompts.iter().map(|prompt| prompt.text.as_str()).collect();
    let bar = progress.stage(title, texts.len());
    let mut observe = |filled: &Filled| {
        bar.set(filled.prompts, format!("{samples} responses a prompt"));
        interrupt::flow()
    };
    let drawn = match draw(meta, &mut observe) {
        Err(TrainError::Reward(RewardError::Stopped)) => None,
        drawn => drawn?,
    };
    let rollouts = drawn.context(
        "stopped; reference responses are stored once all are there, and are drawn again",
    )?;
    let mut bytes = Vec::new();
    rollouts::write_to(&rollouts, &mut bytes)?;
    files::write(path, bytes)?;
    bar.finish(format!("{} prompts, {samples} responses each", rollouts.len()));
    Ok(rollouts)
}

#[cfg(test)]
mod tests {
    use infalign_calibrate::rollouts::ReferenceResponse;

    use super::*;

    #[test]
    fn stored_responses_have_to_be_of_all_prompts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let meta = CalibrationMeta { model_sha256: "ab".into(), ..CalibrationMeta::default() };
        let mut of_one = Rollouts::new(meta.clone(), 1);
        let response = ReferenceResponse { tokens: vec![1], log_probs: vec![-1.0], reward: 0.5 };
        of_one.insert("a", "a", vec![response]).unwrap();
        let mut bytes = Vec::new();
        rollouts::write_to(&of_one, &mut bytes).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let read = |texts: &[&str]| {
            let prompt = |text: &&str| EncodedPrompt {
                id: (*text).to_owned(),
                text: (*text).to_owned(),
                tokens: vec![1],
            };
            let prompts: Vec<EncodedPrompt> = texts.iter().map(prompt).collect();
            let draw = |_, _: Observe<'_>| Ok(None);
            let of = (meta.clone(), 1);
            stored((&path, of), (STAGE, &prompts), &mut Progress::new(1), draw)
        };
        assert_eq!(read(&["a"]).unwrap(), of_one);
        let error = read(&["a", "b"]).unwrap_err();
        assert!(error.is::<Damaged>(), "{error:#}");
        let told = format!("{error:#}");
        assert!(told.contains(FILE) && told.contains("\"b\" is not among the 1 prompts"), "{told}");
    }
}
