//! A request at work: from what is asked for to responses, on a thread of its own.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use infalign_decode::guided::GuidedGenerator;
use infalign_decode::{
    DecodeError, Decoded, Draws, Event, Generator, ProcedureDecoder, Sampler, SharedGenerator,
    SharedWatch, StopTexts,
};
use infalign_reward::{Reward, Stoppable};
use infalign_transform::Composed;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::log_probs::Scored;
use crate::places::Place;
use crate::request::Asked;
use crate::service::{Service, State};

/// A token that belongs to the answer, as soon as it is drawn.
pub(crate) struct Token {
    /// Number of the response in the answer.
    pub(crate) choice: usize,
    pub(crate) scored: Scored,
}

/// The responses to a prompt.
pub(crate) struct Done {
    pub(crate) prompt: usize,
    pub(crate) decoded: Vec<Decoded>,
}

/// A request at work. When it is dropped, it leaves the engine.
pub(crate) struct Generation {
    state: Arc<State>,
    /// Given back when the request or its thread ends, whichever is first: a client may take long to read, and a reward long to answer.
    place: Arc<Place>,
    results: mpsc::UnboundedReceiver<Result<Done, DecodeError>>,
    /// Prompts without responses yet.
    left: usize,
    /// Whether there will be none for them.
    failed: bool,
    cancelled: Arc<AtomicBool>,
    ending: watch::Receiver<bool>,
    start: Instant,
    answered: bool,
}

/// Where the thread of a request sends what it makes.
struct Senders {
    tokens: mpsc::UnboundedSender<Token>,
    results: mpsc::UnboundedSender<Result<Done, DecodeError>>,
}

impl Generation {
    /// Begins the work; the tokens come as well where they are wanted as they are drawn, or alternatives to them are.
    pub(crate) async fn begin(
        state: Arc<State>,
        asked: Arc<Asked>,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Token>), Failure> {
        let place = Arc::new(place(&state, &asked)?);
        let thread = thread(&state, &asked)?;
        let (sender, tokens) = mpsc::unbounded_channel();
        let (results_sender, results) = mpsc::unbounded_channel();
        let senders = Senders { tokens: sender, results: results_sender };
        let (ready, begun) = oneshot::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let generation = Self {
            state: state.clone(),
            place: place.clone(),
            results,
            left: asked.prompts.len(),
            failed: false,
            cancelled: cancelled.clone(),
            ending: state.ending.clone(),
            start: Instant::now(),
            answered: false,
        };
        tokio::task::spawn_blocking(move || {
            decode(&state, &asked, &senders, cancelled, ready);
            place.give_back();
            drop(thread);
        });
        begun.await.map_err(|_| broken())??;
        Ok((generation, tokens))
    }

    /// The responses to the next prompt that is finished; None after the last, or after a failure.
    pub(crate) async fn done(&mut self) -> Option<Result<Done, Failure>> {
        if self.left == 0 || self.failed {
            return None;
        }
        let limit = self.state.service.limits.timeout;
        let result = tokio::select! {
            // What is there is told, whatever else has happened.
            biased;
            result = self.results.recv() => match result {
                Some(result) => result.map_err(Failure::from),
                None => Err(broken()),
            },
            () = tokio::time::sleep_until(self.start + limit) => Err(too_long(&self.state)),
            // The sender lives as long as the server.
            _ = self.ending.wait_for(|ending| *ending) => Err(Failure::ending()),
        };
        if result.is_ok() {
            self.left -= 1;
            self.tell();
        } else {
            self.failed = true;
        }
        Some(result)
    }

    /// Notes that the first part of the answer is there.
    pub(crate) fn tell(&mut self) {
        if !std::mem::replace(&mut self.answered, true) {
            self.state.metrics.first_token.observe(self.start.elapsed());
        }
    }

    /// When the request has taken too long.
    pub(crate) fn deadline(&self) -> Instant {
        self.start + self.state.service.limits.timeout
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.place.give_back();
        self.state.metrics.duration.observe(self.start.elapsed());
        if self.left > 0 {
            self.state.metrics.abandoned.add(1);
        }
    }
}

