//! The generation engine: rows leave a batch when they end, and waiting ones enter in their place.
//!
//! Each worker runs a session of its own. They take responses from one queue, in order, and share what the model has read of a prompt, so
//! that it is read once however many responses it has. A [`Generator`](crate::Generator) has an engine of its own for as long as a call
//! takes; an [`Engine`] goes on, and responses to many callers stand in its batch together.

mod first_tokens;
mod job;
mod queue;
mod shared;
mod worker;

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};

use crate::gather::locked;
use crate::sampler::Finished;
use crate::{DecodeError, EncodedPrompt, Event, Generator, Response, Sampling, StopTexts, Stream};

use job::{Caller, Job};
use queue::Queue;
pub use shared::{Draws, Engine, Load, SharedGenerator, SharedWatch};
use worker::Worker;

/// Makes the responses of one call of a [`Generator`].
///
/// # Errors
/// The first thing that failed.
pub(crate) fn run(
    generator: &Generator<'_>,
    prompts: &[EncodedPrompt],
    samples: Range<usize>,
    finished: Finished<'_>,
) -> Result<(), DecodeError> {
    let total = prompts.len() * samples.len();
    let workers = workers(generator.model.rows_are_independent()).clamp(1, total.max(1));
    let share = generator.batch.clamp(1, total.max(1)).div_ceil(workers);
    // A row enters behind another that is at its end.
    let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
    let columns = longest.saturating_add(generator.sampling.max_tokens.saturating_mul(2));
    let share = share.min(generator.model.most_rows(columns)).max(1);
    let local = Local { generator, prompts, finished, failed: Mutex::default() };
    let queue: Queue<&Local<'_>> = Queue::new(workers);
    queue.add(Arc::new(Job::new(&local, samples)));
    queue.close();
    // A row that ends on its own is not worth a new batch where that costs a copy of the cache.
    let patience = if generator.model.rows_are_independent() { 0 } else { share / 4 };
    // Not rayon's threads: those are for what others do meanwhile, such as a reward that scores what is finished.
    std::thread::scope(|scope| {
        let work = || Worker::new(generator.model, &queue, (share, patience)).run();
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let failed = local.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

/// Workers where rows stand for themselves, or one.
pub(crate) fn workers(rows_are_independent: bool) -> usize {
    if rows_are_independent { rayon::current_num_threads() } else { 1 }
}

/// Whoever calls a [`Generator`], on whose threads everything happens.
struct Local<'a> {
    generator: &'a Generator<'a>,
    prompts: &'a [EncodedPrompt],
    finished: Finished<'a>,
    failed: Mutex<Option<DecodeError>>,
}

impl Caller for &Local<'_> {
    fn prompts(&self) -> &[EncodedPrompt] {
        self.prompts
    }

    fn sampling(&self) -> &Sampling {
        &self.generator.sampling
    }

    fn stream(&self, prompt: &EncodedPrompt, sample: usize) -> Stream {
        Stream::new(self.generator.seed, self.generator.stage, &prompt.id, sample as u64)
    }

    fn stops(&self) -> &BTreeSet<u32> {
        self.generator.stops
    }

    fn stop_texts(&self) -> Option<StopTexts<'_>> {
        self.generator.stop_texts
    }

    fn reads_logits(&self) -> bool {
        false
    }

    fn token(&self, event: Event<'_>) -> ControlFlow<()> {
        self.generator.watch.map_or(ControlFlow::Continue(()), |watch| watch(event))
    }

    fn finished(&self, prompt: usize, responses: Vec<Response>) -> ControlFlow<()> {
        (self.finished)(prompt, responses)
    }

    fn failed(&self, error: DecodeError) {
        locked(&self.failed).get_or_insert(error);
    }
}
