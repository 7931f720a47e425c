//! What is served, within which limits.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use infalign_decode::guided::{PrefixScorer, ScorerSet};
use infalign_decode::{Engine, Stream};
use infalign_model::Tokenizer;
use infalign_reward::Reward;
use tokio::sync::{Semaphore, watch};

use crate::body::Memory;
use crate::connections;
use crate::failure::Failure;
use crate::guided::Guided;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::request::Form;
use crate::serve::ServeError;
use crate::templates::Templates;

/// Requests that are read at a time: to encode a long prompt takes much memory.
pub(crate) const READERS: usize = 2;
/// Bytes that the bodies of requests have together until they are read; more where as many of the largest as are read at a time need more.
const BODIES: usize = 64 << 20;
/// Far below what an instant of the clock can be put off by.
const LONGEST: Duration = Duration::from_secs(1_000_000_000);

/// A model with all that answers about it need.
pub struct Service {
    /// The model's name in requests.
    pub name: String,
    /// The model at work.
    pub engine: Engine,
    /// Its tokenizer, beside whose files the chat template lies.
    pub tokenizer: Arc<Tokenizer>,
    /// What procedures choose by.
    pub reward: Option<Arc<dyn Reward>>,
    /// What guides, by the names of the rewards, which have to differ.
    pub scorers: ScorerSet,
    /// What clients have to know. Without one, a server that listens for its own machine alone answers at no name but localhost.
    pub api_key: Option<String>,
    /// Gives requests without a seed theirs.
    pub seed: u64,
    /// How much is done for whom.
    pub limits: Limits,
    /// Is told, a line at a time, what fails by the server's own fault. No line holds a prompt, a response or a key.
    pub tell: Arc<dyn Fn(&str) + Send + Sync>,
}

/// How much a server does for its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Responses that may wait for a place in the batch, 0 or more; whoever comes then is refused.
    pub queue: usize,
    /// Largest body of a request, in bytes, at least 1.
    pub body: usize,
    /// Longest response that may be asked for, in tokens, at least 1.
    pub max_tokens: usize,
    /// Longest time that a request may take, and that a connection waits for its client to ask or to take an answer; above 0, at most 1e9 s.
    pub timeout: Duration,
    /// Time that running requests, and clients that read their answers, have when the server is asked to stop.
    pub grace: Duration,
}

impl Limits {
    fn check(&self) -> Result<(), ServeError> {
        let some_time = Duration::from_nanos(1)..=LONGEST;
        let limits = [
            ("body", self.body > 0, "at least 1 byte"),
            ("max_tokens", self.max_tokens > 0, "at least 1 token"),
            ("timeout", some_time.contains(&self.timeout), "above 0 and at most 1e9 seconds"),
        ];
        match limits.into_iter().find(|(_, is_valid, _)| !is_valid) {
            None => Ok(()),
            Some((limit, _, valid)) => Err(ServeError::Limit { limit, valid }),
        }
    }
}

impl Service {
    /// A model without reward, scorers and key, whose seed is another at every start; nobody is told of failures. Its limits are a queue of 256
    /// responses, bodies of 4 MiB, responses as long as the model's context, ten minutes, and half a minute of grace.
    pub fn new(name: impl Into<String>, engine: Engine, tokenizer: Arc<Tokenizer>) -> Self {
        let limits = Limits {
            queue: 256,
            body: 4 << 20,
            max_tokens: engine.model().context(),
            timeout: Duration::from_secs(600),
            grace: Duration::from_secs(30),
        };
        Self {
            name: name.into(),
            engine,
            tokenizer,
            reward: None,
            scorers: ScorerSet::default(),
            api_key: None,
            seed: RandomState::new().hash_one("seed"),
            limits,
            tell: Arc::new(|_: &str| {}),
        }
    }