/// Places for the responses of a request.
fn place(state: &State, asked: &Asked) -> Result<Place, Failure> {
    let (responses, most) = (asked.responses(), state.places.most);
    let (candidates, batch) = (asked.procedure.inner.samples(), state.guided.most());
    if candidates > batch {
        let procedure = asked.procedure;
        return Err(Failure::field(
            "procedure",
            format!(
                "`{procedure}` has {candidates} candidates at a time, but this server has room for {batch}"
            ),
        ));
    }
    if responses > most {
        // There are no more prompts than places.
        let field = if asked.n > 1 && asked.candidates() <= most { "n" } else { "procedure" };
        return Err(Failure::field(
            field,
            format!(
                "the request needs {responses} responses (prompts × n × those that its procedure chooses from), but this server \
                 makes at most {most} at a time"
            ),
        ));
    }
    state.places.take(responses).ok_or_else(|| {
        let message = format!(
            "the server has {most} places in its batch and its queue, and fewer than {responses} are free: try again later"
        );
        Failure::new(StatusCode::TOO_MANY_REQUESTS, message).with_code("queue_full")
    })
}

/// A place for the thread of a request that a reward chooses for, which it may outlast; others end with their requests.
fn thread(state: &State, asked: &Asked) -> Result<Option<Place>, Failure> {
    if !has_reward(state, asked) {
        return Ok(None);
    }
    let place = state.threads.take(1).ok_or_else(|| {
        let message =
            "too many requests that have ended still wait for their rewards: try again later";
        Failure::new(StatusCode::TOO_MANY_REQUESTS, message).with_code("queue_full")
    })?;
    Ok(Some(place))
}

/// Runs the procedure, on the engine or beside it.
fn decode(
    state: &State,
    asked: &Arc<Asked>,
    senders: &Senders,
    cancelled: Arc<AtomicBool>,
    ready: oneshot::Sender<Result<(), Failure>>,
) {
    let decoded = match &asked.weights {
        None => on_engine(state, asked, senders, cancelled, ready),
        Some(weights) => guided(state, asked, senders, (weights, &cancelled), ready),
    };
    if let Err(error) = decoded {
        let _ = senders.results.send(Err(error));
    }
}

/// Selects among responses of the engine.
fn on_engine(
    state: &State,
    asked: &Arc<Asked>,
    senders: &Senders,
    cancelled: Arc<AtomicBool>,
    ready: oneshot::Sender<Result<(), Failure>>,
) -> Result<(), DecodeError> {
    let Service { engine, tokenizer, .. } = &state.service;
    let watch = watcher(asked, &senders.tokens);
    let (draws, reads_logits) = (asked.draws.clone(), asked.log_probs.is_some_and(|n| n > 0));
    let reward = reward(state, asked, &cancelled);
    let reward = reward.as_ref().map(|reward| reward as &dyn Reward);
    let cancelled = cancelled.clone();
    let sampler = SharedGenerator { engine, draws, watch, reads_logits, cancelled };
    let decoder = sampler.check(&asked.prompts).and_then(|()| {
        let selection = asked.procedure.selection;
        let decoder = ProcedureDecoder::new(selection, &sampler, tokenizer, reward)?;
        Ok(decoder.with_seed(asked.draws.seed))
    });
    match begun(decoder, ready) {
        Some(decoder) => deliver(state, asked, senders, &decoder, ()),
        None => Ok(()),
    }
}

