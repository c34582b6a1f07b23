//! Reads and checks a chat's messages: known roles, and contents that are text.

use serde_json::Value;

use super::params::{Params, missing, out_of_range, wrong_type};
use crate::http::error::ApiError;
use crate::http::generation::text_model::Message;

/// Accepted roles, each with the role that the model's template gets.
const ROLES: &[(&str, &str)] = &[
    ("system", "system"),
    // OpenAI's newer name. Templates of open models know the older one.
    ("developer", "system"),
    ("user", "user"),
    ("assistant", "assistant"),
    ("tool", "tool"),
    ("function", "tool"),
];

/// Reads the messages of a chat.
///
/// # Errors
/// A 400 that names the message and the error in it.
pub(crate) fn read(params: &Params<'_>) -> Result<Vec<Message>, ApiError> {
    let list = params.list("messages")?.ok_or_else(|| missing("messages", "an array of messages"))?;
    if list.is_empty() {
        return Err(out_of_range("messages", "at least one message", &Value::Array(Vec::new())));
    }
    list.iter().enumerate().map(|(index, message)| read_one(&format!("messages[{index}]"), message)).collect()
}

fn read_one(at: &str, message: &Value) -> Result<Message, ApiError> {
    let map = message.as_object().ok_or_else(|| wrong_type(at, "an object with role and content", message))?;
    let params = Params::new(map);
    let role = role(&format!("{at}.role"), &params)?;
    for key in ["tool_calls", "function_call", "audio"] {
        let calls = params.get(key).is_some_and(|calls| calls.as_array().is_none_or(|list| !list.is_empty()));
        if calls {
            return Err(ApiError::unsupported(&format!("{at}.{key}"), format!("'{key}' is not supported yet.")));
        }
    }
    let content = match params.get("content") {
        None if role == "assistant" => String::new(),
        None => return Err(missing(&format!("{at}.content"), "a string or an array of text parts")),
        Some(content) => text(&format!("{at}.content"), content)?,
    };
    Ok(Message { role: role.to_owned(), content })
}

fn role(at: &str, params: &Params<'_>) -> Result<&'static str, ApiError> {
    let expected = "one of system, developer, user, assistant, tool";
    let found = params.get("role").ok_or_else(|| missing(at, expected))?;
    let name = found.as_str().ok_or_else(|| wrong_type(at, expected, found))?;
    let known = ROLES.iter().find(|(role, _)| *role == name).map(|(_, template_role)| *template_role);
    known.ok_or_else(|| out_of_range(at, expected, found))
}

/// The text of a content: the string itself, or its text parts, one a line.
fn text(at: &str, content: &Value) -> Result<String, ApiError> {
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let parts = parts.iter().enumerate().map(|(index, part)| text_part(&format!("{at}[{index}]"), part));
            Ok(parts.collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        other => Err(wrong_type(at, "a string or an array of text parts", other)),
    }
}

fn text_part<'a>(at: &str, part: &'a Value) -> Result<&'a str, ApiError> {
    let expected = "a part of type text";
    match part["type"].as_str() {
        Some("text") => {
            part["text"].as_str().ok_or_else(|| wrong_type(&format!("{at}.text"), "a string", &part["text"]))
        }
        Some(kind @ ("image_url" | "input_audio" | "file" | "video_url")) => {
            let message = format!("Parts of type '{kind}' are not supported: this model reads text only.");
            Err(ApiError::unsupported(at, message))
        }
        Some(_) => Err(out_of_range(&format!("{at}.type"), "text", &part["type"])),
        None => Err(wrong_type(at, expected, part)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_list(messages: &Value) -> Result<Vec<Message>, ApiError> {
        let body = json!({"messages": messages});
        read(&Params::new(body.as_object().unwrap()))
    }

    #[test]
    fn the_whole_history_is_read_in_order() {
        let messages = read_list(&json!([
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null},
            {"role": "tool", "tool_call_id": "1", "content": "4"}
        ]));
        let expected = [("system", "be brief"), ("user", "a\nb"), ("assistant", ""), ("tool", "4")];
        let expected = expected.map(|(role, content)| Message { role: role.to_owned(), content: content.to_owned() });
        assert_eq!(messages.unwrap(), expected);
    }

    #[test]
    fn a_message_that_is_not_text_is_refused_with_its_position() {
        for (messages, param) in [
            (json!([]), "messages"),
            (json!("hello"), "messages"),
            (json!(["hello"]), "messages[0]"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (json!([{"role": 7, "content": "x"}]), "messages[0].role"),
            (json!([{"role": "king", "content": "x"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": 5}]), "messages[0].content"),
            (json!([{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0].content[0]"),
            (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
            (json!([{"role": "assistant", "tool_calls": [{}]}]), "messages[0].tool_calls"),
        ] {
            let error = read_list(&messages).unwrap_err();
            assert_eq!(error.json()["error"]["param"], param, "{messages}");
        }
    }
}
