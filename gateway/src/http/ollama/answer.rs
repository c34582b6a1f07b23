//! The answers of `/api/chat` and `/api/generate`, whole and line by line: the parts they share. Each endpoint
//! implements [`Shape`] in its own file.

use std::marker::PhantomData;
use std::time::Instant;

use serde::Serialize;

use super::error::ErrorBody;
use super::logprobs::LogprobBody;
use super::metrics::Metrics;
use super::timestamp;
use super::tool_calls::{CallAssembler, CompleteCall, ToolCallBody};
use crate::http::error::ApiError;
use crate::http::generation::choice_decoder::Ended;
use crate::http::generation::choice_stream::ChoiceDelta;
use crate::http::generation::dialect::{Choice, Dialect, Events};
use crate::http::generation::token_logprob::TokenLogprob;
use crate::http::generation::totals::Totals;

/// The fields that differ between the two endpoints.
pub(super) trait Shape: Send + 'static {
    type Fields: Serialize;

    fn fields(part: Part) -> Self::Fields;
}

/// A part of an answer, or the whole of it.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) text: String,
    /// Reasoning before the answer. It may be empty.
    pub(super) thinking: String,
    pub(super) tool_calls: Vec<ToolCallBody>,
}

/// The answer to one request.
#[derive(Debug)]
pub(super) struct Answer<S> {
    /// The model's name as the client wrote it.
    model: String,
    /// The time of the request.
    began: Instant,
    /// True if the request asks for log-probabilities.
    logprobs: bool,
    calls: CallAssembler,
    ended: Option<Ended>,
    shape: PhantomData<S>,
}

/// The body of a whole answer, or one line of a streamed one.
#[derive(Debug, Serialize)]
pub(super) struct Line<F> {
    model: String,
    created_at: String,
    #[serde(flatten)]
    fields: F,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'static str>,
    #[serde(flatten)]
    metrics: Option<Metrics>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<LogprobBody>,
}

/// The `done_reason` of an answer that ended. Calls of tools end with a stop token, too.
fn done_reason(ended: Ended) -> &'static str {
    match ended {
        Ended::Stop | Ended::ToolCalls => "stop",
        Ended::Length => "length",
    }
}

// === impl Part ===

impl Part {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.thinking.is_empty() && self.tool_calls.is_empty()
    }

    /// Adds calls. Those without usable arguments become text.
    fn add(&mut self, calls: impl IntoIterator<Item = CompleteCall>) {
        for call in calls {
            match call {
                CompleteCall::Call(call) => self.tool_calls.push(call),
                CompleteCall::Text(text) => self.text.push_str(&text),
            }
        }
    }
}

// === impl Answer ===

impl<S: Shape> Answer<S> {
    /// An answer to a request of the time `began`.
    pub(super) fn new(model: String, began: Instant, logprobs: bool) -> Self {
        Self { model, began, logprobs, calls: CallAssembler::default(), ended: None, shape: PhantomData }
    }

    /// The answer to a request that only asks for the model to be loaded, which it is.
    pub(super) fn loaded(self) -> Line<S::Fields> {
        Line { done: true, done_reason: Some("load"), ..self.line(Part::default(), &[]) }
    }

    fn line(&self, part: Part, logprobs: &[TokenLogprob]) -> Line<S::Fields> {
        let logprobs = if self.logprobs { logprobs.iter().map(LogprobBody::new).collect() } else { Vec::new() };
        Line {
            model: self.model.clone(),
            created_at: timestamp::now(),
            fields: S::fields(part),
            done: false,
            done_reason: None,
            metrics: None,
            logprobs,
        }
    }

    fn last(&self, part: Part, logprobs: &[TokenLogprob], ended: Option<Ended>, totals: &Totals) -> Line<S::Fields> {
        let metrics = Some(Metrics::new(totals, self.began));
        Line { done: true, done_reason: ended.map(done_reason), metrics, ..self.line(part, logprobs) }
    }
}

impl<S: Shape> Dialect for Answer<S> {
    type Body = Line<S::Fields>;

    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn body(&self, choices: Vec<Choice>, totals: Totals) -> Self::Body {
        let Choice { text, reasoning, tool_calls, logprobs, ended, .. } =
            choices.into_iter().next().unwrap_or_default();
        let mut part = Part { text, thinking: reasoning, ..Part::default() };
        part.add(tool_calls.into_iter().enumerate().map(|(index, call)| CompleteCall::new(index, call)));
        self.last(part, &logprobs, ended, &totals)
    }

    fn open(&mut self, _: usize, _: u64, _: &mut Events) {}

    fn delta(&mut self, ChoiceDelta { delta, .. }: &ChoiceDelta, _: Option<Totals>, events: &mut Events) {
        let mut part = Part { text: delta.text.clone(), thinking: delta.reasoning.clone(), tool_calls: Vec::new() };
        part.add(self.calls.push(&delta.tool_calls));
        if let Some(Ok(ended)) = delta.end {
            part.add(self.calls.finish());
            self.ended = Some(ended);
        }
        if !part.is_empty() || !delta.logprobs.is_empty() {
            events.push_line(&self.line(part, &delta.logprobs));
        }
    }

