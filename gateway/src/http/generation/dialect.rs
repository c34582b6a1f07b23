//! The interface between generation and the APIs: a dialect writes a request's results in the format of its API.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Serialize;

use super::choice_decoder::Ended;
use super::choice_stream::ChoiceDelta;
use super::token_logprob::TokenLogprob;
use super::totals::Totals;
use crate::http::error::ApiError;

/// One choice, complete.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) text: String,
    /// Empty unless the request asks for log-probabilities.
    pub(crate) logprobs: Vec<TokenLogprob>,
    /// `None` only while the choice runs.
    pub(crate) ended: Option<Ended>,
}

/// Writes the answer to one request in the format of one API. A stream calls `open` once, `delta` for each delta, and
/// then `close` or `fail` once. Each call appends its events.
pub(crate) trait Dialect: Send + 'static {
    /// The body of an answer that is not streamed.
    type Body: Serialize;

    fn body(&self, choices: Vec<Choice>, totals: Totals) -> Self::Body;

    /// Writes the events before the first delta, while the prompt is not yet computed.
    fn open(&mut self, choices: usize, events: &mut Events);

    /// Writes the events of one delta. `totals` is set for the last delta of the last choice.
    fn delta(&mut self, delta: &ChoiceDelta, totals: Option<Totals>, events: &mut Events);

    /// Writes the events after the last delta.
    fn close(&mut self, totals: Totals, events: &mut Events);

    /// Writes the events for an error, in place of the missing deltas.
    fn fail(&mut self, error: &ApiError, events: &mut Events);
}

/// Server-sent events that wait for the client: at most those of one call of the dialect.
#[derive(Debug, Default)]
pub(crate) struct Events(VecDeque<Bytes>);

// === impl Events ===

impl Events {
    /// Appends an event without a name. Its data is `body` as JSON.
    pub(crate) fn push(&mut self, body: &impl Serialize) {
        match serde_json::to_string(body) {
            Ok(json) => self.push_text(&json),
            Err(error) => tracing::error!(%error, "an event cannot be written as JSON"),
        }
    }

    /// Appends an event without a name.
    pub(crate) fn push_text(&mut self, data: &str) {
        self.0.push_back(Bytes::from(format!("data: {data}\n\n")));
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
