//! Keeps a closing connection open while its client is still sending: reads and discards the bytes that arrive.
//!
//! Closing a socket with unread bytes resets the connection, and the client loses the answer it was about to read.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::http::limits::{LINGER_BYTES_MAX, LINGER_SILENCE, LINGER_TIME};

/// Bytes read at a time.
const PIECE_BYTES: usize = 16 << 10;

/// Reads and discards bytes, within the bounds of `limits.rs`.
pub(crate) struct Linger {
    end: Pin<Box<Sleep>>,
    silence: Pin<Box<Sleep>>,
    bytes_left: u64,
}

// === impl Linger ===

impl Linger {
    /// Starts the timeouts now.
    pub(crate) fn new() -> Self {
        Self {
            end: Box::pin(sleep(LINGER_TIME)),
            silence: Box::pin(sleep(LINGER_SILENCE)),
            bytes_left: LINGER_BYTES_MAX,
        }
    }

    /// Ready when the client has closed its side or a bound is reached.
    pub(crate) fn poll(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        let mut piece = [0; PIECE_BYTES];
        loop {
            if self.end.as_mut().poll(cx).is_ready() || self.silence.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut piece = ReadBuf::new(&mut piece);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece));
            let count = piece.filled().len() as u64;
            if read.is_err() || count == 0 || count >= self.bytes_left {
                return Poll::Ready(());
            }
            self.bytes_left -= count;
            self.silence.as_mut().reset(Instant::now() + LINGER_SILENCE);
        }
    }
}
