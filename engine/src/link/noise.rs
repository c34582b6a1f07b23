//! The seal of connections between machines: a Noise handshake with the cluster key, then encrypted and authenticated
//! chunks. This module knows nothing of ZMTP.
//!
//! Pattern NNpsk0 (<https://noiseprotocol.org/noise.html>): every connection has fresh keys, and only a peer with the
//! cluster key gets past the first message. On the wire each Noise message follows its length, as chunks do.
//!
//! Each side first sends `BTN` and its protocol number, unencrypted. A refused peer receives one byte with the reason,
//! so that it can report it. That byte is not authenticated and only selects the reported error.

use std::sync::Arc;

use snow::StatelessTransportState;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::chunks::{ChunkSink, ChunkSource, LENGTH_BYTES, Seal};
use super::error::EndError;
use super::key::ClusterKey;
use super::limits::SEAL_BYTES;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Binds a handshake to this protocol and version.
const PROLOGUE: &[u8] = b"baton link 2";
/// The first bytes that each side sends.
const MAGIC: [u8; 3] = *b"BTN";
/// The version of the bytes that follow.
const PROTOCOL: u8 = 2;
/// Bytes of the magic and the version.
const HELLO_BYTES: usize = MAGIC.len() + 1;
/// The answer to a peer that is refused for its key: a message of this one byte.
const REFUSED_KEY: u8 = b'K';
/// Bytes in each handshake message: an ephemeral public key and the seal of an empty payload.
const HANDSHAKE_BYTES: usize = 32 + SEAL_BYTES;

/// The reason for which a handshake failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HandshakeError {
    /// The other side closed the connection, for example because it has another key.
    #[error("it closed the connection during the key handshake: expected the same cluster key on both sides")]
    Closed,
    /// The first bytes are no handshake.
    #[error("a handshake message declares {found} bytes: expected {expected}")]
    Length {
        /// The declared length.
        found: usize,
        /// The expected length.
        expected: usize,
    },
    /// The message was made with another key.
    #[error("its cluster key is another one, or it belongs to another cluster")]
    Key,
    /// The other side has another version.
    #[error("it speaks protocol {found}: expected {PROTOCOL}, that of this version of baton")]
    Protocol {
        /// Its protocol number.
        found: u8,
    },
    /// Another program listens there, or connects.
    #[error("it is no baton process: expected the greeting BTN")]
    Stranger,
    /// The handshake took too long.
    #[error("it did not finish the key handshake in time")]
    Late,
    /// The system's error.
    #[error("{0}")]
    Io(std::io::ErrorKind),
}

/// The transport keys that both directions of a sealed connection share.
pub(super) type Cipher = Arc<StatelessTransportState>;

/// Runs the handshake as the side that connects.
pub(super) async fn greet<S>(stream: &mut S, key: &ClusterKey) -> Result<Cipher, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut noise = builder(key).build_initiator().map_err(|_| HandshakeError::Key)?;
    write_hello(stream).await?;
    write_handshake(stream, &mut noise).await?;
    read_hello(stream).await?;
    read_handshake(stream, &mut noise).await?;
    let cipher = noise.into_stateless_transport_mode().map_err(|_| HandshakeError::Key)?;
    // The heartbeat that shows the gate that our first message was no replay.
    let mut proof = [0; LENGTH_BYTES + SEAL_BYTES];
    proof[..LENGTH_BYTES].copy_from_slice(&(SEAL_BYTES as u16).to_be_bytes());
    cipher.write_message(0, &[], &mut proof[LENGTH_BYTES..]).map_err(|_| HandshakeError::Key)?;
    stream.write_all(&proof).await?;
    Ok(Arc::new(cipher))
}

/// Runs the handshake as the side that was connected to. Returns only for a peer that has the key and is live.
pub(super) async fn answer<S>(stream: &mut S, key: &ClusterKey) -> Result<Cipher, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut noise = builder(key).build_responder().map_err(|_| HandshakeError::Key)?;
    let hello = read_hello(stream).await;
    if !matches!(hello, Err(HandshakeError::Stranger)) {
        write_hello(stream).await?;
    }
    hello?;
    if let Err(error) = read_handshake(stream, &mut noise).await {
        if matches!(error, HandshakeError::Key) {
            stream.write_all(&[0, 1, REFUSED_KEY]).await?;
        }
        return Err(error);
    }
    write_handshake(stream, &mut noise).await?;
    let cipher = noise.into_stateless_transport_mode().map_err(|_| HandshakeError::Key)?;
    let proof = read_exactly::<SEAL_BYTES, _>(stream).await?;
    cipher.read_message(0, &proof, &mut []).map_err(|_| HandshakeError::Key)?;
    Ok(Arc::new(cipher))
}

