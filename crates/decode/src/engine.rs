//! The generation engine: rows leave a batch when they end, and waiting ones enter in their place.
//!
//! Each worker runs a session of its own. They take responses from one queue, in order, and share what the model has read of a prompt, so
//! that it is read once however many responses it has.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use infalign_model::{ModelError, Prompts, Session};

use crate::gather::{Gather, locked};
use crate::sampler::Finished;
use crate::{DecodeError, Draw, EncodedPrompt, Event, Finish, Generator, Response, Stream};

/// One call of a [`Generator`].
pub(crate) struct Engine<'a> {
    generator: &'a Generator<'a>,
    prompts: &'a [EncodedPrompt],
    /// Number of the first response to each prompt.
    first: usize,
    /// Responses to each prompt.
    samples: usize,
    /// Number of the next response, prompt by prompt.
    next: Mutex<usize>,
    /// What has been read of each prompt, for as long as it has responses to come.
    read: Vec<Mutex<Option<Read>>>,
    /// Where responses go; a worker that fails stops the others by it.
    gather: Gather<'a>,
}

/// A prompt that has been read: its place among those read with it.
#[derive(Clone)]
struct Read {
    prompts: Arc<Prompts>,
    index: usize,
}

/// Responses to be made, and the prompts that they are to, in order.
struct Taken {
    responses: Range<usize>,
    read: Vec<Read>,
}

/// A response in the making: which one it is, and its own random stream.
struct Row {
    prompt: usize,
    sample: usize,
    stream: Stream,
    tokens: Vec<u32>,
    log_probs: Vec<f32>,
    finish: Option<Finish>,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(
        generator: &'a Generator<'a>,
        prompts: &'a [EncodedPrompt],
        samples: Range<usize>,
        finished: Finished<'a>,
    ) -> Self {
        let read = prompts.iter().map(|_| Mutex::new(None)).collect();
        let (first, samples) = (samples.start, samples.len());
        let gather = Gather::new(prompts.len(), samples, finished);
        Self { generator, prompts, first, samples, next: Mutex::new(0), read, gather }
    }

    fn total(&self) -> usize {
        self.samples * self.prompts.len()
    }

