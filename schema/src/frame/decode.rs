//! Decoding: from untrusted bytes to owned frames.

use flatbuffers::VerifierOptions;

use super::generated::link as wire;
use super::types::{Chosen, Frame, Hop, Refusal, Sampling, Slice, Spent, Tokens};
use super::{HEADER_BYTES_MAX, HIDDEN_MAX, ROWS_MAX, SLICES_MAX, SPENT_MAX};
use crate::{Attempt, Epoch, Generation, SequenceId, Step};

/// The reason for which bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes are longer than any frame.
    #[error("frame header of {found} bytes: expected at most {HEADER_BYTES_MAX}")]
    TooLong {
        /// Length in bytes.
        found: usize,
    },
    /// The bytes do not carry the file identifier of this version.
    #[error("not a baton frame: expected file identifier BTN1")]
    Identifier,
    /// The bytes are not well-formed FlatBuffers.
    #[error("malformed frame: {0}")]
    Malformed(String),
    /// A required field is absent.
    #[error("frame lacks {0}")]
    Missing(&'static str),
    /// A field is out of its bounds.
    #[error("frame field {field} is {found}: expected {expected}")]
    Bound {
        /// Name of the field.
        field: &'static str,
        /// Value of the field. For a vector it is the length.
        found: u64,
        /// The values that are accepted.
        expected: &'static str,
    },
    /// The activations do not have the length that the header gives.
    #[error("activations of {found} bytes: expected {expected} ({rows} rows of {hidden} f32 values)")]
    Activations {
        /// Their length in bytes.
        found: usize,
        /// Length that the header gives, in bytes.
        expected: usize,
        /// Rows according to the header.
        rows: u32,
        /// Values in a row according to the header.
        hidden: u32,
    },
}

fn options() -> VerifierOptions {
    VerifierOptions {
        max_depth: 8,
        max_tables: 2 * SLICES_MAX + 2 * SPENT_MAX + ROWS_MAX as usize + 8,
        max_apparent_size: 2 * HEADER_BYTES_MAX,
        ignore_missing_null_terminator: false,
    }
}

fn bounded(field: &'static str, found: u64, holds: bool, expected: &'static str) -> Result<(), FrameError> {
    if holds { Ok(()) } else { Err(FrameError::Bound { field, found, expected }) }
}

// === impl Frame ===

impl Frame {
    /// Decodes a frame from the first part of a message.
    ///
    /// # Errors
    /// [`FrameError`] describes the fault. No part of the bytes is used then.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > HEADER_BYTES_MAX {
            return Err(FrameError::TooLong { found: bytes.len() });
        }
        if bytes.len() < 8 || !wire::frame_buffer_has_identifier(bytes) {
            return Err(FrameError::Identifier);
        }
        let frame = wire::root_as_frame_with_opts(&options(), bytes)
            .map_err(|error| FrameError::Malformed(error.to_string()))?;
        if let Some(hop) = frame.body_as_hop() {
            decode_hop(hop).map(Self::Hop)
        } else if let Some(tokens) = frame.body_as_tokens() {
            decode_tokens(tokens).map(Self::Tokens)
        } else if let Some(refusal) = frame.body_as_refusal() {
            Ok(Self::Refusal(decode_refusal(refusal)))
        } else {
            Err(FrameError::Missing("a body this version knows (Hop, Tokens or Refusal)"))
        }
    }
}

// === impl Hop ===

impl Hop {
    /// Length of this hop's activations, in bytes.
    pub fn activation_bytes(&self) -> usize {
        self.rows as usize * self.hidden as usize * size_of::<f32>()
    }

    /// Checks the length of a message's second part against the header.
    ///
    /// # Errors
    /// [`FrameError::Activations`] if the lengths differ.
    pub fn check_activations(&self, bytes: usize) -> Result<(), FrameError> {
        let expected = self.activation_bytes();
        if bytes == expected {
            return Ok(());
        }
        Err(FrameError::Activations { found: bytes, expected, rows: self.rows, hidden: self.hidden })
    }
}

fn decode_hop(hop: wire::Hop<'_>) -> Result<Hop, FrameError> {
    let slices = hop.slices().ok_or(FrameError::Missing("slices"))?;
    bounded("slices", slices.len() as u64, slices.len() <= SLICES_MAX, "at most 1024")?;
    bounded("rows", hop.rows().into(), hop.rows() <= ROWS_MAX, "at most 4096")?;
    bounded("hidden", hop.hidden().into(), hop.hidden() <= HIDDEN_MAX, "at most 32768")?;
    let slices = slices.iter().map(|slice| decode_slice(slice, hop.hidden() == 0)).collect::<Result<Vec<_>, _>>()?;
    let rows: u64 = slices.iter().map(|slice| u64::from(slice.count)).sum();
    bounded("rows", hop.rows().into(), rows == u64::from(hop.rows()), "the sum of the slices' counts")?;
    Ok(Hop {
        generation: Generation(hop.generation()),
        gateway: hop.gateway(),
        epoch: Epoch(hop.epoch()),
        step: Step(hop.step()),
        slot: hop.slot(),
        rows: hop.rows(),
        hidden: hop.hidden(),
        slices,
        spent: decode_spent(hop.spent())?,
    })
}

