//! Guided generation, batch by batch: responses enter with all their candidates, and leave when they are complete.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use infalign_model::{ModelError, Session};
use infalign_transform::Procedure;

use super::prefill::Prefill;
use super::scorer::{PrefixScorer, ScorerSession, values_of};
use super::search::{Plan, Search};
use super::tilt::Candidates;
use crate::engine::workers;
use crate::gather::Gather;
use crate::kl::Kl;
use crate::sampler::{check_prompts, check_samples};
use crate::sampling::rows_of_logits;
use crate::{Cost, DecodeError, Draw, EncodedPrompt, Event, Generator, Response, Stream};

/// A response of a procedure, and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Tokens and log-probabilities.
    pub response: Response,
    /// V of the complete response, where the procedure has asked for it.
    pub value: Option<f64>,
    /// What it cost, the candidates that were dropped included.
    pub cost: Cost,
    /// KL to what tokens are drawn from, the model at the temperature, top-k and top-p asked for: what it is or at most is and, of blocks that
    /// are drawn from the model itself, an estimate.
    pub kl: Vec<Kl>,
    /// The most that log T(π)(y)/π(y) can be, in nats; of `cd-token`, what it is.
    pub log_ratio: f64,
    /// The most that `candidates` of `cd-token` can have moved of the distribution of responses, in total variation; 0 to 1.
    pub truncation: f64,
}

/// Draws responses that a prefix scorer guides.
#[derive(Clone)]
pub struct GuidedGenerator<'a> {
    /// The model, and how tokens are drawn from it. Of `watch`, a response tells the tokens that are certain to be its own, blockwise
    /// decoding a block at a time and a search all of them at the end.
    pub generator: Generator<'a>,
    /// What guides.
    pub scorer: &'a dyn PrefixScorer,
    /// How: a procedure that needs a scorer.
    pub procedure: Procedure,
    /// When it becomes true, nobody wants the responses any more, and none is handed over.
    pub cancelled: Option<&'a AtomicBool>,
}

/// Is given the finalists of every response to a prompt, in order: more than one where the reward is to decide between them.
pub(crate) type FoundEach<'a> = &'a (dyn Fn(usize, Vec<Vec<Candidate>>) -> ControlFlow<()> + Sync);

impl GuidedGenerator<'_> {
    /// Refuses settings out of range, prompts that do not fit the model, a scorer that does not go with it, and a procedure that needs none.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong.
    pub fn check(&self, prompts: &[EncodedPrompt]) -> Result<(), DecodeError> {
        let Generator { model, sampling, .. } = &self.generator;
        check_prompts(prompts, sampling, model.context(), model.vocabulary())?;
        self.scorer.check(self.generator.model)?;
        self.plan().map(drop)
    }

    fn plan(&self) -> Result<Plan, DecodeError> {
        self.procedure.check()?;
        Plan::of(self.procedure).ok_or_else(|| DecodeError::Procedure {
            procedure: self.procedure.to_string(),
            reason: "no prefix scorer has anything to say in it",
        })
    }

    /// Draws some responses of every prompt, by their numbers, and hands over those of a prompt together.
    pub(crate) fn generate_each(
        &self,
        prompts: &[EncodedPrompt],
        samples: Range<usize>,
        found: FoundEach<'_>,
    ) -> Result<(), DecodeError> {
        self.check(prompts)?;
        check_samples(prompts, samples.len())?;
        let plan = self.plan()?;
        check_samples(prompts, samples.len().saturating_mul(plan.rows()))?;
        let run = Run {
            guided: self,
            plan,
            prompts,
            first: samples.start,
            samples: samples.len(),
            next: AtomicUsize::new(0),
            gather: Gather::new(prompts.len(), samples.len()),
            found,
        };
        run.run()
    }
}

/// One call.
struct Run<'a> {
    guided: &'a GuidedGenerator<'a>,
    plan: Plan,
    prompts: &'a [EncodedPrompt],
    first: usize,
    samples: usize,
    /// Number of the next response, prompt by prompt.
    next: AtomicUsize,
    gather: Gather<Vec<Candidate>>,
    found: FoundEach<'a>,
}

