//! A connection to another machine. It carries chunks, each after its length (two bytes, most significant first) and
//! each sealed. An empty chunk is a heartbeat: it shows that the process at the other end runs. An open socket does not
//! show that, because the socket of a stopped process stays open. This module knows nothing of ZMTP.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::error::EndError;
use super::limits::{CHUNK_BYTES_MAX, HEARTBEAT_TIMEOUT, SEALED_BYTES_MAX};
use super::pipe::{Sink, Source};

/// Size of the length in front of each chunk, in bytes.
pub(super) const LENGTH_BYTES: usize = 2;

/// Encrypts and authenticates chunks. The chunks of each direction of a connection are numbered, and the number is
/// the nonce. One value serves both directions.
pub(super) trait Seal {
    /// Seals `chunk`, which has number `nonce` in its direction, into `sealed`. Returns the number of bytes written.
    fn close(&self, nonce: u64, chunk: &[u8], sealed: &mut [u8]) -> Result<usize, EndError>;
    /// Opens `sealed`, which has number `nonce` in its direction, into `chunk`. Returns the number of bytes written.
    fn open(&self, nonce: u64, sealed: &[u8], chunk: &mut [u8]) -> Result<usize, EndError>;
}

/// The reading half of a connection.
pub(super) struct ChunkSource<R, S> {
    half: R,
    seal: S,
    nonce: u64,
    sealed: Vec<u8>,
    /// The bytes in `sealed` from `start` to `end` are read and not yet opened.
    start: usize,
    end: usize,
    opened: Vec<u8>,
    /// The length of the chunk in `opened`, if it was looked at and not yet read.
    peeked: Option<usize>,
}

/// The writing half of a connection.
pub(super) struct ChunkSink<W, S> {
    half: W,
    seal: S,
    nonce: u64,
    sealed: Vec<u8>,
}

// === impl ChunkSource ===

impl<R: AsyncRead + Unpin, S: Seal> ChunkSource<R, S> {
    /// Reads chunks from `half`. The first has number `nonce`.
    pub(super) fn new(half: R, seal: S, nonce: u64) -> Self {
        let sealed = vec![0; 2 * (LENGTH_BYTES + SEALED_BYTES_MAX)];
        Self { half, seal, nonce, sealed, start: 0, end: 0, opened: vec![0; SEALED_BYTES_MAX], peeked: None }
    }

    /// The chunk that comes next, which stays to be read. Cancel-safe.
    pub(super) async fn peek(&mut self) -> Result<&[u8], EndError> {
        let count = self.next_count().await?;
        self.peeked = Some(count);
        Ok(&self.opened[..count])
    }

    /// The length of the next chunk, which is then in `opened`.
    async fn next_count(&mut self) -> Result<usize, EndError> {
        if let Some(count) = self.peeked.take() {
            return Ok(count);
        }
        loop {
            match self.open_buffered()? {
                Some(0) => {}
                Some(count) => return Ok(count),
                None => self.read_more().await?,
            }
        }
    }

    /// Opens the next whole chunk in the buffer into `opened` and returns its length. `None` if the buffer holds no
    /// whole chunk.
    fn open_buffered(&mut self) -> Result<Option<usize>, EndError> {
        let Some((length, rest)) = self.sealed[self.start..self.end].split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some(sealed) = rest.get(..length) else { return Ok(None) };
        let opened = self.seal.open(self.nonce, sealed, &mut self.opened)?;
        self.nonce += 1;
        self.start += LENGTH_BYTES + length;
        Ok(Some(opened))
    }

