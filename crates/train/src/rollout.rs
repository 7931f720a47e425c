//! One step's responses with their rewards.

use std::collections::BTreeSet;

use infalign_calibrate::rollouts::Rollouts;
use infalign_decode::{EncodedPrompt, Response, Sampler, Sampling};
use infalign_model::{Sequence, Tokenizer};
use infalign_record::hash::sha256_bytes;
use infalign_reward::{Reward, scored};

use crate::objective::Group;
use crate::{Calibrator, Objective, TrainError};

/// Refuses to sample from anything but the models themselves.
pub(crate) fn check_sampling(sampling: &Sampling) -> Result<(), TrainError> {
    if sampling.is_of_the_model_itself() {
        return Ok(());
    }
    let valid = "at temperature 1, top_k 0 and top_p 1: the policy gradient needs responses of the policy itself";
    Err(TrainError::setting("generation", format!("{sampling:?}"), valid))
}

/// Responses of several prompts with their rewards, as many of each, one prompt after the other.
#[derive(Default)]
pub(crate) struct Scored {
    pub(crate) sequences: Vec<Sequence>,
    /// log of the probability of each token of each response, under the model that drew it.
    pub(crate) log_probs: Vec<Vec<f32>>,
    /// r of each response.
    pub(crate) rewards: Vec<f32>,
}

impl Scored {
    /// Samples `samples` responses to each prompt and scores them.
    pub(crate) fn sample(
        prompts: &[EncodedPrompt],
        samples: usize,
        sampler: &dyn Sampler,
        tokenizer: &Tokenizer,
        reward: &dyn Reward,
    ) -> Result<Self, TrainError> {
        let by_prompt = sampler.generate(prompts, 0..samples)?;
        let mut scored =
            Self { rewards: rewards(prompts, &by_prompt, tokenizer, reward)?, ..Self::default() };
        for (prompt, responses) in prompts.iter().zip(by_prompt) {
            for response in responses {
                scored.sequences.push(response.sequence(prompt));
                scored.log_probs.push(response.log_probs);
            }
        }
        Ok(scored)
    }

    /// Some of the stored responses of π_ref to each prompt, by their numbers.
    fn stored(
        prompts: &[EncodedPrompt],
        numbers: &[usize],
        rollouts: &Rollouts,
    ) -> Result<Self, TrainError> {
        let mut scored = Self::default();
        for prompt in prompts {
            let responses = rollouts.of(&prompt.text)?;
            for response in numbers.iter().map(|&number| &responses[number]) {
                scored.sequences.push(prompt.followed_by(&response.tokens));
                scored.log_probs.push(response.log_probs.clone());
                scored.rewards.push(response.reward);
            }
        }
        Ok(scored)
    }
}

/// r of every response to every prompt, one prompt after the other.
pub(crate) fn rewards(
    prompts: &[EncodedPrompt],
    by_prompt: &[Vec<Response>],
    tokenizer: &Tokenizer,
    reward: &dyn Reward,
) -> Result<Vec<f32>, TrainError> {
    let mut texts = Vec::new();
    for (prompt, responses) in prompts.iter().zip(by_prompt) {
        for response in responses {
            let text = tokenizer.decode_response(&prompt.tokens, &response.tokens)?;
            texts.push((prompt.text.as_str(), text));
        }
    }
    let pairs: Vec<(&str, &str)> =
        texts.iter().map(|(prompt, response)| (*prompt, response.as_str())).collect();
    Ok(scored(reward, &pairs)?)
}

/// Responses of several prompts, `samples` of each, one prompt after the other, and what is trained on.
#[derive(Default)]
pub(crate) struct Rollout {
    /// Responses to each prompt.
    pub(crate) samples: usize,
    pub(crate) sequences: Vec<Sequence>,
    /// log of the probability of each token of each response, under the model that drew it.
    pub(crate) log_probs: Vec<Vec<f32>>,
    /// r of each response.
    pub(crate) raw: Vec<f32>,
    /// u of each response, in (0, 1).
    pub(crate) calibrated: Vec<f64>,
    /// What is trained on, of each response.
    pub(crate) transformed: Vec<f64>,
    /// Whether each response was cut at the limit.
    pub(crate) cut: Vec<bool>,
    /// Whether π_ref drew them, and not the policy.
    pub(crate) of_reference: bool,
}

