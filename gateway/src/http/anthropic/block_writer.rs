//! Turns deltas into the events of blocks. One block is open at a time: a delta of another kind closes it and opens the
//! next one.

use super::block::{Block, Caller, SIGNATURE};
use super::event::{BlockDelta, Event};
use crate::http::generation::choice_decoder::{Delta, ToolCallDelta};
use crate::http::generation::dialect::Events;

/// The blocks of one stream.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    /// False if the client wants to know only that there was thinking.
    shows_thinking: bool,
    /// Number of the open block, or of the next one.
    index: usize,
    open: Option<Open>,
}

/// The kind of the open block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Thinking,
    Text,
    /// The call with this number in the choice.
    ToolUse(usize),
}

// === impl BlockWriter ===

impl BlockWriter {
    /// A stream without blocks yet.
    pub(crate) fn new(shows_thinking: bool) -> Self {
        Self { shows_thinking, index: 0, open: None }
    }

    /// Writes what `delta` adds.
    pub(crate) fn write(&mut self, delta: &Delta, events: &mut Events) {
        if !delta.reasoning.is_empty() {
            let start = || Block::Thinking { thinking: String::new(), signature: "" };
            self.enter(Open::Thinking, start, events);
            if self.shows_thinking {
                self.add(BlockDelta::Thinking { thinking: &delta.reasoning }, events);
            }
        }
        if !delta.text.is_empty() {
            self.enter(Open::Text, || Block::Text { text: String::new(), citations: () }, events);
            self.add(BlockDelta::Text { text: &delta.text }, events);
        }
        for call in &delta.tool_calls {
            self.write_call(call, events);
        }
    }

    /// Closes the last block. A message has at least one, because clients read the first one without a look at their
    /// number.
    pub(crate) fn finish(&mut self, events: &mut Events) {
        if self.index == 0 && self.open.is_none() {
            self.enter(Open::Text, || Block::Text { text: String::new(), citations: () }, events);
        }
        self.leave(events);
    }

    fn write_call(&mut self, call: &ToolCallDelta, events: &mut Events) {
        let start = || Block::ToolUse {
            id: call.id.clone().unwrap_or_default(),
            name: call.name.clone().unwrap_or_default(),
            input: serde_json::Value::Object(serde_json::Map::new()),
            caller: Caller::Direct,
        };
        self.enter(Open::ToolUse(call.index), start, events);
        if !call.arguments.is_empty() {
            self.add(BlockDelta::InputJson { partial_json: &call.arguments }, events);
        }
    }

    /// Makes `block` the open block. If it is not, closes the one that is and writes the one that `start` makes.
    fn enter(&mut self, block: Open, start: impl FnOnce() -> Block, events: &mut Events) {
        if self.open == Some(block) {
            return;
        }
        self.leave(events);
        Event::ContentBlockStart { index: self.index, content_block: start() }.push_to(events);
        self.open = Some(block);
    }

    fn add(&self, delta: BlockDelta<'_>, events: &mut Events) {
        Event::ContentBlockDelta { index: self.index, delta }.push_to(events);
    }

