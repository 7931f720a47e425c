//! Connections, counted for as long as somebody may wait for an answer on them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// How many connections are open on which something has been asked. Answers to it may be made and not be sent yet; once the server closes
/// connections that are idle, the others are those whose answers have not gone out.
#[derive(Clone, Default)]
pub(crate) struct Asking(Arc<AtomicUsize>);

impl Asking {
    /// Whether there is none.
    pub(crate) fn nobody(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// A listener whose connections are counted.
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
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Or parts of an answer would wait for more to send with them.
        let _ = stream.set_nodelay(true);
        (Connection { stream, asking: self.asking.clone(), counted: false }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection, counted from the first byte that comes on it.
pub(crate) struct Connection {
    stream: TcpStream,
    asking: Asking,
    counted: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.counted {
            self.asking.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if !self.counted && buffer.filled().len() > before {
            self.counted = true;
            self.asking.0.fetch_add(1, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
