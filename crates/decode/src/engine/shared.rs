//! An engine that goes on, for many callers at once.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use infalign_model::{LanguageModel, Tokenizer};

use super::job::{Caller, Job};
use super::queue::Queue;
use super::worker::Worker;
use crate::sampler::{Finished, check_prompts, check_samples};
use crate::{DecodeError, EncodedPrompt, Event, Response, Sampler, Sampling, StopTexts, Stream};

/// A model that generates for many callers at once: each [`SharedGenerator`] puts its responses into the same batches, which they enter and
/// leave at any time. What else is in a batch does not change them, as with [`Generator`](crate::Generator).
///
/// Dropping it breaks off whatever is still in it.
pub struct Engine {
    model: Arc<dyn LanguageModel>,
    batch: usize,
    queue: Arc<Queue<Shared>>,
    workers: Vec<JoinHandle<()>>,
}

/// How much an engine has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Responses in batches.
    pub running: usize,
    /// Responses that wait for a place.
    pub waiting: usize,
}

impl Engine {
    /// Starts an engine.
    ///
    /// - batch: largest number of responses generated together; 0 counts as 1.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(model: Arc<dyn LanguageModel>, batch: usize) -> std::io::Result<Self> {
        let batch = batch.max(1);
        let workers = super::workers(model.rows_are_independent()).clamp(1, batch);
        let share = batch.div_ceil(workers).min(model.most_rows(0)).max(1);
        let queue = Arc::new(Queue::new(workers));
        let mut engine = Self { model, batch, queue, workers: Vec::new() };
        for number in 0..workers {
            let (model, queue) = (engine.model.clone(), engine.queue.clone());
            let thread = std::thread::Builder::new().name(format!("engine-{number}"));
            // Somebody waits for every response.
            let work = move || Worker::new(model.as_ref(), &queue, (share, 0)).run();
            engine.workers.push(thread.spawn(work)?);
        }
        Ok(engine)
    }

    /// The model.
    pub fn model(&self) -> &dyn LanguageModel {
        self.model.as_ref()
    }

    /// The largest number of responses generated together, as it was started with.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// How much it has to do.
    pub fn load(&self) -> Load {
        let (running, waiting) = self.queue.load();
        Load { running, waiting }
    }

    /// False once a worker has failed beyond repair: then every further response is refused.
    pub fn is_working(&self) -> bool {
        self.queue.is_open()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.abandon();
        for worker in self.workers.drain(..) {
            // One that has panicked has told so already.
            let _ = worker.join();
        }
    }
}

/// As [`Watch`](crate::Watch), and called on the threads of the engine, which wait for it.
pub type SharedWatch = Arc<dyn Fn(Event<'_>) -> ControlFlow<()> + Send + Sync>;

/// Samples responses on a running [`Engine`]: the same as [`Generator`](crate::Generator) with the same settings.
pub struct SharedGenerator<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// How responses are drawn and when they end.
    pub draws: Arc<Draws>,
    /// Is told of every token.
    pub watch: Option<SharedWatch>,
    /// Whether `watch` reads [`Event::logits`]; else they are empty, and need not be fetched from a device.
    pub reads_logits: bool,
    /// When it becomes true, nobody wants the responses any more: those that run leave the batch, those that wait do not enter it.
    pub cancelled: Arc<AtomicBool>,
}

/// How the responses of a [`SharedGenerator`] are drawn and when they end.
pub struct Draws {
    /// The model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Tokens that end the model's texts.
    pub stops: BTreeSet<u32>,
    /// Texts that end a response.
    pub stop_texts: Vec<String>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Seed of the request.
    pub seed: u64,
    /// Name of the stage that draws.
    pub stage: String,
}

impl Draws {
    fn texts(&self) -> StopTexts<'_> {
        StopTexts { tokenizer: &self.tokenizer, texts: &self.stop_texts }
    }
}

impl Sampler for SharedGenerator<'_> {
    fn generate_each(
        &self,
        prompts: &[EncodedPrompt],
        samples: Range<usize>,
        finished: Finished<'_>,
    ) -> Result<(), DecodeError> {
        self.check(prompts)?;
        check_samples(prompts, samples.len())?;
        if samples.is_empty() {
            return Ok(());
        }
        let enough = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let shared = Shared {
            prompts: prompts.to_vec(),
            draws: self.draws.clone(),
            watch: self.watch.clone(),
            reads_logits: self.reads_logits,
            cancelled: [self.cancelled.clone(), enough.clone()],
            sender,
        };
        if !self.engine.queue.add(Arc::new(Job::new(shared, samples))) {
            return Err(DecodeError::Stopped);
        }
        let mut left = prompts.len();
        // It ends when the engine has dropped the job, or with the last response.
        for told in receiver {
            let (prompt, responses) = told?;
            left -= 1;
            if finished(prompt, responses).is_break() {
                enough.store(true, Ordering::Relaxed);
                return Ok(());
            }
        }
        let gone = self.cancelled.load(Ordering::Relaxed);
        if left == 0 || gone { Ok(()) } else { Err(DecodeError::Stopped) }
    }

    fn check(&self, prompts: &[EncodedPrompt]) -> Result<(), DecodeError> {
        let model = &self.engine.model;
        check_prompts(prompts, &self.draws.sampling, model.context(), model.vocabulary())
    }

    fn stop_texts(&self) -> Option<StopTexts<'_>> {
        Some(self.draws.texts())
    }

    fn sampling(&self) -> &Sampling {
        &self.draws.sampling
    }
}

/// One call of a [`SharedGenerator`] as the engine sees it: what is told is sent to the caller's thread.
struct Shared {
    prompts: Vec<EncodedPrompt>,
    draws: Arc<Draws>,
    watch: Option<SharedWatch>,
    reads_logits: bool,
    /// By whoever made the request, and by whoever receives the responses.
    cancelled: [Arc<AtomicBool>; 2],
    sender: mpsc::Sender<Result<(usize, Vec<Response>), DecodeError>>,
}

impl Caller for Shared {
    fn prompts(&self) -> &[EncodedPrompt] {
        &self.prompts
    }

    fn sampling(&self) -> &Sampling {
        &self.draws.sampling
    }

    fn stream(&self, prompt: &EncodedPrompt, sample: usize) -> Stream {
        Stream::new(self.draws.seed, &self.draws.stage, &prompt.id, sample as u64)
    }

    fn stops(&self) -> &BTreeSet<u32> {
        &self.draws.stops
    }

    fn stop_texts(&self) -> Option<StopTexts<'_>> {
        Some(self.draws.texts())
    }

    fn reads_logits(&self) -> bool {
        self.reads_logits
    }

    fn token(&self, event: Event<'_>) -> ControlFlow<()> {
        self.watch.as_ref().map_or(ControlFlow::Continue(()), |watch| watch(event))
    }

    fn finished(&self, prompt: usize, responses: Vec<Response>) -> ControlFlow<()> {
        match self.sender.send(Ok((prompt, responses))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn failed(&self, error: DecodeError) {
        // Nobody hears it where the caller has gone away.
        let _ = self.sender.send(Err(error));
    }

    fn cancelled(&self) -> bool {
        self.cancelled.iter().any(|flag| flag.load(Ordering::Relaxed))
    }
}
