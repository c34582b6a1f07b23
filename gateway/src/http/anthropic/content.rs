//! Reads the content of one message: a string, or blocks of the types that the message's role may have.

use serde_json::Value;

use super::params::{Params, out_of_range, wrong_type};
use crate::http::error::{ApiError, cut};
use crate::http::generation::text_model::{ToolCall, spaced_json};

/// The speaker of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
}

/// The content of a message, its blocks sorted by their types.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Content {
    pub(crate) texts: Vec<String>,
    /// The assistant's reasoning.
    pub(crate) thinking: Vec<String>,
    /// The assistant's calls of tools.
    pub(crate) tool_uses: Vec<ToolCall>,
    /// Results of tools, from the user.
    pub(crate) tool_results: Vec<ToolResult>,
}

/// The result of a call of a tool.
#[derive(Debug, PartialEq)]
pub(crate) struct ToolResult {
    /// The call's id.
    pub(crate) tool_use_id: String,
    pub(crate) text: String,
}

/// Reads `content`, the value at the path `at`.
///
/// # Errors
/// A 400 that names the block and the error in it.
pub(crate) fn read(at: &str, role: Role, content: &Value) -> Result<Content, ApiError> {
    let mut found = Content::default();
    match content {
        Value::String(text) => found.texts.push(text.clone()),
        Value::Array(blocks) if blocks.is_empty() => {
            return Err(out_of_range(at, "a string or at least one content block", content));
        }
        Value::Array(blocks) => {
            for (index, block) in blocks.iter().enumerate() {
                found.add(&format!("{at}[{index}]"), role, block)?;
            }
        }
        other => return Err(wrong_type(at, "a string or an array of content blocks", other)),
    }
    Ok(found)
}

// === impl Role ===

