//! The generation engine: many responses of many prompts, in batches.

use std::collections::BTreeSet;

use infalign_model::{LanguageModel, ModelError, Sequence, Session, Tokenizer};
use rayon::prelude::*;

use crate::{DecodeError, Draw, Sampling, Stream};

/// A prompt with its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// Names the prompt in streams, tables and messages.
    pub id: String,
    /// The text.
    pub text: String,
    /// Its tokens, special ones included.
    pub tokens: Vec<u32>,
}

impl EncodedPrompt {
    /// Encodes a prompt.
    ///
    /// # Errors
    /// [`DecodeError::Prompt`] when the tokenizer refuses the text.
    pub fn new(id: &str, text: &str, tokenizer: &Tokenizer) -> Result<Self, DecodeError> {
        let tokens = tokenizer
            .encode(text)
            .map_err(|source| DecodeError::Prompt { prompt: id.into(), source })?;
        Ok(Self { id: id.into(), text: text.into(), tokens })
    }

    /// Encodes a prompt that a chat template wrote, special tokens included: none is added.
    ///
    /// # Errors
    /// As [`EncodedPrompt::new`].
    pub fn chat(id: &str, text: &str, tokenizer: &Tokenizer) -> Result<Self, DecodeError> {
        let tokens = tokenizer
            .encode_chat(text)
            .map_err(|source| DecodeError::Prompt { prompt: id.into(), source })?;
        Ok(Self { id: id.into(), text: text.into(), tokens })
    }
}

/// One sampled response.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Its tokens, the one that ended it included.
    pub tokens: Vec<u32>,
    /// log π of each token as [`Draw::log_prob`] defines it.
    pub log_probs: Vec<f32>,
}

impl Response {
    /// Prompt and response as one sequence.
    pub fn sequence(&self, prompt: &EncodedPrompt) -> Sequence {
        Sequence {
            tokens: [prompt.tokens.as_slice(), &self.tokens].concat(),
            prompt_length: prompt.tokens.len(),
        }
    }
}

/// Samples responses. The same (seed, stage, prompt id, sample index) gives the same response, whatever else is in its batch.
///
/// A batch of another shape may round logits differently in the last digit, which reaches log-probabilities, and a token only where its draw
/// falls within that digit. The same batches give the same bits.
#[derive(Clone, Copy)]
pub struct Generator<'a> {
    /// The model.
    pub model: &'a dyn LanguageModel,
    /// Tokens that end a response.
    pub stops: &'a BTreeSet<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Seed of the run.
    pub seed: u64,
    /// Name of the stage of the run that draws.
    pub stage: &'a str,
    /// Largest number of responses generated together.
    pub batch: usize,
}

/// A response in the making: which one it is, and its own random stream.
struct Row {
    prompt: usize,
    sample: usize,
    stream: Stream,
    response: Response,
}

