//! The owned form of every frame.

use super::token_rule::TokenRule;
use crate::{Attempt, Epoch, Generation, SequenceId, Step};

/// One sequence's part of a micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// The sequence.
    pub sequence: SequenceId,
    /// Number of times that the sequence was started again.
    pub attempt: Attempt,
    /// Index in the sequence of the first token here.
    pub position: u32,
    /// Number of tokens in this slice, at least one.
    pub count: u32,
    /// Length of the sequence's prompt. Positions below it are of the prompt.
    pub prompt_tokens: u32,
    /// The ids of these tokens on the way to the first stage, otherwise empty.
    pub tokens: Vec<u32>,
    /// Block `blocks[i]` holds the keys and values of tokens `i * block_tokens ..` in the layers without a window.
    pub blocks: Vec<u32>,
    /// Offsets within this slice, ascending, after which the last stage scores or chooses a token.
    pub logits: Vec<u32>,
    /// The tokens that it scores after the first of these offsets. After the others it chooses one.
    pub scored: Vec<u32>,
    /// The rule by which it chooses.
    pub rule: TokenRule,
    /// Offsets within this slice, ascending, of the tokens whose hidden states the last stage returns. Empty if there
    /// are `logits`.
    pub hidden_states: Vec<u32>,
    /// Index in the sequence of the first block of `window_blocks`. Those before it are not kept.
    pub window_first: u32,
    /// Block `window_blocks[i]` holds the keys and values of tokens `(window_first + i) * block_tokens ..` in the
    /// layers with a window.
    pub window_blocks: Vec<u32>,
}

/// The work that one stage did for a micro-batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// The stage's slot in the placement.
    pub slot: u32,
    /// Token rows it computed.
    pub rows: u32,
    /// Time computing, in microseconds.
    pub compute_us: u32,
    /// Time from arrival to the start of computing, in microseconds.
    pub queue_us: u32,
}

/// A micro-batch on its way to the stage in `slot`. One without slices tests that frames pass through all stages. Its
/// activations, `rows × hidden` f32, are the second part of the message.
#[derive(Debug, Clone, PartialEq)]
pub struct Hop {
    /// The generation of the placement that it was made for.
    pub generation: Generation,
    /// The gateway's slot.
    pub gateway: u32,
    /// The gateway's epoch, its incarnation of the pipeline.
    pub epoch: Epoch,
    /// The micro-batch's number in that epoch.
    pub step: Step,
    /// The slot of the stage that it is sent to.
    pub slot: u32,
    /// Sum of the slices' counts.
    pub rows: u32,
    /// Values in a row of the activations. 0 on the way to the first stage, which gets token ids.
    pub hidden: u32,
    /// The slices of its sequences. The rows are in this order.
    pub slices: Vec<Slice>,
    /// The work of the stages that it has already passed.
    pub spent: Vec<Spent>,
}

/// One of the likeliest tokens of a position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alternative {
    /// The token's id.
    pub token: u32,
    /// Natural logarithm of its probability under the model.
    pub logprob: f32,
}

/// A token that the last stage chose or scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// The sequence.
    pub sequence: SequenceId,
    /// The attempt of the sequence that it belongs to.
    pub attempt: Attempt,
    /// Index in the sequence of the token.
    pub position: u32,
    /// The token's id.
    pub token: u32,
    /// Natural logarithm of its probability under the model, before temperature, adjustments and mask.
    pub logprob: f32,
    /// Its rank by probability, from 1. 0 if the rule asks for no alternatives.
    pub rank: u32,
    /// The likeliest tokens, the likeliest first: as many as the rule asks for.
    pub alternatives: Vec<Alternative>,
}

/// The hidden state of a token: the last layer's row after the final norm, from which logits are computed.
#[derive(Debug, Clone, PartialEq)]
pub struct HiddenState {
    /// The sequence.
    pub sequence: SequenceId,
    /// The attempt of the sequence that it belongs to.
    pub attempt: Attempt,
    /// Index in the sequence of the token.
    pub position: u32,
    /// One value for each of the model's hidden dimensions, at most [`HIDDEN_MAX`](super::HIDDEN_MAX). All are finite.
    pub values: Vec<f32>,
}

/// The result of a micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens {
    /// The generation of the placement that it was made for.
    pub generation: Generation,
    /// The gateway's epoch, its incarnation of the pipeline.
    pub epoch: Epoch,
    /// The micro-batch's number in that epoch.
    pub step: Step,
    /// The tokens, in the order of slices and of offsets within each.
    pub chosen: Vec<Chosen>,
    /// The work of each stage.
    pub spent: Vec<Spent>,
    /// The hidden states, in the order of slices and of offsets within each.
    pub hidden_states: Vec<HiddenState>,
}

/// A stage's answer to the gateway that it did not do its part of a micro-batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The generation that the frame carried.
    pub generation: Generation,
    /// The epoch that the frame carried.
    pub epoch: Epoch,
    /// The step that the frame carried.
    pub step: Step,
    /// The slot of the stage that refuses.
    pub slot: u32,
    /// The reason.
    pub reason: String,
    /// True if the work itself is not at fault. It may be computed in another epoch.
    pub passing: bool,
    /// The newest epoch of the gateway's slot that the stage has seen. 0 if it has seen none.
    pub epoch_known: Epoch,
}

/// Any frame that one process sends to another over a link.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Work for a stage.
    Hop(Hop),
    /// Chosen tokens for the gateway.
    Tokens(Tokens),
    /// A refusal for the gateway.
    Refusal(Refusal),
}

// === impl Slice ===

impl Slice {
    /// A slice of `sequence` without rows, to be filled. Its rule takes the likeliest token.
    pub fn empty(sequence: SequenceId) -> Self {
        Self {
            sequence,
            attempt: Attempt(0),
            position: 0,
            count: 0,
            prompt_tokens: 0,
            tokens: Vec::new(),
            blocks: Vec::new(),
            logits: Vec::new(),
            scored: Vec::new(),
            rule: TokenRule::GREEDY,
            hidden_states: Vec::new(),
            window_first: 0,
            window_blocks: Vec::new(),
        }
    }
}
