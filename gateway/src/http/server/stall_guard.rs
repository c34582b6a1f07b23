//! A client's socket that fails when the client is gone without a sign or reads nothing. Without it, such a client
//! would keep its connection and its sequence.
//!
//! hyper notices a closed connection by reading. It does not read while bytes of a later request lie in its buffer, so
//! this socket checks by itself once per `CLIENT_CHECK_INTERVAL`. A client that closes its sending side counts as gone.
//!
//! It also reports reads and flushes to the connection's guard, and lingers on shutdown while the client is still
//! sending.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::connection::ConnectionGuard;
use super::linger::Linger;
use crate::http::limits::CLIENT_CHECK_INTERVAL;

/// A socket whose writes must make progress within `stall_time`.
pub(crate) struct StallGuard {
    stream: TcpStream,
    stall_time: Duration,
    /// Timeout of the write that waits, if any.
    stall: Option<Pin<Box<Sleep>>>,
    /// Time until the next check that the client is still there.
    client_check: Pin<Box<Sleep>>,
    guard: Arc<ConnectionGuard>,
    /// Set once this side is closed while the client is still sending.
    linger: Option<Linger>,
}

// === impl StallGuard ===

impl StallGuard {
    /// Guards `stream`, the socket of the connection of `guard`.
    pub(crate) fn new(stream: TcpStream, stall_time: Duration, guard: Arc<ConnectionGuard>) -> Self {
        let client_check = Box::pin(tokio::time::sleep(CLIENT_CHECK_INTERVAL));
        Self { stream, stall_time, stall: None, client_check, guard, linger: None }
    }

    /// `written`, or an error if the write has waited for too long.
    fn with_stall_timeout<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let until = Instant::now() + self.stall_time;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        stall.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }

    /// Returns an error once the client has closed its side. Checks once per `CLIENT_CHECK_INTERVAL`, and wakes the
    /// connection for it.
    fn check_client(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.client_check.as_mut().poll(cx).is_ready() {
            let ready = self.stream.ready(Interest::READABLE).now_or_never();
            if ready.is_some_and(|ready| ready.is_ok_and(Ready::is_read_closed)) {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client is gone"));
            }
            self.client_check.as_mut().reset(Instant::now() + CLIENT_CHECK_INTERVAL);
        }
        Ok(())
    }
}

impl AsyncRead for StallGuard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.guard.bytes_received();
        }
        read
    }
}

impl AsyncWrite for StallGuard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.with_stall_timeout(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.with_stall_timeout(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // The check is here because hyper flushes each time it is woken, also when there is nothing to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_client(cx)?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.guard.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, guard, linger, .. } = self.get_mut();
        if linger.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
            if !guard.must_linger() {
                return Poll::Ready(Ok(()));
            }
        }
        linger.get_or_insert_with(Linger::new).poll(stream, cx).map(Ok)
    }
}
