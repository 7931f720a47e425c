//! Connections that wait for their clients, but not without a limit.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::connections::Asker;

/// A connection that fails where its client has neither asked for anything nor taken enough of an answer that more can be written for as long
/// as it may.
///
/// Half the head of a request is nothing asked. While an answer is being made the client waits, and not the server.
pub(crate) struct Patient {
    stream: TcpStream,
    asker: Asker,
    /// How often the client had asked when it was last waited for.
    asked: usize,
    reading: Wait,
    writing: Wait,
}

impl Patient {
    /// - limit: how long a read or a write may wait.
    pub(crate) fn new(stream: TcpStream, asker: Asker, limit: Duration) -> Self {
        let (reading, writing) = (Wait::new(limit), Wait::new(limit));
        Self { stream, asker, asked: 0, reading, writing }
    }

    /// What a write has come to, which fails once it has waited for too long.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            return self.writing.poll(cx).map(Err);
        }
        self.writing.over();
        // Whoever takes an answer need not ask for the next one yet.
        self.reading.begin();
        written
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if read.is_ready() {
            return read;
        }
        let asked = this.asker.asked();
        if this.asker.waits() || asked != this.asked {
            this.asked = asked;
            this.reading.begin();
        }
        this.reading.poll(cx).map(Err)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.written(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bytes);
        this.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The time that something has been waited for.
struct Wait {
    limit: Duration,
    /// Whether it is waited for; then the sleep ends with its time.
    begun: bool,
    sleep: Pin<Box<Sleep>>,
}

impl Wait {
    fn new(limit: Duration) -> Self {
        Self { limit, begun: false, sleep: Box::pin(tokio::time::sleep(limit)) }
    }

    /// It has come: whatever is waited for next has a time of its own.
    fn over(&mut self) {
        self.begun = false;
    }

    /// The next is waited for from now on.
    fn begin(&mut self) {
        self.begun = true;
        self.sleep.as_mut().reset(Instant::now() + self.limit);
    }

    /// Waits on; ready once that has taken too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.begun {
            self.begin();
        }
        self.sleep.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use axum::extract::ConnectInfo;
    use axum::http::Request;
    use axum::serve::Listener;
    use tokio::net::TcpListener;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::connections::{Asking, AtWork, Counted};
    use crate::places::Places;

    const LIMIT: Duration = Duration::from_millis(200);

    /// A connection, who has it, and its other end.
    async fn connected() -> (Patient, Asker, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (asking, open, tell) = (Asking::default(), Places::new(1), Arc::new(|_: &str| {}));
        let mut listener = Counted::new(listener, asking, open, LIMIT, tell);
        let (connection, asker) = listener.accept().await;
        (connection, asker, client)
    }

    async fn read(connection: &mut Patient) -> io::Result<usize> {
        let mut bytes = [0; 8];
        let mut buffer = ReadBuf::new(&mut bytes);
        poll_fn(|cx| Pin::new(&mut *connection).poll_read(cx, &mut buffer)).await?;
        Ok(buffer.filled().len())
    }

    async fn write(connection: &mut Patient, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *connection).poll_write(cx, bytes)).await
    }

    fn at_work(asker: &Asker) -> AtWork {
        let mut request = Request::new(());
        request.extensions_mut().insert(ConnectInfo(asker.clone()));
        AtWork::on(&request.into_parts().0).unwrap()
    }

    #[tokio::test]
    async fn a_head_has_to_be_whole_in_time_however_it_comes() {
        let (mut connection, _asker, client) = connected().await;
        let start = Instant::now();
        let slowly = tokio::spawn(async move {
            loop {
                client.writable().await.unwrap();
                // It fails once nobody reads any more.
                let _ = client.try_write(b"a");
                sleep(LIMIT / 8).await;
            }
        });
        let mut received = 0;
        let error = loop {
            match read(&mut connection).await {
                Ok(bytes) => received += bytes,
                Err(error) => break error,
            }
        };
        slowly.abort();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(received > 0 && start.elapsed() >= LIMIT, "{received} bytes");
    }

    #[tokio::test]
    async fn who_waits_for_an_answer_may_wait() {
        let (mut connection, asker, _client) = connected().await;
        asker.ask();
        let work = at_work(&asker);
        assert!(timeout(3 * LIMIT, read(&mut connection)).await.is_err(), "it goes on");
        drop(work);
        assert_eq!(read(&mut connection).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn an_answer_may_be_slow_but_has_to_be_taken() {
        let (mut connection, _asker, _client) = connected().await;
        for _ in 0..3 {
            assert_eq!(write(&mut connection, b"part").await.unwrap(), 4);
            sleep(LIMIT * 3 / 2).await;
        }
        let error = loop {
            if let Err(error) = write(&mut connection, &[0; 65_536]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