/// How responses become trained rewards.
pub(crate) struct Scoring<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) reward: &'a dyn Reward,
    pub(crate) calibrator: Calibrator<'a>,
    pub(crate) objective: &'a Objective,
    /// Standard deviation of r under the reference policy.
    pub(crate) unit: f64,
    /// Tokens that end a response.
    pub(crate) stops: &'a BTreeSet<u32>,
}

impl Scoring<'_> {
    /// The texts of responses to one prompt; none where the objective does not go by what they say.
    fn texts(&self, responses: &[Sequence]) -> Result<Vec<String>, TrainError> {
        let wanted = responses.iter().filter(|_| self.objective.counts_answers());
        let text = |sequence: &Sequence| {
            let (prompt, response) = sequence.tokens.split_at(sequence.prompt_length);
            Ok(self.tokenizer.decode_response(prompt, response)?)
        };
        wanted.map(text).collect()
    }
}

impl Rollout {
    /// Samples responses of the policy, `samples` to each prompt.
    pub(crate) fn sample(
        prompts: &[EncodedPrompt],
        samples: usize,
        sampler: &dyn Sampler,
        scoring: &Scoring<'_>,
    ) -> Result<Self, TrainError> {
        let scored = Scored::sample(prompts, samples, sampler, scoring.tokenizer, scoring.reward)?;
        Self::new(prompts, samples, scored, scoring)
    }

    /// Takes some of the stored responses of π_ref to each prompt, by their numbers.
    pub(crate) fn stored(
        prompts: &[EncodedPrompt],
        numbers: &[usize],
        rollouts: &Rollouts,
        scoring: &Scoring<'_>,
    ) -> Result<Self, TrainError> {
        let scored = Scored::stored(prompts, numbers, rollouts)?;
        Ok(Self { of_reference: true, ..Self::new(prompts, numbers.len(), scored, scoring)? })
    }

    /// InfAlign's r → u = C(x, y) → Φ(u).
    fn new(
        prompts: &[EncodedPrompt],
        samples: usize,
        scored: Scored,
        scoring: &Scoring<'_>,
    ) -> Result<Self, TrainError> {
        let Scoring { calibrator, objective, unit, .. } = *scoring;
        let Scored { sequences, log_probs, rewards: raw } = scored;
        let (mut calibrated, mut transformed) = (Vec::new(), Vec::new());
        let groups = raw.chunks(samples).zip(sequences.chunks(samples));
        for (prompt, (rewards, responses)) in prompts.iter().zip(groups) {
            let quantiles = calibrator.quantiles(prompt, rewards)?;
            let (scale, row) = (calibrator.scale(prompt, unit)?, calibrator.row(prompt));
            let texts = scoring.texts(responses)?;
            let answers: Vec<Option<&str>> =
                texts.iter().map(|text| scoring.reward.answer(text)).collect();
            let (given, answers) = (&quantiles, &answers);
            let group = Group { rewards, quantiles: given, answers, scale, row };
            transformed.extend(objective.of_group(&group)?);
            calibrated.extend(quantiles);
        }
        let is_cut = |sequence: &Sequence| {
            sequence.response().last().is_none_or(|token| !scoring.stops.contains(token))
        };
        let cut = sequences.iter().map(is_cut).collect();
        let of_reference = false;
        Ok(Self { samples, sequences, log_probs, raw, calibrated, transformed, cut, of_reference })
    }

    /// Sixteen hexadecimal digits of the SHA-256 over all tokens, each sequence with its length before it.
    pub(crate) fn digest(&self) -> String {
        let mut bytes = Vec::new();
        for sequence in &self.sequences {
            bytes.extend((sequence.tokens.len() as u64).to_le_bytes());
            bytes.extend(sequence.tokens.iter().flat_map(|token| token.to_le_bytes()));
        }
        sha256_bytes(&bytes)[..16].to_owned()
    }

    /// The numbers of its responses.
    pub(crate) fn numbers(&self) -> Vec<usize> {
        (0..self.sequences.len()).collect()
    }
}