impl Run<'_> {
    fn total(&self) -> usize {
        self.samples * self.prompts.len()
    }

    fn run(&self) -> Result<(), DecodeError> {
        let generator = &self.guided.generator;
        let workers = workers(generator.model.rows_are_independent());
        // Each has room for all candidates of a response, and all together no more than the batch.
        let workers = workers.min(generator.batch / self.plan.rows()).clamp(1, self.total().max(1));
        let batch = generator.batch.clamp(1, (self.total() * self.plan.rows()).max(1));
        let share = batch.div_ceil(workers).max(self.plan.rows());
        let work = || self.work(share).inspect_err(|_| self.gather.stop());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let joined = workers.into_iter().map(|worker| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect()
        })
    }

    fn stopped(&self) -> bool {
        let cancelled = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        self.gather.stopped() || self.guided.cancelled.is_some_and(cancelled)
    }

    /// Generates with about `share` rows at a time until nothing is waiting.
    fn work(&self, share: usize) -> Result<(), DecodeError> {
        let Generator { model, sampling, .. } = &self.guided.generator;
        let mut batch = Batch {
            model: model.session(),
            scorer: self.guided.scorer.session(sampling.max_tokens),
            searches: Vec::new(),
            read: Prefill::default(),
            weights: Vec::new(),
        };
        loop {
            if !self.stopped() {
                self.enter(&mut batch, share)?;
            }
            if batch.searches.is_empty() || self.stopped() {
                return Ok(());
            }
            match self.plan {
                Plan::Tokenwise { lambda, candidates } => {
                    self.draw_tilted(&mut batch, lambda, candidates)?;
                }
                _ => {
                    self.draw_plain(&mut batch)?;
                    self.value(&mut batch)?;
                }
            }
            self.go_on(&mut batch)?;
        }
    }

    /// Fills a batch with waiting responses, with a row for each of their candidates.
    fn enter(&self, batch: &mut Batch<'_>, share: usize) -> Result<(), DecodeError> {
        let Generator { model, seed, stage, sampling, .. } = &self.guided.generator;
        let rows = self.plan.rows();
        let room = share.saturating_sub(batch.rows()) / rows;
        if room == 0 {
            return Ok(());
        }
        let start = self.next.fetch_add(room, Ordering::Relaxed).min(self.total());
        let responses: Vec<usize> = (start..self.total().min(start + room)).collect();
        let same_prompt = |a: &usize, b: &usize| a / self.samples == b / self.samples;
        let tokens = |response: usize| self.prompts[response / self.samples].tokens.as_slice();
        let entering: Vec<(&[u32], usize)> = responses
            .chunk_by(same_prompt)
            .map(|responses| (tokens(responses[0]), responses.len() * rows))
            .collect();
        let joined = batch.read.join(*model, batch.model.as_mut(), &entering, sampling.max_tokens);
        joined.map_err(|error| self.unread(&responses, error))?;
        batch.scorer.join(&entering)?;
        for response in responses {
            let (number, sample) = (response / self.samples, self.first + response % self.samples);
            let stream = Stream::new(*seed, stage, &self.prompts[number].id, sample as u64);
            batch.searches.push(Search::new(number, sample, stream, self.plan));
        }
        Ok(())
    }

    /// Why prompts could not be read together: by the name of the first that cannot be read alone.
    fn unread(&self, responses: &[usize], error: ModelError) -> DecodeError {
        let model = self.guided.generator.model;
        let mut prompts = responses.iter().map(|response| &self.prompts[response / self.samples]);
        let alone = prompts.find_map(|prompt| {
            model.read(&[&prompt.tokens]).err().map(|source| prompt.refused(source))
        });
        alone.unwrap_or_else(|| error.into())
    }

    /// Draws a token for every row from the model itself.
    fn draw_plain(&self, batch: &mut Batch<'_>) -> Result<(), DecodeError> {
        let Generator { model, sampling, .. } = &self.guided.generator;
        let rows = batch.rows();
        let mut rows = rows_of_logits(batch.model.logits(), rows, model.vocabulary())?.into_iter();
        for search in &mut batch.searches {
            for place in 0..search.running.len() {
                let logits = rows.next().unwrap_or_default();
                let draw = sampling.draw(logits, search.uniform(place), &mut batch.weights);
                self.add(search, place, draw)?;
            }
        }
        Ok(())
    }

    /// Draws a token for every row from the model's distribution tilted by the values.
    fn draw_tilted(
        &self,
        batch: &mut Batch<'_>,
        lambda: f64,
        most: Option<usize>,
    ) -> Result<(), DecodeError> {
        let Generator { model, sampling, .. } = &self.guided.generator;
        let rows = batch.rows();
        let logits = rows_of_logits(batch.model.logits(), rows, model.vocabulary())?;
        let weighed: Vec<Candidates> = logits
            .iter()
            .map(|logits| Candidates::of(sampling.distribution(logits, &mut batch.weights), most))
            .collect();
        if let Some(number) = weighed.iter().position(|one| one.tokens.is_empty()) {
            return Err(self.no_logits(&batch.searches[number], 0));
        }
        let next: Vec<&[u32]> = weighed.iter().map(|one| one.tokens.as_slice()).collect();
        let values = values_of(batch.scorer.as_ref(), &batch.model.states(), &next)?;
        let (greatest, mut values) = (self.guided.scorer.greatest(), values.as_slice());
        for ((search, logits), candidates) in batch.searches.iter_mut().zip(logits).zip(&weighed) {
            let (own, others) = values.split_at(candidates.tokens.len());
            values = others;
            let tilted = candidates.draw(own, lambda, greatest, search.uniform(0))?;
            search.tilted(tilted, own.len());
            let draw = Draw::of(tilted.token, logits, &mut batch.weights);
            self.add(search, 0, draw)?;
        }
        Ok(())
    }

    /// That the model gives no numbers after what a candidate has.
    fn no_logits(&self, search: &Search, place: usize) -> DecodeError {
        let prompt = &self.prompts[search.prompt];
        let tokens = prompt.tokens.len() + search.running[place].tokens.len();
        prompt.refused(ModelError::Logits { tokens })
    }

    /// Adds a token to a candidate.
    fn add(&self, search: &mut Search, place: usize, draw: Draw) -> Result<(), DecodeError> {
        let Generator { sampling, stops, stop_texts, .. } = &self.guided.generator;
        if !draw.log_prob.is_finite() {
            return Err(self.no_logits(search, place));
        }
        let prompt = &self.prompts[search.prompt];
        let path = &mut search.running[place];
        path.add(draw);
        let finish = sampling.finish(&prompt.tokens, &path.tokens, stops, *stop_texts)?;
        path.set_finish(finish);
        search.drawn();
        Ok(())
    }

    /// Asks for the values of the candidates that have come to the end of a block.
    fn value(&self, batch: &mut Batch<'_>) -> Result<(), DecodeError> {
        let mut asked = Vec::new();
        let mut last: Vec<&[u32]> = Vec::new();
        for (number, search) in batch.searches.iter().enumerate() {
            for (place, path) in search.running.iter().enumerate() {
                let needed = search.needs_value(place);
                let end = path.tokens.len().saturating_sub(1);
                last.push(if needed { &path.tokens[end..] } else { &[] });
                if needed {
                    asked.push((number, place));
                }
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let values = values_of(batch.scorer.as_ref(), &batch.model.states(), &last)?;
        for ((search, place), value) in asked.into_iter().zip(values) {
            if !value.is_finite() {
                let prompt = self.prompts[batch.searches[search].prompt].name();
                let reason = format!(
                    "a value after prompt {prompt} is {value}: give the scorers smaller weights"
                );
                return Err(DecodeError::Scorer { reason });
            }
            batch.searches[search].set_value(place, value);
        }
        Ok(())
    }

    /// Decides which candidates go on, and has the model and the scorer read their last tokens, once for all that go on from the same.
    fn go_on(&self, batch: &mut Batch<'_>) -> Result<(), DecodeError> {
        let (mut read, mut tokens, mut forks) = (Vec::new(), Vec::new(), Vec::new());
        let mut row = 0;
        for search in &mut batch.searches {
            let first = row;
            row += search.running.len();
            let places = search.decide();
            if self.unwanted(search) {
                search.cancel();
                continue;
            }
            for (place, path) in places.iter().zip(&search.running) {
                let source = first + place;
                if read.last() != Some(&source) {
                    read.push(source);
                    tokens.extend(path.tokens.last());
                }
                forks.push(read.len() - 1);
            }
        }
        if !read.iter().copied().eq(0..row) {
            batch.select(&read);
        }
        let (complete, running) =
            batch.searches.drain(..).partition(|search: &Search| search.complete());
        batch.searches = running;
        complete.into_iter().for_each(|search: Search| self.finish(search));
        if tokens.is_empty() {
            return Ok(());
        }
        batch.model.push(&tokens)?;
        batch.scorer.push(&tokens)?;
        if forks.len() > read.len() {
            batch.select(&forks);
        }
        Ok(())
    }

    /// Tells the watcher what is new and certain, and hears whether it wants more.
    fn unwanted(&self, search: &mut Search) -> bool {
        let Some(watch) = self.guided.generator.watch else { return false };
        let (prompt, sample) = (search.prompt, search.sample);
        let news = search.news();
        news.into_iter().any(|draw| watch(Event { prompt, sample, draw, logits: &[] }).is_break())
    }

    /// Hands the responses to a prompt on, if this is the last of them.
    fn finish(&self, search: Search) {
        if self.stopped() {
            return;
        }
        let (prompt, sample) = (search.prompt, search.sample);
        let found = |responses| (self.found)(prompt, responses);
        let own = self.guided.generator.sampling.is_of_the_model_itself();
        if self.gather.add(prompt, sample, search.finish(own), found).is_break() {
            self.gather.stop();
        }
    }
}

/// The rows that a worker generates together.
struct Batch<'a> {
    model: Box<dyn Session + 'a>,
    scorer: Box<dyn ScorerSession + 'a>,
    searches: Vec<Search>,
    read: Prefill,
    /// Room to work in.
    weights: Vec<f32>,
}

impl Batch<'_> {
    fn rows(&self) -> usize {
        self.searches.iter().map(|search| search.running.len()).sum()
    }

    fn select(&mut self, rows: &[usize]) {
        self.model.select(rows);
        self.scorer.select(rows);
    }
}
