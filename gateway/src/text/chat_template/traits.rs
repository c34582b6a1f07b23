//! The traits of a chat template: what it knows of tools, and how it takes them.
//!
//! They are found once, when the template is compiled: from its source, or by rendering a conversation made for the
//! purpose.

use super::ChatTemplate;
use super::rendering::Rendering;
use crate::text::conversation::{Conversation, Message, PromptEnding, Tool, ToolCall};
use crate::text::tools::ToolFormat;

/// The traits of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traits {
    /// The format of calls that it shows.
    pub(super) format: ToolFormat,
    /// True if it writes the tools into the prompt.
    pub(super) tools: bool,
    /// True if it writes the calls of earlier answers into the prompt.
    pub(super) calls: bool,
    /// True if it takes a call's arguments as text, and not as an object.
    pub(super) text_arguments: bool,
    /// True if it takes a message of the role `system`.
    pub(super) system: bool,
    /// True if it is gpt-oss's, which has its own names for some fields.
    pub(super) harmony: bool,
}

/// Arguments of the call that templates are tried with. No template writes them so by itself.
const ARGUMENTS: &str = "{\"probe\":  \"probe-value\"}";

// === impl Traits ===

impl Default for Traits {
    /// Those of a template that knows no tools.
    fn default() -> Self {
        let format = ToolFormat::Json;
        Self { format, tools: false, calls: false, text_arguments: false, system: true, harmony: false }
    }
}

impl Traits {
    /// The traits of `template`, whose own are not known yet.
    pub(super) fn find(template: &ChatTemplate) -> Self {
        let format = ToolFormat::of_template(&template.source);
        let known = Self {
            format,
            tools: template.variables().contains("tools"),
            calls: template.source.contains("tool_calls"),
            text_arguments: false,
            system: true,
            harmony: format == ToolFormat::Harmony,
        };
        let shows = |traits: Self, conversation: &Conversation, text: &str| {
            Rendering::probe(template, traits, conversation).is_some_and(|prompt| prompt.contains(text))
        };
        let with_text = Self { text_arguments: true, ..known };
        let called = called();
        let text_arguments =
            known.calls && !shows(known, &called, "probe-value") && shows(with_text, &called, ARGUMENTS);
        Self { text_arguments, system: shows(known, &instructed(), "probe-system"), ..known }
    }
}

/// The text that `template` writes between the reasoning and the text of the last message. `None` if it does not write
/// the reasoning.
pub(super) fn reasoning_end(template: &ChatTemplate) -> Option<String> {
    let reasoning = Some("probe-reasoning".to_owned());
    let answer = Message { reasoning, ..Message::text("assistant", "probe-text") };
    let mut conversation = Conversation::from(vec![Message::text("user", "probe"), answer]);
    conversation.ending = PromptEnding::Complete;
    let prompt = Rendering::probe(template, template.traits, &conversation)?;
    let (_, behind) = prompt.split_once("probe-reasoning")?;
    behind.split_once("probe-text").map(|(between, _)| between.to_owned())
}

/// A conversation with a call and its result.
fn called() -> Conversation {
    let call = ToolCall { id: "abcdefghi".to_owned(), name: "probe_tool".to_owned(), arguments: ARGUMENTS.to_owned() };
    let answer = Message { tool_calls: vec![call], ..Message::text("assistant", "") };
    let result = Message {
        tool_call_id: Some("abcdefghi".to_owned()),
        name: Some("probe_tool".to_owned()),
        ..Message::text("tool", "done")
    };
    Conversation {
        messages: vec![Message::text("user", "probe"), answer, result],
        tools: vec![Tool { name: "probe_tool".to_owned(), ..Tool::default() }],
        ending: PromptEnding::Generation,
        ..Conversation::default()
    }
}

/// A conversation with a message of the role `system`.
fn instructed() -> Conversation {
    Conversation::from(vec![Message::text("system", "probe-system"), Message::text("user", "probe")])
}
