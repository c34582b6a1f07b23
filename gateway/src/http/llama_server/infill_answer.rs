//! The answer of `/infill`, whole and in events: llama-server's own form, which differs from OpenAI's.

use serde::Serialize;

use crate::http::error::ApiError;
use crate::http::generation::choice_decoder::Ended;
use crate::http::generation::choice_stream::ChoiceDelta;
use crate::http::generation::dialect::{Choice, Dialect, Events};
use crate::http::generation::timings::TimingsBody;
use crate::http::generation::totals::Totals;

/// The answer to one request.
#[derive(Debug)]
pub(super) struct InfillAnswer {
    model: String,
    /// True if a part of the text around the gap was left out of the prompt.
    truncated: bool,
    stop: Option<StopReason>,
}

/// The reason for which the text ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct StopReason {
    stop_type: &'static str,
    /// The stop string that ended it, or nothing.
    stopping_word: String,
}

/// The whole answer, and the last event of a streamed one.
#[derive(Debug, Serialize)]
pub(super) struct InfillBody {
    index: usize,
    content: String,
    stop: bool,
    model: String,
    tokens_predicted: u64,
    tokens_evaluated: u64,
    tokens_cached: u64,
    truncated: bool,
    #[serde(flatten)]
    reason: Option<StopReason>,
    timings: TimingsBody,
}

/// An event with a piece of text.
#[derive(Debug, Serialize)]
struct InfillPiece<'a> {
    index: usize,
    content: &'a str,
    stop: bool,
}

// === impl StopReason ===

impl StopReason {
    fn new(ended: Ended, stop_string: Option<&str>) -> Self {
        let stop_type = match (ended, stop_string) {
            (Ended::Length, _) => "limit",
            (_, Some(_)) => "word",
            (_, None) => "eos",
        };
        Self { stop_type, stopping_word: stop_string.unwrap_or_default().to_owned() }
    }
}

// === impl InfillAnswer ===

impl InfillAnswer {
    pub(super) fn new(model: &str, truncated: bool) -> Self {
        Self { model: model.to_owned(), truncated, stop: None }
    }

    fn last(&self, content: String, reason: Option<StopReason>, Totals { usage, timings }: Totals) -> InfillBody {
        InfillBody {
            index: 0,
            content,
            stop: true,
            model: self.model.clone(),
            tokens_predicted: usage.completion_tokens,
            tokens_evaluated: usage.prompt_tokens,
            tokens_cached: usage.cached_tokens,
            truncated: self.truncated,
            reason,
            timings,
        }
    }
}

impl Dialect for InfillAnswer {
    type Body = InfillBody;

    fn body(&self, choices: Vec<Choice>, totals: Totals) -> InfillBody {
        let choice = choices.into_iter().next().unwrap_or_default();
        let reason = choice.ended.map(|ended| StopReason::new(ended, choice.stop_string.as_deref()));
        self.last(choice.text, reason, totals)
    }

    fn open(&mut self, _: usize, _: u64, _: &mut Events) {}

    fn delta(&mut self, ChoiceDelta { delta, .. }: &ChoiceDelta, _: Option<Totals>, events: &mut Events) {
        if let Some(Ok(ended)) = delta.end {
            self.stop = Some(StopReason::new(ended, delta.stop_string.as_deref()));
        }
        if !delta.text.is_empty() {
            events.push(&InfillPiece { index: 0, content: &delta.text, stop: false });
        }
    }

    fn close(&mut self, totals: Totals, events: &mut Events) {
        let reason = self.stop.take();
        events.push(&self.last(String::new(), reason, totals));
    }

    fn fail(&mut self, error: &ApiError, events: &mut Events) {
        events.push(&error.body());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_a_limit_a_word_or_the_models_own() {
        assert_eq!(StopReason::new(Ended::Length, None).stop_type, "limit");
        assert_eq!(StopReason::new(Ended::Stop, None).stop_type, "eos");
        let word = StopReason::new(Ended::Stop, Some("\n"));
        assert_eq!((word.stop_type, word.stopping_word.as_str()), ("word", "\n"));
    }
}