    fn leave(&mut self, events: &mut Events) {
        let Some(open) = self.open.take() else { return };
        if open == Open::Thinking {
            self.add(BlockDelta::Signature { signature: SIGNATURE }, events);
        }
        Event::ContentBlockStop { index: self.index }.push_to(events);
        self.index += 1;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reasoning(text: &str) -> Delta {
        Delta { reasoning: text.to_owned(), ..Delta::default() }
    }

    fn text(text: &str) -> Delta {
        Delta { text: text.to_owned(), ..Delta::default() }
    }

    /// The beginning of call `index`.
    fn call(index: usize) -> Delta {
        let (id, name) = (Some(format!("call_{index}")), Some(format!("tool_{index}")));
        Delta { tool_calls: vec![ToolCallDelta { index, id, name, ..ToolCallDelta::default() }], ..Delta::default() }
    }

    fn arguments(index: usize, arguments: &str) -> Delta {
        let arguments = arguments.to_owned();
        Delta { tool_calls: vec![ToolCallDelta { index, arguments, ..ToolCallDelta::default() }], ..Delta::default() }
    }

    /// The data of the events that `deltas` make. The names of the events are those in their data.
    fn events(deltas: &[Delta], shows_thinking: bool) -> Vec<Value> {
        let mut events = Events::default();
        let mut writer = BlockWriter::new(shows_thinking);
        deltas.iter().for_each(|delta| writer.write(delta, &mut events));
        writer.finish(&mut events);
        let text = events.text();
        let parse = |event: &str| {
            let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], name);
            data
        };
        text.split_terminator("\n\n").map(parse).collect()
    }

    fn event(kind: &str, index: usize, key: &str, part: Value) -> Value {
        let mut event = json!({"type": kind, "index": index});
        event[key] = part;
        event
    }

    fn start(index: usize, block: Value) -> Value {
        event("content_block_start", index, "content_block", block)
    }

    fn delta(index: usize, delta: Value) -> Value {
        event("content_block_delta", index, "delta", delta)
    }

    fn stop(index: usize) -> Value {
        json!({"type": "content_block_stop", "index": index})
    }

    #[test]
    fn text_is_one_block() {
        let expected = [
            start(0, json!({"type": "text", "text": "", "citations": null})),
            delta(0, json!({"type": "text_delta", "text": "Hel"})),
            delta(0, json!({"type": "text_delta", "text": "lo"})),
            stop(0),
        ];
        assert_eq!(events(&[text("Hel"), text("lo")], true), expected);
    }

    #[test]
    fn thinking_is_signed_before_the_text_begins() {
        let expected = [
            start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "Hm"})),
            delta(0, json!({"type": "thinking_delta", "thinking": "."})),
            delta(0, json!({"type": "signature_delta", "signature": SIGNATURE})),
            stop(0),
            start(1, json!({"type": "text", "text": "", "citations": null})),
            delta(1, json!({"type": "text_delta", "text": "Yes"})),
            stop(1),
        ];
        // The delta that ends the thinking may begin the text.
        let last = Delta { text: "Yes".to_owned(), ..reasoning(".") };
        assert_eq!(events(&[reasoning("Hm"), last], true), expected);
    }

    #[test]
    fn thinking_that_is_not_shown_is_signed_all_the_same() {
        let expected = [
            start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "signature_delta", "signature": SIGNATURE})),
            stop(0),
        ];
        assert_eq!(events(&[reasoning("Hm"), reasoning(".")], false), expected);
    }

    #[test]
    fn each_call_is_a_block_whose_input_comes_as_json_text() {
        let tool = |index: usize| {
            let (id, name) = (format!("call_{index}"), format!("tool_{index}"));
            json!({"type": "tool_use", "id": id, "name": name, "input": {}, "caller": {"type": "direct"}})
        };
        let expected = [
            start(0, json!({"type": "text", "text": "", "citations": null})),
            delta(0, json!({"type": "text_delta", "text": "I look."})),
            stop(0),
            start(1, tool(0)),
            delta(1, json!({"type": "input_json_delta", "partial_json": "{\"a\""})),
            delta(1, json!({"type": "input_json_delta", "partial_json": ": 1}"})),
            stop(1),
            start(2, tool(1)),
            stop(2),
        ];
        let deltas = [text("I look."), call(0), arguments(0, "{\"a\""), arguments(0, ": 1}"), call(1)];
        assert_eq!(events(&deltas, true), expected);
    }

    #[test]
    fn text_after_a_call_is_a_further_block() {
        let deltas = [call(0), arguments(0, "{}"), text("Done.")];
        let starts = events(&deltas, true).into_iter().filter(|event| event["type"] == "content_block_start");
        let kinds: Vec<_> =
            starts.map(|event| (event["index"].clone(), event["content_block"]["type"].clone())).collect();
        assert_eq!(kinds, [(json!(0), json!("tool_use")), (json!(1), json!("text"))]);
    }

    #[test]
    fn an_empty_answer_is_an_empty_text() {
        assert_eq!(events(&[], true), [start(0, json!({"type": "text", "text": "", "citations": null})), stop(0)]);
    }
}
