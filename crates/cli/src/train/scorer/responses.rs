//! Responses that a scorer learns from or is measured on, with the rewards of all heads.

use std::path::Path;

use anyhow::Result;
use infalign_calibrate::CalibrationMeta;
use infalign_calibrate::rollouts::Rollouts;
use infalign_decode::EncodedPrompt;
use infalign_model::{LanguageModel, Sequence, Tokenizer};
use infalign_reward::Reward;
use infalign_train::{ReferenceRewards, ScoredResponse};

use super::super::calibration::BATCHES_PER_BLOCK;
use super::super::rollouts::stored;
use super::super::stages::stop_if_asked;
use super::ScorerInputs;
use crate::calibrate::Observe;
use crate::identity;
use crate::progress::Progress;
use crate::recipe::Paths;

/// Responses with their rewards.
pub(super) struct Rewarded<'a> {
    pub(super) inputs: &'a ScorerInputs<'a>,
    /// What writes them, and where it is from.
    pub(super) base: &'a dyn LanguageModel,
    pub(super) model: &'a Path,
    pub(super) heads: &'a [Box<dyn Reward>],
}

impl Rewarded<'_> {
    /// Responses of the base, prompt by prompt, as `RUN/NAME.parquet`, with the rewards of all heads. The file has those of the first.
    ///
    /// - `stage`: names the random streams.
    pub(super) fn responses(
        &self,
        (stage, name): (&str, &str),
        prompts: &[EncodedPrompt],
        samples: usize,
        progress: &mut Progress,
    ) -> Result<Vec<ScoredResponse>> {
        let sampler = self.inputs.generator(self.base, stage);
        let responses = ReferenceRewards {
            sampler: &sampler,
            tokenizer: &self.inputs.tokenizer,
            reward: self.heads[0].as_ref(),
            samples,
            block: BATCHES_PER_BLOCK.saturating_mul(self.inputs.recipe.batch),
        };
        let draw = |rollouts: &mut Rollouts, observe: Observe<'_, Rollouts>| {
            responses.fill_rollouts(rollouts, prompts, observe)
        };
        let path = self.inputs.run.join(format!("{name}.parquet"));
        let of = (self.meta()?, samples);
        let rollouts = stored((&path, of), (name, prompts), progress, draw)?;
        stop_if_asked()?;
        self.scored(prompts, &rollouts)
    }

    /// What responses and the rewards of the first head are made from.
    fn meta(&self) -> Result<CalibrationMeta> {
        let ScorerInputs { recipe, run, tokenizer, .. } = self.inputs;
        let paths = Paths { run };
        let reward = identity::recipe_reward(&recipe.head[0].reward, &paths)?;
        let folder = paths.model(self.model)?;
        let template = self.inputs.template_sha256.clone();
        identity::calibration(&folder, tokenizer, reward, template, &recipe.generation, recipe.seed)
    }

    fn scored(
        &self,
        prompts: &[EncodedPrompt],
        rollouts: &Rollouts,
    ) -> Result<Vec<ScoredResponse>> {
        let mut responses = Vec::new();
        for prompt in prompts {
            for response in rollouts.of(&prompt.text)? {
                let sequence = prompt.followed_by(&response.tokens);
                responses.push((prompt.text.clone(), sequence, Some(response.reward)));
            }
        }
        self.with_rewards(responses)
    }

    /// The responses that files give.
    pub(super) fn completions(&self) -> Result<Vec<ScoredResponse>> {
        let given = self.inputs.completions.iter().cloned();
        self.with_rewards(given.map(|one| (one.prompt, one.sequence, None)).collect())
    }

    /// Rewards by every head; that of the first is there already for what a file holds.
    fn with_rewards(
        &self,
        responses: Vec<(String, Sequence, Option<f32>)>,
    ) -> Result<Vec<ScoredResponse>> {
        let tokenizer = &self.inputs.tokenizer;
        let texts = responses.iter().map(|(_, sequence, _)| text(tokenizer, sequence));
        let texts = texts.collect::<Result<Vec<String>>>()?;
        let pairs: Vec<(&str, &str)> = responses
            .iter()
            .zip(&texts)
            .map(|((prompt, ..), y)| (prompt.as_str(), y.as_str()))
            .collect();
        let mut rewards = vec![Vec::with_capacity(self.heads.len()); responses.len()];
        for (index, head) in self.heads.iter().enumerate() {
            let known = (index == 0).then(|| responses.iter().map(|(.., r)| *r).collect());
            let known: Option<Vec<f32>> = known.flatten();
            let found = known.map_or_else(|| head.score(&pairs), Ok)?;
            rewards.iter_mut().zip(found).for_each(|(all, reward)| all.push(reward));
        }
        let scored = responses.into_iter().zip(rewards);
        Ok(scored.map(|((_, sequence, _), rewards)| ScoredResponse { sequence, rewards }).collect())
    }
}

/// The text of a response.
///
/// # Errors
/// When its tokens are none of the tokenizer's.
pub(super) fn text(tokenizer: &Tokenizer, sequence: &Sequence) -> Result<String> {
    let prompt = &sequence.tokens[..sequence.prompt_length];
    Ok(tokenizer.decode_response(prompt, sequence.response())?)
}