/// The halves of a connection whose handshake is done.
pub(super) fn sealed<R, W>(
    read: R,
    write: W,
    cipher: &Cipher,
    greeted: Greeted,
) -> (ChunkSource<R, Cipher>, ChunkSink<W, Cipher>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // The side that connected has used its first nonce for the proof.
    let (read_nonce, write_nonce) = match greeted {
        Greeted::ByUs => (0, 1),
        Greeted::ByThem => (1, 0),
    };
    (ChunkSource::new(read, Arc::clone(cipher), read_nonce), ChunkSink::new(write, Arc::clone(cipher), write_nonce))
}

/// The side that connected.
#[derive(Debug, Clone, Copy)]
pub(super) enum Greeted {
    ByUs,
    ByThem,
}

fn builder(key: &ClusterKey) -> snow::Builder<'_> {
    let pattern = PATTERN.parse().expect("the pattern is a constant that snow knows");
    let builder = snow::Builder::new(pattern);
    let builder = builder.psk(0, key.bytes()).expect("the pattern has a key at place 0");
    builder.prologue(PROLOGUE).expect("the prologue is set once")
}

async fn write_hello(stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), HandshakeError> {
    let mut hello = [PROTOCOL; HELLO_BYTES];
    hello[..MAGIC.len()].copy_from_slice(&MAGIC);
    Ok(stream.write_all(&hello).await?)
}

async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), HandshakeError> {
    let mut hello = [0; HELLO_BYTES];
    stream.read_exact(&mut hello).await?;
    match hello {
        [b'B', b'T', b'N', PROTOCOL] => Ok(()),
        [b'B', b'T', b'N', found] => Err(HandshakeError::Protocol { found }),
        _ => Err(HandshakeError::Stranger),
    }
}

async fn write_handshake<S>(stream: &mut S, noise: &mut snow::HandshakeState) -> Result<(), HandshakeError>
where
    S: AsyncWrite + Unpin,
{
    let mut message = [0; LENGTH_BYTES + HANDSHAKE_BYTES];
    message[..LENGTH_BYTES].copy_from_slice(&(HANDSHAKE_BYTES as u16).to_be_bytes());
    noise.write_message(&[], &mut message[LENGTH_BYTES..]).map_err(|_| HandshakeError::Key)?;
    Ok(stream.write_all(&message).await?)
}

async fn read_handshake<S>(stream: &mut S, noise: &mut snow::HandshakeState) -> Result<(), HandshakeError>
where
    S: AsyncRead + Unpin,
{
    let message = read_exactly::<HANDSHAKE_BYTES, _>(stream).await?;
    noise.read_message(&message, &mut []).map(drop).map_err(|_| HandshakeError::Key)
}

