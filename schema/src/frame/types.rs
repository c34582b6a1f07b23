//! The owned form of every frame.

use crate::{Attempt, Epoch, Generation, SequenceId, Step};

/// How the last stage chooses a token. Pure: equal logits and equal values here give an equal token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the largest logit.
    pub temperature: f32,
    /// Keep the so many likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens until their probabilities reach this; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this probable relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Keys the random numbers, with `choice` and the token's position.
    pub seed: u64,
    /// Which of a request's choices this is.
    pub choice: u32,
}

/// One sequence's part of a micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// The sequence.
    pub sequence: SequenceId,
    /// How often it was started again.
    pub attempt: Attempt,
    /// Index in the sequence of the first token here.
    pub position: u32,
    /// Tokens here; at least one.
    pub count: u32,
    /// Their ids on the way to the first stage, else empty.
    pub tokens: Vec<u32>,
    /// Block `blocks[i]` holds the keys and values of tokens `i * block_tokens ..`.
    pub blocks: Vec<u32>,
    /// Offsets within this slice, ascending, at which a token is to be chosen.
    pub logits: Vec<u32>,
    /// How to choose it.
    pub sampling: Sampling,
}

/// What one stage did for a micro-batch.
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

/// A micro-batch on its way to the stage in `slot`; one without slices shows that frames come through. Its activations, `rows × hidden` f32, travel beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Hop {
    /// The placement it was made for.
    pub generation: Generation,
    /// The gateway's slot.
    pub gateway: u32,
    /// The gateway's incarnation of the pipeline.
    pub epoch: Epoch,
    /// Its number in that epoch.
    pub step: Step,
    /// The stage it is for.
    pub slot: u32,
    /// Sum of the slices' counts.
    pub rows: u32,
    /// Values in a row of the activations; 0 on the way to the first stage, which gets token ids.
    pub hidden: u32,
    /// The sequences in it, rows in this order.
    pub slices: Vec<Slice>,
    /// What the stages already passed did.
    pub spent: Vec<Spent>,
}

/// A token the last stage chose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chosen {
    /// The sequence.
    pub sequence: SequenceId,
    /// The attempt it belongs to.
    pub attempt: Attempt,
    /// Index in the sequence of the chosen token.
    pub position: u32,
    /// The token's id.
    pub token: u32,
    /// Natural logarithm of its probability under the model, before temperature.
    pub logprob: f32,
}

/// What became of a micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens {
    /// The placement it was made for.
    pub generation: Generation,
    /// The gateway's incarnation of the pipeline.
    pub epoch: Epoch,
    /// Its number in that epoch.
    pub step: Step,
    /// The tokens, in the order of slices and offsets.
    pub chosen: Vec<Chosen>,
    /// What each stage did.
    pub spent: Vec<Spent>,
}

/// A stage's word that it did not do its part of a micro-batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The generation the frame carried.
    pub generation: Generation,
    /// The epoch it carried.
    pub epoch: Epoch,
    /// The step it carried.
    pub step: Step,
    /// The stage that refuses.
    pub slot: u32,
    /// Why.
    pub reason: String,
    /// Whether the fault is not the work's: in another epoch it may be computed.
    pub passing: bool,
    /// The newest epoch of the gateway's slot that the stage has seen; 0 when it has seen none.
    pub epoch_known: Epoch,
}

/// Everything one process says to another over a link.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Work for a stage.
    Hop(Hop),
    /// An answer for the gateway.
    Tokens(Tokens),
    /// A refusal for the gateway.
    Refusal(Refusal),
}
