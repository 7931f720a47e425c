//! Stored samples of a model with what evaluation needs of them.

use infalign_decode::{Decoded, EncodedPrompt, Generator, ProcedureDecoder, Response, Sampling};
use infalign_model::{CausalLm, LanguageModel, Sequence, Tokenizer};
use infalign_reward::Reward;
use infalign_transform::Procedure;
use serde::{Deserialize, Serialize};

use crate::kl::{self, KlSample};
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

/// A prompt as tables and pages show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptText {
    /// What tells it from the others.
    pub id: String,
    /// The text.
    pub text: String,
}

/// Responses to the same prompts by one model, with their rewards: several to each prompt, as many of one as of another or not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// `[prompts]`.
    pub prompts: Vec<PromptText>,
    /// What made each response; absent: plain samples, among which a procedure selects in evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procedure: Option<Procedure>,
    /// `[prompts][samples]`: the texts.
    pub responses: Vec<Vec<String>>,
    /// `[prompts][samples]`: the reward of each response. Procedures select by it.
    pub rewards: Vec<Vec<f64>>,
    /// `[prompts][samples]`: the judge's reward of the same responses, where there is a judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<Vec<Vec<f64>>>,
    /// `[prompts][samples]`: the length of each response in tokens, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<Vec<usize>>>,
    /// `[prompts][samples]`: all tokens that the procedure made for each response; absent for plain samples, which are all that is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Vec<Vec<usize>>>,
    /// `[prompts]`: mean over the responses of what each says of KL(π‖π_ref), in nats; absent where it cannot be estimated from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<Vec<KlSample>>,
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

    /// Refuses samples that do not belong together: numbers of prompts or of responses that differ, rewards that are no numbers.
    ///
    /// # Errors
    /// [`EvaluateError::Damaged`] and [`EvaluateError::NotFinite`].
    pub fn check(&self) -> Result<(), EvaluateError> {
        let n = self.prompts.len();
        let shape = |lists: &[Vec<f64>]| {
            lists.len() == n && lists.iter().zip(&self.responses).all(|(a, b)| a.len() == b.len())
        };
        let counts = [self.tokens.as_ref(), self.made.as_ref()];
        let tokens = counts.into_iter().flatten().all(|tokens| {
            tokens.len() == n && tokens.iter().zip(&self.responses).all(|(a, b)| a.len() == b.len())
        });
        let whole = n > 0
            && self.responses.len() == n
            && shape(&self.rewards)
            && self.judged.as_deref().is_none_or(shape)
            && tokens
            && self.kl.as_ref().is_none_or(|kl| kl.len() == n);
        if !whole {
            return Err(EvaluateError::Damaged);
        }
        for lists in [Some(&self.rewards), self.judged.as_ref()].into_iter().flatten() {
            for (prompt, rewards) in self.prompts.iter().zip(lists) {
                if let Some(reward) = rewards.iter().find(|reward| !reward.is_finite()) {
                    return Err(EvaluateError::NotFinite {
                        prompt: prompt.id.clone(),
                        reward: *reward,
                    });
                }
            }
        }
        Ok(())
    }

    /// Mean length of a response in tokens, where known.
    pub fn response_length(&self) -> Option<f64> {
        self.tokens.as_deref().map(mean_count)
    }

    /// Mean number of tokens that are made for one response of the procedure, where known: what decoding costs.
    pub fn cost(&self, procedure: &Procedure) -> Option<f64> {
        match &self.made {
            Some(made) => Some(mean_count(made)),
            None => self.response_length().map(|length| length * procedure.samples() as f64),
        }
    }
}

fn mean_count(counts: &[Vec<usize>]) -> f64 {
    let all: Vec<usize> = counts.iter().flatten().copied().collect();
    all.iter().sum::<usize>() as f64 / all.len().max(1) as f64
}