fn decode_slice(slice: wire::Slice<'_>, with_tokens: bool) -> Result<Slice, FrameError> {
    let numbers = |vector: Option<flatbuffers::Vector<'_, u32>>| {
        vector.map(|vector| vector.iter().collect::<Vec<u32>>()).unwrap_or_default()
    };
    let (tokens, blocks, logits) = (numbers(slice.tokens()), numbers(slice.blocks()), numbers(slice.logits()));
    let count = slice.count();
    bounded("slice.count", count.into(), (1..=ROWS_MAX).contains(&count), "1 to 4096")?;
    let end = u64::from(slice.position()) + u64::from(count);
    bounded("slice.position", slice.position().into(), end < u64::from(u32::MAX), "a position below 2^32 - count")?;
    let tokens_expected = if with_tokens { count as usize } else { 0 };
    bounded(
        "slice.tokens",
        tokens.len() as u64,
        tokens.len() == tokens_expected,
        "one id a token on the way to the first stage, else none",
    )?;
    let ascending = logits.windows(2).all(|pair| pair[0] < pair[1]) && logits.last().is_none_or(|last| *last < count);
    bounded("slice.logits", logits.len() as u64, ascending, "ascending offsets below count")?;
    let sampling = decode_sampling(slice.sampling().ok_or(FrameError::Missing("slice.sampling"))?)?;
    Ok(Slice {
        sequence: SequenceId(slice.sequence()),
        attempt: Attempt(slice.attempt()),
        position: slice.position(),
        count,
        tokens,
        blocks,
        logits,
        sampling,
    })
}

fn decode_sampling(sampling: wire::Sampling<'_>) -> Result<Sampling, FrameError> {
    let (temperature, top_p, min_p) = (sampling.temperature(), sampling.top_p(), sampling.min_p());
    let sane =
        temperature.is_finite() && temperature >= 0.0 && (0.0..=1.0).contains(&top_p) && (0.0..=1.0).contains(&min_p);
    bounded("sampling", 0, sane, "temperature >= 0, top_p and min_p within 0..=1")?;
    Ok(Sampling {
        temperature,
        top_k: sampling.top_k(),
        top_p,
        min_p,
        seed: sampling.seed(),
        choice: sampling.choice(),
    })
}

type SpentVector<'a> = flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<wire::Spent<'a>>>;

fn decode_spent(spent: Option<SpentVector<'_>>) -> Result<Vec<Spent>, FrameError> {
    let Some(spent) = spent else { return Ok(Vec::new()) };
    bounded("spent", spent.len() as u64, spent.len() <= SPENT_MAX, "at most 1024")?;
    let decode = |spent: wire::Spent<'_>| Spent {
        slot: spent.slot(),
        rows: spent.rows(),
        compute_us: spent.compute_us(),
        queue_us: spent.queue_us(),
    };
    Ok(spent.iter().map(decode).collect())
}

fn decode_tokens(tokens: wire::Tokens<'_>) -> Result<Tokens, FrameError> {
    let chosen = tokens.chosen().ok_or(FrameError::Missing("chosen"))?;
    bounded("chosen", chosen.len() as u64, chosen.len() <= ROWS_MAX as usize, "at most 4096")?;
    let decode = |chosen: wire::Chosen<'_>| Chosen {
        sequence: SequenceId(chosen.sequence()),
        attempt: Attempt(chosen.attempt()),
        position: chosen.position(),
        token: chosen.token(),
        logprob: chosen.logprob(),
    };
    Ok(Tokens {
        generation: Generation(tokens.generation()),
        epoch: Epoch(tokens.epoch()),
        step: Step(tokens.step()),
        chosen: chosen.iter().map(decode).collect(),
        spent: decode_spent(tokens.spent())?,
    })
}

fn decode_refusal(refusal: wire::Refusal<'_>) -> Refusal {
    Refusal {
        generation: Generation(refusal.generation()),
        epoch: Epoch(refusal.epoch()),
        step: Step(refusal.step()),
        slot: refusal.slot(),
        reason: refusal.reason().unwrap_or_default().to_owned(),
        passing: refusal.passing(),
        epoch_known: Epoch(refusal.epoch_known()),
    }
}
