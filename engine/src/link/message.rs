//! A message: a frame with the activations that belong to it, and its form as a ZeroMQ message.
//!
//! A message with activations has two parts, one without has one. Nothing else is a message.

use std::collections::VecDeque;

use bytes::Bytes;
use schema::frame::{Frame, FrameError, HEADER_BYTES_MAX};
use zeromq::ZmqMessage;

use super::LinkError;
use super::limits::ACTIVATION_BYTES_MAX;

/// A frame and its activations.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The header.
    pub frame: Frame,
    /// `rows × hidden` f32 values, little endian, as the hop declares them. Empty for every other frame.
    pub activations: Bytes,
}

// === impl Message ===

impl Message {
    /// Reads a message from its parts.
    pub(super) fn from_parts(mut parts: VecDeque<Bytes>) -> Result<Self, LinkError> {
        let found = parts.len();
        let header = parts.pop_front().ok_or(LinkError::Parts { found })?;
        let activations = parts.pop_front();
        if found > 2 || activations.as_ref().is_some_and(Bytes::is_empty) {
            return Err(LinkError::Parts { found });
        }
        let activations = activations.unwrap_or_default();
        let frame = Frame::decode(&header)?;
        check_activations(&frame, activations.len())?;
        Ok(Self { frame, activations })
    }
}

/// The header and the activations of a message, after the same check that a receiver makes.
pub(super) fn to_parts(frame: &Frame, activations: Bytes) -> Result<(Bytes, Bytes), LinkError> {
    check_activations(frame, activations.len())?;
    let header = frame.encode();
    if header.len() > HEADER_BYTES_MAX {
        return Err(FrameError::TooLong { found: header.len() }.into());
    }
    Ok((header.into(), activations))
}

/// The ZeroMQ message of these parts.
pub(super) fn of_parts(header: Bytes, activations: Bytes) -> ZmqMessage {
    let mut message = ZmqMessage::from(header);
    if !activations.is_empty() {
        message.push_back(activations);
    }
    message
}

fn check_activations(frame: &Frame, bytes: usize) -> Result<(), LinkError> {
    if bytes > ACTIVATION_BYTES_MAX {
        return Err(LinkError::TooLarge { found: bytes });
    }
    match frame {
        Frame::Hop(hop) => Ok(hop.check_activations(bytes)?),
        Frame::Tokens(_) | Frame::Refusal(_) if bytes == 0 => Ok(()),
        Frame::Tokens(_) | Frame::Refusal(_) => {
            Err(FrameError::Activations { found: bytes, expected: 0, rows: 0, hidden: 0 }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::frame::Refusal;
    use schema::{Epoch, Generation, Step};

    use super::*;

    fn refusal() -> Frame {
        let reason = "stale generation".to_owned();
        Frame::Refusal(Refusal {
            generation: Generation(3),
            epoch: Epoch(1),
            step: Step(9),
            slot: 2,
            reason,
            passing: false,
            epoch_known: Epoch(0),
        })
    }

    #[test]
    fn a_frame_without_activations_is_one_part_and_nothing_else() {
        let (header, activations) = to_parts(&refusal(), Bytes::new()).unwrap();
        let message = of_parts(header, activations);
        assert_eq!(message.len(), 1);
        let mut with_empty = message.clone();
        assert_eq!(Message::from_parts(message.into_vecdeque()).unwrap().frame, refusal());
        with_empty.push_back(Bytes::new());
        assert!(matches!(Message::from_parts(with_empty.into_vecdeque()), Err(LinkError::Parts { found: 2 })));
    }

    #[test]
    fn activations_with_a_refusal_are_refused_on_both_sides() {
        let values = Bytes::from_static(&[0; 4]);
        assert!(matches!(to_parts(&refusal(), values.clone()), Err(LinkError::Frame(FrameError::Activations { .. }))));
        let (header, _) = to_parts(&refusal(), Bytes::new()).unwrap();
        let message = of_parts(header, values);
        assert!(matches!(
            Message::from_parts(message.into_vecdeque()),
            Err(LinkError::Frame(FrameError::Activations { .. }))
        ));
    }

    #[test]
    fn a_header_over_its_bound_is_refused_by_the_sender() {
        let Frame::Refusal(mut large) = refusal() else { unreachable!() };
        large.reason = "x".repeat(HEADER_BYTES_MAX);
        let error = to_parts(&Frame::Refusal(large), Bytes::new()).unwrap_err();
        assert!(matches!(error, LinkError::Frame(FrameError::TooLong { .. })) && error.is_about_one_message());
    }
}