    /// Refuses what cannot be served, as [`run`](crate::run) does before anything else.
    ///
    /// # Errors
    /// [`ServeError::Limit`]; [`ServeError::SameName`] and [`ServeError::Scorer`], whatever weights requests would give the scorers.
    pub fn check(&self) -> Result<(), ServeError> {
        self.limits.check()?;
        let names = self.scorers.names();
        for (place, &name) in names.iter().enumerate() {
            if names[..place].contains(&name) {
                return Err(ServeError::SameName { name: name.to_owned() });
            }
            let mut weights = vec![0.0; names.len()];
            weights[place] = 1.0;
            let scorer = self.scorers.weighted(&weights);
            let fits = scorer.and_then(|scorer| scorer.check(self.engine.model()));
            fits.map_err(|error| ServeError::Scorer {
                name: name.to_owned(),
                source: Box::new(error),
            })?;
        }
        Ok(())
    }

    /// Responses that can stand in the batch or wait for it.
    pub(crate) fn most(&self) -> usize {
        self.engine.batch().saturating_add(self.limits.queue)
    }

    /// Requests with a reward that can be at work, those included that have ended and are left to wait for it: as many again.
    pub(crate) fn threads(&self) -> usize {
        self.most().saturating_mul(2)
    }
}

/// A service at work.
pub(crate) struct State {
    pub(crate) service: Service,
    /// Whether the server listens for its own machine alone.
    pub(crate) is_local: bool,
    pub(crate) metrics: Metrics,
    pub(crate) places: Places,
    /// For the threads of requests with a reward.
    pub(crate) threads: Places,
    /// For connections.
    pub(crate) connections: Places,
    /// For the bodies of requests.
    pub(crate) bodies: Memory,
    /// For requests that are read.
    pub(crate) reading: Semaphore,
    /// The bytes of the model's longest token, once somebody has had to know.
    pub(crate) longest_token: OnceLock<usize>,
    pub(crate) guided: Guided,
    pub(crate) templates: Templates,
    /// Seconds since 1970 at the start.
    pub(crate) created: i64,
    /// Becomes true when requests have to end.
    pub(crate) ending: watch::Receiver<bool>,
    /// Requests so far.
    requests: AtomicU64,
    /// Tells the ids of this server from those of every other.
    nonce: u64,
}

impl State {
    pub(crate) fn new(
        service: Service,
        is_local: bool,
        created: i64,
        ending: watch::Receiver<bool>,
    ) -> Self {
        let places = Places::new(service.most());
        let threads = Places::new(service.threads());
        let connections = Places::new(connections::MOST);
        let bytes = service.limits.body.saturating_mul(READERS);
        let bodies = Memory::new(bytes.max(BODIES));
        let (reading, longest_token) = (Semaphore::new(READERS), OnceLock::new());
        let guided = Guided::new(service.engine.batch());
        let templates = Templates::new(service.tokenizer.folder().to_path_buf());
        let (metrics, requests) = (Metrics::default(), AtomicU64::new(0));
        // Its keys are the system's random numbers.
        let nonce = RandomState::new().hash_one(created);
        Self {
            service,
            is_local,
            metrics,
            places,
            threads,
            connections,
            bodies,
            reading,
            longest_token,
            guided,
            templates,
            created,
            ending,
            requests,
            nonce,
        }
    }

    /// The number of a new request, and the seed that it has unless it brings one: 53 bits, so that every reader of JSON keeps it.
    pub(crate) fn number(&self) -> (u64, u64) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let uniform = Stream::new(self.service.seed, "serve", "", number).uniform(0);
        (number, (uniform * (1_u64 << 53) as f64) as u64)
    }

    /// The id of a request by its number, which no other server gives.
    pub(crate) fn id(&self, form: Form, number: u64) -> String {
        let prefix = match form {
            Form::Completion => "cmpl",
            Form::Chat => "chatcmpl",
        };
        format!("{prefix}-{:x}-{number}", self.nonce)
    }

    /// Counts a failure that is the server's own, and tells whoever runs it.
    ///
    /// - id: of the request.
    pub(crate) fn failed(&self, id: &str, failure: &Failure) {
        if failure.status.is_server_error() {
            self.metrics.fail(failure.kind());
            (self.service.tell)(&failure.line(id));
        }
    }
}
