//! Checks a ZMTP 3.0 stream before the ZeroMQ codec reads it, because the codec reserves whatever length a frame
//! declares and aborts the process if it cannot. Pure: bytes in, a verdict out. It keeps no payload.
//!
//! It is stricter than ZMTP and admits only this program's messages: NULL mechanism, one READY, then messages of one or
//! two parts with the sizes of a frame header and of activations. Format: <https://rfc.zeromq.org/spec/23/>.

use schema::frame::HEADER_BYTES_MAX;

use super::limits::{ACTIVATION_BYTES_MAX, COMMAND_BYTES_MAX};

/// Bytes in a greeting.
const GREETING_BYTES: usize = 64;
const MECHANISM_NULL: [u8; 20] = *b"NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// The reason for which a stream is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ZmtpError {
    /// Not the greeting of ZMTP 3 without security.
    #[error("no ZMTP greeting: expected version 3 with the NULL mechanism")]
    Greeting,
    /// Flags that ZMTP does not have.
    #[error("ZMTP frame with flags {found:#04x}: expected a combination of more (1), long (2) and command (4)")]
    Flags {
        /// The flags.
        found: u8,
    },
    /// A command in the place of a message, or a message in the place of a command.
    #[error("ZMTP stream out of order: expected one command, and after it {expected}")]
    Order {
        /// The content that may come.
        expected: &'static str,
    },
    /// A frame larger than any of this program.
    #[error("ZMTP frame declares {found} bytes: expected at most {expected} ({part})")]
    Length {
        /// The declared length.
        found: u64,
        /// The largest length allowed.
        expected: u64,
        /// The part that it is for.
        part: &'static str,
    },
    /// A message of more parts than this program's have.
    #[error("ZMTP message of more than two parts")]
    Parts,
}

/// The direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// From PUSH to PULL: messages.
    Messages,
    /// From PULL to PUSH: nothing after the handshake.
    Handshake,
}

/// The place of the next byte in the stream.
#[derive(Debug, Clone, Copy)]
enum At {
    Greeting { seen: usize },
    Flags,
    Length { flags: u8, left: u8, value: u64 },
    Body { flags: u8, left: u64 },
}

/// The state of one stream.
#[derive(Debug)]
pub(super) struct Zmtp {
    flow: Flow,
    at: At,
    greeting: [u8; GREETING_BYTES],
    ready: bool,
    parts: u32,
}

// === impl Zmtp ===

impl Zmtp {
    pub(super) fn new(flow: Flow) -> Self {
        let at = At::Greeting { seen: 0 };
        Self { flow, at, greeting: [0; GREETING_BYTES], ready: false, parts: 0 }
    }

    /// True once greeting and READY have passed.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Checks the next bytes of the stream, which may break anywhere. After an error the stream must not go on.
    /// `starts` gets the places in `chunk` at which messages start.
    pub(super) fn pass(&mut self, chunk: &[u8], starts: &mut Vec<usize>) -> Result<(), ZmtpError> {
        starts.clear();
        let mut bytes = chunk;
        while let Some((first, rest)) = bytes.split_first() {
            bytes = match self.at {
                At::Greeting { seen } => self.greeting(seen, bytes)?,
                At::Flags => {
                    self.at = self.flags(*first)?;
                    if self.ready && self.parts == 0 {
                        starts.push(chunk.len() - bytes.len());
                    }
                    rest
                }
                At::Length { flags, left, value } => {
                    let (left, value) = (left - 1, value << 8 | u64::from(*first));
                    self.at = if left > 0 { At::Length { flags, left, value } } else { self.body(flags, value)? };
                    rest
                }
                At::Body { flags, left } => {
                    let here = left.min(bytes.len() as u64);
                    self.at = self.advanced(flags, left - here);
                    &bytes[here as usize..]
                }
            };
        }
        Ok(())
    }

