//! What responses are worth: their rewards, and how often they win over plain ones of the base.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use infalign_decode::EncodedPrompt;
use infalign_evaluate::score;
use infalign_model::Tokenizer;
use infalign_reward::Reward;
use infalign_stats::{Kept, Selection};
use infalign_train::ScoredResponse;

use super::inputs::ScorerInputs;
use super::responses::text;
use super::row::{Mean, Row};
use crate::resume::Damaged;

/// The rewards of the heads and the judge, with the base's responses to the prompts held out.
pub(super) struct Measures<'a> {
    prompts: &'a [EncodedPrompt],
    tokenizer: &'a Tokenizer,
    /// The base's responses, `[prompts][responses]`.
    base: Vec<&'a [ScoredResponse]>,
    measures: Vec<Measure<'a>>,
}

/// One of the rewards.
struct Measure<'a> {
    name: &'a str,
    reward: &'a dyn Reward,
    /// Whether it has a head, so that the base's responses have it.
    is_known: bool,
    /// The base's responses to each prompt by it, once they are asked for: a finished run asks no judge.
    base: OnceCell<Vec<Kept>>,
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
    pub(super) fn new(
        inputs: &'a ScorerInputs<'_>,
        rewards: &'a [Box<dyn Reward>],
        base: &'a [ScoredResponse],
    ) -> Self {
        let (prompts, heads) = (&inputs.test, inputs.recipe.head.len());
        let named = inputs.recipe.measures().zip(rewards).enumerate();
        let measures = named.map(|(place, ((name, _), reward))| Measure {
            name,
            reward: reward.as_ref(),
            is_known: place < heads,
            base: OnceCell::new(),
        });
        Self {
            prompts,
            tokenizer: &inputs.tokenizer,
            base: by_prompt(base, prompts.len()),
            measures: measures.collect(),
        }
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
        for (place, measure) in self.measures.iter().enumerate() {
            let scores = match first.filter(|_| place == 0) {
                Some(scores) => scores.to_vec(),
                None => score(measure.reward, asked(self.prompts), responses)?,
            };
            let name = || measure.name.to_owned();
            let won = win_rates(&scores, self.base(place)?)?;
            measured.win_rates.insert(name(), Mean::of_shares(won)?);
            measured.rewards.insert(name(), Mean::over(means(&scores))?);
        }
        Ok(measured)
    }

    /// Refuses a row that a file holds without what is measured here.
    ///
    /// # Errors
    /// Where an older program has written it.
    pub(super) fn check(&self, row: &Row, file: &Path) -> Result<()> {
        let is_there = |measure: &Measure<'_>| row.win_rates.contains_key(measure.name);
        ensure!(self.measures.iter().all(is_there), Damaged::at(file));
        Ok(())
    }

    /// The base's responses to each prompt by a reward.
    fn base(&self, place: usize) -> Result<&[Kept]> {
        let Measure { name, reward, is_known, base } = &self.measures[place];
        if let Some(known) = base.get() {
            return Ok(known);
        }
        let scores = if *is_known {
            of_head(&self.base, place)
        } else {
            let texts = |all: &&[ScoredResponse]| {
                all.iter().map(|one| text(self.tokenizer, &one.sequence)).collect()
            };
            let texts = self.base.iter().map(texts).collect::<Result<Vec<Vec<String>>>>()?;
            score(*reward, asked(self.prompts), &texts).with_context(|| (*name).to_owned())?
        };
        let found = kept(&scores)?;
        Ok(base.get_or_init(|| found))
    }
}

/// Equally many to each prompt, prompt by prompt.
fn by_prompt(all: &[ScoredResponse], prompts: usize) -> Vec<&[ScoredResponse]> {
    all.chunks((all.len() / prompts.max(1)).max(1)).collect()
}

/// `[prompts][responses]`
fn of_head(by_prompt: &[&[ScoredResponse]], head: usize) -> Vec<Vec<f64>> {
    let rewards =
        |all: &&[ScoredResponse]| all.iter().map(|y| f64::from(y.rewards[head])).collect();
    by_prompt.iter().map(rewards).collect()
}

/// How often responses to each prompt win over the base's to the same.
///
/// - `ours`: `[prompts][responses]`.
fn win_rates(ours: &[Vec<f64>], base: &[Kept]) -> Result<Vec<f64>> {
    Ok(kept(ours)?.iter().zip(base).map(|(ours, theirs)| ours.win_rate(theirs)).collect())
}

/// The responses to each prompt: `[prompts][responses]`.
fn kept(scores: &[Vec<f64>]) -> Result<Vec<Kept>> {
    let kept = scores.iter().map(|scores| Kept::new(scores, Selection::Sample));
    Ok(kept.collect::<Result<_, _>>()?)
}

fn means(scores: &[Vec<f64>]) -> Vec<f64> {
    scores.iter().map(|scores| mean(scores)).collect()
}

/// The mean of a list that is not empty.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn asked(prompts: &[EncodedPrompt]) -> impl Iterator<Item = &str> {
    prompts.iter().map(|prompt| prompt.text.as_str())
}

#[cfg(test)]
mod tests {
    use infalign_model::Sequence;

    use super::*;

    #[test]
    fn responses_win_over_those_of_the_base_to_the_same_prompt() {
        let response = |reward: f32| ScoredResponse {
            sequence: Sequence { tokens: vec![1, 2], prompt_length: 1 },
            rewards: vec![-1.0, reward],
        };
        let base = [0.0, 1.0, 10.0, 11.0].map(response);
        let base = kept(&of_head(&by_prompt(&base, 2), 1)).unwrap();
        let ours = [vec![5.0, 6.0, 7.0], vec![5.0, 10.0, 10.5]];
        assert_eq!(win_rates(&ours, &base).unwrap(), [1.0, 0.25]);
        assert_eq!(means(&ours), [6.0, 8.5]);
    }
}