    fn close(&mut self, totals: Totals, events: &mut Events) {
        events.push_line(&self.last(Part::default(), &[], self.ended, &totals));
    }

    fn fail(&mut self, error: &ApiError, events: &mut Events) {
        events.push_line(&ErrorBody::new(error));
    }

    /// A line without text: this format has no comments.
    fn ping(&self, events: &mut Events) {
        events.push_line(&self.line(Part::default(), &[]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::generation::choice_decoder::{Delta, ToolCallDelta};
    use crate::http::generation::text_model::ToolCall;
    use crate::http::generation::timings::TimingsBody;
    use crate::http::generation::usage::Usage;
    use serde_json::{Value, json};

    struct Plain;

    #[derive(Serialize)]
    struct PlainFields {
        text: String,
        thinking: String,
        calls: Vec<ToolCallBody>,
    }

    impl Shape for Plain {
        type Fields = PlainFields;

        fn fields(Part { text, thinking, tool_calls }: Part) -> PlainFields {
            PlainFields { text, thinking, calls: tool_calls }
        }
    }

    fn answer() -> Answer<Plain> {
        Answer::new("tiny:latest".to_owned(), Instant::now(), false)
    }

    fn totals() -> Totals {
        let usage = Usage { prompt_tokens: 20, cached_tokens: 5, completion_tokens: 3, reasoning_tokens: 0 };
        Totals { usage, timings: TimingsBody::new(&engine::generate::Timings::default(), usage, 1) }
    }

    /// The lines of a stream without their times.
    fn lines(events: &Events) -> Vec<Value> {
        let line = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            assert!(line["created_at"].as_str().unwrap().ends_with('Z'));
            line.as_object_mut().unwrap().retain(|key, _| key != "created_at" && !key.ends_with("_duration"));
            line
        };
        events.text().lines().map(line).collect()
    }

    fn streamed(deltas: Vec<Delta>) -> Vec<Value> {
        let (mut answer, mut events) = (answer(), Events::default());
        answer.open(1, 20, &mut events);
        for delta in deltas {
            answer.delta(&ChoiceDelta { choice: 0, delta, usage: Usage::default() }, None, &mut events);
        }
        answer.close(totals(), &mut events);
        lines(&events)
    }

    fn piece(text: &str, thinking: &str) -> Value {
        json!({"model": "tiny:latest", "text": text, "thinking": thinking, "calls": [], "done": false})
    }

    #[test]
    fn a_stream_has_a_line_for_each_piece_and_ends_with_the_counts() {
        let ending = Delta { end: Some(Ok(Ended::Length)), ..Delta::default() };
        let thinking = Delta { reasoning: "Hm.".to_owned(), ..Delta::default() };
        let text = Delta { text: "Yes".to_owned(), ..Delta::default() };
        let last = json!({
            "model": "tiny:latest", "text": "", "thinking": "", "calls": [], "done": true, "done_reason": "length",
            "prompt_eval_count": 20, "eval_count": 3
        });
        assert_eq!(streamed(vec![thinking, text, ending]), [piece("", "Hm."), piece("Yes", ""), last]);
    }

    #[test]
    fn a_call_is_one_line_and_the_same_in_a_whole_answer() {
        let (id, name) = (Some("c1".to_owned()), Some("look".to_owned()));
        let begun = ToolCallDelta { index: 0, id, name, arguments: "{\"a\":".to_owned() };
        let rest = ToolCallDelta { index: 0, arguments: " 1}".to_owned(), ..ToolCallDelta::default() };
        let begun = Delta { tool_calls: vec![begun], ..Delta::default() };
        let rest = Delta { tool_calls: vec![rest], end: Some(Ok(Ended::ToolCalls)), ..Delta::default() };
        let streamed = streamed(vec![begun, rest]);
        let expected = json!([{"id": "c1", "function": {"index": 0, "name": "look", "arguments": {"a": 1}}}]);
        assert_eq!((streamed.len(), &streamed[0]["calls"]), (2, &expected));
        assert_eq!(streamed[1]["done_reason"], "stop");
        let call = ToolCall { id: "c1".to_owned(), name: "look".to_owned(), arguments: "{\"a\": 1}".to_owned() };
        let choice = Choice { tool_calls: vec![call], ended: Some(Ended::ToolCalls), ..Choice::default() };
        let whole = json!(answer().body(vec![choice], totals()));
        assert_eq!((&whole["calls"], &whole["done_reason"]), (&expected, &json!("stop")));
    }

    #[test]
    fn a_ping_is_a_line_without_text_and_a_failure_one_with_its_message() {
        let (mut answer, mut events) = (answer(), Events::default());
        answer.ping(&mut events);
        assert_eq!(lines(&events), [piece("", "")]);
        let mut events = Events::default();
        answer.fail(&ApiError::unavailable("Layers are missing."), &mut events);
        assert_eq!(events.text(), "{\"error\":\"Layers are missing.\"}\n");
    }

    #[test]
    fn a_request_to_load_is_answered_without_counts() {
        let mut line = json!(answer().loaded());
        line.as_object_mut().unwrap().remove("created_at");
        let expected = json!({
            "model": "tiny:latest", "text": "", "thinking": "", "calls": [], "done": true, "done_reason": "load"
        });
        assert_eq!(line, expected);
    }
}
