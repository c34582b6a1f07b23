//! A neighbour at a stage's port that has the cluster key and says anything: in the greeting, in the key handshake, in
//! the sealed chunks, in ZMTP and in frames. Its half of the handshake is written here anew, after the same pattern.

use std::fmt::Write as _;
use std::pin::pin;
use std::time::Duration;

use engine::link::{ClusterKey, Inbound, Listen, Message, Outbound};
use schema::frame::{Frame, Hop, Refusal, Slice};
use schema::{Epoch, Generation, Protocol, SequenceId, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::damage::Piece;
use crate::targets::{Target, chain, scratch};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"baton link 3";
/// Bytes of the greeting, of a handshake message without its length, and of the seal of nothing.
const HELLO_BYTES: usize = 4;
const HANDSHAKE_BYTES: usize = 48;
const SEAL_BYTES: usize = 16;
/// Bytes of ZMTP's greeting, sealed: less than the port has said once it has greeted.
const GREETING_BYTES: usize = 64 + 2 + SEAL_BYTES;
/// Longest wait for the port's answer, and for its end of a connection: it gives a peer two seconds for each of three
/// steps.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Wait for a message that a damaged stream may still hold.
const MESSAGE_WAIT: Duration = Duration::from_millis(5);
/// Messages of a peer that sends many and ends.
const MANY: usize = 16;
/// The reason in the frames of the peer that behaves.
const MARK: &str = "sent by the good peer";

/// A port, and a peer that behaves.
struct Port {
    address: String,
    key: ClusterKey,
    inbound: Inbound,
    good: Outbound,
    step: u64,
    folder: tempfile::TempDir,
}

/// The end of a conversation.
enum End {
    /// The port closed the connection before the streams began.
    Refused(String),
    /// The handshake is done, and the stream is written or was cut off.
    Streams(Streams),
}

/// A connection behind its handshake.
struct Streams {
    socket: TcpStream,
    /// True if all was written.
    is_whole: bool,
    heard: Vec<u8>,
}

fn refusal(step: u64, reason: &str) -> Frame {
    Frame::Refusal(Refusal {
        generation: Generation(1),
        epoch: Epoch(1),
        step: Step(step),
        slot: 0,
        reason: reason.to_owned(),
        passing: false,
        epoch_known: Epoch(0),
    })
}

/// The greeting and the READY of a PUSH socket.
fn opening() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    (bytes[0], bytes[9], bytes[10]) = (0xff, 0x7f, 3);
    bytes[12..16].copy_from_slice(b"NULL");
    bytes.extend(b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH");
    bytes
}

/// A part of a ZMTP message.
fn part(more: bool, bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_be_bytes();
    let head =
        if bytes.len() < 256 { vec![u8::from(more), length[7]] } else { [&[2 | u8::from(more)], &length[..]].concat() };
    [&head[..], bytes].concat()
}

/// The streams of peers that behave: a message of one part, and one of a row with its activations.
fn streams() -> [Vec<u8>; 2] {
    let slice = Slice { count: 1, prompt_tokens: 1, blocks: vec![7], logits: vec![0], ..Slice::empty(SequenceId(5)) };
    let hop = Frame::Hop(Hop {
        generation: Generation(2),
        gateway: 0,
        epoch: Epoch(3),
        step: Step(4),
        slot: 1,
        rows: 1,
        hidden: 8,
        slices: vec![slice],
        spent: Vec::new(),
    });
    [
        [opening(), part(false, &refusal(3, "too many rows").encode())].concat(),
        [opening(), part(true, &hop.encode()), part(false, &[0; 32])].concat(),
    ]
}

/// Flips in `bytes` the bits that are set in `mask`.
fn flip(bytes: &mut [u8], mask: &[u8]) {
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

/// Says what `input` holds: a greeting, flips in the handshake and the proof, a stream, flips in the sealed stream, and
/// the size of its chunks.
async fn talk(address: &str, key: &[u8; 32], input: &[Piece]) -> std::io::Result<End> {
    let [hello, handshake, stream, sealed, size] = [0, 1, 2, 3, 4].map(|at: usize| &input[at].bytes[..]);
    let builder = snow::Builder::new(PATTERN.parse().unwrap()).psk(0, key).unwrap();
    let mut noise = builder.prologue(PROLOGUE).unwrap().build_initiator().unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let mut message = [0; 2 + HANDSHAKE_BYTES];
    message[1] = HANDSHAKE_BYTES as u8;
    noise.write_message(&[], &mut message[2..]).unwrap();
    flip(&mut message, handshake);
    socket.write_all(&[hello, &message].concat()).await?;
    // The port answers with a greeting, and with a message of the same size or one of a byte.
    let mut answer = vec![0; HELLO_BYTES + 2 + HANDSHAKE_BYTES];
    if let Err(error) = timeout(ANSWER_WAIT_MAX, socket.read_exact(&mut answer)).await.expect("the port answers") {
        return Ok(End::Refused(error.kind().to_string()));
    }
    if noise.read_message(&answer[HELLO_BYTES + 2..], &mut []).is_err() {
        return Ok(End::Refused("another answer".to_owned()));
    }
    let cipher = noise.into_stateless_transport_mode().unwrap();
    let size = 1 + size.first().map_or(0, |size| usize::from(*size) * 16);
    let mut wire = Vec::new();
    for (nonce, chunk) in [&[][..]].into_iter().chain(stream.chunks(size)).enumerate() {
        let mut bytes = vec![0; 2 + chunk.len() + SEAL_BYTES];
        let length = cipher.write_message(nonce as u64, chunk, &mut bytes[2..]).unwrap() as u16;
        bytes[..2].copy_from_slice(&length.to_be_bytes());
        wire.extend(bytes);
    }
    let proof = handshake.get(2 + HANDSHAKE_BYTES..).unwrap_or_default();
    flip(&mut wire, proof);
    flip(&mut wire[2 + SEAL_BYTES..], sealed);
    let is_whole = socket.write_all(&wire).await.is_ok();
    Ok(End::Streams(Streams { socket, is_whole, heard: Vec::new() }))
}

// === impl Streams ===

impl Streams {
    /// Listens until the port ends the connection, which it may do at any byte.
    async fn listen(&mut self) {
        let _ = self.socket.read_to_end(&mut self.heard).await;
    }

    /// Ends its own stream, and listens until the port has ended the other.
    async fn end(mut self) -> String {
        let _ = self.socket.shutdown().await;
        timeout(ANSWER_WAIT_MAX, self.listen()).await.expect("the port ends a connection whose peer has ended it");
        let answer = if self.heard.len() > GREETING_BYTES { "greeted" } else { "not greeted" };
        format!("{answer}, {}; ", if self.is_whole { "all said" } else { "broken off" })
    }
}

// === impl Port ===

impl Port {
    async fn open() -> Self {
        let (key, folder) = (ClusterKey::generate().unwrap(), scratch());
        let listen = Listen::Tcp { host: "127.0.0.1".to_owned(), port: None, key: key.clone(), every_address: false };
        let inbound = Inbound::bind_in(folder.path(), listen).await.unwrap();
        let good = Outbound::connect_in(folder.path(), inbound.endpoint(), Some(&key)).await.unwrap();
        let address = inbound.endpoint().strip_prefix("tcp://").unwrap().to_owned();
        Self { address, key, inbound, good, step: 0, folder }
    }

    /// The key's bytes.
    fn key(&self) -> [u8; 32] {
        let hex = self.key.to_hex();
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
    }

    /// Lets the peer that behaves send a frame. It connects anew if its connection is lost, as under load it may be.
    async fn send_mark(&mut self) {
        self.step += 1;
        let frame = refusal(self.step, MARK);
        if self.good.send(&frame, Vec::new()).await.is_err() {
            self.good =
                Outbound::connect_in(self.folder.path(), self.inbound.endpoint(), Some(&self.key)).await.unwrap();
            self.good.send(&frame, Vec::new()).await.unwrap();
        }
    }

    /// A message other than the good peer's own within `wait`, or the refusal of one.
    async fn message(&mut self, wait: Duration) -> Option<Result<Message, String>> {
        let received = timeout(wait, self.inbound.receive()).await.ok()?;
        Some(received.map_err(|error| {
            assert!(error.is_about_one_message(), "the socket has ended: {error}");
            chain(&error)
        }))
    }

    /// Receives until the good peer's last frame has come. Adds the messages before it to `found` in short.
    async fn until_mark(&mut self, found: &mut String) {
        loop {
            let message = self.message(ANSWER_WAIT_MAX).await.expect("the frame of the good peer comes");
            if Self::note(message, found) == Some(Step(self.step)) {
                return;
            }
        }
    }

    /// Ends the streams, and receives what they still hold: the port does not see the end of a connection before
    /// somebody has received what came before.
    async fn end(&mut self, streams: Streams, found: &mut String) -> String {
        let mut ending = pin!(streams.end());
        loop {
            let message = tokio::select! {
                ended = &mut ending => return ended,
                message = self.message(ANSWER_WAIT_MAX) => message,
            };
            if let Some(message) = message {
                Self::note(message, found);
            }
        }
    }

    /// Adds a message to `found` in short. The step of a frame of the good peer's own instead.
    fn note(message: Result<Message, String>, found: &mut String) -> Option<Step> {
        match message {
            Ok(Message { frame: Frame::Refusal(mark), .. }) if mark.reason == MARK => return Some(mark.step),
            Ok(_) => found.push_str("a message, "),
            Err(refused) => write!(found, "{refused}, ").unwrap(),
        }
        None
    }
}

/// Conversations with the port of a stage.
pub(crate) fn link() -> Target {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut port = runtime.block_on(Port::open());
    let key = port.key();
    let streams = streams();
    let good = streams.clone();
    let run = move |input: &[Piece]| {
        runtime.block_on(async {
            let is_good = good.contains(&input[2].bytes);
            let said = talk(&port.address, &key, input).await;
            let (mut outcome, mut found, mut has_message) = (String::new(), String::new(), false);
            match said.unwrap_or_else(|error| End::Refused(error.kind().to_string())) {
                End::Refused(reason) => write!(outcome, "refused: {reason}; ").unwrap(),
                End::Streams(mut streams) => {
                    let wait = if is_good { ANSWER_WAIT_MAX } else { MESSAGE_WAIT };
                    let message = tokio::select! {
                        message = port.message(wait) => message,
                        () = streams.listen() => None,
                    };
                    has_message = matches!(message, Some(Ok(_)));
                    if let Some(Err(refused)) = message {
                        write!(outcome, "{refused}; ").unwrap();
                    }
                    outcome.push_str(&port.end(streams, &mut found).await);
                }
            }
            port.send_mark().await;
            port.until_mark(&mut found).await;
            outcome.push_str(&found);
            if has_message { Ok(outcome) } else { Err(outcome) }
        })
    };
    let hello = [b'B', b'T', b'N', Protocol::CURRENT.0].to_vec();
    // More single bytes than the port's socket within the process holds unless somebody receives.
    let many = [opening(), part(false, &refusal(3, "too many rows").encode()).repeat(MANY)].concat();
    let [one, two] = streams;
    let seeds = [(one, 255), (two, 255), (many, 0)].map(|(stream, size)| {
        // Flips of the handshake and its length, then of the proof and its own; and of the start of the sealed stream.
        let masks = [vec![0; 2 + HANDSHAKE_BYTES + 2 + SEAL_BYTES], vec![0; 200]];
        let [handshake, sealed] = masks.map(Piece::binary);
        vec![Piece::binary(hello.clone()), handshake, Piece::binary(stream), sealed, Piece::binary(vec![size])]
    });
    // The codec may reserve one declared length, which is at most that of the largest activations: 256 MiB.
    Target { name: "link", seeds: seeds.to_vec(), run: Box::new(run), memory: (300 << 20, 64) }
}
