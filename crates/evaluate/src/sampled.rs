//! Stored samples of a model with what evaluation needs of them.

use infalign_decode::{EncodedPrompt, Generator, Response, Sampler, Sampling};
use infalign_model::{CausalLm, LanguageModel, Sequence, Tokenizer};
use infalign_reward::Reward;
use serde::{Deserialize, Serialize};

use crate::{EvaluateError, kl_per_response};

/// By what responses are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judge {
    /// The reward that policies are trained on.
    Reward,
    /// Another one.
    Judge,
}

/// Rewards and KL of `samples` responses to each prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// `[prompts][samples]`: the reward of each response.
    pub rewards: Vec<Vec<f64>>,
    /// `[prompts][samples]`: the judge's reward of the same responses, where there is a judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<Vec<Vec<f64>>>,
    /// `[prompts]`: mean over the responses of KL(π‖π_ref), exact at every token, in nats per response.
    pub kl: Vec<f64>,
    /// Mean length of a response, in tokens.
    pub response_length: f64,
}

impl Sampled {
    /// `[prompts][samples]`: what a judge says of each response.
    ///
    /// # Errors
    /// [`EvaluateError::NotJudged`] when there was no other judge.
    pub fn by(&self, judge: Judge) -> Result<&[Vec<f64>], EvaluateError> {
        match judge {
            Judge::Reward => Ok(&self.rewards),
            Judge::Judge => self.judged.as_deref().ok_or(EvaluateError::NotJudged),
        }
    }
}

/// Samples responses and scores them.
pub struct Evaluator<'a> {
    /// Prompts, held out from training.
    pub prompts: &'a [EncodedPrompt],
    /// Responses to each.
    pub samples: usize,
    /// π_ref.
    pub reference: &'a CausalLm,
    /// The tokenizer of both models.
    pub tokenizer: &'a Tokenizer,
    /// What policies are trained on.
    pub reward: &'a dyn Reward,
    /// What judges the responses besides.
    pub judge: Option<&'a dyn Reward>,
    /// How responses are sampled.
    pub sampling: Sampling,
    /// Largest number of responses generated together.
    pub batch: usize,
    /// Seed of the run.
    pub seed: u64,
}

impl Evaluator<'_> {
    /// Samples from a model. `stage` names the random streams: two models under the same stage share them.
    ///
    /// # Errors
    /// [`EvaluateError`] when a prompt does not fit, or the reward or the judge fails.
    pub fn sample(&self, model: &CausalLm, stage: &str) -> Result<Sampled, EvaluateError> {
        let responses = {
            let inference = model.clone().for_inference();
            self.generator(inference.as_ref(), stage).generate(self.prompts, 0..self.samples)?
        };
        let rewards = self.rewards(&responses)?;
        let judged = self.judge.map(|judge| self.scores(judge, &responses)).transpose()?;
        let sequences: Vec<Sequence> = self
            .prompts
            .iter()
            .zip(&responses)
            .flat_map(|(p, all)| all.iter().map(|r| r.sequence(p)))
            .collect();
        let kl = kl_per_response(model, self.reference, &sequences)?;
        let kl = kl
            .chunks(self.samples)
            .map(|chunk| chunk.iter().sum::<f64>() / self.samples as f64)
            .collect();
        let tokens: usize = sequences.iter().map(|s| s.response().len()).sum();
        Ok(Sampled { rewards, judged, kl, response_length: tokens as f64 / sequences.len() as f64 })
    }

    /// What draws the responses of a stage.
    pub fn generator<'g>(&'g self, model: &'g dyn LanguageModel, stage: &'g str) -> Generator<'g> {
        Generator {
            model,
            stops: self.tokenizer.stops(),
            sampling: self.sampling,
            seed: self.seed,
            stage,
            batch: self.batch,
            stop_texts: None,
            watch: None,
        }
    }

    /// The reward of each response: `[prompts][samples]`.
    ///
    /// # Errors
    /// [`EvaluateError::Reward`] when it fails.
    pub fn rewards(&self, responses: &[Vec<Response>]) -> Result<Vec<Vec<f64>>, EvaluateError> {
        self.scores(self.reward, responses)
    }

    fn scores(
        &self,
        judge: &dyn Reward,
        responses: &[Vec<Response>],
    ) -> Result<Vec<Vec<f64>>, EvaluateError> {
        let mut texts = Vec::with_capacity(responses.len());
        for (prompt, responses) in self.prompts.iter().zip(responses) {
            for response in responses {
                texts.push((
                    prompt.text.as_str(),
                    self.tokenizer.decode_response(&prompt.tokens, &response.tokens)?,
                ));
            }
        }
        let pairs: Vec<(&str, &str)> =
            texts.iter().map(|(prompt, text)| (*prompt, text.as_str())).collect();
        let rewards: Vec<f64> = judge.score(&pairs)?.into_iter().map(f64::from).collect();
        Ok(rewards.chunks(self.samples).map(<[f64]>::to_vec).collect())
    }
}
