//! The throughput of a connection between machines: the side that connected sends a burst, and the other one tells how
//! long the burst took to come, without the way to it and back. This module knows nothing of ZMTP.
//!
//! A burst counts as it comes out of the seal, so the measure holds what encryption costs, which frames pay, too. It is
//! short enough not to delay the frames that take the same cable.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::error::EndError;
use super::limits::{BURST_BYTES_MAX, BURST_CHUNK_BYTES, BURST_TIME_MAX, BURST_WAIT_MAX};
use super::pipe::{Sink, Source};

/// The first chunk of a connection that is made for a burst. No ZMTP greeting begins so.
pub(super) const BURST: &[u8] = b"burst 1";
/// The chunk behind a burst.
const END: &[u8] = b"end";

/// Sends a burst to a peer and returns the Mbit/s at which it came there: at least 1.
///
/// # Errors
/// [`EndError`] if the connection ends, as it does with a peer that does not know bursts, or without an answer within
/// [`BURST_WAIT_MAX`].
pub(super) async fn measure(source: &mut impl Source, sink: &mut impl Sink) -> Result<u32, EndError> {
    let silent = Err(EndError::HeartbeatTimeout(BURST_WAIT_MAX));
    timeout(BURST_WAIT_MAX, send(source, sink)).await.unwrap_or(silent)
}

async fn send(source: &mut impl Source, sink: &mut impl Sink) -> Result<u32, EndError> {
    sink.write(BURST).await?;
    let (chunk, began) = ([0; BURST_CHUNK_BYTES], Instant::now());
    // The peer's clock starts with the first chunk, so that one does not count.
    sink.write(&chunk).await?;
    let mut counted = 0;
    while counted == 0 || (counted < BURST_BYTES_MAX && began.elapsed() < BURST_TIME_MAX) {
        sink.write(&chunk).await?;
        counted += chunk.len();
    }
    sink.write(END).await?;
    let answer = source.read().await?;
    let nanoseconds = u64::from_be_bytes(answer.try_into().map_err(|_| EndError::UnexpectedData)?);
    let megabits = 8000 * counted as u64 / nanoseconds.max(1);
    Ok(u32::try_from(megabits).unwrap_or(u32::MAX).max(1))
}

/// Takes the burst of a connection whose next chunk is [`BURST`], and tells the time that it took in nanoseconds.
pub(super) async fn answer(source: &mut impl Source, sink: &mut impl Sink) -> EndError {
    let silent = EndError::HeartbeatTimeout(BURST_WAIT_MAX);
    timeout(BURST_WAIT_MAX, receive(source, sink)).await.map_or(silent, |done| done.err().unwrap_or(EndError::Closed))
}

async fn receive(source: &mut impl Source, sink: &mut impl Sink) -> Result<(), EndError> {
    if source.read().await? != BURST {
        return Err(EndError::UnexpectedData);
    }
    let (mut began, mut seen) = (None, 0);
    loop {
        let chunk = source.read().await?;
        match (chunk, began) {
            (END, Some(began)) => {
                let took: Duration = Instant::now() - began;
                let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                return sink.write(&nanoseconds.to_be_bytes()).await;
            }
            (chunk, _) if chunk.len() == BURST_CHUNK_BYTES && seen <= BURST_BYTES_MAX => seen += chunk.len(),
            _ => return Err(EndError::UnexpectedData),
        }
        began = began.or_else(|| Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::{duplex, split};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::key::ClusterKey;
    use super::super::noise::{self, Role, sealed};
    use super::*;

    /// A connection on which `chunks` come.
    struct Coming(VecDeque<Vec<u8>>, Vec<u8>);

    impl Source for Coming {
        async fn read(&mut self) -> Result<&[u8], EndError> {
            self.1 = self.0.pop_front().ok_or(EndError::Closed)?;
            Ok(&self.1)
        }
    }

    /// The answer to `chunks`, and the end of their connection.
    async fn answered(chunks: &[&[u8]]) -> (EndError, Vec<u8>) {
        let key = ClusterKey::generate().unwrap();
        let (mut near, mut far) = duplex(1 << 16);
        let (cipher, _) = tokio::join!(noise::connect(&mut near, &key), noise::accept(&mut far, &key));
        let mut wire = Vec::new();
        let (_, mut sink) = sealed(tokio::io::empty(), &mut wire, &cipher.unwrap(), Role::Initiator);
        let mut coming = Coming(chunks.iter().map(|chunk| chunk.to_vec()).collect(), Vec::new());
        (answer(&mut coming, &mut sink).await, wire)
    }

    #[tokio::test]
    async fn a_burst_over_a_real_connection_is_measured_and_costs_no_more_than_its_bound() {
        let key = ClusterKey::generate().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let theirs = key.clone();
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let cipher = noise::accept(&mut stream, &theirs).await.unwrap();
            let (read, write) = split(stream);
            let (mut source, mut sink) = sealed(read, write, &cipher, Role::Responder);
            assert_eq!(source.peek().await.unwrap(), BURST);
            answer(&mut source, &mut sink).await
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        let cipher = noise::connect(&mut stream, &key).await.unwrap();
        let (read, write) = split(stream);
        let (mut source, mut sink) = sealed(read, write, &cipher, Role::Initiator);
        let megabits = measure(&mut source, &mut sink).await.unwrap();
        assert!((10..1_000_000).contains(&megabits), "{megabits} Mbit/s within a machine");
        assert!(matches!(peer.await.unwrap(), EndError::Closed));
    }

    #[tokio::test]
    async fn what_is_no_burst_and_what_does_not_end_is_refused() {
        let chunk: &[u8] = &[0; BURST_CHUNK_BYTES];
        let (end, wire) = answered(&[BURST, chunk, chunk, END]).await;
        assert!(matches!(end, EndError::Closed) && !wire.is_empty(), "{end}");
        let endless = [vec![BURST], vec![chunk; BURST_BYTES_MAX / BURST_CHUNK_BYTES + 3]].concat();
        for wrong in [&[END][..], &[BURST, END], &[BURST, chunk, b"other"], &endless] {
            let (end, wire) = answered(wrong).await;
            assert!(matches!(end, EndError::UnexpectedData) && wire.is_empty(), "{end}");
        }
    }
}
