//! Reads `system` and `messages`, and makes of them the messages that chat templates take.
//!
//! Chat templates differ from Anthropic's API in three ways. Results of tools are messages of their own, consecutive
//! messages of one role are an error in some, and many take a system message at the beginning only. So system messages
//! between the others join the user's text or the tool's result before them, or else the user's next text. They only
//! ever change the end of the prompt, so that its beginning stays in the prefix cache from turn to turn.

use serde_json::Value;

use super::content::{self, Content, Role};
use super::params::{Params, out_of_range};
use crate::http::error::ApiError;
use crate::http::generation::text_model::{Message, PromptEnding};

/// The beginning of a system block in which Claude Code tells its version, and which no model should read. The block
/// changes from request to request, so that nothing after it would be in the prefix cache.
const BILLING_HEADER: &str = "x-anthropic-billing-header:";

/// The messages of a request.
#[derive(Debug, PartialEq)]
pub(crate) struct Turns {
    pub(crate) messages: Vec<Message>,
    pub(crate) ending: PromptEnding,
}

/// The messages read so far.
#[derive(Debug, Default)]
struct TurnBuilder {
    /// Texts before the first message.
    system: Vec<String>,
    messages: Vec<Message>,
    /// Texts of system messages after an assistant's message.
    pending: Vec<String>,
}

/// Reads the messages.
///
/// # Errors
/// A 400 that names the message and the error in it.
pub(crate) fn read(params: &Params<'_>) -> Result<Turns, ApiError> {
    let mut turns = TurnBuilder::default();
    if let Some(system) =
        params.get("system").filter(|system| system.as_array().is_none_or(|blocks| !blocks.is_empty()))
    {
        let texts = content::read("system", Role::System, system)?.texts;
        turns.system.extend(texts.into_iter().filter(|text| !text.starts_with(BILLING_HEADER)));
    }
    params.required("messages", "an array of messages")?;
    let list = params.list("messages")?.unwrap_or_default();
    if list.is_empty() {
        return Err(out_of_range("messages", "at least one message", &Value::Array(Vec::new())));
    }
    for (index, message) in list.iter().enumerate() {
        let message = Params::at(&format!("messages[{index}]"), "an object with role and content", message)?;
        let role = role(&message)?;
        let found = message.required("content", "a string or an array of content blocks")?;
        turns.add(role, content::read(&message.path("content"), role, found)?);
    }
    let ending = turns.ending(list.len() - 1)?;
    Ok(Turns { messages: turns.finish(), ending })
}

fn role(message: &Params<'_>) -> Result<Role, ApiError> {
    let expected = "user, assistant or system";
    message.required("role", expected)?;
    match message.required_text("role")? {
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "system" => Ok(Role::System),
        found => Err(out_of_range(&message.path("role"), expected, &Value::from(found))),
    }
}

fn join(text: &mut String, more: &str, separator: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push_str(separator);
    }
    text.push_str(more);
}

// === impl TurnBuilder ===

impl TurnBuilder {
    fn add(&mut self, role: Role, content: Content) {
        match role {
            Role::System => self.add_system(content.texts),
            Role::User => self.add_user(content),
            Role::Assistant => self.add_assistant(content),
        }
    }

    fn add_system(&mut self, texts: Vec<String>) {
        match self.messages.last_mut() {
            None => self.system.extend(texts),
            Some(last) if last.role != "assistant" => join(&mut last.content, &texts.join("\n"), "\n\n"),
            Some(_) => self.pending.extend(texts),
        }
    }

    fn add_user(&mut self, Content { texts, tool_results, .. }: Content) {
        for result in tool_results {
            let calls = self.messages.iter().rev().flat_map(|message| &message.tool_calls);
            let name = calls.into_iter().find(|call| call.id == result.tool_use_id).map(|call| call.name.clone());
            let tool_call_id = Some(result.tool_use_id);
            let role = "tool".to_owned();
            self.messages.push(Message { role, content: result.text, tool_call_id, name, ..Message::default() });
        }
        let pending = std::mem::take(&mut self.pending).join("\n\n");
        match self.messages.last_mut() {
            // The results of tools alone stay the end of the prompt: a text of the user after them would begin a new
            // turn, and templates then drop the reasoning before it.
            Some(last) if last.role == "tool" && texts.is_empty() => join(&mut last.content, &pending, "\n\n"),
            last => {
                let mut text = pending;
                join(&mut text, &texts.join("\n"), "\n\n");
                match last {
                    Some(last) if last.role == "user" => join(&mut last.content, &text, "\n"),
                    _ => self.messages.push(Message::text("user", &text)),
                }
            }
        }
    }

