//! The report on one sequence for operators: its place in the queue or in the pipeline, without any of its tokens.

use std::time::Duration;

/// The phase of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequencePhase {
    /// It waits for blocks, with this many sequences before it.
    Waiting {
        /// Number of sequences that go before it.
        before: usize,
    },
    /// Its prompt is being computed, or its whole history again after a fault.
    Prefill,
    /// Its tokens are being generated.
    Decode,
}

/// The report on a sequence that runs or waits.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceReport {
    /// Its number, which counts the sequences of this gateway.
    pub id: u64,
    /// Its phase.
    pub phase: SequencePhase,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Tokens that are generated.
    pub generated_tokens: u32,
    /// Most tokens that it may still get.
    pub tokens_left: u32,
    /// Tokens of its history that the pipeline has been sent in this attempt.
    pub sent_tokens: u32,
    /// Those of them that every stage has computed: without the rows in flight.
    pub computed_tokens: u32,
    /// Number of times that it was started.
    pub attempts: u32,
    /// Time since it was admitted.
    pub age: Duration,
    /// The micro-batches in flight that carry it.
    pub in_flight: usize,
    /// Time since the oldest of them was sent. Zero if there are none.
    pub in_flight_for: Duration,
    /// Compute time of each stage for it so far, in the order of the pipeline.
    pub stages: Vec<super::StageTime>,
}
