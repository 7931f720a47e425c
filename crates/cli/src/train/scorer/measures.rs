//! What responses are worth: their rewards, and how often they win over plain ones of the base.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use infalign_decode::EncodedPrompt;
use infalign_evaluate::score;
use infalign_model::Tokenizer;
use infalign_reward::Reward;
use infalign_stats::{Kept, Selection};
use infalign_train::ScoredResponse;

use super::inputs::ScorerInputs;
use super::row::Mean;

/// The rewards of the heads and the judge, with the base's responses to the prompts held out.
pub(super) struct Measures<'a> {
    prompts: &'a [EncodedPrompt],
    measures: Vec<Measure<'a>>,
}

/// One of the rewards.
struct Measure<'a> {
    name: &'a str,
    reward: &'a dyn Reward,
    /// The base's responses to each prompt.
    base: Vec<Kept>,
}

/// What a procedure's responses came to, a reward each.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) rewards: BTreeMap<String, Mean>,
    pub(super) win_rates: BTreeMap<String, Mean>,
}

impl<'a> Measures<'a> {
    /// - `rewards`: of the heads, and of the judge where there is one.
    /// - `base`: plain responses of what KL is to, equally many to each prompt held out, prompt by prompt, with the rewards of the heads.
    ///
    /// # Errors
    /// When the judge fails.
    pub(super) fn new(
        inputs: &'a ScorerInputs<'_>,
        rewards: &'a [Box<dyn Reward>],
        base: &[ScoredResponse],
    ) -> Result<Self> {
        let prompts = &inputs.test;
        let by_prompt = base.chunks(base.len() / prompts.len().max(1));
        let by_prompt: Vec<&[ScoredResponse]> = by_prompt.collect();
        let mut measures = Vec::with_capacity(rewards.len());
        for (place, ((name, _), reward)) in inputs.recipe.measures().zip(rewards).enumerate() {
            let scores = if place < inputs.recipe.head.len() {
                of_head(&by_prompt, place)
            } else {
                let texts = texts(&by_prompt, &inputs.tokenizer)?;
                score(reward.as_ref(), asked(prompts), &texts).with_context(|| name.to_owned())?
            };
            measures.push(Measure { name, reward: reward.as_ref(), base: kept(&scores)? });
        }
        Ok(Self { prompts, measures })
    }

    /// Measures responses to the prompts held out.
    ///
    /// - `responses`: `[prompts][responses]`.
    /// - `first`: their rewards by the first head, where they are known.
    ///
    /// # Errors
    /// When a reward fails, or there is none to a prompt.
    pub(super) fn of(
        &self,
        responses: &[Vec<String>],
        first: Option<&[Vec<f64>]>,
    ) -> Result<Measured> {
        let mut measured = Measured::default();
        for (place, Measure { name, reward, base }) in self.measures.iter().enumerate() {
            let scores = match first.filter(|_| place == 0) {
                Some(scores) => scores.to_vec(),
                None => score(*reward, asked(self.prompts), responses)?,
            };
            let ours = kept(&scores)?;
            let won = ours.iter().zip(base).map(|(ours, theirs)| ours.win_rate(theirs));
            measured.win_rates.insert((*name).to_owned(), Mean::of_shares(won.collect())?);
            let means = scores.iter().map(|scores| mean(scores)).collect();
            measured.rewards.insert((*name).to_owned(), Mean::over(means)?);
        }
        Ok(measured)
    }
}

/// The responses to each prompt: `[prompts][responses]`.
fn kept(scores: &[Vec<f64>]) -> Result<Vec<Kept>> {
    let kept = scores.iter().map(|scores| Kept::new(scores, Selection::Sample));
    Ok(kept.collect::<Result<_, _>>()?)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn asked(prompts: &[EncodedPrompt]) -> impl Iterator<Item = &str> {
    prompts.iter().map(|prompt| prompt.text.as_str())
}

/// `[prompts][responses]`
fn of_head(by_prompt: &[&[ScoredResponse]], head: usize) -> Vec<Vec<f64>> {
    let rewards =
        |all: &&[ScoredResponse]| all.iter().map(|y| f64::from(y.rewards[head])).collect();
    by_prompt.iter().map(rewards).collect()
}

/// `[prompts][responses]`
fn texts(by_prompt: &[&[ScoredResponse]], tokenizer: &Tokenizer) -> Result<Vec<Vec<String>>> {
    let text = |ScoredResponse { sequence, .. }: &ScoredResponse| {
        let prompt = &sequence.tokens[..sequence.prompt_length];
        Ok(tokenizer.decode_response(prompt, sequence.response())?)
    };
    by_prompt.iter().map(|all| all.iter().map(text).collect()).collect()
}
