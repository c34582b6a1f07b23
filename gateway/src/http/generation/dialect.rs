//! The interface between generation and the APIs: a dialect writes a request's results in the format of its API.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Serialize;

use super::choice_decoder::Ended;
use super::choice_stream::ChoiceDelta;
use super::prompt_progress::PromptProgress;
use super::text_model::ToolCall;
use super::token_logprob::TokenLogprob;
use super::totals::Totals;
use crate::http::error::ApiError;

/// One choice, complete.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) text: String,
    /// Its reasoning before the answer. It may be empty.
    pub(crate) reasoning: String,
    /// Its calls of tools.
    pub(crate) tool_calls: Vec<ToolCall>,
    /// Empty unless the request asks for log-probabilities.
    pub(crate) logprobs: Vec<TokenLogprob>,
    /// Its tokens, a stop token included. Empty unless the request asks for their ids.
    pub(crate) token_ids: Vec<u32>,
    /// Log-probabilities of the prompt's tokens. Empty unless the request asks for them apart.
    pub(crate) prompt: Vec<TokenLogprob>,
    /// `None` only while the choice runs.
    pub(crate) ended: Option<Ended>,
    /// The stop string that ended its text, if one did.
    pub(crate) stop_string: Option<String>,
}

/// Writes the answer to one request in the format of one API. A stream calls `open` once, `delta` for each delta, and
/// then `close` or `fail` once. Each call appends its events.
pub(crate) trait Dialect: Send + 'static {
    /// The body of an answer that is not streamed.
    type Body: Serialize;

    /// The content type of its streams.
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn body(&self, choices: Vec<Choice>, totals: Totals) -> Self::Body;

    /// Writes the events before the first delta, while the prompts are not yet computed. They have `prompt_tokens`
    /// tokens together.
    fn open(&mut self, choices: usize, prompt_tokens: u64, events: &mut Events);

    /// Writes the events of one delta. `totals` is set for the last delta of the last choice.
    fn delta(&mut self, delta: &ChoiceDelta, totals: Option<Totals>, events: &mut Events);

    /// Writes the events after the last delta.
    fn close(&mut self, totals: Totals, events: &mut Events);

    /// Writes the events for an error, in place of the missing deltas.
    fn fail(&mut self, error: &ApiError, events: &mut Events);

    /// True if the client is to hear how much of its prompts is computed.
    fn wants_progress(&self) -> bool {
        false
    }

    /// Writes how much of the prompts is computed, before the first delta.
    fn progress(&self, _progress: PromptProgress, _events: &mut Events) {}

    /// Writes something without meaning, because there was nothing to write for a while. It keeps proxies and clients
    /// from taking a silent stream for a broken one.
    fn ping(&self, events: &mut Events) {
        events.push_comment("ping");
    }
}

/// Server-sent events, or lines, that wait for the client: at most those of one call of the dialect.
#[derive(Debug, Default)]
pub(crate) struct Events(VecDeque<Bytes>);

// === impl Events ===

impl Events {
    /// Appends an event without a name. Its data is `body` as JSON.
    pub(crate) fn push(&mut self, body: &impl Serialize) {
        if let Some(json) = json(body) {
            self.push_text(&json);
        }
    }

    /// Appends an event with a name. Its data is `body` as JSON.
    pub(crate) fn push_named(&mut self, name: &str, body: &impl Serialize) {
        if let Some(json) = json(body) {
            self.0.push_back(Bytes::from(format!("event: {name}\ndata: {json}\n\n")));
        }
    }

    /// Appends a line: `body` as JSON. It belongs to a stream of lines and not to one of server-sent events.
    pub(crate) fn push_line(&mut self, body: &impl Serialize) {
        if let Some(json) = json(body) {
            self.0.push_back(Bytes::from(format!("{json}\n")));
        }
    }

    /// Appends a comment, which clients skip.
    pub(crate) fn push_comment(&mut self, comment: &str) {
        self.0.push_back(Bytes::from(format!(": {comment}\n\n")));
    }

    /// Appends an event without a name.
    pub(crate) fn push_text(&mut self, data: &str) {
        self.0.push_back(Bytes::from(format!("data: {data}\n\n")));
    }

    /// The events as one text.
    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|event| String::from_utf8_lossy(event)).collect()
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn json(body: &impl Serialize) -> Option<String> {
    let json = serde_json::to_string(body);
    json.inspect_err(|error| tracing::error!(%error, "an event cannot be written as JSON")).ok()
}
