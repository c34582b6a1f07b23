//! The `prompt_progress` extension field: the part of the prompts that is computed while a stream waits for its first
//! token. The names are those of llama.cpp's server.

use std::time::Duration;

use engine::generate::{SequencePhase, SequenceReport};
use serde::Serialize;

/// The value of the `prompt_progress` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct PromptProgress {
    /// Tokens of the prompts.
    total: u64,
    /// Those of them whose keys and values were in the prefix cache, as far as it is known.
    cache: u64,
    /// Those that are computed or were in the cache.
    processed: u64,
    /// Milliseconds since the prompts were handed to the pipeline.
    time_ms: u64,
}

/// A sequence whose prompt is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observed {
    pub(crate) id: u64,
    pub(crate) cached_tokens: u32,
}

// === impl PromptProgress ===

impl PromptProgress {
    /// The progress of `observed` by the reports on all sequences, `elapsed` after they were submitted. `None` once a
    /// token of one of them is generated, and while no report is about them.
    pub(crate) fn new(observed: &[Observed], reports: &[SequenceReport], elapsed: Duration) -> Option<Self> {
        let time_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let mut all = Self { total: 0, cache: 0, processed: 0, time_ms };
        for Observed { id, cached_tokens } in observed {
            let report = reports.iter().find(|report| report.id == *id)?;
            if report.phase == SequencePhase::Decode {
                return None;
            }
            // After a fault the tokens of the answer are computed again, too: they are not the prompt's.
            all.total += u64::from(report.prompt_tokens);
            all.cache += u64::from(*cached_tokens);
            all.processed += u64::from(report.computed_tokens.min(report.prompt_tokens));
        }
        (all.total > 0).then_some(all)
    }

    /// True if `other` says the same of the prompts, at another time.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        Self { time_ms: 0, ..*self } == Self { time_ms: 0, ..*other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: u64, phase: SequencePhase, computed_tokens: u32) -> SequenceReport {
        SequenceReport {
            id,
            phase,
            prompt_tokens: 100,
            generated_tokens: 0,
            tokens_left: 10,
            sent_tokens: computed_tokens,
            computed_tokens,
            attempts: 1,
            age: Duration::ZERO,
            in_flight: 0,
            in_flight_for: Duration::ZERO,
            stages: Vec::new(),
        }
    }

    #[test]
    fn prompts_of_one_request_are_added_up_until_one_has_a_token() {
        let observed = [(1, 20), (2, 0)].map(|(id, cached_tokens)| Observed { id, cached_tokens });
        let elapsed = Duration::from_millis(1500);
        let waiting = report(2, SequencePhase::Waiting { before: 0 }, 0);
        let reports = [report(7, SequencePhase::Decode, 9), report(1, SequencePhase::Prefill, 60), waiting.clone()];
        let found = PromptProgress::new(&observed, &reports, elapsed).unwrap();
        assert_eq!(found, PromptProgress { total: 200, cache: 20, processed: 60, time_ms: 1500 });
        assert!(found.is_same_as(&PromptProgress { time_ms: 9, ..found }));
        // Tokens of an answer that is computed again are not the prompt's.
        let again = PromptProgress::new(&observed[..1], &[report(1, SequencePhase::Prefill, 130)], elapsed).unwrap();
        assert_eq!((again.total, again.processed), (100, 100));
        assert_eq!(PromptProgress::new(&observed, &[report(1, SequencePhase::Decode, 100), waiting], elapsed), None);
        assert_eq!(PromptProgress::new(&observed, &reports[..2], elapsed), None, "one of them is unknown");
        assert_eq!(PromptProgress::new(&[], &reports, elapsed), None);
    }
}