impl Role {
    /// The types of blocks in its messages, for people.
    fn block_types(self) -> &'static str {
        match self {
            Self::System => "text",
            Self::User => "text or tool_result",
            Self::Assistant => "text, thinking, redacted_thinking or tool_use",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

// === impl Content ===

impl Content {
    fn add(&mut self, at: &str, role: Role, block: &Value) -> Result<(), ApiError> {
        let block = Params::at(at, "a content block", block)?;
        match (role, block.required_text("type")?) {
            (_, "text") => self.texts.push(block.required_text("text")?.to_owned()),
            (Role::User, "tool_result") => self.tool_results.push(tool_result(&block)?),
            (Role::Assistant, "tool_use") => self.tool_uses.push(tool_use(&block)?),
            (Role::Assistant, "thinking") => self.thinking.push(block.required_text("thinking")?.to_owned()),
            // Another server's, which only that server can read.
            (Role::Assistant, "redacted_thinking") => {}
            (role, kind) => return Err(refused_block(&block, kind, role.name(), role.block_types())),
        }
        Ok(())
    }
}

fn refused_block(block: &Params<'_>, kind: &str, owner: &str, expected: &str) -> ApiError {
    let at = block.path("type");
    let message = format!(
        "Invalid value for '{at}': blocks of type '{}' are not supported in content of '{owner}', expected {expected}. \
         This model reads text only.",
        cut(kind)
    );
    ApiError::unsupported(&at, message)
}

fn tool_use(block: &Params<'_>) -> Result<ToolCall, ApiError> {
    let input = block.required("input", "an object")?;
    if !input.is_object() {
        return Err(wrong_type(&block.path("input"), "an object", input));
    }
    Ok(ToolCall {
        id: block.required_text("id")?.to_owned(),
        name: block.required_text("name")?.to_owned(),
        arguments: spaced_json(input),
    })
}

fn tool_result(block: &Params<'_>) -> Result<ToolResult, ApiError> {
    let tool_use_id = block.required_text("tool_use_id")?.to_owned();
    let text = match block.get("content") {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(blocks)) => {
            let at = block.path("content");
            let texts = blocks.iter().enumerate().map(|(index, block)| result_text(&format!("{at}[{index}]"), block));
            texts.collect::<Result<Vec<_>, _>>()?.join("\n")
        }
        Some(other) => return Err(wrong_type(&block.path("content"), "a string or an array of text blocks", other)),
    };
    // Chat templates have no field for it.
    let text = if block.flag("is_error")? { format!("Error: {text}") } else { text };
    Ok(ToolResult { tool_use_id, text })
}

fn result_text<'a>(at: &str, block: &'a Value) -> Result<&'a str, ApiError> {
    let block = Params::at(at, "a text block", block)?;
    match block.required_text("type")? {
        "text" => block.required_text("text"),
        kind => Err(refused_block(&block, kind, "tool_result", "text")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_string_is_one_text() {
        let content = read("messages[0].content", Role::User, &json!("hi")).unwrap();
        assert_eq!(content, Content { texts: vec!["hi".to_owned()], ..Content::default() });
    }

    #[test]
    fn the_blocks_of_an_assistant_are_sorted() {
        let content = json!([
            {"type": "thinking", "thinking": "Hm.", "signature": "x"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "I look.", "citations": null, "cache_control": {"type": "ephemeral"}},
            {"type": "tool_use", "id": "c1", "name": "look", "input": {"b": 1, "a": 2}, "caller": {"type": "direct"}}
        ]);
        let call =
            ToolCall { id: "c1".to_owned(), name: "look".to_owned(), arguments: r#"{"b": 1, "a": 2}"#.to_owned() };
        let expected = Content {
            texts: vec!["I look.".to_owned()],
            thinking: vec!["Hm.".to_owned()],
            tool_uses: vec![call],
            tool_results: Vec::new(),
        };
        assert_eq!(read("content", Role::Assistant, &content).unwrap(), expected);
    }

    #[test]
    fn a_result_is_a_string_or_texts_and_tells_its_error() {
        let content = json!([
            {"type": "tool_result", "tool_use_id": "c1", "content": "4"},
            {"type": "tool_result", "tool_use_id": "c2", "content": [
                {"type": "text", "text": "a"}, {"type": "text", "text": "b"}
            ], "is_error": false},
            {"type": "tool_result", "tool_use_id": "c3", "content": "no such file", "is_error": true},
            {"type": "tool_result", "tool_use_id": "c4"}
        ]);
        let results = read("content", Role::User, &content).unwrap().tool_results;
        let results: Vec<_> = results.iter().map(|result| (&*result.tool_use_id, &*result.text)).collect();
        assert_eq!(results, [("c1", "4"), ("c2", "a\nb"), ("c3", "Error: no such file"), ("c4", "")]);
    }

    #[test]
    fn other_blocks_are_refused_with_their_place_and_with_those_that_are_accepted() {
        let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}});
        let result = |block: &Value| json!({"type": "tool_result", "tool_use_id": "c1", "content": [block]});
        for (role, block, param, words) in [
            (Role::User, image.clone(), "content[0].type", "expected text or tool_result. This model reads text only"),
            (Role::User, result(&image), "content[0].content[0].type", "blocks of type 'image'"),
            (Role::User, json!({"type": "document"}), "content[0].type", "'document'"),
            (Role::User, json!({"type": "tool_use"}), "content[0].type", "content of 'user'"),
            (Role::System, result(&json!(1)), "content[0].type", "expected text."),
            (Role::Assistant, json!({"type": "server_tool_use"}), "content[0].type", "thinking, redacted_thinking or"),
            (Role::User, json!({"text": "x"}), "content[0].type", "expected a string"),
            (Role::User, json!({"type": "text"}), "content[0].text", "expected a string"),
            (Role::User, json!({"type": "text", "text": 5}), "content[0].text", "found the number 5"),
            (Role::User, json!("x"), "content[0]", "expected a content block"),
            (Role::User, json!({"type": "tool_result"}), "content[0].tool_use_id", "expected a string"),
            (Role::Assistant, json!({"type": "tool_use", "input": "x"}), "content[0].input", "expected an object"),
            (Role::Assistant, json!({"type": "tool_use", "input": {}}), "content[0].id", "expected a string"),
        ] {
            let error = read("content", role, &json!([block])).unwrap_err();
            assert_eq!(error.json()["error"]["param"], param, "{block}");
            assert!(error.message().contains(words), "{error:?}");
        }
        for content in [json!([]), json!(5), json!({})] {
            assert_eq!(read("content", Role::User, &content).unwrap_err().json()["error"]["param"], "content");
        }
    }
}
