//! Connections, counted for as long as somebody may wait for an answer on them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::http::request::Parts;
use axum::serve::{IncomingStream, Listener};
use infalign_record::clock;
use tokio::net::{TcpListener, TcpStream};

use crate::log::Tell;
use crate::patient::Patient;
use crate::places::{Place, Places};

/// Connections that can be open at a time; others wait.
pub(crate) const MOST: usize = 10_000;
/// How long it takes until connections are taken again, where none can be.
const PAUSE: Duration = Duration::from_secs(1);

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
    /// Among the connections that are open, which it counts as for as long as it is there.
    _place: Option<Place>,
}

impl Asker {
    fn new(asking: Asking, place: Option<Place>) -> Self {
        let (asked, at_work) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Open { asking, asked, at_work, _place: place }))
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
    open: Places,
    limit: Duration,
    tell: Tell,
    /// Whether it was told that none can be taken.
    told: bool,
}

impl Counted {
    /// - open: for the connections that are open.
    /// - limit: how long a connection may wait for its client.
    /// - tell: is told where no connection can be taken, once until one can.
    pub(crate) fn new(
        listener: TcpListener,
        asking: Asking,
        open: Places,
        limit: Duration,
        tell: Tell,
    ) -> Self {
        Self { listener, asking, open, limit, tell, told: false }
    }

    /// The next connection, if there may be one more.
    async fn next(&self) -> io::Result<TcpStream> {
        let most = self.open.most;
        if self.open.taken() >= most {
            return Err(io::Error::other(format!("{most} are open, the most that may be")));
        }
        Ok(self.listener.accept().await?.0)
    }

    fn tell_once(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.told, true) {
            let now = clock::utc_now();
            (self.tell)(&format!(
                "{now} cannot accept connections: {error}; the server tries again every second"
            ));
        }
    }
}

/// Whether it is one connection that has failed, and not the taking of any.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl Listener for Counted {
    type Io = Patient;
    type Addr = Asker;

    async fn accept(&mut self) -> (Patient, Asker) {
        let stream = loop {
            match self.next().await {
                Ok(stream) => break stream,
                Err(error) if is_of_one(&error) => {}
                Err(error) => {
                    self.tell_once(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        self.told = false;
        // Or parts of an answer would wait for more to send with them.
        let _ = stream.set_nodelay(true);
        let asker = Asker::new(self.asking.clone(), self.open.take(1));
        (Patient::new(stream, asker.clone(), self.limit), asker)
    }

    fn local_addr(&self) -> io::Result<Asker> {
        Ok(Asker::new(self.asking.clone(), None))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_full_server_says_so_once_and_goes_on_when_there_is_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, told) = (Places::new(1), Arc::new(Mutex::new(Vec::new())));
        let lines = told.clone();
        let tell: Tell = Arc::new(move |line: &str| {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        });
        let limit = Duration::from_secs(60);
        let mut listener = Counted::new(listener, Asking::default(), open.clone(), limit, tell);
        let _clients = [
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        ];
        let first = listener.accept().await;
        assert_eq!(open.taken(), 1);
        // It tries more than once.
        assert!(timeout(PAUSE * 3 / 2, listener.accept()).await.is_err());
        drop(first);
        assert_eq!(open.taken(), 0);
        let _second = listener.accept().await;
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("cannot accept connections: 1 are open"), "{told:?}");
    }

    #[test]
    fn what_ends_one_connection_ends_no_other() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionAborted, true),
            (io::ErrorKind::ConnectionReset, true),
            (io::ErrorKind::Other, false),
        ] {
            assert_eq!(is_of_one(&kind.into()), expected, "{kind}");
        }
    }
}
