//! The `timings` extension field: the time a request took in the queue, in prefill, in decode and on each stage. The
//! names are those of llama.cpp's server.

use std::time::{Duration, Instant};

use engine::generate::{StageTime, Timings};
use serde::Serialize;

use super::usage::Usage;

/// Arrival times of a sequence's tokens, measured in the HTTP server. They give the timings of a sequence that the HTTP
/// server itself ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArrivalTimes {
    submitted: Instant,
    first: Option<Instant>,
    last: Instant,
}

// === impl ArrivalTimes ===

impl ArrivalTimes {
    /// The arrival times of a sequence that is submitted at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self { submitted: now, first: None, last: now }
    }

    /// Records that a token arrived at `now`.
    pub(crate) fn token(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = now;
    }

    /// The timings measured here, without the pipeline's own. Time in the queue counts as prefill.
    pub(crate) fn timings(&self) -> Timings {
        let first = self.first.unwrap_or(self.last);
        let (prefill, decode) = (first - self.submitted, self.last - first);
        Timings { prefill, decode, attempts: 1, ..Timings::default() }
    }
}

/// The timings of several sequences that ran at the same time: the longest of their times, and the sum of their work.
pub(crate) fn merge<'a>(all: impl IntoIterator<Item = &'a Timings>) -> Timings {
    let mut sum = Timings::default();
    for one in all {
        sum.queued = sum.queued.max(one.queued);
        sum.prefill = sum.prefill.max(one.prefill);
        sum.decode = sum.decode.max(one.decode);
        sum.attempts = sum.attempts.max(one.attempts);
        for stage in &one.stages {
            add(&mut sum.stages, stage);
        }
    }
    sum
}

fn add(stages: &mut Vec<StageTime>, more: &StageTime) {
    match stages.iter_mut().find(|known| known.stage == more.stage && known.layers == more.layers) {
        Some(known) => {
            known.rows += more.rows;
            known.compute += more.compute;
        }
        None => stages.push(more.clone()),
    }
}

/// The value of the `timings` field.
#[derive(Debug, Serialize)]
pub(crate) struct TimingsBody {
    /// Tokens of the prompts whose keys and values were in the prefix cache.
    cache_n: u64,
    /// Tokens of the prompts that were computed.
    prompt_n: u64,
    prompt_ms: f64,
    prompt_per_second: f64,
    predicted_n: u64,
    predicted_ms: f64,
    /// Rate of the tokens after each sequence's first. The first one is computed with the prompt.
    predicted_per_second: f64,
    queued_ms: f64,
    attempts: u32,
    stages: Vec<StageTimeBody>,
}

#[derive(Debug, Serialize)]
struct StageTimeBody {
    stage: String,
    layers: [u32; 2],
    rows: u64,
    compute_ms: f64,
}

/// Time in the queue, of prefill and of decode, in nanoseconds with a resolution of one microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PhasesNs {
    pub(crate) queued: u64,
    pub(crate) prefill: u64,
    pub(crate) decode: u64,
}

// === impl TimingsBody ===

impl TimingsBody {
    /// The timings of a request with `sequences` sequences.
    pub(crate) fn new(timings: &Timings, usage: Usage, sequences: u64) -> Self {
        let after_first = usage.completion_tokens.saturating_sub(sequences);
        let computed = usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens);
        let stage = |stage: &StageTime| StageTimeBody {
            stage: stage.stage.clone(),
            layers: stage.layers,
            rows: stage.rows,
            compute_ms: ms(stage.compute),
        };
        Self {
            cache_n: usage.cached_tokens,
            prompt_n: computed,
            prompt_ms: ms(timings.prefill),
            prompt_per_second: rate(computed, timings.prefill),
            predicted_n: usage.completion_tokens,
            predicted_ms: ms(timings.decode),
            predicted_per_second: rate(after_first, timings.decode),
            queued_ms: ms(timings.queued),
            attempts: timings.attempts,
            stages: timings.stages.iter().map(stage).collect(),
        }
    }

    /// The durations of the request's phases.
    pub(crate) fn phases_ns(&self) -> PhasesNs {
        let ns = |ms: f64| (ms * 1e6).round() as u64;
        PhasesNs { queued: ns(self.queued_ms), prefill: ns(self.prompt_ms), decode: ns(self.predicted_ms) }
    }
}

/// `time` in milliseconds, with a resolution of one microsecond.
fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

fn rate(tokens: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { (tokens as f64 / time.as_secs_f64() * 1000.0).round() / 1000.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, layers: [u32; 2], rows: u64) -> StageTime {
        StageTime { stage: name.to_owned(), layers, rows, compute: Duration::from_millis(rows) }
    }

    #[test]
    fn merged_timings_take_the_longest_time_and_sum_the_work() {
        let one =
            Timings { decode: Duration::from_millis(40), stages: vec![stage("a", [0, 3], 5)], ..Timings::default() };
        let two = Timings {
            decode: Duration::from_millis(50),
            stages: vec![stage("a", [0, 3], 7), stage("b", [3, 6], 1)],
            ..Timings::default()
        };
        let sum = merge([&one, &two]);
        assert_eq!(sum.decode, Duration::from_millis(50));
        assert_eq!(sum.stages, [stage("a", [0, 3], 12), stage("b", [3, 6], 1)]);
    }

    #[test]
    fn the_rates_are_tokens_per_second_and_exclude_the_first_token_from_decode() {
        let timings =
            Timings { prefill: Duration::from_millis(500), decode: Duration::from_secs(2), ..Timings::default() };
        let usage = Usage { prompt_tokens: 150, cached_tokens: 50, completion_tokens: 9, ..Usage::default() };
        let body = TimingsBody::new(&timings, usage, 1);
        assert_eq!((body.cache_n, body.prompt_n), (50, 100));
        assert_eq!((body.prompt_per_second, body.predicted_per_second), (200.0, 4.0));
        assert_eq!(TimingsBody::new(&Timings::default(), usage, 9).predicted_per_second, 0.0);
    }

    #[test]
    fn the_phases_are_in_nanoseconds() {
        let timings = Timings {
            queued: Duration::from_micros(7),
            prefill: Duration::from_micros(1_234_567),
            decode: Duration::from_secs(2400),
            ..Timings::default()
        };
        let usage = Usage { prompt_tokens: 1, cached_tokens: 0, completion_tokens: 1, reasoning_tokens: 0 };
        let phases = TimingsBody::new(&timings, usage, 1).phases_ns();
        assert_eq!((phases.queued, phases.prefill, phases.decode), (7_000, 1_234_567_000, 2_400_000_000_000));
    }
}
