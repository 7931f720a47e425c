//! One batch, from step to step.

use std::cell::OnceCell;
use std::sync::Arc;

use infalign_model::{LanguageModel, Session};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::first_tokens::first_tokens;
use super::job::{Caller, Job, Read, Row};
use super::queue::Queue;
use crate::sampling::rows_of_logits;
use crate::{DecodeError, Draw, Finish};

/// A session and the responses in it.
pub(super) struct Worker<'w, C: Caller> {
    model: &'w dyn LanguageModel,
    queue: &'w Queue<C>,
    /// Most rows at a time.
    share: usize,
    /// Rows that have ended and stay for a while.
    patience: usize,
    session: Box<dyn Session + 'w>,
    active: Vec<Row<C>>,
    weights: Vec<f32>,
    /// Threads that draw where there is no other worker, once they are needed; rayon's own may be busy with a reward.
    threads: OnceCell<Option<ThreadPool>>,
}

impl<'w, C: Caller> Worker<'w, C> {
    /// - patience: rows that may have ended before they leave the batch, whose responses are handed over only then.
    pub(super) fn new(
        model: &'w dyn LanguageModel,
        queue: &'w Queue<C>,
        (share, patience): (usize, usize),
    ) -> Self {
        let (session, active, weights) = (model.session(), Vec::new(), Vec::new());
        let threads = OnceCell::new();
        Self { model, queue, share, patience, session, active, weights, threads }
    }

    /// Makes responses until none is waiting and none will come.
    pub(super) fn run(mut self) {
        let _alarm = Alarm(self.queue);
        loop {
            self.leave();
            self.enter();
            if !self.active.is_empty() {
                self.step();
            } else if !self.queue.wait() {
                return;
            }
        }
    }

