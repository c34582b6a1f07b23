//! Carries ZMTP between a ZeroMQ socket of this process and a peer, chunk by chunk. [`Zmtp`] checks every chunk.
//!
//! A pipe holds one chunk per direction and reads on only after that is written, so a peer that takes nothing stops the
//! sender. It does not see the end of a connection either before what came in front of it is taken: a peer that has
//! ended keeps its place for as long as this process receives nothing.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::EndError;
use super::limits::{CHUNK_BYTES_MAX, HANDSHAKE_WAIT_MAX, HEARTBEAT_INTERVAL};
use super::sender_mark;
use super::zmtp::{Flow, Zmtp};

/// A source of chunks.
pub(super) trait Source {
    /// The next chunk, never empty. Cancel-safe.
    async fn read(&mut self) -> Result<&[u8], EndError>;
}

/// A destination of chunks.
pub(super) trait Sink {
    /// True if the other side counts the connection as dead without heartbeats.
    const NEEDS_HEARTBEATS: bool;
    /// Writes all of `bytes`.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), EndError>;
    /// Sends a heartbeat, which carries no data.
    async fn heartbeat(&mut self) -> Result<(), EndError>;
}

/// The reading half of a connection within the process: bytes without a seal.
pub(super) struct PlainSource<R> {
    half: R,
    buffer: Box<[u8]>,
}

/// The writing half of a connection within the process.
pub(super) struct PlainSink<W>(pub(super) W);

/// Carries one direction until it ends, with `mark` before each message unless it is empty.
async fn carry<S: Source, T: Sink>(source: &mut S, sink: &mut T, flow: Flow, mark: &[u8]) -> EndError {
    let mut zmtp = Zmtp::new(flow);
    let (mut starts, mut marked) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + HANDSHAKE_WAIT_MAX;
    loop {
        let chunk = if !zmtp.is_ready() {
            timeout_at(deadline, source.read()).await.unwrap_or(Err(EndError::GreetingTimeout(HANDSHAKE_WAIT_MAX)))
        } else if T::NEEDS_HEARTBEATS {
            match timeout(HEARTBEAT_INTERVAL, source.read()).await {
                Ok(chunk) => chunk,
                Err(_) => match sink.heartbeat().await {
                    Ok(()) => continue,
                    Err(end) => return end,
                },
            }
        } else {
            source.read().await
        };
        let done = match chunk {
            // The check comes before any of the chunk is handed on.
            Ok(chunk) => match zmtp.pass(chunk, &mut starts) {
                Ok(()) if mark.is_empty() || starts.is_empty() => sink.write(chunk).await,
                Ok(()) => {
                    sender_mark::insert(mark, chunk, &starts, &mut marked);
                    sink.write(&marked).await
                }
                Err(cause) => Err(cause.into()),
            },
            Err(end) => Err(end),
        };
        if let Err(end) = done {
            return end;
        }
    }
}

// === impl PlainSource ===

impl<R> PlainSource<R> {
    /// A source with a buffer that suits its flow: chunks of messages, or the few bytes of a handshake.
    pub(super) fn new(half: R, flow: Flow) -> Self {
        let bytes = if flow == Flow::Messages { CHUNK_BYTES_MAX } else { 1024 };
        Self { half, buffer: vec![0; bytes].into() }
    }
}

impl<R: AsyncRead + Unpin> Source for PlainSource<R> {
    async fn read(&mut self) -> Result<&[u8], EndError> {
        match self.half.read(&mut self.buffer).await? {
            0 => Err(EndError::Closed),
            count => Ok(&self.buffer[..count]),
        }
    }
}

// === impl PlainSink ===

impl<W: AsyncWrite + Unpin> Sink for PlainSink<W> {
    const NEEDS_HEARTBEATS: bool = false;

    async fn write(&mut self, bytes: &[u8]) -> Result<(), EndError> {
        Ok(self.0.write_all(bytes).await?)
    }

    async fn heartbeat(&mut self) -> Result<(), EndError> {
        Ok(())
    }
}

/// One direction of a connection.
pub(super) struct Pipe<S, T> {
    pub(super) source: S,
    pub(super) sink: T,
}

/// Carries both directions of a connection until one of them ends, with `mark` before each message unless it is empty.
pub(super) async fn carry_both(
    mut messages: Pipe<impl Source, impl Sink>,
    mark: &[u8],
    mut handshake: Pipe<impl Source, impl Sink>,
) -> EndError {
    tokio::select! {
        end = carry(&mut messages.source, &mut messages.sink, Flow::Messages, mark) => end,
        end = carry(&mut handshake.source, &mut handshake.sink, Flow::Handshake, &[]) => end,
    }
}
