//! One step's responses with their rewards.

use infalign_decode::{EncodedPrompt, Generator, Response, Sampler};
use infalign_model::{Sequence, Tokenizer};
use infalign_reward::Reward;

use crate::{Calibrator, Objective, TrainError};

/// Responses of several prompts, `samples` of each, one prompt after the other.
pub(crate) struct Rollout {
    pub(crate) sequences: Vec<Sequence>,
    /// r of each response.
    pub(crate) raw: Vec<f32>,
    /// u of each response, in (0, 1).
    pub(crate) calibrated: Vec<f64>,
    /// What is trained on, of each response.
    pub(crate) transformed: Vec<f64>,
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
        let scales = prompts
            .iter()
            .map(|prompt| scoring.calibrator.scale(prompt, scoring.unit))
            .collect::<Result<Vec<_>, _>>()?;
        let transformed = raw
            .iter()
            .zip(&calibrated)
            .enumerate()
            .map(|(index, (&r, &u))| scoring.objective.apply(r, u, scales[index / samples]))
            .collect();
        let sequences =
            owners().zip(&responses).map(|(prompt, response)| response.sequence(prompt)).collect();
        Ok(Self { sequences, raw, calibrated, transformed })
    }
}
