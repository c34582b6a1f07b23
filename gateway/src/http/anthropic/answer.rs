//! An answer: one message, whole or as a stream of events.

use rand::Rng;
use serde::Serialize;

use super::block::{Block, blocks};
use super::block_writer::BlockWriter;
use super::error::ErrorBody;
use super::event::{Event, MessageDelta};
use super::usage::UsageBody;
use crate::http::error::ApiError;
use crate::http::generation::choice_decoder::Ended;
use crate::http::generation::choice_stream::ChoiceDelta;
use crate::http::generation::dialect::{Choice, Dialect, Events};
use crate::http::generation::timings::TimingsBody;
use crate::http::generation::totals::Totals;
use crate::http::generation::usage::Usage;

/// The answer to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    id: String,
    model: String,
    /// False if the client wants to know only that there was thinking.
    shows_thinking: bool,
    blocks: BlockWriter,
}

/// The body of a whole answer, and the message at the start of a stream.
#[derive(Debug, Serialize)]
pub(crate) struct MessageBody {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: String,
    content: Vec<Block>,
    /// Null only at the start of a stream.
    stop_reason: Option<&'static str>,
    stop_sequence: Option<String>,
    /// Null, like `container`: this server refuses no answer and runs no code.
    stop_details: (),
    container: (),
    usage: UsageBody,
    /// Absent at the start of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsBody>,
}

/// Anthropic's name for the reason why a choice ended. `stop_string` is the stop string that ended it.
fn stop_reason(ended: Ended, stop_string: Option<&str>) -> &'static str {
    match ended {
        Ended::Stop if stop_string.is_some() => "stop_sequence",
        Ended::Stop => "end_turn",
        Ended::Length => "max_tokens",
        Ended::ToolCalls => "tool_use",
    }
}

// === impl Answer ===

impl Answer {
    /// An answer of `model` with a new id.
    pub(crate) fn new(model: &str, shows_thinking: bool) -> Self {
        let id = format!("msg_{:032x}", rand::rng().random::<u128>());
        Self { id, model: model.to_owned(), shows_thinking, blocks: BlockWriter::new(shows_thinking) }
    }

    /// The message without content, after `usage`.
    fn message(&self, usage: Usage) -> MessageBody {
        MessageBody {
            id: self.id.clone(),
            kind: "message",
            role: "assistant",
            model: self.model.clone(),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            stop_details: (),
            container: (),
            usage: usage.into(),
            timings: None,
        }
    }
}

impl Dialect for Answer {
    type Body = MessageBody;

    fn body(&self, choices: Vec<Choice>, Totals { usage, timings }: Totals) -> MessageBody {
        let choice = choices.into_iter().next().unwrap_or_default();
        let stop_sequence = choice.stop_string.clone();
        let stop_reason = choice.ended.map(|ended| stop_reason(ended, stop_sequence.as_deref()));
        let content = blocks(choice, self.shows_thinking);
        MessageBody { content, stop_reason, stop_sequence, timings: Some(timings), ..self.message(usage) }
    }

    fn open(&mut self, _: usize, prompt_tokens: u64, events: &mut Events) {
        // The number of cached tokens is known when the sequence begins. The last event tells it.
        let usage = Usage { prompt_tokens, ..Usage::default() };
        Event::MessageStart { message: &self.message(usage) }.push_to(events);
    }

    fn delta(&mut self, ChoiceDelta { delta, .. }: &ChoiceDelta, totals: Option<Totals>, events: &mut Events) {
        self.blocks.write(delta, events);
        let (Some(Ok(ended)), Some(Totals { usage, timings })) = (&delta.end, totals) else { return };
        self.blocks.finish(events);
        let stop_sequence = delta.stop_string.clone();
        let delta = MessageDelta { stop_reason: stop_reason(*ended, stop_sequence.as_deref()), stop_sequence };
        Event::MessageDelta { delta, usage: usage.into(), timings }.push_to(events);
    }

    fn close(&mut self, _: Totals, events: &mut Events) {
        Event::MessageStop.push_to(events);
    }

    fn fail(&mut self, error: &ApiError, events: &mut Events) {
        events.push_named("error", &ErrorBody::new(error));
    }

    fn ping(&self, events: &mut Events) {
        Event::Ping.push_to(events);
    }
}

#[cfg(test)]
mod tests {
    use engine::generate::Timings;
    use serde_json::{Value, json};

    use super::*;
    use crate::http::generation::choice_decoder::{Delta, ToolCallDelta};
    use crate::http::generation::text_model::ToolCall;

    const USAGE: Usage = Usage { prompt_tokens: 20, cached_tokens: 15, completion_tokens: 3, reasoning_tokens: 1 };

    fn totals() -> Totals {
        Totals { usage: USAGE, timings: TimingsBody::new(&Timings::default(), USAGE, 1) }
    }

    fn whole(choice: Choice) -> Value {
        serde_json::to_value(Answer::new("tiny", true).body(vec![choice], totals())).unwrap()
    }

