//! Connections, counted for as long as somebody may wait for an answer on them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::http::request::Parts;
use axum::serve::{IncomingStream, Listener};
use tokio::net::TcpListener;

use crate::patient::Patient;

/// How many connections are open on which something was asked for. Once the server closes those that are idle, they are those whose answers
/// have not gone out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asking(Arc<AtomicUsize>);

impl Asking {
    /// Whether there is none.
    pub(crate) fn nobody(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// Who is at the other end of a connection, which keeps it as long as it is open.
#[derive(Clone, Debug)]
pub(crate) struct Asker(Arc<Open>);

#[derive(Debug)]
struct Open {
    asking: Asking,
    /// Requests so far.
    asked: AtomicUsize,
    /// Answers that are being made.
    at_work: AtomicUsize,
}

impl Asker {
    fn new(asking: Asking) -> Self {
        let (asked, at_work) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Open { asking, asked, at_work }))
    }

    /// Has asked for something: half a request is nothing that could be answered.
    pub(crate) fn ask(&self) {
        if self.0.asked.fetch_add(1, Ordering::Relaxed) == 0 {
            self.0.asking.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it has asked.
    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// Whether an answer is being made, for which it waits.
    pub(crate) fn waits(&self) -> bool {
        self.0.at_work.load(Ordering::Relaxed) > 0
    }
}

/// An answer that is being made, until it is dropped.
pub(crate) struct AtWork(Asker);

impl AtWork {
    /// The answer to a request, by its head; None where nobody is known to have asked.
    pub(crate) fn on(request: &Parts) -> Option<Self> {
        let ConnectInfo(asker) = request.extensions.get::<ConnectInfo<Asker>>()?;
        asker.0.at_work.fetch_add(1, Ordering::Relaxed);
        Some(Self(asker.clone()))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.0.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if *self.asked.get_mut() > 0 {
            self.asking.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Connected<IncomingStream<'_, Counted>> for Asker {
    fn connect_info(stream: IncomingStream<'_, Counted>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A listener whose connections have askers in place of addresses, and are closed on those who keep the server waiting.
pub(crate) struct Counted {
    listener: TcpListener,
    asking: Asking,
    limit: Duration,
}

impl Counted {
    /// - limit: how long a connection may wait for its client.
    pub(crate) fn new(listener: TcpListener, asking: Asking, limit: Duration) -> Self {
        Self { listener, asking, limit }
    }
}

impl Listener for Counted {
    type Io = Patient;
    type Addr = Asker;

    async fn accept(&mut self) -> (Patient, Asker) {
        let (stream, _) = Listener::accept(&mut self.listener).await;
        // Or parts of an answer would wait for more to send with them.
        let _ = stream.set_nodelay(true);
        let asker = Asker::new(self.asking.clone());
        (Patient::new(stream, asker.clone(), self.limit), asker)
    }

    fn local_addr(&self) -> io::Result<Asker> {
        Ok(Asker::new(self.asking.clone()))
    }
}
