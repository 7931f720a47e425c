//! From the first connection to the last.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

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
}

/// Serves until it is asked to stop, and then until the requests that are running have ended and their clients have got their answers, for
/// which they have [`Limits::grace`](crate::Limits::grace); what takes longer is broken off.
///
/// # Errors
/// [`ServeError::Io`].
pub fn run(
    listener: std::net::TcpListener,
    service: Service,
    asked_to_stop: impl Fn() -> bool + Send + 'static,
) -> Result<(), ServeError> {
    let limits = service.limits;
    // A thread a request, which waits for the engine, and one in place of each that reads a request.
    let requests = limits.threads().saturating_add(READERS);
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

async fn serve(
    listener: std::net::TcpListener,
    service: Service,
    asked_to_stop: impl Fn() -> bool + Send + 'static,
) -> Result<(), ServeError> {
    let limits = service.limits;
    let (end, ending) = watch::channel(false);
    let (stop, mut stopping) = watch::channel(false);
    let created = infalign_record::clock::now().unix_timestamp();
    let state = Arc::new(State::new(service, created, ending));
    let router = router(state.clone()).into_make_service_with_connect_info::<Asker>();
    let listener = TcpListener::from_std(listener)?;
    let asking = Asking::default();
    let listener = Counted::new(listener, asking.clone(), limits.timeout);
    let stopped = async move {
        while !asked_to_stop() {
            tokio::time::sleep(ASKING).await;
        }
        // Whoever hears it is below.
        let _ = stop.send(true);
    };
    let serving = axum::serve(listener, router).with_graceful_shutdown(stopped).into_future();
    let breaking_off = async {
        let _ = stopping.wait_for(|stopping| *stopping).await;
        let idle = async {
            // What is made may still have to be sent, as fast as the client reads it.
            while !(state.places.are_free() && asking.nobody()) {
                tokio::time::sleep(ASKING).await;
            }
        };
        let _ = tokio::time::timeout(limits.grace, idle).await;
        // Requests hear it; a connection on which nothing was ever asked would stay until its own time is over.
        let _ = end.send(true);
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = breaking_off => Ok(()),
    }
}
