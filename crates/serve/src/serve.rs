//! From the first connection to the last.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use infalign_decode::DecodeError;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::connections::{Asker, Asking, Counted};
use crate::routes::router;
use crate::service::{READERS, Service, State};

/// Threads that read requests and write answers; responses are made on others.
const THREADS: usize = 2;
/// How often the server asks whether it is to stop.
const ASKING: Duration = Duration::from_millis(50);
/// What connections have for their last words once all requests have ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why a server could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The system gave no threads or no connections.
    #[error("the server cannot run: {0}")]
    Io(#[from] std::io::Error),
    /// A limit that cannot be kept, or within which nothing could be answered.
    #[error("the limit `{limit}` has to be {valid}")]
    Limit {
        /// The field of [`Limits`](crate::Limits).
        limit: &'static str,
        /// The valid range, in words.
        valid: &'static str,
    },
    /// Two rewards of scorers have the same name.
    #[error("two scorers are called {name:?}, which requests could not tell apart: leave one out")]
    SameName {
        /// Their name.
        name: String,
    },
    /// A scorer cannot guide the model.
    #[error("the scorer of {name:?} cannot guide this model: {source}")]
    Scorer {
        /// The name of its reward.
        name: String,
        /// Why.
        source: Box<DecodeError>,
    },
    /// The engine has failed beyond repair, so that nothing could be answered any more.
    #[error("the engine has stopped: start the server again")]
    Engine,
}

/// Serves until it is asked to stop, and then until the requests that are running have ended and their clients have got their answers, for
/// which they have [`Limits::grace`](crate::Limits::grace); what takes longer is broken off.
///
/// # Errors
/// Those of [`Service::check`], [`ServeError::Io`], and [`ServeError::Engine`] as soon as those who wait for an answer have been told.
pub fn run(
    listener: std::net::TcpListener,
    service: Service,
    asked_to_stop: impl Fn() -> bool + Send + 'static,
) -> Result<(), ServeError> {
    service.check()?;
    // A thread a request, which waits for the engine or a reward, and one in place of each that reads a request.
    let requests = service.threads().saturating_add(service.most()).saturating_add(READERS);
    check_threads(THREADS + 1)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(requests)
        .enable_all()
        .build()?;
    listener.set_nonblocking(true)?;
    let served = runtime.block_on(serve(listener, service, asked_to_stop));
    // A reward on another server may still be waited for.
    runtime.shutdown_timeout(LAST_WORDS);
    served
}

/// Starts so many threads at a time, and lets them end: a runtime that is refused one would wait for it.
fn check_threads(n_threads: usize) -> std::io::Result<()> {
    let gate = Mutex::new(());
    std::thread::scope(|scope| {
        let _closed = gate.lock();
        for _ in 0..n_threads {
            std::thread::Builder::new().spawn_scoped(scope, || drop(gate.lock()))?;
        }
        Ok(())
    })
}

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(ASKING).await;
    }
}

async fn serve(
    listener: std::net::TcpListener,
    service: Service,
    asked_to_stop: impl Fn() -> bool + Send + 'static,
) -> Result<(), ServeError> {
    let limits = service.limits;
    let (end, ending) = watch::channel(false);
    let (stop, mut stopping) = watch::channel(false);
    let created = infalign_record::clock::now().unix_timestamp();
    let listener = TcpListener::from_std(listener)?;
    let is_local = listener.local_addr()?.ip().to_canonical().is_loopback();
    let state = Arc::new(State::new(service, is_local, created, ending));
    let router = router(state.clone()).into_make_service_with_connect_info::<Asker>();
    let asking = Asking::default();
    let (open, tell) = (state.connections.clone(), state.service.tell.clone());
    let listener = Counted::new(listener, asking.clone(), open, limits.timeout, tell);
    let stopped = async move {
        until(asked_to_stop).await;
        // Whoever hears it is below.
        let _ = stop.send(true);
    };
    let serving = axum::serve(listener, router).with_graceful_shutdown(stopped).into_future();
    let breaking_off = async {
        let _ = stopping.wait_for(|stopping| *stopping).await;
        // What is made may still have to be sent, as fast as the client reads it.
        let idle = until(|| state.places.are_free() && asking.nobody());
        let _ = tokio::time::timeout(limits.grace, idle).await;
        // Requests hear it; a connection on which nothing was ever asked would stay until its own time is over.
        let _ = end.send(true);
        tokio::time::sleep(LAST_WORDS).await;
    };
    let failing = async {
        until(|| !state.service.engine.is_working()).await;
        // Whoever waits for what is lost with it is told.
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = breaking_off => Ok(()),
        () = failing => Err(ServeError::Engine),
    }
}