    fn greeting<'a>(&mut self, seen: usize, bytes: &'a [u8]) -> Result<&'a [u8], ZmtpError> {
        let (here, rest) = bytes.split_at(bytes.len().min(GREETING_BYTES - seen));
        let now = seen + here.len();
        self.greeting[seen..now].copy_from_slice(here);
        let whole = now == GREETING_BYTES;
        let sane = self.greeting[0] == 0xff
            && (!whole
                || (self.greeting[9] == 0x7f && self.greeting[10] >= 3 && self.greeting[12..32] == MECHANISM_NULL));
        self.at = if whole { At::Flags } else { At::Greeting { seen: now } };
        if sane { Ok(rest) } else { Err(ZmtpError::Greeting) }
    }

    fn flags(&self, flags: u8) -> Result<At, ZmtpError> {
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & (COMMAND | MORE) == COMMAND | MORE {
            return Err(ZmtpError::Flags { found: flags });
        }
        let expected = if self.flow == Flow::Messages { "messages" } else { "nothing" };
        if (flags & COMMAND != 0) == self.ready || (self.ready && self.flow == Flow::Handshake) {
            return Err(ZmtpError::Order { expected });
        }
        Ok(At::Length { flags, left: if flags & LONG != 0 { 8 } else { 1 }, value: 0 })
    }

    fn body(&mut self, flags: u8, length: u64) -> Result<At, ZmtpError> {
        let (expected, part) = match (flags & COMMAND != 0, self.parts) {
            (true, _) => (COMMAND_BYTES_MAX, "a command"),
            (false, 0) => (HEADER_BYTES_MAX as u64, "a frame header"),
            (false, 1) if flags & MORE == 0 => (ACTIVATION_BYTES_MAX as u64, "activations"),
            (false, _) => return Err(ZmtpError::Parts),
        };
        if length > expected {
            return Err(ZmtpError::Length { found: length, expected, part });
        }
        Ok(self.advanced(flags, length))
    }

    /// The state with `left` bytes of the current frame to come.
    fn advanced(&mut self, flags: u8, left: u64) -> At {
        if left > 0 {
            return At::Body { flags, left };
        }
        if flags & COMMAND != 0 {
            self.ready = true;
        } else if flags & MORE != 0 {
            self.parts += 1;
        } else {
            self.parts = 0;
        }
        At::Flags
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn greeting() -> Vec<u8> {
        let mut greeting = vec![0; GREETING_BYTES];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[10] = 3;
        greeting[12..16].copy_from_slice(b"NULL");
        greeting
    }

    fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
        if body.len() > 255 {
            [&[flags | LONG][..], &(body.len() as u64).to_be_bytes(), body].concat()
        } else {
            [&[flags, body.len() as u8][..], body].concat()
        }
    }

    fn opened() -> Vec<u8> {
        [greeting(), frame(COMMAND, b"\x05READY")].concat()
    }

    fn verdict(bytes: &[u8]) -> Result<(), ZmtpError> {
        let mut zmtp = Zmtp::new(Flow::Messages);
        zmtp.pass(bytes, &mut Vec::new())
    }

    #[test]
    fn messages_of_one_and_two_parts_pass() {
        let stream =
            [opened(), frame(0, b"one"), frame(MORE, &[1; 300]), frame(0, &[2; 70_000]), frame(0, b"")].concat();
        assert_eq!(verdict(&stream), Ok(()));
    }

    #[test]
    fn messages_start_at_their_first_parts_however_the_stream_is_cut() {
        let messages = [frame(0, b"one"), frame(MORE, &[1; 300]), frame(0, &[2; 700]), frame(0, b"")];
        let stream = [opened(), messages.concat()].concat();
        let first = opened().len();
        let second = first + messages[0].len();
        let expected = [first, second, stream.len() - messages[3].len()];
        for size in [1, 2, 7, 300, stream.len()] {
            let (mut zmtp, mut starts, mut found) = (Zmtp::new(Flow::Messages), Vec::new(), Vec::new());
            for (at, chunk) in stream.chunks(size).enumerate() {
                zmtp.pass(chunk, &mut starts).unwrap();
                found.extend(starts.iter().map(|start| at * size + start));
            }
            assert_eq!(found, expected, "chunks of {size} bytes");
        }
    }

    #[test]
    fn a_length_that_would_abort_the_process_is_refused_before_its_last_byte_is_passed_on() {
        for length in [1_u64 << 36, u64::MAX, 1 << 63, HEADER_BYTES_MAX as u64 + 1] {
            let stream = [opened(), vec![LONG], length.to_be_bytes().to_vec()].concat();
            let expected = HEADER_BYTES_MAX as u64;
            assert_eq!(verdict(&stream), Err(ZmtpError::Length { found: length, expected, part: "a frame header" }));
        }
    }

    #[test]
    fn activations_have_their_own_cap_and_no_successor() {
        let first = [opened(), frame(MORE, b"header")].concat();
        let length = ACTIVATION_BYTES_MAX as u64 + 1;
        let large = [first.clone(), vec![LONG], length.to_be_bytes().to_vec()].concat();
        assert!(matches!(verdict(&large), Err(ZmtpError::Length { part: "activations", .. })));
        assert_eq!(verdict(&[first, frame(MORE, b"x")].concat()), Err(ZmtpError::Parts));
    }

    #[test]
    fn an_invalid_greeting_is_refused_at_its_first_wrong_byte() {
        assert_eq!(verdict(b"GET / HTTP/1.1"), Err(ZmtpError::Greeting));
        for (at, value) in [(9, 0), (10, 2), (12, b'C'), (31, 1)] {
            let mut greeting = greeting();
            greeting[at] = value;
            assert_eq!(verdict(&greeting), Err(ZmtpError::Greeting), "byte {at}");
        }
    }

    #[test]
    fn the_order_is_greeting_then_one_command_then_messages() {
        let message_first = [greeting(), frame(0, b"x")].concat();
        assert_eq!(verdict(&message_first), Err(ZmtpError::Order { expected: "messages" }));
        let second_command = [opened(), frame(COMMAND, b"\x05READY")].concat();
        assert_eq!(verdict(&second_command), Err(ZmtpError::Order { expected: "messages" }));
        let mut back = Zmtp::new(Flow::Handshake);
        back.pass(&opened(), &mut Vec::new()).unwrap();
        assert!(back.is_ready());
        assert_eq!(back.pass(&frame(0, b"x"), &mut Vec::new()), Err(ZmtpError::Order { expected: "nothing" }));
    }

    #[test]
    fn unknown_flags_and_a_large_command_are_refused() {
        assert_eq!(verdict(&[opened(), vec![0x80]].concat()), Err(ZmtpError::Flags { found: 0x80 }));
        assert_eq!(verdict(&[greeting(), vec![COMMAND | MORE]].concat()), Err(ZmtpError::Flags { found: 5 }));
        let long = [greeting(), vec![COMMAND | LONG], 513_u64.to_be_bytes().to_vec()].concat();
        assert!(matches!(verdict(&long), Err(ZmtpError::Length { found: 513, part: "a command", .. })));
    }

    proptest! {
        #[test]
        fn the_verdict_does_not_depend_on_how_the_stream_is_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..8),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            cuts in prop::collection::vec(1_usize..97, 1..20),
        ) {
            let mut stream = opened();
            for (index, body) in bodies.iter().enumerate() {
                let more = if index % 2 == 0 && index + 1 < bodies.len() { MORE } else { 0 };
                stream.extend(frame(more, body));
            }
            if let Some((at, value)) = damage {
                let at = at.index(stream.len());
                stream[at] = value;
            }
            let whole = verdict(&stream);
            let mut zmtp = Zmtp::new(Flow::Messages);
            let (mut rest, mut pieces) = (&stream[..], Ok(()));
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || pieces.is_err() {
                    break;
                }
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                pieces = zmtp.pass(piece, &mut Vec::new());
                rest = after;
            }
            prop_assert_eq!(pieces, whole);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = verdict(&bytes);
            let _ = verdict(&[opened(), bytes].concat());
        }
    }
}
