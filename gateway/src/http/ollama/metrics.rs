//! Ollama's counts and durations of a request, the last fields of an answer.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::http::generation::totals::Totals;

/// Counts of tokens, and durations in nanoseconds.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Metrics {
    /// From the request to its last token.
    total_duration: u64,
    /// Time before work on the prompt began. The model is loaded already, so it is the time in the queue.
    load_duration: u64,
    /// Tokens of the prompt, those in the prefix cache included.
    prompt_eval_count: u64,
    prompt_eval_duration: u64,
    eval_count: u64,
    eval_duration: u64,
}

// === impl Metrics ===

impl Metrics {
    /// The metrics of a request that began at `began` and ends now.
    pub(super) fn new(totals: &Totals, began: Instant) -> Self {
        let phases = totals.timings.phases_ns();
        Self {
            total_duration: ns(began.elapsed()),
            load_duration: phases.queued,
            prompt_eval_count: totals.usage.prompt_tokens,
            prompt_eval_duration: phases.prefill,
            eval_count: totals.usage.completion_tokens,
            eval_duration: phases.decode,
        }
    }
}

/// `time` in nanoseconds.
pub(super) fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
