//! The frames that links carry: owned types, and their encoding in FlatBuffers.
//!
//! Decoding verifies all bytes before it reads the first field. It also checks the rules that FlatBuffers cannot
//! express (counts that add up, offsets inside their slice), so the output of [`Frame::decode`] can be trusted.

mod decode;
mod encode;
#[allow(warnings, clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks, reason = "made by flatc")]
#[rustfmt::skip]
mod generated;
#[cfg(test)]
mod laws;
mod token_rule;
mod types;

pub use decode::FrameError;
pub use token_rule::{
    ADJUSTMENTS_MAX, ALTERNATIVES_MAX, Adjustment, CHANGE_MAX, MASK_BYTES_MAX, PositionRule, Sampling, TokenMask,
    TokenRule,
};
pub use types::{Alternative, Chosen, Frame, HiddenState, Hop, Refusal, Slice, Spent, Tokens};

/// Largest header part, in bytes. 4,096 rows with their ids and block tables take less than half a MiB, and the gateway
/// puts at most [`RULE_BYTES_MAX`] of rules into a micro-batch, and asks for at most [`HIDDEN_STATE_BYTES_MAX`] back.
pub const HEADER_BYTES_MAX: usize = 10 << 20;
/// Most bytes of positions' rules that a gateway puts into a micro-batch: 128 masks of 262,144 tokens.
pub const RULE_BYTES_MAX: usize = 4 << 20;
/// Most bytes of hidden states that a gateway asks of a micro-batch: those of 2,048 tokens of an embedding model with
/// 1,024 hidden dimensions, and of 409 tokens with 5,120. The answer carries them in its header.
pub const HIDDEN_STATE_BYTES_MAX: usize = 8 << 20;
/// Most rows in a micro-batch. It bounds the memory that a stage allocates for one.
pub const ROWS_MAX: u32 = 4096;
/// Most values in a row. The widest models in use have 16,384.
pub const HIDDEN_MAX: u32 = 32_768;
/// Most sequences in a micro-batch.
pub const SLICES_MAX: usize = 1024;
/// Most stages that can have added their times to a frame: one per layer of the deepest model.
pub const SPENT_MAX: usize = 1024;
