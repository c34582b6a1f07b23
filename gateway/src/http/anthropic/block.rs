//! The blocks that the content of an answer consists of.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::http::generation::dialect::Choice;
use crate::http::generation::text_model::ToolCall;

/// The `signature` of thinking. This server signs nothing and checks no signature, but clients take thinking with an
/// empty one for incomplete.
pub(crate) const SIGNATURE: &str = "unsigned";
/// The key of a tool's input that is no JSON object. Anthropic's documentation names it for clients that report such
/// an input.
const INVALID_INPUT: &str = "INVALID_JSON";

/// One block of an answer's content.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Block {
    /// The reasoning before the answer.
    Thinking { thinking: String, signature: &'static str },
    /// The answer's text. It cites nothing, so its `citations` are null.
    Text { text: String, citations: () },
    /// A call of a tool.
    ToolUse { id: String, name: String, input: Value, caller: Caller },
}

/// The caller of a tool.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Caller {
    /// The model itself, and no program that it wrote.
    Direct,
}

/// The blocks of a complete choice. There is at least one, because clients read the first one without a look at their
/// number. `shows_thinking` is false if the client wants to know only that there was thinking.
pub(crate) fn blocks(choice: Choice, shows_thinking: bool) -> Vec<Block> {
    let Choice { text, reasoning, tool_calls, .. } = choice;
    let mut blocks = Vec::new();
    if !reasoning.is_empty() {
        let thinking = if shows_thinking { reasoning } else { String::new() };
        blocks.push(Block::Thinking { thinking, signature: SIGNATURE });
    }
    if !text.is_empty() || (blocks.is_empty() && tool_calls.is_empty()) {
        blocks.push(Block::Text { text, citations: () });
    }
    blocks.extend(tool_calls.into_iter().map(tool_use));
    blocks
}

fn tool_use(call: ToolCall) -> Block {
    let ToolCall { id, name, arguments } = call;
    Block::ToolUse { id, name, input: input(&arguments), caller: Caller::Direct }
}

/// The input that a tool's arguments spell. Text that is no JSON object, such as one that was cut, becomes a member of
/// one.
fn input(arguments: &str) -> Value {
    match serde_json::from_str(arguments) {
        Ok(input @ Value::Object(_)) => input,
        _ if arguments.trim().is_empty() => Value::Object(Map::new()),
        _ => json!({ INVALID_INPUT: arguments }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: &str) -> ToolCall {
        ToolCall { id: "call_1".to_owned(), name: "look".to_owned(), arguments: arguments.to_owned() }
    }

    fn written(choice: Choice, shows_thinking: bool) -> Value {
        serde_json::to_value(blocks(choice, shows_thinking)).unwrap()
    }

    #[test]
    fn thinking_comes_first_then_text_then_calls() {
        let choice = || Choice {
            text: "I look.".to_owned(),
            reasoning: "Hm.".to_owned(),
            tool_calls: vec![call("{\"b\": 1, \"a\": [2]}")],
            ..Choice::default()
        };
        let call = json!({
            "type": "tool_use", "id": "call_1", "name": "look", "input": {"b": 1, "a": [2]},
            "caller": {"type": "direct"}
        });
        let text = json!({"type": "text", "text": "I look.", "citations": null});
        let thinking = json!({"type": "thinking", "thinking": "Hm.", "signature": SIGNATURE});
        assert_eq!(written(choice(), true), json!([thinking, text, call]));
        let thinking = json!({"type": "thinking", "thinking": "", "signature": SIGNATURE});
        assert_eq!(written(choice(), false), json!([thinking, text, call]));
    }

    #[test]
    fn an_empty_answer_has_an_empty_text() {
        assert_eq!(written(Choice::default(), true), json!([{"type": "text", "text": "", "citations": null}]));
        let only_call = Choice { tool_calls: vec![call("")], ..Choice::default() };
        let written = written(only_call, true);
        assert_eq!((written.as_array().unwrap().len(), &written[0]["input"]), (1, &json!({})));
    }

    #[test]
    fn arguments_that_are_no_object_are_kept_as_text() {
        for arguments in ["{\"a\": 1", "[1]", "5", "look"] {
            assert_eq!(input(arguments), json!({"INVALID_JSON": arguments}));
        }
    }
}