    /// Takes the rows that have ended out of the batch.
    fn leave(&mut self) {
        for row in self.active.iter_mut().filter(|row| row.job.stopped()) {
            row.finish.get_or_insert(Finish::Cancelled);
        }
        let running: Vec<usize> =
            (0..self.active.len()).filter(|&i| self.active[i].finish.is_none()).collect();
        let ended = self.active.len() - running.len();
        let no_room = self.active.iter().any(Row::must_leave);
        if ended == 0 || (ended <= self.patience && !running.is_empty() && !no_room) {
            return;
        }
        self.session.select(&running);
        let rows = std::mem::take(&mut self.active);
        let (stay, left): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.finish.is_none());
        self.active = stay;
        // Before anybody hears of it.
        self.queue.left(left.len());
        left.into_iter().for_each(Row::hand_over);
    }

    /// Fills the batch with waiting responses.
    fn enter(&mut self) {
        while let Some((job, responses)) = self.queue.take(self.active.len(), self.share) {
            let (taken, before) = (responses.len(), self.active.len());
            let ended = match job.rows(responses, self.model) {
                Ok(rows) => self.join(&job, rows),
                Err(error) => {
                    job.fail(error);
                    Vec::new()
                }
            };
            self.queue.left(taken + before - self.active.len());
            ended.into_iter().for_each(Row::hand_over);
        }
    }

    /// Lets rows of a job enter, and returns those that have ended already. Their first token is drawn before they enter: some end with it.
    fn join(&mut self, job: &Job<C>, mut rows: Vec<(Row<C>, Read)>) -> Vec<Row<C>> {
        let draws = self.first_tokens(job, &mut rows).unwrap_or_else(|error| {
            job.fail(error);
            Vec::new()
        });
        let (mut ended, mut entering, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        for ((mut row, read), draw) in rows.into_iter().zip(draws) {
            match row.take(draw, read.prompts.logits(read.index)) {
                Err(error) => job.fail(error),
                Ok(()) if row.finish.is_some() => ended.push(row),
                Ok(()) => {
                    entering.push(row);
                    reads.push(read);
                }
            }
        }
        // Those that were read together join together.
        for together in reads.chunk_by(|a, b| Arc::ptr_eq(&a.prompts, &b.prompts)) {
            let chosen: Vec<usize> = together.iter().map(|read| read.index).collect();
            let rows = entering.drain(..chosen.len());
            let new_tokens = job.caller.sampling().max_tokens;
            match self.session.join(&together[0].prompts, &chosen, new_tokens) {
                Ok(()) => self.active.extend(rows),
                Err(error) => job.fail(error.into()),
            }
        }
        ended
    }

    /// Draws the first token of every response, of those to one prompt together.
    fn first_tokens(
        &mut self,
        job: &Job<C>,
        rows: &mut [(Row<C>, Read)],
    ) -> Result<Vec<Draw>, DecodeError> {
        let mut draws = Vec::with_capacity(rows.len());
        for together in rows.chunk_by_mut(|(a, _), (b, _)| a.prompt == b.prompt) {
            let uniforms: Vec<f64> = together.iter_mut().map(|(row, _)| row.uniform()).collect();
            let (_, read) = &together[0];
            let logits = read.prompts.logits(read.index);
            rows_of_logits(logits, 1, self.model.vocabulary())?;
            let sampling = job.caller.sampling();
            draws.extend(first_tokens(sampling, logits, &uniforms, &mut self.weights));
        }
        Ok(draws)
    }

    /// Draws the next token of every row.
    fn step(&mut self) {
        let last: Vec<u32> =
            self.active.iter().filter_map(|row| row.tokens.last().copied()).collect();
        if let Err(error) = self.session.push(&last) {
            return self.fail(error.into());
        }
        self.active.iter_mut().for_each(|row| row.pushed += 1);
        match self.drawn_by_the_session() {
            Some(draws) => self.take(&draws),
            None => self.draw().unwrap_or_else(|error| self.fail(error)),
        }
    }

    /// The next tokens of all rows, where the session can draw them as all rows want them.
    fn drawn_by_the_session(&mut self) -> Option<Vec<(u32, f32)>> {
        let how: Option<Vec<[f32; 2]>> = self.active.iter_mut().map(Row::by_itself).collect();
        self.session.draw(&how?)
    }

    fn take(&mut self, draws: &[(u32, f32)]) {
        for (row, &(token, log_prob)) in self.active.iter_mut().zip(draws) {
            if let Err(error) = row.take(Draw { token, log_prob }, &[]) {
                row.job.fail(error);
            }
        }
    }

    fn draw(&mut self) -> Result<(), DecodeError> {
        let numbers: Vec<f64> = self.active.iter_mut().map(Row::uniform).collect();
        let rows = &self.active;
        let logits = rows_of_logits(self.session.logits(), rows.len(), self.model.vocabulary())?;
        let draw = |weights: &mut Vec<f32>, index: usize| {
            // Of a row that has ended nobody asks what comes next.
            let running = rows[index].finish.is_none();
            running.then(|| rows[index].drawn(logits[index], numbers[index], weights))
        };
        let alone = !self.model.rows_are_independent();
        let start = || alone.then(|| ThreadPoolBuilder::new().build().ok()).flatten();
        let draws: Vec<Option<Draw>> = match self.threads.get_or_init(start) {
            Some(threads) => threads
                .install(|| (0..rows.len()).into_par_iter().map_init(Vec::new, draw).collect()),
            None => (0..rows.len()).map(|index| draw(&mut self.weights, index)).collect(),
        };
        for ((row, draw), logits) in self.active.iter_mut().zip(draws).zip(logits) {
            if let Some(Err(error)) = draw.map(|draw| row.take(draw, logits)) {
                row.job.fail(error);
            }
        }
        Ok(())
    }

    /// Gives up the whole batch.
    fn fail(&mut self, error: DecodeError) {
        let reason = error.to_string();
        let mut error = Some(error);
        self.queue.left(self.active.len());
        for row in self.active.drain(..) {
            let batch = || DecodeError::Batch { reason: reason.clone() };
            row.job.fail(error.take().unwrap_or_else(batch));
        }
        self.session = self.model.session();
    }
}

/// Closes the queue when a worker panics, so that nobody waits for it.
struct Alarm<'w, C: Caller>(&'w Queue<C>);

impl<C: Caller> Drop for Alarm<'_, C> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abandon();
        }
    }
}
