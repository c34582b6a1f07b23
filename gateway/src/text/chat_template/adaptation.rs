//! Adapts a conversation to a template: fills in what it needs, and writes out as plain text what it does not know.

use std::borrow::Cow;

use super::traits::Traits;
use crate::text::conversation::{Conversation, Message};
use crate::text::tools::{TemplateCallId, ToolFormat, instructions};

// === impl Traits ===

impl Traits {
    /// `conversation` as the template takes it.
    pub(super) fn adapt<'c>(&self, conversation: &'c Conversation) -> Cow<'c, Conversation> {
        let is_result = |message: &Message| message.role == "tool" || !message.tool_calls.is_empty();
        if conversation.tools.is_empty() && !conversation.messages.iter().any(is_result) {
            return Cow::Borrowed(conversation);
        }
        let mut adapted = conversation.clone();
        name_results(&mut adapted.messages);
        if self.calls {
            shorten_ids(&mut adapted.messages, TemplateCallId::of(self.format));
        } else {
            adapted.messages = written_out(adapted.messages);
        }
        if !self.tools && !adapted.tools.is_empty() {
            let format = if self.calls { self.format } else { ToolFormat::Json };
            let text = instructions(format, &std::mem::take(&mut adapted.tools));
            self.instruct(&mut adapted.messages, text);
        }
        Cow::Owned(adapted)
    }

    /// Puts `text` behind the system message, or before the first message where a template takes none.
    fn instruct(&self, messages: &mut Vec<Message>, text: String) {
        match messages.first_mut() {
            Some(first) if first.role == "system" => {
                first.content = if first.content.is_empty() { text } else { [&first.content, "\n\n", &text].concat() };
            }
            Some(first) if !self.system => first.content = [&text, "\n\n", first.content.as_str()].concat(),
            _ => messages.insert(0, Message::text("system", &text)),
        }
    }
}

/// Gives each result of a call the name of the tool, if the client left it out: some templates rely on it.
fn name_results(messages: &mut [Message]) {
    for at in 0..messages.len() {
        let (earlier, rest) = messages.split_at_mut(at);
        let Some(result) = rest.first_mut().filter(|message| message.role == "tool" && message.name.is_none()) else {
            continue;
        };
        let calls = || earlier.iter().rev().flat_map(|message| &message.tool_calls);
        let call = calls().find(|call| result.tool_call_id.as_ref() == Some(&call.id));
        result.name = call.map(|call| call.name.clone());
    }
}

/// Replaces the ids of calls by those that the family's templates take.
fn shorten_ids(messages: &mut [Message], ids: TemplateCallId) {
    let mut known: Vec<(String, String)> = Vec::new();
    for message in messages {
        for call in &mut message.tool_calls {
            let id = ids.written(&call.id, &call.name, known.len());
            known.push((std::mem::replace(&mut call.id, id.clone()), id));
        }
        if let Some(id) = &mut message.tool_call_id {
            let written = known.iter().rev().find(|(original, _)| original == id).map(|(_, written)| written.clone());
            *id = written.unwrap_or_else(|| ids.written(id, message.name.as_deref().unwrap_or_default(), 0));
        }
    }
}

/// The messages with calls as text in the assistant's messages, and with their results as messages of the user.
fn written_out(messages: Vec<Message>) -> Vec<Message> {
    let mut written: Vec<Message> = Vec::with_capacity(messages.len());
    // True if the last message is made of results, so that further ones and the user's next message go there, too.
    let mut results = false;
    for mut message in messages {
        let is_result = message.role == "tool";
        if is_result {
            let name = message.name.take().unwrap_or_else(|| "a tool".to_owned());
            let content = format!("Result of {name}:\n{}", message.content);
            message = Message::text("user", &content);
        }
        for call in std::mem::take(&mut message.tool_calls) {
            if !message.content.is_empty() {
                message.content.push('\n');
            }
            message.content.push_str(&ToolFormat::Json.written(&call.name, &call.arguments));
        }
        match written.last_mut() {
            Some(last) if results && message.role == "user" => {
                last.content.push_str("\n\n");
                last.content.push_str(&message.content);
            }
            _ => written.push(message),
        }
        results = is_result;
    }
    written
}