/// Samples responses and scores them.
pub struct Evaluator<'a> {
    /// Prompts, held out from training.
    pub prompts: &'a [EncodedPrompt],
    /// Responses to each.
    pub samples: usize,
    /// π_ref, from which the KL is; none where it has other tokens.
    pub reference: Option<&'a CausalLm>,
    /// The tokenizer of both models.
    pub tokenizer: &'a Tokenizer,
    /// What policies are trained on, and what procedures select by.
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
    /// The KL is left out where tokens are not drawn from the model's own distribution, of which these samples then say nothing.
    ///
    /// # Errors
    /// [`EvaluateError`] when a prompt does not fit, or the reward or the judge fails.
    pub fn sample(&self, model: &CausalLm, stage: &str) -> Result<Sampled, EvaluateError> {
        let inference = model.clone().for_inference();
        let generator = self.generator(inference.as_ref(), stage);
        let decoder = ProcedureDecoder::new(Procedure::Sample, &generator, self.tokenizer, None)?;
        let decoded = decoder.decode_samples(self.prompts, self.samples)?;
        drop(inference);
        let Sampling { temperature, top_k, top_p, .. } = self.sampling;
        let own = temperature == 1.0 && top_k == 0 && top_p == 1.0;
        let reference = self.reference.filter(|_| own);
        let kl = reference.map(|reference| self.kl(model, reference, &decoded)).transpose()?;
        self.scored(&decoded, None, kl)
    }

    /// Responses of a procedure that does more than select among samples, each from a run of its own.
    ///
    /// # Errors
    /// As [`Evaluator::sample`], and for a procedure without a decoder.
    pub fn decode(
        &self,
        model: &CausalLm,
        stage: &str,
        procedure: Procedure,
    ) -> Result<Sampled, EvaluateError> {
        let inference = model.clone().for_inference();
        let generator = self.generator(inference.as_ref(), stage);
        let decoder =
            ProcedureDecoder::new(procedure, &generator, self.tokenizer, Some(self.reward))?
                .with_seed(self.seed);
        self.scored(&decoder.decode_samples(self.prompts, self.samples)?, Some(procedure), None)
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
        let mut texts = Vec::with_capacity(responses.len());
        for (prompt, responses) in self.prompts.iter().zip(responses) {
            let text = |one: &Response| self.tokenizer.decode_response(&prompt.tokens, &one.tokens);
            texts.push(responses.iter().map(text).collect::<Result<Vec<_>, _>>()?);
        }
        score(self.reward, self.prompts.iter().map(|prompt| prompt.text.as_str()), &texts)
    }

    fn scored(
        &self,
        decoded: &[Vec<Decoded>],
        procedure: Option<Procedure>,
        kl: Option<Vec<KlSample>>,
    ) -> Result<Sampled, EvaluateError> {
        let of = |one: fn(&Decoded) -> usize| -> Vec<Vec<usize>> {
            decoded.iter().map(|all| all.iter().map(one).collect()).collect()
        };
        let responses: Vec<Vec<String>> =
            decoded.iter().map(|all| all.iter().map(|one| one.text.clone()).collect()).collect();
        let texts = || self.prompts.iter().map(|prompt| prompt.text.as_str());
        let rewards = score(self.reward, texts(), &responses)?;
        let judged = self.judge.map(|judge| score(judge, texts(), &responses)).transpose()?;
        let prompt = |prompt: &EncodedPrompt| PromptText {
            id: prompt.id.clone(),
            text: prompt.text.clone(),
        };
        Ok(Sampled {
            prompts: self.prompts.iter().map(prompt).collect(),
            procedure,
            responses,
            rewards,
            judged,
            tokens: Some(of(|one| one.response.tokens.len())),
            made: procedure.map(|_| of(|one| one.cost.model_tokens)),
            kl,
        })
    }

    fn kl(
        &self,
        model: &CausalLm,
        reference: &CausalLm,
        decoded: &[Vec<Decoded>],
    ) -> Result<Vec<KlSample>, EvaluateError> {
        let with_prompts = self.prompts.iter().zip(decoded);
        let sequences: Vec<Sequence> = with_prompts
            .flat_map(|(prompt, all)| all.iter().map(|one| one.response.sequence(prompt)))
            .collect();
        let kl = kl_per_response(model, reference, &sequences)?;
        Ok(kl.chunks(self.samples).map(kl::mean).collect())
    }
}

/// The score of each response: `[prompts][samples]`.
///
/// - `prompts`, `responses`: the texts, as many responses of each prompt as there are.
///
/// # Errors
/// [`EvaluateError::Reward`] when the judge fails.
pub fn score<'t>(
    judge: &dyn Reward,
    prompts: impl Iterator<Item = &'t str>,
    responses: &[Vec<String>],
) -> Result<Vec<Vec<f64>>, EvaluateError> {
    let pairs: Vec<(&str, &str)> = prompts
        .zip(responses)
        .flat_map(|(prompt, all)| all.iter().map(move |response| (prompt, response.as_str())))
        .collect();
    let mut scores = judge.score(&pairs)?.into_iter().map(f64::from);
    Ok(responses.iter().map(|all| scores.by_ref().take(all.len()).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_that_do_not_belong_together_are_refused() {
        let prompt = |id: &str| PromptText { id: id.into(), text: "x".into() };
        let whole = Sampled {
            prompts: vec![prompt("a"), prompt("b")],
            responses: vec![vec!["x".into()], vec!["y".into(), "z".into()]],
            rewards: vec![vec![1.0], vec![2.0, 3.0]],
            tokens: Some(vec![vec![4], vec![5, 9]]),
            ..Sampled::default()
        };
        assert!(whole.check().is_ok() && whole.response_length() == Some(6.0));
        let short = Sampled { rewards: vec![vec![1.0]], ..whole.clone() };
        assert!(matches!(short.check(), Err(EvaluateError::Damaged)));
        let judged = Sampled { judged: Some(vec![vec![1.0], vec![1.0]]), ..whole.clone() };
        assert!(matches!(judged.check(), Err(EvaluateError::Damaged)));
        let none = Sampled::default();
        assert!(matches!(none.check(), Err(EvaluateError::Damaged)));
        let nan = Sampled { rewards: vec![vec![1.0], vec![f64::NAN, 3.0]], ..whole };
        let message = nan.check().unwrap_err().to_string();
        assert!(message.contains("`b`") && message.contains("NaN"), "{message}");
    }
}