impl Generator<'_> {
    /// Samples the responses number `0..samples` of every prompt: `[prompts][samples]`.
    ///
    /// # Errors
    /// [`DecodeError::Setting`] for settings out of range, [`DecodeError::Prompt`] for a prompt that does not fit the model.
    pub fn generate(
        &self,
        prompts: &[EncodedPrompt],
        samples: usize,
    ) -> Result<Vec<Vec<Response>>, DecodeError> {
        self.check(prompts)?;
        const MOST: usize = 100_000_000;
        if samples.saturating_mul(prompts.len()) > MOST {
            return Err(DecodeError::Setting {
                key: "samples",
                value: samples as f64,
                valid: "small enough for at most 100 million responses in all",
            });
        }
        let empty = Response { tokens: Vec::new(), log_probs: Vec::new() };
        let mut responses = vec![vec![empty; samples]; prompts.len()];
        let all: Vec<(usize, usize)> =
            (0..prompts.len()).flat_map(|p| (0..samples).map(move |s| (p, s))).collect();
        let batches = all
            .par_chunks(self.batch.max(1))
            .map(|batch| self.run(prompts, batch))
            .collect::<Result<Vec<_>, _>>()?;
        for row in batches.into_iter().flatten() {
            responses[row.prompt][row.sample] = row.response;
        }
        Ok(responses)
    }

    /// Refuses settings out of range and prompts that do not fit, as [`Generator::generate`] does before any work.
    ///
    /// # Errors
    /// [`DecodeError::Setting`] and [`DecodeError::Prompt`].
    pub fn check(&self, prompts: &[EncodedPrompt]) -> Result<(), DecodeError> {
        self.sampling.check()?;
        for prompt in prompts {
            let (length, limit) = (
                prompt.tokens.len().saturating_add(self.sampling.max_tokens),
                self.model.context(),
            );
            let source = if prompt.tokens.is_empty() {
                ModelError::Empty { index: 0 }
            } else if length > limit {
                ModelError::TooLong { length, limit }
            } else {
                continue;
            };
            return Err(DecodeError::Prompt { prompt: prompt.id.clone(), source });
        }
        Ok(())
    }

    /// Generates one batch of (prompt, sample) rows: each prompt is read once, its samples share the pass.
    fn run(
        &self,
        prompts: &[EncodedPrompt],
        batch: &[(usize, usize)],
    ) -> Result<Vec<Row>, DecodeError> {
        let mut distinct: Vec<usize> = batch.iter().map(|&(prompt, _)| prompt).collect();
        distinct.dedup();
        let tokens: Vec<&[u32]> = distinct.iter().map(|&p| prompts[p].tokens.as_slice()).collect();
        let mut session = self.model.start(&tokens, self.sampling.max_tokens)?;
        let sources: Vec<usize> =
            batch.iter().map(|(prompt, _)| distinct.partition_point(|p| p < prompt)).collect();
        session.select(&sources);
        let mut active: Vec<Row> =
            batch.iter().map(|&(prompt, sample)| self.row(prompts, prompt, sample)).collect();
        let mut done = Vec::with_capacity(batch.len());
        for position in 0..self.sampling.max_tokens {
            self.draw(session.as_ref(), &mut active, position);
            if position + 1 == self.sampling.max_tokens {
                break;
            }
            if !self.retire(session.as_mut(), &mut active, &mut done) {
                break;
            }
            let last: Vec<u32> =
                active.iter().filter_map(|row| row.response.tokens.last().copied()).collect();
            session.push(&last)?;
        }
        done.append(&mut active);
        Ok(done)
    }

    fn row(&self, prompts: &[EncodedPrompt], prompt: usize, sample: usize) -> Row {
        let stream = Stream::new(self.seed, self.stage, &prompts[prompt].id, sample as u64);
        Row {
            prompt,
            sample,
            stream,
            response: Response { tokens: Vec::new(), log_probs: Vec::new() },
        }
    }

    /// Draws the next token of every row that has not ended.
    fn draw(&self, session: &dyn Session, rows: &mut [Row], position: usize) {
        let vocabulary = self.model.vocabulary();
        rows.iter_mut().zip(session.logits().chunks(vocabulary)).for_each(|(row, logits)| {
            if self.ended(row) {
                return;
            }
            let Draw { token, log_prob } =
                self.sampling.draw(logits, row.stream.uniform(position as u64));
            row.response.tokens.push(token);
            row.response.log_probs.push(log_prob);
        });
    }

    fn ended(&self, row: &Row) -> bool {
        row.response.tokens.last().is_some_and(|token| self.stops.contains(token))
    }

    /// Takes ended rows out of the batch once they are a quarter of it (each time costs a copy of the cache). False when none is left.
    fn retire(
        &self,
        session: &mut dyn Session,
        active: &mut Vec<Row>,
        done: &mut Vec<Row>,
    ) -> bool {
        let running: Vec<usize> = (0..active.len()).filter(|&i| !self.ended(&active[i])).collect();
        if running.is_empty() {
            return false;
        }
        if 4 * running.len() <= 3 * active.len() {
            session.select(&running);
            let (stay, leave): (Vec<Row>, Vec<Row>) =
                active.drain(..).partition(|row| !self.ended(row));
            *active = stay;
            done.extend(leave);
        }
        true
    }
}
