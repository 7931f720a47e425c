//! One step's responses with their rewards.

use infalign_decode::{EncodedPrompt, Generator, Response, Sampler};
use infalign_model::{Sequence, Tokenizer};
use infalign_reward::Reward;

use crate::{Calibrator, Objective, TrainError};

/// Responses of several prompts, `samples` of each, one prompt after the other.
#[derive(Clone, Default)]
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
}

impl Rollout {
    /// Samples responses and scores them: InfAlign's r → u = C(x, y) → Φ(u).
    pub(crate) fn sample(
        prompts: &[EncodedPrompt],
        samples: usize,
        generator: &Generator<'_>,
        scoring: &Scoring<'_>,
    ) -> Result<Self, TrainError> {
        let by_prompt = generator.generate(prompts, 0..samples)?;
        let owners = || prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, samples));
        let responses: Vec<Response> = by_prompt.into_iter().flatten().collect();
        let texts = owners()
            .zip(&responses)
            .map(|(prompt, response)| {
                scoring.tokenizer.decode_response(&prompt.tokens, &response.tokens)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let pairs: Vec<(&str, &str)> =
            owners().zip(&texts).map(|(p, text)| (p.text.as_str(), text.as_str())).collect();
        let raw = scoring.reward.score(&pairs)?;
        let calibrated = prompts
            .iter()
            .zip(raw.chunks(samples))
            .map(|(prompt, rewards)| scoring.calibrator.quantiles(prompt, rewards))
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        let transformed = raw
            .iter()
            .zip(&calibrated)
            .map(|(&r, &u)| scoring.objective.apply(r, u, scoring.unit))
            .collect();
        let sequences =
            owners().zip(&responses).map(|(prompt, response)| response.sequence(prompt)).collect();
        let log_probs = responses.into_iter().map(|response| response.log_probs).collect();
        let of_reference = false;
        Ok(Self { samples, sequences, log_probs, raw, calibrated, transformed, of_reference })
    }

    /// The numbers of its responses.
    pub(crate) fn numbers(&self) -> Vec<usize> {
        (0..self.sequences.len()).collect()
    }

    /// Some responses of a rollout of one prompt.
    pub(crate) fn pick(&self, responses: &[usize]) -> Self {
        fn of<T: Clone>(all: &[T], responses: &[usize]) -> Vec<T> {
            responses.iter().map(|&i| all[i].clone()).collect()
        }
        Self {
            samples: responses.len(),
            sequences: of(&self.sequences, responses),
            log_probs: of(&self.log_probs, responses),
            raw: of(&self.raw, responses),
            calibrated: of(&self.calibrated, responses),
            transformed: of(&self.transformed, responses),
            of_reference: self.of_reference,
        }
    }

    /// Rollouts of the same number of responses to each prompt, one after the other.
    pub(crate) fn join(parts: impl Iterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            (all.samples, all.of_reference) = (part.samples, part.of_reference);
            all.sequences.extend(part.sequences);
            all.log_probs.extend(part.log_probs);
            all.raw.extend(part.raw);
            all.calibrated.extend(part.calibrated);
            all.transformed.extend(part.transformed);
        }
        all
    }
}
