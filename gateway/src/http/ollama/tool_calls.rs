//! Calls of tools in Ollama's form: arguments are a JSON object and not, as in OpenAI's, the text of one. A call is
//! sent when it is complete.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::http::error::ApiError;
use crate::http::generation::choice_decoder::ToolCallDelta;
use crate::http::generation::text_model::{ToolCall, spaced_json};
use crate::http::params::Params;

/// A call in an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ToolCallBody {
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    function: FunctionBody,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct FunctionBody {
    index: usize,
    name: String,
    arguments: Map<String, Value>,
}

/// Puts the calls of a streamed answer together from their parts.
#[derive(Debug, Default)]
pub(super) struct CallAssembler {
    open: Option<(usize, ToolCall)>,
}

/// A complete call: as the client gets it, or as text if its arguments are no JSON object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum CompleteCall {
    Call(ToolCallBody),
    Text(String),
}

/// Reads the calls that a message of the assistant has.
///
/// # Errors
/// A 400 that names the call and the error in it.
pub(super) fn read(message: &Params<'_>) -> Result<Vec<ToolCall>, ApiError> {
    let list = message.list("tool_calls")?.unwrap_or_default();
    let path = message.path("tool_calls");
    list.iter().enumerate().map(|(index, call)| read_one(&format!("{path}[{index}]"), call)).collect()
}

fn read_one(at: &str, call: &Value) -> Result<ToolCall, ApiError> {
    let params = Params::at(at, "an object with function", call)?;
    let function = params.required("function", "an object with name and arguments")?;
    let function = Params::at(&params.path("function"), "an object with name and arguments", function)?;
    function.object("arguments")?;
    let arguments = function.get("arguments").map_or_else(|| "{}".to_owned(), spaced_json);
    let id = params.text("id")?.unwrap_or_default().to_owned();
    Ok(ToolCall { id, name: function.required_text("name")?.to_owned(), arguments })
}

// === impl CompleteCall ===

impl CompleteCall {
    /// Call number `index` of an answer.
    pub(super) fn new(index: usize, call: ToolCall) -> Self {
        let ToolCall { id, name, arguments } = call;
        let text = if arguments.trim().is_empty() { "{}" } else { &arguments };
        match serde_json::from_str(text) {
            Ok(arguments) => Self::Call(ToolCallBody { id, function: FunctionBody { index, name, arguments } }),
            Err(_) => Self::Text(format!("{name}({arguments})")),
        }
    }
}

// === impl CallAssembler ===

impl CallAssembler {
    /// Takes the next parts. Returns the calls that they complete: a call is complete when the next one begins.
    pub(super) fn push(&mut self, parts: &[ToolCallDelta]) -> Vec<CompleteCall> {
        let mut complete = Vec::new();
        for part in parts {
            if self.open.as_ref().is_some_and(|(index, _)| *index != part.index) {
                complete.extend(self.finish());
            }
            let (_, call) = self.open.get_or_insert_with(|| (part.index, ToolCall::default()));
            call.id.push_str(part.id.as_deref().unwrap_or_default());
            call.name.push_str(part.name.as_deref().unwrap_or_default());
            call.arguments.push_str(&part.arguments);
        }
        complete
    }

    /// The last call, at the end of the answer.
    pub(super) fn finish(&mut self) -> Option<CompleteCall> {
        self.open.take().map(|(index, call)| CompleteCall::new(index, call))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn part(index: usize, name: Option<&str>, arguments: &str) -> ToolCallDelta {
        let id = name.map(|_| format!("call_{index}"));
        ToolCallDelta { index, id, name: name.map(str::to_owned), arguments: arguments.to_owned() }
    }

    fn body(call: &CompleteCall) -> Value {
        match call {
            CompleteCall::Call(call) => json!(call),
            CompleteCall::Text(text) => json!(text),
        }
    }

    #[test]
    fn calls_are_put_together_and_complete_when_the_next_begins() {
        let mut calls = CallAssembler::default();
        assert_eq!(calls.push(&[part(0, Some("now"), ""), part(0, None, "{\"zone\"")]), []);
        let first = calls.push(&[part(0, None, ":\"utc\"}"), part(1, Some("day"), "")]);
        let expected = json!({
            "id": "call_0", "function": {"index": 0, "name": "now", "arguments": {"zone": "utc"}}
        });
        assert_eq!(first.iter().map(body).collect::<Vec<_>>(), [expected]);
        let last = calls.finish().unwrap();
        let expected = json!({"id": "call_1", "function": {"index": 1, "name": "day", "arguments": {}}});
        assert_eq!(body(&last), expected);
        assert_eq!(calls.finish(), None);
    }

    #[test]
    fn arguments_that_are_no_object_are_sent_as_text() {
        for arguments in ["{\"zone\": \"ut", "[1]", "5"] {
            let call = ToolCall { name: "now".to_owned(), arguments: arguments.to_owned(), ..ToolCall::default() };
            assert_eq!(CompleteCall::new(0, call), CompleteCall::Text(format!("now({arguments})")));
        }
    }

    #[test]
    fn a_call_without_an_id_has_no_such_field() {
        let call = ToolCall { name: "now".to_owned(), ..ToolCall::default() };
        let expected = json!({"function": {"index": 0, "name": "now", "arguments": {}}});
        assert_eq!(body(&CompleteCall::new(0, call)), expected);
    }

    #[test]
    fn calls_of_the_history_have_objects_as_arguments() {
        let read = |call: Value| {
            let message = json!({"tool_calls": [call]});
            read(&Params::at("messages[2]", "a message", &message).unwrap())
        };
        let calls = read(json!({"id": "c", "function": {"name": "now", "arguments": {"b": 1, "a": 2}}})).unwrap();
        let expected =
            ToolCall { id: "c".to_owned(), name: "now".to_owned(), arguments: r#"{"b": 1, "a": 2}"#.to_owned() };
        assert_eq!(calls, [expected]);
        for (call, param) in [
            (json!({}), "messages[2].tool_calls[0].function"),
            (json!({"function": {"arguments": {}}}), "messages[2].tool_calls[0].function.name"),
            (json!({"function": {"name": "f", "arguments": "{}"}}), "messages[2].tool_calls[0].function.arguments"),
        ] {
            assert_eq!(read(call).unwrap_err().json()["error"]["param"], param);
        }
    }
}
