//! The time since something was last received over a connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

/// Shared by the reading half of a connection, which notes what comes, and those who ask. Cloning it is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Silence {
    began: Instant,
    /// Milliseconds from `began` to the newest byte.
    heard_ms: Arc<AtomicU64>,
}

/// A reading half that notes what it reads.
pub(super) struct Heard<R> {
    half: R,
    silence: Silence,
}

// === impl Silence ===

impl Silence {
    /// A silence that begins now.
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), heard_ms: Arc::default() }
    }

    /// A reading half whose bytes end the silence.
    pub(super) fn of<R>(&self, half: R) -> Heard<R> {
        Heard { half, silence: self.clone() }
    }

    /// The moment at which something was last received.
    pub(crate) fn since(&self) -> Instant {
        self.began + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    fn end(&self) {
        let milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(milliseconds, Ordering::Relaxed);
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Heard<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.half).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.silence.end();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_byte_ends_the_silence_and_the_end_of_the_connection_does_not() {
        let (mut far, near) = duplex(8);
        let silence = Silence::begin();
        let mut near = silence.of(near);
        let began = Instant::now();
        assert_eq!(silence.since(), began);
        sleep(Duration::from_secs(2)).await;
        far.write_all(&[7]).await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), 7);
        assert_eq!(silence.since(), began + Duration::from_secs(2));
        sleep(Duration::from_secs(1)).await;
        drop(far);
        assert!(near.read_u8().await.is_err());
        assert_eq!(silence.since(), began + Duration::from_secs(2));
    }
}