    /// Moves the bytes that are not yet opened to the start of the buffer and reads more behind them. There is always
    /// room: those bytes are less than one chunk, and the buffer holds two of the largest.
    async fn read_more(&mut self) -> Result<(), EndError> {
        if self.start > 0 {
            self.sealed.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let read = timeout(HEARTBEAT_TIMEOUT, self.half.read(&mut self.sealed[self.end..]));
        match read.await.map_err(|_| EndError::HeartbeatTimeout(HEARTBEAT_TIMEOUT))?? {
            0 => Err(EndError::Closed),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }
}

impl<R: AsyncRead + Unpin, S: Seal> Source for ChunkSource<R, S> {
    async fn read(&mut self) -> Result<&[u8], EndError> {
        let count = self.next_count().await?;
        Ok(&self.opened[..count])
    }
}

// === impl ChunkSink ===

impl<W: AsyncWrite + Unpin, S: Seal> ChunkSink<W, S> {
    /// Writes chunks to `half`. The first has number `nonce`.
    pub(super) fn new(half: W, seal: S, nonce: u64) -> Self {
        Self { half, seal, nonce, sealed: vec![0; LENGTH_BYTES + SEALED_BYTES_MAX] }
    }

    async fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), EndError> {
        let (length, sealed) = self.sealed.split_at_mut(LENGTH_BYTES);
        let count = self.seal.close(self.nonce, chunk, sealed)?;
        self.nonce += 1;
        // Fits two bytes: a chunk is at most CHUNK_BYTES_MAX, sealed at most SEALED_BYTES_MAX.
        length.copy_from_slice(&(count as u16).to_be_bytes());
        Ok(self.half.write_all(&self.sealed[..LENGTH_BYTES + count]).await?)
    }
}

impl<W: AsyncWrite + Unpin, S: Seal> Sink for ChunkSink<W, S> {
    const NEEDS_HEARTBEATS: bool = true;

    async fn write(&mut self, bytes: &[u8]) -> Result<(), EndError> {
        for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
            self.write_chunk(chunk).await?;
        }
        Ok(())
    }

    async fn heartbeat(&mut self) -> Result<(), EndError> {
        self.write_chunk(&[]).await
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::io::{duplex, split};
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::link::limits::HEARTBEAT_INTERVAL;

    /// A seal that leaves chunks as they are.
    struct Unsealed;

    impl Seal for Unsealed {
        fn close(&self, _: u64, chunk: &[u8], sealed: &mut [u8]) -> Result<usize, EndError> {
            sealed[..chunk.len()].copy_from_slice(chunk);
            Ok(chunk.len())
        }

        fn open(&self, _: u64, sealed: &[u8], chunk: &mut [u8]) -> Result<usize, EndError> {
            chunk[..sealed.len()].copy_from_slice(sealed);
            Ok(sealed.len())
        }
    }

    fn ends<T: AsyncRead + AsyncWrite>(stream: T) -> (impl Source, impl Sink) {
        let (read, write) = split(stream);
        (ChunkSource::new(read, Unsealed, 0), ChunkSink::new(write, Unsealed, 0))
    }

    #[tokio::test]
    async fn chunks_of_every_size_come_out_as_they_went_in_and_heartbeats_do_not() {
        let (near, far) = duplex(1 << 20);
        exchange(ends(near), ends(far)).await;
    }

    /// Sends chunks of several sizes and heartbeats from `near` to `far`, and some back.
    pub(in crate::link) async fn exchange(near: (impl Source, impl Sink), far: (impl Source, impl Sink)) {
        let ((mut near_source, mut near_sink), (mut far_source, mut far_sink)) = (near, far);
        let sent: Vec<u8> = (0..200_000_u32).map(|index| (index % 251) as u8).collect();
        near_sink.write(&sent[..1]).await.unwrap();
        near_sink.heartbeat().await.unwrap();
        near_sink.write(&sent[1..]).await.unwrap();
        let mut received = Vec::new();
        while received.len() < sent.len() {
            received.extend_from_slice(far_source.read().await.unwrap());
        }
        assert!(received == sent);
        far_sink.heartbeat().await.unwrap();
        far_sink.write(b"back").await.unwrap();
        assert_eq!(near_source.read().await.unwrap(), b"back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_counts_as_dead_and_one_that_sends_heartbeats_does_not() {
        let (near, far) = duplex(1 << 10);
        let ((mut source, _near_sink), (_far_source, mut sink)) = (ends(near), ends(far));
        let started = Instant::now();
        let beats = async {
            for _ in 0..100 {
                sleep(HEARTBEAT_INTERVAL).await;
                sink.heartbeat().await.unwrap();
            }
        };
        let (read, ()) = tokio::join!(source.read(), beats);
        assert!(matches!(read, Err(EndError::HeartbeatTimeout(_))));
        assert_eq!(started.elapsed(), 100 * HEARTBEAT_INTERVAL + HEARTBEAT_TIMEOUT);
    }
}
