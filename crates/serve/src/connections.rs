//! Connections, counted for as long as somebody may wait for an answer on them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{TcpListener, TcpStream};

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
    asked: AtomicBool,
}

impl Asker {
    fn new(asking: Asking) -> Self {
        Self(Arc::new(Open { asking, asked: AtomicBool::new(false) }))
    }

    /// Has asked for something: half a request is nothing that could be answered.
    pub(crate) fn ask(&self) {
        if !self.0.asked.swap(true, Ordering::Relaxed) {
            self.0.asking.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if *self.asked.get_mut() {
            self.asking.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Connected<IncomingStream<'_, Counted>> for Asker {
    fn connect_info(stream: IncomingStream<'_, Counted>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A listener whose connections have askers in place of addresses.
pub(crate) struct Counted {
    listener: TcpListener,
    asking: Asking,
}

impl Counted {
    pub(crate) fn new(listener: TcpListener, asking: Asking) -> Self {
        Self { listener, asking }
    }
}

impl Listener for Counted {
    type Io = TcpStream;
    type Addr = Asker;

    async fn accept(&mut self) -> (TcpStream, Asker) {
        let (stream, _) = Listener::accept(&mut self.listener).await;
        // Or parts of an answer would wait for more to send with them.
        let _ = stream.set_nodelay(true);
        (stream, Asker::new(self.asking.clone()))
    }

    fn local_addr(&self) -> io::Result<Asker> {
        Ok(Asker::new(self.asking.clone()))
    }
}
