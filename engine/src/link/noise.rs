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
use super::handshake_error::{HandshakeError, PROTOCOL};
use super::key::ClusterKey;
use super::limits::SEAL_BYTES;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Binds a handshake to this protocol and version.
const PROLOGUE: &[u8] = b"baton link 3";
/// The first bytes that each side sends.
const MAGIC: [u8; 3] = *b"BTN";
/// Bytes of the magic and the version.
const HELLO_BYTES: usize = MAGIC.len() + 1;
/// The answer to a peer that is refused for its key: a message of this one byte.
const REFUSED_KEY: u8 = b'K';
/// Bytes in each handshake message: an ephemeral public key and the seal of an empty payload.
const HANDSHAKE_BYTES: usize = 32 + SEAL_BYTES;

/// The transport keys that both directions of a sealed connection share.
pub(super) type Cipher = Arc<StatelessTransportState>;

/// Runs the handshake as the side that connects.
pub(super) async fn connect<S>(stream: &mut S, key: &ClusterKey) -> Result<Cipher, HandshakeError>
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
pub(super) async fn accept<S>(stream: &mut S, key: &ClusterKey) -> Result<Cipher, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut noise = builder(key).build_responder().map_err(|_| HandshakeError::Key)?;
    let hello = read_hello(stream).await;
    if !matches!(hello, Err(HandshakeError::NotBaton)) {
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
    cipher.read_message(0, &proof, &mut []).map_err(|_| HandshakeError::Replay)?;
    Ok(Arc::new(cipher))
}

/// The halves of a connection whose handshake is done.
pub(super) fn sealed<R, W>(
    read: R,
    write: W,
    cipher: &Cipher,
    role: Role,
) -> (ChunkSource<R, Cipher>, ChunkSink<W, Cipher>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // The side that connected has used its first nonce for the proof.
    let (read_nonce, write_nonce) = match role {
        Role::Initiator => (0, 1),
        Role::Responder => (1, 0),
    };
    (ChunkSource::new(read, Arc::clone(cipher), read_nonce), ChunkSink::new(write, Arc::clone(cipher), write_nonce))
}

/// This process's role in the handshake.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// It connected.
    Initiator,
    /// It was connected to.
    Responder,
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
        _ => Err(HandshakeError::NotBaton),
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
        let (initiator, responder) = tokio::join!(connect(&mut near, &key), accept(&mut far, &key));
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        (
            sealed(near_read, near_write, &initiator.unwrap(), Role::Initiator),
            sealed(far_read, far_write, &responder.unwrap(), Role::Responder),
        )
    }

    #[tokio::test]
    async fn chunks_of_every_size_come_out_as_they_went_in_and_heartbeats_do_not() {
        let (near, far) = pair().await;
        exchange(near, far).await;
    }

    #[tokio::test]
    async fn another_key_is_refused_at_the_first_message() {
        let (ours, theirs) = (ClusterKey::generate().unwrap(), ClusterKey::generate().unwrap());
        let (mut near, mut far) = duplex(1 << 10);
        let responder = async {
            let responder = accept(&mut far, &theirs).await.err();
            drop(far);
            responder
        };
        let (initiator, responder) = tokio::join!(connect(&mut near, &ours), responder);
        assert!(matches!(responder, Some(HandshakeError::Key)));
        assert!(matches!(initiator.err(), Some(HandshakeError::Key)), "it does not know the reason");
    }

    #[tokio::test]
    async fn another_version_and_another_program_have_different_errors() {
        let key = ClusterKey::generate().unwrap();
        for (greeting, expected) in [(*b"BTN\x01", "speaks protocol 1: expected 4"), (*b"GET ", "is no baton process")]
        {
            let (mut near, mut far) = duplex(1 << 10);
            near.write_all(&greeting).await.unwrap();
            let error = accept(&mut far, &key).await.err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            let (mut near, mut far) = duplex(1 << 10);
            far.write_all(&greeting).await.unwrap();
            let error = connect(&mut near, &key).await.err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn a_replayed_first_message_is_refused() {
        let key = ClusterKey::generate().unwrap();
        let (mut near, mut tap) = duplex(1 << 10);
        let mut first = [0; HELLO_BYTES + LENGTH_BYTES + HANDSHAKE_BYTES];
        tokio::select! {
            _ = connect(&mut near, &key) => unreachable!("nobody answers"),
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
        let (responder, ()) = tokio::join!(accept(&mut gate, &key), attack);
        assert!(matches!(responder.err(), Some(HandshakeError::Replay)));
    }

    #[tokio::test]
    async fn a_flipped_bit_ends_the_connection() {
        let key = ClusterKey::generate().unwrap();
        let (mut near, mut far) = duplex(1 << 10);
        let (initiator, responder) = tokio::join!(connect(&mut near, &key), accept(&mut far, &key));
        let (initiator, responder) = (initiator.unwrap(), responder.unwrap());
        let mut wire = Vec::new();
        let (_, mut sink) = sealed(tokio::io::empty(), &mut wire, &initiator, Role::Initiator);
        sink.write(b"activations").await.unwrap();
        *wire.last_mut().unwrap() ^= 1;
        let (mut source, _) = sealed(&wire[..], tokio::io::sink(), &responder, Role::Responder);
        assert!(matches!(source.read().await, Err(EndError::Seal)));
    }
}