/// Draws responses that prefix scorers guide, in a batch of their own once there is room for it.
fn guided(
    state: &State,
    asked: &Arc<Asked>,
    senders: &Senders,
    (weights, cancelled): (&[f64], &AtomicBool),
    ready: oneshot::Sender<Result<(), Failure>>,
) -> Result<(), DecodeError> {
    let Service { engine, tokenizer, scorers, .. } = &state.service;
    let Draws { stops, stop_texts, sampling, seed, stage, .. } = asked.draws.as_ref();
    let watch = watcher(asked, &senders.tokens);
    let generator = Generator {
        model: engine.model(),
        stops,
        stop_texts: Some(StopTexts { tokenizer, texts: stop_texts }),
        sampling: sampling.clone(),
        seed: *seed,
        stage,
        batch: asked.responses().min(state.guided.most()),
        watch: watch.as_deref().map(|watch| watch as _),
    };
    let reward = reward(state, asked, cancelled);
    let reward = reward.as_ref().map(|reward| reward as &dyn Reward);
    let scorer = scorers.weighted(weights);
    let decoder = scorer.as_ref().map_err(|error| Failure::request(error.to_string()));
    let decoder = decoder.and_then(|scorer| {
        let (Composed { selection, inner }, cancelled) = (asked.procedure, Some(cancelled));
        let guided = GuidedGenerator { generator, scorer, procedure: inner, cancelled };
        guided.check(&asked.prompts)?;
        Ok(ProcedureDecoder::guided(selection, guided, tokenizer, reward)?)
    });
    let Some(decoder) = begun(decoder, ready) else { return Ok(()) };
    let room = state.guided.enter(asked.responses(), senders.results.closed());
    match Handle::current().block_on(room) {
        Some(room) => deliver(state, asked, senders, &decoder, room),
        None => Ok(()),
    }
}

/// Whether a reward chooses for a request.
fn has_reward(state: &State, asked: &Asked) -> bool {
    asked.selects() && state.service.reward.is_some()
}

/// What chooses, where something is chosen, for as long as somebody waits for the choice.
fn reward<'c>(state: &State, asked: &Asked, cancelled: &'c AtomicBool) -> Option<Stoppable<'c>> {
    let reward = state.service.reward.as_ref().filter(|_| has_reward(state, asked))?;
    Some(Stoppable::new(Box::new(reward.clone()), cancelled))
}

/// Tells whoever waits whether the work can begin.
fn begun<D>(
    decoder: Result<D, impl Into<Failure>>,
    ready: oneshot::Sender<Result<(), Failure>>,
) -> Option<D> {
    let (decoder, told) = match decoder {
        Ok(decoder) => (Some(decoder), Ok(())),
        Err(error) => (None, Err(error.into())),
    };
    // Whoever has gone away has cancelled, too.
    let _ = ready.send(told);
    decoder
}

/// Sends the responses to each prompt as soon as they are there.
///
/// - room: what they are drawn in, which is free again before the reward has chosen among the last.
fn deliver(
    state: &State,
    asked: &Asked,
    senders: &Senders,
    decoder: &ProcedureDecoder<'_>,
    room: impl Sized,
) -> Result<(), DecodeError> {
    state.metrics.prompt_tokens.add(asked.prompt_tokens());
    let mut done = |prompt, decoded: Vec<Decoded>| {
        let cost = |cost: fn(&Decoded) -> usize| decoded.iter().map(cost).sum();
        state.metrics.generated_tokens.add(cost(|one| one.cost.model_tokens));
        state.metrics.scorer_calls.add(cost(|one| one.cost.scorer_calls));
        match senders.results.send(Ok(Done { prompt, decoded })) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    decoder.decode_each_within(room, &asked.prompts, asked.n, &mut done)
}

/// Sends tokens to whoever answers, where it needs them before they are a response.
fn watcher(asked: &Arc<Asked>, tokens: &mpsc::UnboundedSender<Token>) -> Option<SharedWatch> {
    // Alternatives are told of plain samples alone.
    let alternatives = asked.log_probs.unwrap_or(0);
    if asked.selects() || !(asked.stream || alternatives > 0) {
        return None;
    }
    let (tokens, n) = (tokens.clone(), asked.n);
    Some(Arc::new(move |event: Event<'_>| {
        let choice = event.prompt * n + event.sample;
        match tokens.send(Token { choice, scored: Scored::of(&event, alternatives) }) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }))
}

pub(crate) fn too_long(state: &State) -> Failure {
    let seconds = state.service.limits.timeout.as_secs_f64();
    let message = format!(
        "the request took longer than {seconds} s, which is all that this server gives one"
    );
    Failure::new(StatusCode::GATEWAY_TIMEOUT, message).with_code("timeout")
}

/// The thread of a request has ended before its time.
fn broken() -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the request ended without an answer")
}
