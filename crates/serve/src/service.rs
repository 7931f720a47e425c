//! What is served, within which limits.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use infalign_decode::guided::ScorerSet;
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
use crate::templates::Templates;

/// Requests that are read at a time: to encode a long prompt takes much memory.
pub(crate) const READERS: usize = 2;
/// Bytes that the bodies of requests have together until they are read; more where as many of the largest as are read at a time need more.
const BODIES: usize = 64 << 20;

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
    /// What clients have to know.
    pub api_key: Option<String>,
    /// Whether the server listens for this machine alone. Without a key it answers at no name but localhost then.
    pub is_local: bool,
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
    /// Responses generated together, as the engine was started with.
    pub batch: usize,
    /// Responses that may wait for a place in the batch; whoever comes then is refused.
    pub queue: usize,
    /// Largest body of a request, in bytes.
    pub body: usize,
    /// Longest response that may be asked for, in tokens.
    pub max_tokens: usize,
    /// Longest time that a request may take, and that a connection waits for its client to ask or to take an answer.
    pub timeout: Duration,
    /// Time that running requests, and clients that read their answers, have when the server is asked to stop.
    pub grace: Duration,
}

impl Limits {
    /// Responses that can stand in the batch or wait for it.
    pub(crate) fn most(&self) -> usize {
        self.batch.saturating_add(self.queue)
    }

    /// Requests with a reward that can be at work, those included that have ended and are left to wait for it: as many again.
    pub(crate) fn threads(&self) -> usize {
        self.most().saturating_mul(2)
    }
}

/// A service at work.
pub(crate) struct State {
    pub(crate) service: Service,
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
    pub(crate) fn new(service: Service, created: i64, ending: watch::Receiver<bool>) -> Self {
        let places = Places::new(service.limits.most());
        let threads = Places::new(service.limits.threads());
        let connections = Places::new(connections::MOST);
        let bytes = service.limits.body.saturating_mul(READERS);
        let bodies = Memory::new(bytes.max(BODIES));
        let (reading, longest_token) = (Semaphore::new(READERS), OnceLock::new());
        let guided = Guided::new(service.limits.batch);
        let templates = Templates::new(service.tokenizer.folder().to_path_buf());
        let (metrics, requests) = (Metrics::default(), AtomicU64::new(0));
        // Its keys are the system's random numbers.
        let nonce = RandomState::new().hash_one(created);
        Self {
            service,
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