    fn add_assistant(&mut self, Content { texts, thinking, tool_uses, .. }: Content) {
        self.flush();
        if self.messages.last().is_none_or(|last| last.role != "assistant") {
            self.messages.push(Message::text("assistant", ""));
        }
        if let Some(last) = self.messages.last_mut() {
            // The model's own text, which was cut into blocks.
            last.content.push_str(&texts.concat());
            last.tool_calls.extend(tool_uses);
            let thinking = thinking.concat();
            if !thinking.is_empty() {
                last.reasoning.get_or_insert_default().push_str(&thinking);
            }
        }
    }

    /// Makes the texts that wait a message of the user.
    fn flush(&mut self) {
        if !self.pending.is_empty() {
            self.add_user(Content::default());
        }
    }

    /// The way in which the prompt ends: the model continues the assistant's text if that comes last. `last` is the
    /// number of the last message.
    fn ending(&self, last: usize) -> Result<PromptEnding, ApiError> {
        match self.messages.last() {
            Some(message) if message.role == "assistant" && self.pending.is_empty() => {
                if message.tool_calls.is_empty() {
                    return Ok(PromptEnding::Continued);
                }
                let at = format!("messages[{last}]");
                let message = format!(
                    "Invalid value for '{at}': expected a message with a tool_result for each tool_use before it, \
                     found none."
                );
                Err(ApiError::bad_request("invalid_value", message).about(at))
            }
            _ => Ok(PromptEnding::Generation),
        }
    }

    fn finish(mut self) -> Vec<Message> {
        self.flush();
        let system = self.system.join("\n");
        let system = (!system.is_empty()).then(|| Message::text("system", &system));
        system.into_iter().chain(self.messages).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::generation::text_model::ToolCall;

    fn read_body(body: &Value) -> Result<Turns, ApiError> {
        read(&Params::new(body.as_object().unwrap()))
    }

    /// The roles and contents of the messages of `body`.
    fn pairs(body: &Value) -> Vec<(String, String)> {
        read_body(body).unwrap().messages.into_iter().map(|message| (message.role, message.content)).collect()
    }

    fn expect(body: &Value, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(role, text)| ((*role).to_owned(), (*text).to_owned())).collect();
        assert_eq!(pairs(body), expected, "{body}");
    }

