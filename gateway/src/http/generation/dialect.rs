//! The seam between generation and the APIs: what a dialect writes, and when.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Serialize;

use super::choice_decoder::Ended;
use super::choice_stream::{ChoiceDelta, Usage};
use super::timings::TimingsBody;
use super::token_logprob::TokenLogprob;
use crate::http::error::ApiError;

/// One choice, complete.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) text: String,
    /// Empty unless log-probabilities were asked for.
    pub(crate) logprobs: Vec<TokenLogprob>,
    /// `None` only while the choice runs.
    pub(crate) ended: Option<Ended>,
}

/// The totals of a request whose choices have all ended.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) usage: Usage,
    pub(crate) timings: TimingsBody,
}

/// Writes the answer to one request in the words of one API. A stream calls `open` once, `delta` for each delta, and then
/// `close` or `fail` once; each appends its events.
pub(crate) trait Dialect: Send + 'static {
    /// The body of an answer that is not streamed.
    type Body: Serialize;

    fn body(&self, choices: Vec<Choice>, totals: Totals) -> Self::Body;

    /// Before the prompt is computed.
    fn open(&mut self, choices: usize, events: &mut Events);

    /// `totals` is there with the last choice's last delta.
    fn delta(&mut self, delta: &ChoiceDelta, totals: Option<Totals>, events: &mut Events);

    /// After the last delta.
    fn close(&mut self, totals: Totals, events: &mut Events);

    /// In place of what is missing.
    fn fail(&mut self, error: &ApiError, events: &mut Events);
}

/// Server-sent events that wait for the reader: at most those of one delta.
#[derive(Debug, Default)]
pub(crate) struct Events(VecDeque<Bytes>);

// === impl Events ===

impl Events {
    /// Appends an event without a name, whose data is `body` as JSON.
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
