//! The variables of a chat template: a conversation as `transformers` hands it over.

use minijinja::value::Value;
use serde_json::Value as Json;

use super::marking::Marking;
use super::traits::Traits;
use crate::text::arguments::Arguments;
use crate::text::conversation::{Conversation, Message, Tool, ToolCall};

/// Turns a conversation into values, with its text marked.
pub(super) struct Values<'a> {
    pub(super) marking: Marking<'a>,
    pub(super) traits: Traits,
}

// === impl Values ===

impl Values<'_> {
    /// The value of `messages`.
    pub(super) fn messages(&self, conversation: &Conversation) -> Value {
        conversation.messages.iter().map(|message| self.message(message)).collect()
    }

    /// The value of `tools`: a list of OpenAI's tool objects, or none.
    pub(super) fn tools(&self, conversation: &Conversation) -> Value {
        match conversation.tools.as_slice() {
            [] => Value::from(()),
            tools => tools.iter().map(|tool| self.tool(tool)).collect(),
        }
    }

    /// The further variables, by name.
    pub(super) fn variables(&self, conversation: &Conversation) -> Vec<(String, Value)> {
        conversation.template_kwargs.iter().map(|(name, value)| (name.clone(), self.json(value))).collect()
    }

    /// Keys that say nothing are left out, since templates ask if they are defined.
    fn message(&self, message: &Message) -> Value {
        let Message { role, content, reasoning, tool_calls, tool_call_id, name } = message;
        let mut fields = vec![("role", Value::from(role.as_str()))];
        let mut content = content.clone();
        if let Some(reasoning) = reasoning {
            let mut thinking = reasoning.clone();
            // gpt-oss's template takes either text or thinking beside calls.
            if self.traits.harmony && !tool_calls.is_empty() && !content.is_empty() {
                thinking = [thinking, std::mem::take(&mut content)].join("\n\n");
            }
            let key = if self.traits.harmony { "thinking" } else { "reasoning_content" };
            fields.push((key, Value::from(self.marking.content(&thinking))));
        }
        fields.push(("content", Value::from(self.marking.content(&content))));
        if !tool_calls.is_empty() {
            fields.push(("tool_calls", tool_calls.iter().map(|call| self.call(call)).collect()));
        }
        fields.extend(tool_call_id.iter().map(|id| ("tool_call_id", Value::from(self.marking.text(id)))));
        fields.extend(name.iter().map(|name| ("name", Value::from(self.marking.text(name)))));
        Value::from_pairs(fields)
    }

    fn call(&self, call: &ToolCall) -> Value {
        let function = Value::from_pairs([
            ("name", Value::from(self.marking.text(&call.name))),
            ("arguments", self.arguments(&call.arguments)),
        ]);
        Value::from_pairs([
            ("id", Value::from(self.marking.text(&call.id))),
            ("type", Value::from("function")),
            ("function", function),
        ])
    }

    /// An object, or text if the template wants it or the model wrote no object.
    fn arguments(&self, arguments: &str) -> Value {
        let text = self.marking.content(arguments);
        match serde_json::from_str(arguments) {
            Ok(object @ Json::Object(_)) if !self.traits.text_arguments => {
                Value::from_object(Arguments { text, map: self.json(&object) })
            }
            _ => Value::from(text),
        }
    }

    /// A tool without parameters gets an empty schema, and one without a description an empty one: OpenAI's API leaves
    /// them out, and templates rely on them.
    fn tool(&self, tool: &Tool) -> Value {
        let parameters = match &tool.parameters {
            Some(schema) => self.json(schema),
            None => Value::from_pairs([
                ("type", Value::from("object")),
                ("properties", self.json(&Json::Object(serde_json::Map::new()))),
            ]),
        };
        let function = Value::from_pairs([
            ("name", Value::from(self.marking.text(&tool.name))),
            ("description", Value::from(self.marking.content(tool.description.as_deref().unwrap_or_default()))),
            ("parameters", parameters),
        ]);
        Value::from_pairs([("type", Value::from("function")), ("function", function)])
    }

    fn json(&self, json: &Json) -> Value {
        match json {
            Json::String(text) => Value::from(self.marking.text(text)),
            Json::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Json::Object(map) => {
                Value::from_pairs(map.iter().map(|(key, value)| (self.marking.key(key), self.json(value))))
            }
            Json::Null => Value::from(()),
            Json::Bool(flag) => Value::from(*flag),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Value::from(number),
                (None, Some(number)) => Value::from(number),
                (None, None) => Value::from(number.as_f64()),
            },
        }
    }
}