    /// A user's question, the assistant's call of a tool, and its result.
    fn with_call() -> Vec<Value> {
        vec![
            json!({"role": "user", "content": "2+2?"}),
            json!({"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                {"type": "text", "text": "I add."},
                {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 2}}
            ]}),
            json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "4"}]}),
        ]
    }

    #[test]
    fn system_is_the_first_message_and_its_billing_block_is_left_out() {
        let messages =
            json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
        expect(&json!({"system": "be brief", "messages": messages}), &[("system", "be brief"), ("user", "a\nb")]);
        let system = json!([
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=a5145;"},
            {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Be brief."}
        ]);
        let expected = [("system", "You are Claude Code.\nBe brief."), ("user", "a\nb")];
        expect(&json!({"system": system, "messages": messages}), &expected);
        expect(&json!({"system": "", "messages": messages}), &[("user", "a\nb")]);
        expect(&json!({"system": null, "messages": messages}), &[("user", "a\nb")]);
    }

    #[test]
    fn calls_and_results_become_the_assistants_calls_and_messages_of_tools() {
        let mut messages = with_call();
        messages.push(json!({"role": "assistant", "content": "It is 4."}));
        messages.push(json!({"role": "user", "content": "Sure?"}));
        let turns = read_body(&json!({"messages": messages})).unwrap();
        let call = ToolCall { id: "c1".to_owned(), name: "add".to_owned(), arguments: r#"{"a": 2}"#.to_owned() };
        let expected = [
            Message::text("user", "2+2?"),
            Message {
                reasoning: Some("Hm.".to_owned()),
                tool_calls: vec![call],
                ..Message::text("assistant", "I add.")
            },
            Message { tool_call_id: Some("c1".to_owned()), name: Some("add".to_owned()), ..Message::text("tool", "4") },
            Message::text("assistant", "It is 4."),
            Message::text("user", "Sure?"),
        ];
        assert_eq!(turns, Turns { messages: expected.into(), ending: PromptEnding::Generation });
    }

    #[test]
    fn a_text_beside_results_follows_them() {
        let mut messages = with_call();
        messages[2]["content"].as_array_mut().unwrap().insert(0, json!({"type": "text", "text": "Go on."}));
        let expected = [("user", "2+2?"), ("assistant", "I add."), ("tool", "4"), ("user", "Go on.")];
        expect(&json!({"messages": messages}), &expected);
    }

    #[test]
    fn consecutive_messages_of_one_role_are_one() {
        let messages = json!([
            {"role": "user", "content": "a"},
            {"role": "user", "content": "b"},
            {"role": "assistant", "content": "c"},
            {"role": "assistant", "content": [{"type": "text", "text": "d"}, {"type": "text", "text": "e"}]},
            {"role": "user", "content": "f"}
        ]);
        expect(&json!({"messages": messages}), &[("user", "a\nb"), ("assistant", "cde"), ("user", "f")]);
    }

    #[test]
    fn a_last_message_of_the_assistant_is_continued_unless_it_calls_a_tool() {
        let messages = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "The answer is ("}]);
        let turns = read_body(&json!({"messages": messages})).unwrap();
        assert_eq!(turns.ending, PromptEnding::Continued);
        let error = read_body(&json!({"messages": with_call()[..2]})).unwrap_err();
        assert_eq!(error.json()["error"]["param"], "messages[1]");
    }

    #[test]
    fn system_messages_before_the_first_other_one_belong_to_the_system_prompt() {
        let messages = json!([{"role": "system", "content": "b"}, {"role": "user", "content": "c"}]);
        expect(&json!({"system": "a", "messages": messages}), &[("system", "a\nb"), ("user", "c")]);
    }

    #[test]
    fn later_system_messages_join_a_text_of_the_user_or_a_result() {
        let note = || json!({"role": "system", "content": "note"});
        let question = [("user", "2+2?"), ("assistant", "I add.")];
        let after_result = [&with_call()[..], &[note()]].concat();
        expect(&json!({"messages": after_result}), &[&question[..], &[("tool", "4\n\nnote")]].concat());
        let mut before_result = with_call();
        before_result.insert(2, note());
        expect(&json!({"messages": before_result}), &[&question[..], &[("tool", "4\n\nnote")]].concat());
        let after_user = [&with_call()[..1], &[note()]].concat();
        expect(&json!({"messages": after_user}), &[("user", "2+2?\n\nnote")]);
        let answered = || [&with_call()[..1], &[json!({"role": "assistant", "content": "4"}), note()]].concat();
        let expected = [("user", "2+2?"), ("assistant", "4")];
        expect(&json!({"messages": answered()}), &[&expected[..], &[("user", "note")]].concat());
        let asked = [answered(), vec![json!({"role": "user", "content": "Sure?"})]].concat();
        expect(&json!({"messages": asked}), &[&expected[..], &[("user", "note\n\nSure?")]].concat());
        let twice = [answered(), vec![json!({"role": "assistant", "content": "5"}), note()]].concat();
        let expected = [&expected[..], &[("user", "note"), ("assistant", "5"), ("user", "note")]].concat();
        expect(&json!({"messages": twice}), &expected);
    }

    #[test]
    fn messages_that_cannot_be_read_are_named() {
        for (body, param) in [
            (json!({}), "messages"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": "hi"}), "messages"),
            (json!({"messages": ["hi"]}), "messages[0]"),
            (json!({"messages": [{"content": "x"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].role"),
            (json!({"messages": [{"role": 5, "content": "x"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
            (json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}), "messages[0].content[0].text"),
            (json!({"system": 5, "messages": [{"role": "user", "content": "x"}]}), "system"),
            (json!({"system": [{"type": "image"}], "messages": []}), "system[0].type"),
        ] {
            assert_eq!(read_body(&body).unwrap_err().json()["error"]["param"], param, "{body}");
        }
    }
}
