//! Inference-time procedures: from prompts to the responses that a user would see.

use std::ops::ControlFlow;
use std::sync::mpsc;

use infalign_model::Tokenizer;
use infalign_reward::Reward;
use infalign_transform::Procedure;

use crate::{DecodeError, EncodedPrompt, Finish, Response, Sampler};

/// What a response cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Response tokens drawn from the model, those of discarded candidates included.
    pub model_tokens: usize,
    /// Responses scored.
    pub scorer_calls: usize,
}

/// A response with what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The text that follows the prompt.
    pub text: String,
    /// Tokens and log-probabilities.
    pub response: Response,
    /// Its reward, where the procedure or the caller has one.
    pub score: Option<f32>,
    /// What it cost.
    pub cost: Cost,
}

/// Turns prompts into responses.
pub trait Decoder {
    /// One response a prompt.
    ///
    /// # Errors
    /// [`DecodeError`] names the prompt or setting at fault.
    fn decode(&self, prompts: &[EncodedPrompt]) -> Result<Vec<Decoded>, DecodeError>;
}

/// `sample`, `best-of:N` and `worst-of:N`: N samples, of which the reward selects one.
pub struct ProcedureDecoder<'a> {
    sampler: &'a dyn Sampler,
    tokenizer: &'a Tokenizer,
    procedure: Procedure,
    reward: Option<&'a dyn Reward>,
}

impl<'a> ProcedureDecoder<'a> {
    /// A decoder of the procedure.
    ///
    /// # Errors
    /// [`DecodeError::Procedure`] when a selection has no reward to select by, or the procedure needs a prefix scorer.
    pub fn new(
        procedure: Procedure,
        sampler: &'a dyn Sampler,
        tokenizer: &'a Tokenizer,
        reward: Option<&'a dyn Reward>,
    ) -> Result<Self, DecodeError> {
        let refuse =
            |reason| Err(DecodeError::Procedure { procedure: procedure.to_string(), reason });
        match procedure {
            Procedure::Sample => {}
            Procedure::BestOf(_) | Procedure::WorstOf(_) if reward.is_some() => {}
            Procedure::BestOf(_) | Procedure::WorstOf(_) => {
                return refuse("selecting among samples needs a reward");
            }
            _ => return refuse("only sample, best-of:N and worst-of:N have a decoder"),
        }
        Ok(Self { sampler, tokenizer, procedure, reward })
    }

    /// Several independent responses of the procedure to each prompt: `[prompts][samples]`.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_samples(
        &self,
        prompts: &[EncodedPrompt],
        samples: usize,
    ) -> Result<Vec<Vec<Decoded>>, DecodeError> {
        let mut all = vec![Vec::new(); prompts.len()];
        self.decode_each(prompts, samples, &mut |prompt, decoded| {
            all[prompt] = decoded;
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    /// The same, handed over prompt by prompt, in the order in which they are finished.
    ///
    /// - done: given the index of a prompt and its responses, while others are generated; it breaks off the rest by [`ControlFlow::Break`].
    ///
    /// # Errors
    /// As [`Decoder::decode`], after `done` has had whatever was finished. A prompt of which a response was cancelled ends the rest.
    pub fn decode_each(
        &self,
        prompts: &[EncodedPrompt],
        samples: usize,
        done: &mut (dyn FnMut(usize, Vec<Decoded>) -> ControlFlow<()> + Send),
    ) -> Result<(), DecodeError> {
        let numbers = 0..self.procedure.samples().saturating_mul(samples);
        let (sender, receiver) = mpsc::channel::<(usize, Vec<Response>)>();
        std::thread::scope(|scope| {
            // A thread of its own: the sampler's would wait for the reward.
            let selecting = scope.spawn(move || {
                for (prompt, candidates) in receiver {
                    // Broken off by the watcher: there is no choice among parts.
                    if candidates.iter().any(|one| one.finish == Finish::Cancelled) {
                        break;
                    }
                    if done(prompt, self.choose(&prompts[prompt], candidates)?).is_break() {
                        break;
                    }
                }
                Ok(())
            });
            let sampled = self.sampler.generate_each(prompts, numbers, &|prompt, candidates| {
                // Nobody receives any more where the reward failed or the caller has had enough.
                match sender.send((prompt, candidates)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
            drop(sender);
            let selected =
                selecting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sampled.and(selected)
        })
    }

    /// Of every N candidates, the one that the procedure keeps.
    fn choose(
        &self,
        prompt: &EncodedPrompt,
        candidates: Vec<Response>,
    ) -> Result<Vec<Decoded>, DecodeError> {
        let texts = candidates
            .iter()
            .map(|response| self.text(prompt, response))
            .collect::<Result<Vec<_>, _>>()?;
        let pairs: Vec<(&str, &str)> =
            texts.iter().map(|text| (prompt.text.as_str(), text.as_str())).collect();
        let scores = self.reward.map(|reward| reward.score(&pairs)).transpose()?;
        let n = self.procedure.samples();
        let choose = |(number, texts): (usize, &[String])| {
            let of_these = number * n..number * n + texts.len();
            let scores = scores.as_ref().map(|scores| &scores[of_these.clone()]);
            let kept = scores.map_or(0, |scores| self.select(scores));
            let responses = &candidates[of_these];
            let cost = Cost {
                model_tokens: responses.iter().map(|response| response.tokens.len()).sum(),
                scorer_calls: scores.map_or(0, <[f32]>::len),
            };
            Decoded {
                text: texts[kept].clone(),
                response: responses[kept].clone(),
                score: scores.map(|scores| scores[kept]),
                cost,
            }
        };
        Ok(texts.chunks(n).enumerate().map(choose).collect())
    }

    /// The candidate that the procedure keeps; the first of equals.
    fn select(&self, scores: &[f32]) -> usize {
        let better = |a: f32, b: f32| match self.procedure {
            Procedure::WorstOf(_) => a < b,
            _ => a > b,
        };
        (1..scores.len()).fold(0, |kept, i| if better(scores[i], scores[kept]) { i } else { kept })
    }

    /// The text of a response, up to where a stop text ends it.
    fn text(&self, prompt: &EncodedPrompt, response: &Response) -> Result<String, DecodeError> {
        let text = self.tokenizer.decode_response(&prompt.tokens, &response.tokens)?;
        let cut = self.sampler.stop_texts().map(|stops| stops.cut(&text).len());
        Ok(text[..cut.unwrap_or(text.len())].to_owned())
    }
}

impl Decoder for ProcedureDecoder<'_> {
    fn decode(&self, prompts: &[EncodedPrompt]) -> Result<Vec<Decoded>, DecodeError> {
        Ok(self.decode_samples(prompts, 1)?.into_iter().flatten().collect())
    }
}