/// Reads one message, which must be `N` bytes long. A peer that declares another length is refused after two bytes.
async fn read_exactly<const N: usize, S>(stream: &mut S) -> Result<[u8; N], HandshakeError>
where
    S: AsyncRead + Unpin,
{
    let found = usize::from(stream.read_u16().await?);
    if found == 1 && stream.read_u8().await? == REFUSED_KEY {
        return Err(HandshakeError::Key);
    }
    if found != N {
        return Err(HandshakeError::Length { found, expected: N });
    }
    let mut message = [0; N];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

impl From<std::io::Error> for HandshakeError {
    fn from(cause: std::io::Error) -> Self {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match cause.kind() {
            UnexpectedEof | ConnectionReset | BrokenPipe => Self::Closed,
            kind => Self::Io(kind),
        }
    }
}

// === impl Cipher ===

impl Seal for Cipher {
    fn close(&self, nonce: u64, chunk: &[u8], sealed: &mut [u8]) -> Result<usize, EndError> {
        self.write_message(nonce, chunk, sealed).map_err(|_| EndError::Seal)
    }

    fn open(&self, nonce: u64, sealed: &[u8], chunk: &mut [u8]) -> Result<usize, EndError> {
        self.read_message(nonce, sealed, chunk).map_err(|_| EndError::Seal)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::link::chunks::tests::exchange;
    use crate::link::pipe::{Sink, Source};

    async fn pair() -> ((impl Source, impl Sink), (impl Source, impl Sink)) {
        let key = ClusterKey::generate().unwrap();
        let (mut near, mut far) = duplex(1 << 20);
        let (greeted, answered) = tokio::join!(greet(&mut near, &key), answer(&mut far, &key));
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        (
            sealed(near_read, near_write, &greeted.unwrap(), Greeted::ByUs),
            sealed(far_read, far_write, &answered.unwrap(), Greeted::ByThem),
        )
    }

    #[tokio::test]
    async fn chunks_of_every_size_come_out_as_they_went_in_and_signs_of_life_do_not() {
        let (near, far) = pair().await;
        exchange(near, far).await;
    }

    #[tokio::test]
    async fn another_key_is_refused_at_the_first_message() {
        let (ours, theirs) = (ClusterKey::generate().unwrap(), ClusterKey::generate().unwrap());
        let (mut near, mut far) = duplex(1 << 10);
        let answered = async {
            let answered = answer(&mut far, &theirs).await.err();
            drop(far);
            answered
        };
        let (greeted, answered) = tokio::join!(greet(&mut near, &ours), answered);
        assert!(matches!(answered, Some(HandshakeError::Key)));
        assert!(matches!(greeted.err(), Some(HandshakeError::Key)), "it was not told why");
    }

    #[tokio::test]
    async fn another_version_and_something_else_are_told_apart() {
        let key = ClusterKey::generate().unwrap();
        for (said, expected) in [(*b"BTN\x01", "speaks protocol 1: expected 2"), (*b"GET ", "is no baton process")] {
            let (mut near, mut far) = duplex(1 << 10);
            near.write_all(&said).await.unwrap();
            let error = answer(&mut far, &key).await.err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            let (mut near, mut far) = duplex(1 << 10);
            far.write_all(&said).await.unwrap();
            let error = greet(&mut near, &key).await.err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn a_replayed_first_message_gets_nobody_in() {
        let key = ClusterKey::generate().unwrap();
        let (mut near, mut tap) = duplex(1 << 10);
        let mut first = [0; HELLO_BYTES + LENGTH_BYTES + HANDSHAKE_BYTES];
        tokio::select! {
            _ = greet(&mut near, &key) => unreachable!("nobody answers"),
            read = tap.read_exact(&mut first) => { read.unwrap(); }
        }
        let (mut attacker, mut gate) = duplex(1 << 10);
        let attack = async {
            attacker.write_all(&first).await.unwrap();
            let mut reply = [0; HELLO_BYTES + LENGTH_BYTES + HANDSHAKE_BYTES];
            attacker.read_exact(&mut reply).await.unwrap();
            attacker.write_all(&[0, 16]).await.unwrap();
            attacker.write_all(&[7; 16]).await.unwrap();
        };
        let (answered, ()) = tokio::join!(answer(&mut gate, &key), attack);
        assert!(matches!(answered.err(), Some(HandshakeError::Key)));
    }

    #[tokio::test]
    async fn a_flipped_bit_ends_the_connection() {
        let key = ClusterKey::generate().unwrap();
        let (mut near, mut far) = duplex(1 << 10);
        let (greeted, answered) = tokio::join!(greet(&mut near, &key), answer(&mut far, &key));
        let (greeted, answered) = (greeted.unwrap(), answered.unwrap());
        let mut wire = Vec::new();
        let (_, mut sink) = sealed(tokio::io::empty(), &mut wire, &greeted, Greeted::ByUs);
        sink.write(b"activations").await.unwrap();
        *wire.last_mut().unwrap() ^= 1;
        let (mut source, _) = sealed(&wire[..], tokio::io::sink(), &answered, Greeted::ByThem);
        assert!(matches!(source.read().await, Err(EndError::Seal)));
    }
}
