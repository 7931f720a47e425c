//! Responses that are asked for together: what they have in common, and what has been read of their prompts.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use infalign_model::{LanguageModel, ModelError, Prompts, runs};

use crate::gather::{Gather, locked};
use crate::{
    DecodeError, Draw, EncodedPrompt, Event, Finish, Response, Sampling, StopTexts, Stream,
};

/// Padded tokens of prompts that the model reads in one pass at most, whatever the batch holds.
const PROMPT_TOKENS_PER_PASS: usize = 16_384;

/// Who asks for responses: says how they are drawn and when they end, and is told of them, on the threads of the engine.
pub(crate) trait Caller: Send + Sync {
    fn prompts(&self) -> &[EncodedPrompt];

    fn sampling(&self) -> &Sampling;

    /// The random numbers of a response.
    fn stream(&self, prompt: &EncodedPrompt, sample: usize) -> Stream;

    /// Tokens that end the model's texts.
    fn stops(&self) -> &BTreeSet<u32>;

    /// Texts that end a response.
    fn stop_texts(&self) -> Option<StopTexts<'_>>;

    /// Whether it reads what the model says of the tokens that were not drawn.
    fn reads_logits(&self) -> bool;

    /// Hears of every token; Break ends the response with it.
    fn token(&self, event: Event<'_>) -> ControlFlow<()>;

    /// Is given all responses to a prompt; Break ends the job.
    fn finished(&self, prompt: usize, responses: Vec<Response>) -> ControlFlow<()>;

    /// Hears why the job has ended before its time.
    fn failed(&self, error: DecodeError);

    /// Whether the caller has gone away.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Some responses to each of a caller's prompts.
pub(crate) struct Job<C> {
    pub(super) caller: C,
    /// Number of the first response to each prompt.
    first: usize,
    /// Responses to each prompt.
    samples: usize,
    /// What has been read of each prompt, for as long as it has responses to come.
    slots: Mutex<Vec<Slot>>,
    /// Tells those who wait for another to read a prompt.
    changed: Condvar,
    gather: Gather<Response>,
}

/// A prompt, read or to be read.
struct Slot {
    read: Option<Read>,
    /// Responses that have not got it yet.
    missing: usize,
}

/// A prompt that has been read: its place among those read with it.
#[derive(Clone)]
pub(super) struct Read {
    pub(super) prompts: Arc<Prompts>,
    pub(super) index: usize,
}

/// A response in the making: which one it is, and its own random stream.
pub(super) struct Row<C> {
    pub(super) job: Arc<Job<C>>,
    pub(super) prompt: usize,
    pub(super) sample: usize,
    pub(super) stream: Stream,
    pub(super) tokens: Vec<u32>,
    pub(super) log_probs: Vec<f32>,
    pub(super) finish: Option<Finish>,
    /// Tokens that the session has taken.
    pub(super) pushed: usize,
}

impl<C: Caller> Job<C> {
    pub(crate) fn new(caller: C, samples: Range<usize>) -> Self {
        let (first, samples) = (samples.start, samples.len());
        let prompts = caller.prompts().len();
        let slots = (0..prompts).map(|_| Slot { read: None, missing: samples }).collect();
        let gather = Gather::new(prompts, samples);
        let (slots, changed) = (Mutex::new(slots), Condvar::new());
        Self { caller, first, samples, slots, changed, gather }
    }

    /// Number of responses.
    pub(super) fn total(&self) -> usize {
        self.samples * self.caller.prompts().len()
    }

    /// Whether nobody wants any more of it.
    pub(super) fn stopped(&self) -> bool {
        self.gather.stopped() || self.caller.cancelled()
    }

    /// Ends it: no more responses are made or handed on.
    pub(super) fn stop(&self) {
        self.gather.stop();
        // With the lock, or someone who is about to wait would not hear it.
        let _slots = locked(&self.slots);
        self.changed.notify_all();
    }

    /// Ends it with an error.
    pub(super) fn fail(&self, error: DecodeError) {
        if !self.stopped() {
            self.caller.failed(error);
        }
        self.stop();
    }

    /// The responses with these numbers, prompt by prompt, each with its prompt as the model has read it; fewer where the job is stopped.
    ///
    /// Whoever takes the first response to a prompt has the model read it, such prompts together; the others wait for that.
    ///
    /// # Errors
    /// [`DecodeError`] when the model refuses a prompt.
    pub(super) fn rows(
        self: &Arc<Self>,
        responses: Range<usize>,
        model: &dyn LanguageModel,
    ) -> Result<Vec<(Row<C>, Read)>, DecodeError> {
        let unread: Vec<usize> = responses
            .clone()
            .filter(|response| response % self.samples == 0)
            .map(|response| response / self.samples)
            .collect();
        self.read(&unread, model)?;
        let row = |response: usize| {
            let prompt = response / self.samples;
            let sample = self.first + response % self.samples;
            let stream = self.caller.stream(&self.caller.prompts()[prompt], sample);
            let (tokens, log_probs) = (Vec::new(), Vec::new());
            let job = self.clone();
            let row =
                Row { job, prompt, sample, stream, tokens, log_probs, finish: None, pushed: 0 };
            Some((row, self.wait_for(prompt)?))
        };
        Ok(responses.map_while(row).collect())
    }

    fn read(&self, prompts: &[usize], model: &dyn LanguageModel) -> Result<(), DecodeError> {
        let length = |&prompt: &usize| self.caller.prompts()[prompt].tokens.len();
        let runs = runs(prompts, length, PROMPT_TOKENS_PER_PASS);
        runs.into_iter().try_for_each(|run| self.read_together(run, model))
    }

    fn read_together(
        &self,
        prompts: &[usize],
        model: &dyn LanguageModel,
    ) -> Result<(), DecodeError> {
        let all = self.caller.prompts();
        let tokens = |&prompt: &usize| all[prompt].tokens.as_slice();
        let tokens: Vec<&[u32]> = prompts.iter().map(tokens).collect();
        // A panic of the model must not leave others waiting.
        let unread = Unread(self);
        let read = model.read(&tokens);
        std::mem::forget(unread);
        let read = Arc::new(read?);
        let mut slots = locked(&self.slots);
        for (index, &prompt) in prompts.iter().enumerate() {
            slots[prompt].read = Some(Read { prompts: read.clone(), index });
        }
        self.changed.notify_all();
        Ok(())
    }

    /// The prompt of one more response, once it is read; None where the job is stopped before.
    fn wait_for(&self, prompt: usize) -> Option<Read> {
        let mut slots: MutexGuard<'_, Vec<Slot>> = locked(&self.slots);
        while !self.stopped() {
            if let Some(read) = &slots[prompt].read {
                let read = read.clone();
                slots[prompt].missing -= 1;
                if slots[prompt].missing == 0 {
                    slots[prompt].read = None;
                }
                return Some(read);
            }
            slots = self.changed.wait(slots).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Takes a response, and hands on those of its prompt if it was the last.
    fn add(&self, prompt: usize, sample: usize, response: Response) {
        let finished = |responses| self.caller.finished(prompt, responses);
        if self.gather.add(prompt, sample, response, finished).is_break() {
            self.stop();
        }
    }
}

/// Stops the job when it is dropped.
struct Unread<'a, C: Caller>(&'a Job<C>);

impl<C: Caller> Drop for Unread<'_, C> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl<C: Caller> Row<C> {
    /// The next token by a number of [`Row::uniform`].
    ///
    /// - `weights`: room to work in.
    pub(super) fn drawn(&self, logits: &[f32], uniform: f64, weights: &mut Vec<f32>) -> Draw {
        self.job.caller.sampling().draw(logits, uniform, weights)
    }

    /// The number that the next token is drawn by.
    pub(super) fn uniform(&mut self) -> f64 {
        self.stream.uniform(self.tokens.len() as u64)
    }

    /// How the next token is to be drawn from the whole vocabulary where the logits lie: its number and the temperature. None where it is drawn from
    /// less, or all logits are wanted.
    pub(super) fn by_itself(&mut self) -> Option<[f32; 2]> {
        let caller = &self.job.caller;
        let temperature = caller.sampling().temperature_of_devices();
        let plain = caller.sampling().is_of_whole_vocabulary() && !caller.reads_logits();
        // Below 1, which the nearest f32 may not be.
        let below = 1.0 - f32::EPSILON / 2.0;
        plain.then(|| [(self.uniform() as f32).min(below), temperature])
    }

    /// Takes the next token of a row that has not ended.
    ///
    /// # Errors
    /// [`DecodeError::Prompt`] when the model gives no number, or the tokenizer fails.
    pub(super) fn take(&mut self, draw: Draw, logits: &[f32]) -> Result<(), DecodeError> {
        if self.finish.is_some() {
            return Ok(());
        }
        let caller = &self.job.caller;
        let prompt = &caller.prompts()[self.prompt];
        if !draw.log_prob.is_finite() {
            let tokens = prompt.tokens.len() + self.tokens.len();
            return Err(prompt.refused(ModelError::Logits { tokens }));
        }
        self.tokens.push(draw.token);
        self.log_probs.push(draw.log_prob);
        let (stops, texts) = (caller.stops(), caller.stop_texts());
        self.finish = caller.sampling().finish(&prompt.tokens, &self.tokens, stops, texts)?;
        let logits = if caller.reads_logits() { logits } else { &[] };
        let event = Event { prompt: self.prompt, sample: self.sample, draw, logits };
        if caller.token(event).is_break() {
            self.finish.get_or_insert(Finish::Cancelled);
        }
        Ok(())
    }

    /// Whether it has ended and the session cannot take one more token of it.
    pub(super) fn must_leave(&self) -> bool {
        self.finish.is_some() && self.pushed == self.job.caller.sampling().max_tokens
    }

    /// Hands the response over.
    pub(super) fn hand_over(self) {
        let Self { job, prompt, sample, tokens, log_probs, finish, .. } = self;
        let finish = finish.unwrap_or(Finish::Cancelled);
        job.add(prompt, sample, Response { tokens, log_probs, finish });
    }
}