    pub(crate) fn run(&self) -> Result<(), DecodeError> {
        let independent = self.generator.model.rows_are_independent();
        let workers = if independent { rayon::current_num_threads() } else { 1 };
        let workers = workers.clamp(1, self.total().max(1));
        let batch = self.generator.batch.clamp(1, self.total().max(1));
        let share = batch.div_ceil(workers);
        let work = || self.work(share).inspect_err(|_| self.gather.stop());
        // Not rayon's threads: those are for what others do meanwhile, such as a reward that scores what is finished.
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let joined = workers.into_iter().map(|worker| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect()
        })
    }

    /// Generates with at most `share` rows at a time until none is waiting.
    fn work(&self, share: usize) -> Result<(), DecodeError> {
        let mut session = self.generator.model.session(self.generator.sampling.max_tokens);
        let (mut active, mut weights): (Vec<Row>, _) = (Vec::new(), Vec::new());
        // A row that ends on its own is not worth a new batch where that costs a copy of the cache.
        let patience = if self.generator.model.rows_are_independent() { 0 } else { share / 4 };
        loop {
            let ended = active.iter().filter(|row| row.finish.is_some()).count();
            if ended > patience || ended == active.len() {
                self.leave(session.as_mut(), &mut active);
                if !self.gather.stopped() {
                    self.enter(share, session.as_mut(), &mut active, &mut weights)?;
                }
            }
            if active.is_empty() || self.gather.stopped() {
                return Ok(());
            }
            let last: Vec<u32> =
                active.iter().filter_map(|row| row.tokens.last().copied()).collect();
            session.push(&last)?;
            let logits = session.logits().chunks(self.generator.model.vocabulary());
            for (row, logits) in active.iter_mut().zip(logits) {
                self.draw(row, logits, &mut weights)?;
            }
        }
    }

    /// Fills a batch with waiting responses. Their first token is drawn before they enter: some end with it.
    fn enter(
        &self,
        share: usize,
        session: &mut dyn Session,
        active: &mut Vec<Row>,
        weights: &mut Vec<f32>,
    ) -> Result<(), DecodeError> {
        while active.len() < share && !self.gather.stopped() {
            let Some(Taken { responses, read }) = self.take(share - active.len())? else { break };
            let first = responses.start / self.samples;
            let mut entering: Vec<Read> = Vec::new();
            for response in responses {
                let mut row = self.row(response);
                let prompt = &read[row.prompt - first];
                self.draw(&mut row, prompt.prompts.logits(prompt.index), weights)?;
                if row.finish.is_some() {
                    self.finish(row);
                } else {
                    entering.push(prompt.clone());
                    active.push(row);
                }
            }
            // Those that were read together join together.
            for together in entering.chunk_by(|a, b| Arc::ptr_eq(&a.prompts, &b.prompts)) {
                let chosen: Vec<usize> = together.iter().map(|read| read.index).collect();
                session.join(&together[0].prompts, &chosen)?;
            }
        }
        Ok(())
    }

    /// The next responses, at most `most`, and their prompts as the model has read them; None where none is waiting.
    fn take(&self, most: usize) -> Result<Option<Taken>, DecodeError> {
        let mut next = locked(&self.next);
        let responses = *next..self.total().min(*next + most);
        if responses.is_empty() {
            return Ok(None);
        }
        *next = responses.end;
        let prompts = responses.start / self.samples..(responses.end - 1) / self.samples + 1;
        // Whoever takes a prompt's first response holds its lock until it is read; the others wait for that.
        let mut held: Vec<_> = prompts.clone().map(|prompt| locked(&self.read[prompt])).collect();
        drop(next);
        self.read_missing(prompts.start, &mut held)?;
        let read: Vec<Read> = held.iter().filter_map(|held| held.as_ref().cloned()).collect();
        for (prompt, held) in prompts.zip(&mut held) {
            if (prompt + 1) * self.samples <= responses.end {
                **held = None;
            }
        }
        Ok(Some(Taken { responses, read }))
    }

    /// Has the model read those prompts that it has not read yet, all in one call.
    fn read_missing(
        &self,
        first: usize,
        held: &mut [MutexGuard<'_, Option<Read>>],
    ) -> Result<(), DecodeError> {
        let missing: Vec<usize> = (0..held.len()).filter(|&k| held[k].is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let tokens = |&k: &usize| self.prompts[first + k].tokens.as_slice();
        let read = self.generator.model.read(&missing.iter().map(tokens).collect::<Vec<_>>())?;
        let prompts = Arc::new(read);
        for (index, k) in missing.into_iter().enumerate() {
            *held[k] = Some(Read { prompts: prompts.clone(), index });
        }
        Ok(())
    }

    fn row(&self, response: usize) -> Row {
        let (prompt, sample) = (response / self.samples, self.first + response % self.samples);
        let Generator { seed, stage, .. } = *self.generator;
        let stream = Stream::new(seed, stage, &self.prompts[prompt].id, sample as u64);
        let (tokens, log_probs) = (Vec::new(), Vec::new());
        Row { prompt, sample, stream, tokens, log_probs, finish: None }
    }

    /// Draws the next token of a row that has not ended.
    fn draw(
        &self,
        row: &mut Row,
        logits: &[f32],
        weights: &mut Vec<f32>,
    ) -> Result<(), DecodeError> {
        if row.finish.is_some() {
            return Ok(());
        }
        let Generator { sampling, stops, .. } = self.generator;
        let uniform = row.stream.uniform(row.tokens.len() as u64);
        let draw = sampling.draw(logits, uniform, weights);
        if !draw.log_prob.is_finite() {
            let prompt = &self.prompts[row.prompt];
            let tokens = prompt.tokens.len() + row.tokens.len();
            return Err(prompt.refused(ModelError::Logits { tokens }));
        }
        row.tokens.push(draw.token);
        row.log_probs.push(draw.log_prob);
        row.finish = if self.stopped(row, stops)? {
            Some(Finish::Stop)
        } else if row.tokens.len() == sampling.max_tokens {
            Some(Finish::Length)
        } else {
            None
        };
        if self.unwanted(row, draw) {
            row.finish.get_or_insert(Finish::Cancelled);
        }
        Ok(())
    }

    fn stopped(&self, row: &Row, stops: &BTreeSet<u32>) -> Result<bool, DecodeError> {
        if row.tokens.last().is_some_and(|token| stops.contains(token)) {
            return Ok(true);
        }
        let Some(texts) = &self.generator.stop_texts else { return Ok(false) };
        Ok(texts.ended(&self.prompts[row.prompt].tokens, &row.tokens)?)
    }

    /// Tells the watcher, and hears whether it wants more.
    fn unwanted(&self, row: &Row, draw: Draw) -> bool {
        let event = Event { prompt: row.prompt, sample: row.sample, draw };
        self.generator.watch.is_some_and(|watch| watch(event).is_break())
    }

    /// Takes the rows that have ended out of the batch.
    fn leave(&self, session: &mut dyn Session, active: &mut Vec<Row>) {
        let running: Vec<usize> =
            (0..active.len()).filter(|&i| active[i].finish.is_none()).collect();
        if running.len() < active.len() {
            session.select(&running);
            let (stay, left) = active.drain(..).partition(|row| row.finish.is_none());
            *active = stay;
            left.into_iter().for_each(|row: Row| self.finish(row));
        }
    }

    fn finish(&self, row: Row) {
        let Row { prompt, sample, tokens, log_probs, finish, .. } = row;
        let finish = finish.unwrap_or(Finish::Cancelled);
        self.gather.add(prompt, sample, Response { tokens, log_probs, finish });
    }
}
