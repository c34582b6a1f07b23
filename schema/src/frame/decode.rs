//! Decoding: from untrusted bytes to owned frames.

use flatbuffers::VerifierOptions;

use super::generated::link as wire;
use super::token_rule::{ADJUSTMENTS_MAX, ALTERNATIVES_MAX, CHANGE_MAX, MASK_BYTES_MAX};
use super::token_rule::{Adjustment, PositionRule, Sampling, TokenMask, TokenRule};
use super::types::{Alternative, Chosen, Frame, HiddenState, Hop, Refusal, Slice, Spent, Tokens};
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
    /// The bytes carry no file identifier of any version.
    #[error("not a baton frame: expected file identifier BTN{VERSION}")]
    Identifier,
    /// The frame is of another version.
    #[error("frame of version {found}: expected {VERSION}, that of this version of baton")]
    Version {
        /// Its version, the last character of its file identifier.
        found: char,
    },
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

/// The version of frames: the last character of the file identifier.
const VERSION: char = '3';
/// The bytes of the file identifier before the version. They follow the offset of the root table.
const FAMILY: &[u8] = b"BTN";

fn options() -> VerifierOptions {
    VerifierOptions {
        max_depth: 8,
        // For each slice the slice and its sampling, and for each row a rule and its mask, or a chosen token and a
        // hidden state.
        max_tables: 2 * SLICES_MAX + 2 * SPENT_MAX + 2 * ROWS_MAX as usize + 8,
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
            let identifier = bytes.get(4..8).unwrap_or_default();
            return Err(match identifier.strip_prefix(FAMILY) {
                Some([version]) if version.is_ascii_alphanumeric() => {
                    FrameError::Version { found: char::from(*version) }
                }
                _ => FrameError::Identifier,
            });
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

fn numbers(vector: Option<flatbuffers::Vector<'_, u32>>) -> Vec<u32> {
    vector.map(|vector| vector.iter().collect()).unwrap_or_default()
}

fn is_ascending(numbers: &[u32]) -> bool {
    numbers.windows(2).all(|pair| pair[0] < pair[1])
}

fn decode_slice(slice: wire::Slice<'_>, with_tokens: bool) -> Result<Slice, FrameError> {
    let (tokens, blocks) = (numbers(slice.tokens()), numbers(slice.blocks()));
    let window_blocks = numbers(slice.window_blocks());
    let (logits, scored) = (numbers(slice.logits()), numbers(slice.scored()));
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
    let below_count = is_ascending(&logits) && logits.last().is_none_or(|last| *last < count);
    bounded("slice.logits", logits.len() as u64, below_count, "ascending offsets below count")?;
    let hidden_states = numbers(slice.hidden_states());
    let below_count = is_ascending(&hidden_states) && hidden_states.last().is_none_or(|last| *last < count);
    let alone = hidden_states.is_empty() || logits.is_empty();
    bounded(
        "slice.hidden_states",
        hidden_states.len() as u64,
        below_count && alone,
        "ascending offsets below count, and none beside logits",
    )?;
    let chosen = logits.len().checked_sub(scored.len());
    bounded("slice.scored", scored.len() as u64, chosen.is_some(), "at most one token for each of the logits")?;
    Ok(Slice {
        sequence: SequenceId(slice.sequence()),
        attempt: Attempt(slice.attempt()),
        position: slice.position(),
        count,
        prompt_tokens: slice.prompt_tokens(),
        tokens,
        blocks,
        logits,
        scored,
        rule: decode_rule(slice, chosen.unwrap_or_default())?,
        hidden_states,
        window_first: slice.window_first(),
        window_blocks,
    })
}

/// The rule of a slice from which `chosen` tokens are to be chosen.
fn decode_rule(slice: wire::Slice<'_>, chosen: usize) -> Result<TokenRule, FrameError> {
    let sampling = decode_sampling(slice.sampling().ok_or(FrameError::Missing("slice.sampling"))?)?;
    let alternatives = slice.alternatives();
    bounded("slice.alternatives", alternatives.into(), alternatives <= ALTERNATIVES_MAX, "at most 20")?;
    let rules = slice.rules().map(|rules| rules.iter().map(decode_position).collect::<Result<Vec<_>, _>>());
    let positions = rules.transpose()?.unwrap_or_default();
    let fits = positions.is_empty() || positions.len() == chosen;
    bounded("slice.rules", positions.len() as u64, fits, "none, or one for each chosen token")?;
    Ok(TokenRule { sampling, alternatives, positions })
}

fn decode_sampling(sampling: wire::Sampling<'_>) -> Result<Sampling, FrameError> {
    let sampling = Sampling {
        temperature: sampling.temperature(),
        top_k: sampling.top_k(),
        top_p: sampling.top_p(),
        min_p: sampling.min_p(),
        typical_p: sampling.typical_p(),
        top_n_sigma: sampling.top_n_sigma(),
        xtc_probability: sampling.xtc_probability(),
        xtc_threshold: sampling.xtc_threshold(),
        seed: sampling.seed(),
        choice: sampling.choice(),
    };
    let expected = "temperature and top_n_sigma finite and at least 0, the others within 0..=1";
    bounded("sampling", 0, sampling.check().is_ok(), expected)?;
    Ok(sampling)
}

fn decode_position(rule: wire::PositionRule<'_>) -> Result<PositionRule, FrameError> {
    let changes = rule.adjustments();
    let count = changes.map_or(0, |changes| changes.len());
    bounded("rule.adjustments", count as u64, count <= ADJUSTMENTS_MAX, "at most 65536")?;
    let decode = |change: &wire::Adjustment| Adjustment {
        token: change.token(),
        bias: change.bias(),
        repetition: change.repetition(),
        penalty: change.penalty(),
    };
    let adjustments: Vec<_> = changes.map(|changes| changes.iter().map(decode).collect()).unwrap_or_default();
    let ascending = adjustments.windows(2).all(|pair| pair[0].token < pair[1].token);
    bounded("rule.adjustments", count as u64, ascending, "ascending tokens")?;
    let is_usable = |change: &Adjustment| {
        let adds = change.bias.abs() <= CHANGE_MAX || change.bias == f32::NEG_INFINITY;
        adds && (1.0 / CHANGE_MAX..=CHANGE_MAX).contains(&change.repetition) && change.penalty.abs() <= CHANGE_MAX
    };
    let unusable = adjustments.iter().find(|change| !is_usable(change));
    let expected = "bias and penalty within +-1e6 (or a bias of negative infinity), repetition within 1e-6..=1e6";
    bounded("adjustment", unusable.map_or(0, |change| change.token.into()), unusable.is_none(), expected)?;
    Ok(PositionRule { adjustments, mask: rule.mask().map(decode_mask).transpose()? })
}

fn decode_mask(mask: wire::Mask<'_>) -> Result<TokenMask, FrameError> {
    let list = |tokens: Vec<u32>, form: fn(Vec<u32>) -> TokenMask| {
        let fits = is_ascending(&tokens) && tokens.len() <= 8 * MASK_BYTES_MAX;
        bounded("mask", tokens.len() as u64, fits, "ascending tokens, at most 1048576")?;
        Ok(form(tokens))
    };
    match (mask.only(), mask.without(), mask.bits()) {
        (Some(only), None, None) => list(numbers(Some(only)), TokenMask::Only),
        (None, Some(without), None) => list(numbers(Some(without)), TokenMask::Without),
        (None, None, Some(bits)) => {
            bounded("mask", bits.len() as u64, bits.len() <= MASK_BYTES_MAX, "at most 131072 bytes")?;
            Ok(TokenMask::Bits(bits.bytes().to_vec()))
        }
        _ => Err(FrameError::Missing("exactly one of the forms of a mask")),
    }
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
    Ok(Tokens {
        generation: Generation(tokens.generation()),
        epoch: Epoch(tokens.epoch()),
        step: Step(tokens.step()),
        chosen: chosen.iter().map(decode_chosen).collect::<Result<_, _>>()?,
        spent: decode_spent(tokens.spent())?,
        hidden_states: decode_hidden_states(tokens.hidden_states())?,
    })
}

type HiddenStateVector<'a> = flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<wire::HiddenState<'a>>>;

fn decode_hidden_states(states: Option<HiddenStateVector<'_>>) -> Result<Vec<HiddenState>, FrameError> {
    let Some(states) = states else { return Ok(Vec::new()) };
    bounded("hidden_states", states.len() as u64, states.len() <= ROWS_MAX as usize, "at most 4096")?;
    // Tables may share their values, so the header's length alone does not bound these.
    let count: usize = states.iter().filter_map(|state| state.values()).map(|values| values.len()).sum();
    let fits = count * size_of::<f32>() <= HEADER_BYTES_MAX;
    bounded("hidden_states", count as u64, fits, "at most as many values as fit the header")?;
    states.iter().map(decode_hidden_state).collect()
}

fn decode_hidden_state(state: wire::HiddenState<'_>) -> Result<HiddenState, FrameError> {
    let values: Vec<f32> = state.values().map(|values| values.iter().collect()).unwrap_or_default();
    let fits = values.len() <= HIDDEN_MAX as usize && values.iter().all(|value| value.is_finite());
    bounded("hidden_state.values", values.len() as u64, fits, "at most 32768 finite values")?;
    let (sequence, attempt) = (SequenceId(state.sequence()), Attempt(state.attempt()));
    Ok(HiddenState { sequence, attempt, position: state.position(), values })
}

fn decode_chosen(chosen: wire::Chosen<'_>) -> Result<Chosen, FrameError> {
    let alternatives = chosen.alternatives();
    let count = alternatives.map_or(0, |alternatives| alternatives.len());
    bounded("chosen.alternatives", count as u64, count <= ALTERNATIVES_MAX as usize, "at most 20")?;
    let decode = |other: &wire::Alternative| Alternative { token: other.token(), logprob: other.logprob() };
    Ok(Chosen {
        sequence: SequenceId(chosen.sequence()),
        attempt: Attempt(chosen.attempt()),
        position: chosen.position(),
        token: chosen.token(),
        logprob: chosen.logprob(),
        rank: chosen.rank(),
        alternatives: alternatives.map(|alternatives| alternatives.iter().map(decode).collect()).unwrap_or_default(),
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
