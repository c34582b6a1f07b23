//! A conversation as a chat template takes it: messages, tools, and the template's own parameters. Every dialect turns
//! its requests into this form.

use serde_json::{Map, Value};

/// Everything from which a chat template renders a prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// The messages, the oldest first. At least one.
    pub messages: Vec<Message>,
    /// The tools that the model may call.
    pub tools: Vec<Tool>,
    /// Further variables of the template, such as `enable_thinking` or `reasoning_effort`.
    pub template_kwargs: Map<String, Value>,
    /// The way in which the prompt ends.
    pub ending: PromptEnding,
    /// The chat template's source, if it is not the model's own.
    pub template: Option<String>,
}

/// The way in which a prompt ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PromptEnding {
    /// With the beginning of the assistant's next message.
    #[default]
    Generation,
    /// With the last message, complete.
    Complete,
    /// With the text of the last message, which the model continues.
    Continued,
}

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The speaker's role: `system`, `user`, `assistant`, `tool` or another one that the template knows.
    pub role: String,
    /// The message's text.
    pub content: String,
    /// The text in which the assistant reasoned before it answered, if the client sent it back.
    pub reasoning: Option<String>,
    /// The calls that the assistant made.
    pub tool_calls: Vec<ToolCall>,
    /// The call that a message of the role `tool` answers.
    pub tool_call_id: Option<String>,
    /// The tool that a message of the role `tool` comes from, or the speaker's name.
    pub name: Option<String>,
}

/// A call of a tool by the assistant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// The id that the tool's result refers to.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments: a JSON object as text, as the model wrote it.
    pub arguments: String,
}

/// A tool that the model may call: a function with named parameters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its purpose, for the model.
    pub description: Option<String>,
    /// JSON schema of its arguments. An object.
    pub parameters: Option<Value>,
    /// True if calls must fit the schema.
    pub strict: bool,
}

/// The calls that a request allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// None. The model gets no tools.
    None,
    /// The model decides.
    #[default]
    Auto,
    /// At least one call of any of the tools.
    Required,
    /// Calls of the named tools only: at least one if `required`.
    Allowed {
        /// The tools' names.
        names: Vec<String>,
        /// True if the model must call one.
        required: bool,
    },
}

// === impl Message ===

impl Message {
    /// A message that is only text.
    pub fn text(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: content.to_owned(), ..Self::default() }
    }
}

// === impl ToolChoice ===

impl ToolChoice {
    /// True if the model may call the tool `name`.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::Auto | Self::Required => true,
            Self::Allowed { names, .. } => names.iter().any(|allowed| allowed == name),
        }
    }

    /// True if the model must call a tool.
    #[must_use]
    pub fn is_required(&self) -> bool {
        matches!(self, Self::Required | Self::Allowed { required: true, .. })
    }
}

// === impl Conversation ===

impl Conversation {
    /// All text of the conversation that a client may have written, keys included. Numbers are left out.
    pub(super) fn texts(&self) -> Vec<&str> {
        let mut texts = Vec::new();
        for message in &self.messages {
            texts.push(message.content.as_str());
            texts.extend(message.reasoning.as_deref());
            texts.extend(message.tool_call_id.as_deref());
            texts.extend(message.name.as_deref());
            for call in &message.tool_calls {
                texts.extend([call.id.as_str(), call.name.as_str(), call.arguments.as_str()]);
            }
        }
        for tool in &self.tools {
            texts.push(&tool.name);
            texts.extend(tool.description.as_deref());
            tool.parameters.iter().for_each(|schema| add_texts(schema, &mut texts));
        }
        for (name, value) in &self.template_kwargs {
            texts.push(name);
            add_texts(value, &mut texts);
        }
        texts
    }
}

/// Appends the keys and strings in `value` to `texts`.
fn add_texts<'v>(value: &'v Value, texts: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| add_texts(item, texts)),
        Value::Object(map) => {
            for (key, value) in map {
                texts.push(key);
                add_texts(value, texts);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }
}
