//! Turns the items of a conversation into the messages of a chat template.

use std::collections::HashMap;
use std::sync::Arc;

use super::item::{CallItem, CallOutputItem, Item, MessageItem, Part, ReasoningItem, Role};
use super::tools::joined_name;
use crate::http::error::{ApiError, cut};
use crate::http::generation::text_model::{Message, ToolCall};

/// The messages so far.
#[derive(Debug, Default)]
struct Messages {
    done: Vec<Message>,
    /// The names of the functions that were called, by the ids of the calls.
    called: HashMap<String, String>,
}

/// The messages of `items`, after the `instructions`.
///
/// Instructions and the system messages that follow them are one message, since many templates take a system message at
/// the beginning only. Reasoning, a text and calls that follow each other are one message of the assistant.
///
/// # Errors
/// A 400 if there is no message, or for an output of a call that was not made.
pub(super) fn messages(instructions: Option<&str>, items: &[Arc<Item>]) -> Result<Vec<Message>, ApiError> {
    let mut messages = Messages::default();
    if let Some(instructions) = instructions.filter(|instructions| !instructions.is_empty()) {
        messages.done.push(Message::text("system", instructions));
    }
    for item in items {
        match &**item {
            Item::Message(message) => messages.add_message(message),
            Item::Reasoning(reasoning) => messages.add_reasoning(reasoning),
            Item::FunctionCall(call) => messages.add_call(call),
            Item::FunctionCallOutput(output) => messages.add_output(output)?,
        }
    }
    if messages.done.is_empty() {
        let message = "Invalid value for 'input': expected at least one item, found none.";
        return Err(ApiError::bad_request("invalid_value", message).about("input"));
    }
    Ok(messages.done)
}

/// The text of an item: its parts, one a line.
fn text(content: &[Part]) -> String {
    content.iter().map(Part::text).collect::<Vec<_>>().join("\n")
}

// === impl Messages ===

impl Messages {
    fn add_message(&mut self, item: &MessageItem) {
        let content = text(&item.content);
        match item.role {
            Role::Assistant => {
                self.assistant(|last| last.content.is_empty() && last.tool_calls.is_empty()).content = content;
            }
            Role::User => self.done.push(Message::text("user", &content)),
            // Templates of open models know the older name only.
            Role::System | Role::Developer => match self.done.as_mut_slice() {
                [first] if first.role == "system" => {
                    first.content.push_str("\n\n");
                    first.content.push_str(&content);
                }
                _ => self.done.push(Message::text("system", &content)),
            },
        }
    }

    fn add_reasoning(&mut self, item: &ReasoningItem) {
        if item.content.is_empty() {
            return;
        }
        let reasoning = text(&item.content);
        let last = self.assistant(|last| last.content.is_empty() && last.tool_calls.is_empty());
        match &mut last.reasoning {
            Some(earlier) => {
                earlier.push('\n');
                earlier.push_str(&reasoning);
            }
            None => last.reasoning = Some(reasoning),
        }
    }

    fn add_call(&mut self, item: &CallItem) {
        let name = joined_name(item.namespace.as_deref(), &item.name);
        self.called.insert(item.call_id.clone(), name.clone());
        let call = ToolCall { id: item.call_id.clone(), name, arguments: item.arguments.clone() };
        self.assistant(|_| true).tool_calls.push(call);
    }

    fn add_output(&mut self, item: &CallOutputItem) -> Result<(), ApiError> {
        let Some(name) = self.called.get(&item.call_id) else {
            let message = format!("No tool call found for function call output with call_id {}.", cut(&item.call_id));
            return Err(ApiError::bad_request("invalid_value", message).about("input"));
        };
        self.done.push(Message {
            tool_call_id: Some(item.call_id.clone()),
            name: Some(name.clone()),
            ..Message::text("tool", &item.output)
        });
        Ok(())
    }

    /// The last message if it is the assistant's and `takes` the next item, else a new one.
    fn assistant(&mut self, takes: impl FnOnce(&Message) -> bool) -> &mut Message {
        let continues = self.done.last().is_some_and(|last| last.role == "assistant" && takes(last));
        if !continues {
            self.done.push(Message::text("assistant", ""));
        }
        let last = self.done.len() - 1;
        &mut self.done[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::params::Params;
    use crate::http::responses::ids::Ids;
    use crate::http::responses::input::{self, InputItem};
    use serde_json::{Value, json};

    fn of(instructions: Option<&str>, input: &Value) -> Result<Vec<Message>, ApiError> {
        let body = json!({"input": input});
        let read = input::read(&Params::new(body.as_object().unwrap()), &mut Ids::from_seed(1)).unwrap();
        let given = |item| match item {
            InputItem::Given(item) => Arc::new(item),
            InputItem::Reference { id, .. } => panic!("a reference to {id}"),
        };
        messages(instructions, &read.into_iter().map(given).collect::<Vec<_>>())
    }

    #[test]
    fn the_instructions_and_the_first_system_messages_are_one() {
        let messages = of(
            Some("be brief"),
            &json!([
                {"role": "developer", "content": "and polite"},
                {"role": "user", "content": "hi"},
                {"role": "system", "content": "now in verse"}
            ]),
        );
        let expected = [("system", "be brief\n\nand polite"), ("user", "hi"), ("system", "now in verse")];
        assert_eq!(messages.unwrap(), expected.map(|(role, content)| Message::text(role, content)));
        assert_eq!(of(Some(""), &json!("hi")).unwrap(), [Message::text("user", "hi")]);
    }

    #[test]
    fn reasoning_text_and_calls_are_one_message_of_the_assistant() {
        let messages = of(
            None,
            &json!([
                {"role": "user", "content": "weather?"},
                {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "two cities"}]},
                {"role": "assistant", "content": "I look."},
                {"type": "function_call", "call_id": "1", "name": "weather", "arguments": "{\"of\":\"Rome\"}"},
                {"type": "function_call", "call_id": "2", "namespace": "maps", "name": "find", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "2", "output": "north"},
                {"type": "function_call_output", "call_id": "1", "output": "sun"},
                {"role": "assistant", "content": "Sun."},
                {"role": "assistant", "content": "North."}
            ]),
        );
        let messages = messages.unwrap();
        let roles: Vec<_> = messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "tool", "assistant", "assistant"]);
        let assistant = &messages[1];
        assert_eq!((assistant.reasoning.as_deref(), assistant.content.as_str()), (Some("two cities"), "I look."));
        let names: Vec<_> = assistant.tool_calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["weather", "maps__find"]);
        assert_eq!(messages[2].name.as_deref(), Some("maps__find"));
        assert_eq!((messages[3].tool_call_id.as_deref(), messages[3].content.as_str()), (Some("1"), "sun"));
    }

    #[test]
    fn reasoning_after_an_answer_begins_a_new_message() {
        let messages = of(
            None,
            &json!([
                {"role": "assistant", "content": "a"},
                {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "b"}]},
                {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "c"}]},
                {"type": "reasoning", "summary": []},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
            ]),
        );
        let messages = messages.unwrap();
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[1].reasoning.as_deref(), messages[1].tool_calls.len()), (Some("b\nc"), 1));
    }

    #[test]
    fn an_output_without_its_call_and_an_empty_conversation_are_refused() {
        let output = json!([{"type": "function_call_output", "call_id": "call_9", "output": "x"}]);
        let error = of(None, &output).unwrap_err();
        assert!(error.message().contains("call_id call_9"), "{error:?}");
        assert_eq!(of(None, &json!([])).unwrap_err().param(), Some("input"));
    }
}