    /// The names and the data of a stream's events.
    fn streamed(deltas: Vec<Delta>) -> Vec<(String, Value)> {
        let (mut answer, mut events) = (Answer::new("tiny", true), Events::default());
        answer.open(1, USAGE.prompt_tokens, &mut events);
        answer.ping(&mut events);
        for delta in deltas {
            let totals = delta.end.is_some().then(totals);
            answer.delta(&ChoiceDelta { choice: 0, delta, usage: Usage::default() }, totals, &mut events);
        }
        answer.close(totals(), &mut events);
        let parse = |event: &str| {
            let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            (name.to_owned(), serde_json::from_str(data).unwrap())
        };
        events.text().split_terminator("\n\n").map(parse).collect()
    }

    fn ending(ended: Ended) -> Delta {
        Delta { end: Some(Ok(ended)), ..Delta::default() }
    }

    #[test]
    fn a_whole_answer_has_the_fields_of_a_message() {
        let mut body = whole(Choice { text: "Yes".to_owned(), ended: Some(Ended::Stop), ..Choice::default() });
        let fields = body.as_object_mut().unwrap();
        assert!(fields.remove("id").unwrap().as_str().unwrap().starts_with("msg_"));
        assert!(fields.remove("timings").unwrap().is_object());
        let usage = json!({
            "input_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 15, "output_tokens": 3,
            "output_tokens_details": {"thinking_tokens": 1}, "cache_creation": null, "inference_geo": null,
            "server_tool_use": null, "service_tier": "standard"
        });
        let text = json!({"type": "text", "text": "Yes", "citations": null});
        let expected = json!({
            "type": "message", "role": "assistant", "model": "tiny", "content": [text], "stop_reason": "end_turn",
            "stop_sequence": null, "stop_details": null, "container": null, "usage": usage
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn each_end_has_anthropics_reason() {
        let stop_string = Some("END".to_owned());
        for (ended, stop_string, reason) in [
            (Ended::Stop, None, "end_turn"),
            (Ended::Stop, stop_string, "stop_sequence"),
            (Ended::Length, None, "max_tokens"),
            (Ended::ToolCalls, None, "tool_use"),
        ] {
            let body = whole(Choice { ended: Some(ended), stop_string: stop_string.clone(), ..Choice::default() });
            assert_eq!((&body["stop_reason"], &body["stop_sequence"]), (&json!(reason), &json!(stop_string)));
            let events = streamed(vec![Delta { stop_string: stop_string.clone(), ..ending(ended) }]);
            let (_, last) = events.iter().find(|(name, _)| name == "message_delta").unwrap();
            assert_eq!(last["delta"], json!({"stop_reason": reason, "stop_sequence": stop_string}));
        }
    }

    #[test]
    fn a_stream_begins_with_the_message_and_ends_with_its_reason_and_usage() {
        let events = streamed(vec![Delta { text: "Yes".to_owned(), ..Delta::default() }, ending(Ended::Stop)]);
        let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
        let block = ["content_block_start", "content_block_delta", "content_block_stop"];
        let expected = [&["message_start", "ping"], &block[..], &["message_delta", "message_stop"]].concat();
        assert_eq!(names, expected);
        assert!(events.iter().all(|(name, data)| data["type"] == *name), "{events:?}");
        let message = &events[0].1["message"];
        assert_eq!((&message["content"], &message["stop_reason"]), (&json!([]), &Value::Null));
        assert_eq!((&message["usage"]["input_tokens"], &message["usage"]["output_tokens"]), (&json!(20), &json!(0)));
        let last = &events[events.len() - 2].1;
        assert_eq!(last["usage"]["input_tokens"], 5);
        assert_eq!(
            (&last["usage"]["cache_read_input_tokens"], &last["usage"]["output_tokens"]),
            (&json!(15), &json!(3))
        );
        assert!(last["timings"].is_object());
    }

    #[test]
    fn a_call_is_the_same_whole_and_in_pieces() {
        let call = ToolCall { id: "c1".to_owned(), name: "look".to_owned(), arguments: "{\"a\": 1}".to_owned() };
        let body = whole(Choice { tool_calls: vec![call], ended: Some(Ended::ToolCalls), ..Choice::default() });
        let mut use_block = json!({
            "type": "tool_use", "id": "c1", "name": "look", "input": {"a": 1}, "caller": {"type": "direct"}
        });
        assert_eq!((&body["content"], &body["stop_reason"]), (&json!([use_block]), &json!("tool_use")));
        let (id, name) = (Some("c1".to_owned()), Some("look".to_owned()));
        let call = ToolCallDelta { index: 0, id, name, arguments: "{\"a\": 1}".to_owned() };
        let events = streamed(vec![Delta { tool_calls: vec![call], ..ending(Ended::ToolCalls) }]);
        let data: Vec<_> = events.iter().map(|(_, data)| data).collect();
        use_block["input"] = json!({});
        assert_eq!(data[2]["content_block"], use_block);
        assert_eq!(data[3]["delta"], json!({"type": "input_json_delta", "partial_json": "{\"a\": 1}"}));
        assert_eq!(data[5]["delta"]["stop_reason"], "tool_use");
    }

    #[test]
    fn a_failure_in_a_stream_is_an_event() {
        let (mut answer, mut events) = (Answer::new("tiny", true), Events::default());
        answer.fail(&ApiError::unavailable("Layers are missing."), &mut events);
        let data = r#"{"type":"error","error":{"type":"overloaded_error","message":"Layers are missing."}}"#;
        assert_eq!(events.text(), format!("event: error\ndata: {data}\n\n"));
    }
}
