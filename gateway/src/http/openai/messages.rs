//! Reads and checks a chat's messages: known roles, contents that are text, and calls of tools with their results.

use serde_json::Value;

use super::params::{Params, missing, out_of_range, wrong_type};
use crate::http::error::ApiError;
use crate::http::generation::text_model::{Message, ToolCall};
use crate::http::limits::MESSAGE_CALLS_MAX;

/// Longest name of a speaker or a tool, in bytes, as in OpenAI's reference.
const NAME_BYTES_MAX: usize = 64;

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
    let params = Params::at(at, "an object with role and content", message)?;
    let role = role(&params)?;
    if params.get("audio").is_some() {
        return Err(ApiError::unsupported(&params.path("audio"), "'audio' is not supported."));
    }
    if params.get("function_call").is_some() {
        let message = "'function_call' is not supported: use 'tool_calls', which took its place.";
        return Err(ApiError::unsupported(&params.path("function_call"), message));
    }
    let content = match params.get("content") {
        None if role == "assistant" => String::new(),
        None => return Err(missing(&params.path("content"), "a string or an array of text parts")),
        Some(content) => text(&params.path("content"), content)?,
    };
    Ok(Message {
        role: role.to_owned(),
        content,
        reasoning: reasoning(&params)?,
        tool_calls: tool_calls(&params, role)?,
        tool_call_id: params.text("tool_call_id")?.map(str::to_owned),
        name: name(&params)?,
    })
}

fn role(params: &Params<'_>) -> Result<&'static str, ApiError> {
    let expected = "one of system, developer, user, assistant, tool";
    let found = params.required("role", expected)?;
    let name = found.as_str().ok_or_else(|| wrong_type(&params.path("role"), expected, found))?;
    let known = ROLES.iter().find(|(role, _)| *role == name).map(|(_, template_role)| *template_role);
    known.ok_or_else(|| out_of_range(&params.path("role"), expected, found))
}

/// The reasoning under either of its names.
fn reasoning(params: &Params<'_>) -> Result<Option<String>, ApiError> {
    let (one, other) = (params.text("reasoning_content")?, params.text("reasoning")?);
    Ok(one.or(other).filter(|text| !text.is_empty()).map(str::to_owned))
}

fn name(params: &Params<'_>) -> Result<Option<String>, ApiError> {
    let Some(name) = params.text("name")? else { return Ok(None) };
    // OpenAI's rule.
    let bad = |character: char| character.is_whitespace() || "<|\\/>".contains(character);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(bad) {
        let expected = format!("1 to {NAME_BYTES_MAX} characters other than white space and <|\\/>");
        return Err(out_of_range(&params.path("name"), &expected, &Value::from(name)));
    }
    Ok(Some(name.to_owned()))
}

/// The calls in a message of the assistant.
fn tool_calls(params: &Params<'_>, role: &str) -> Result<Vec<ToolCall>, ApiError> {
    let list = params.list("tool_calls")?.unwrap_or_default();
    let at = params.path("tool_calls");
    if !list.is_empty() && role != "assistant" {
        let message = format!("Invalid value for '{at}': expected calls in messages of the role assistant only.");
        return Err(ApiError::bad_request("invalid_value", message).about(at));
    }
    if list.len() > MESSAGE_CALLS_MAX {
        let message = format!("Invalid value for '{at}': expected at most {MESSAGE_CALLS_MAX}, found {}.", list.len());
        return Err(ApiError::bad_request("invalid_value", message).about(at));
    }
    list.iter().enumerate().map(|(index, call)| tool_call(&format!("{at}[{index}]"), call)).collect()
}

fn tool_call(at: &str, call: &Value) -> Result<ToolCall, ApiError> {
    let call = Params::at(at, "a call with id, type and function", call)?;
    let id = call.required_text("id")?;
    if let Some(kind) = call.text("type")?.filter(|kind| *kind != "function") {
        return Err(out_of_range(&call.path("type"), "function", &Value::from(kind)));
    }
    let expected = "an object with name and arguments";
    let function = Params::at(&call.path("function"), expected, call.required("function", expected)?)?;
    let arguments = function.required_text("arguments")?;
    Ok(ToolCall {
        id: id.to_owned(),
        name: function.required_text("name")?.to_owned(),
        arguments: checked(&function.path("arguments"), arguments)?,
    })
}

/// The arguments as the model wrote them. Nothing stands for no arguments.
fn checked(at: &str, arguments: &str) -> Result<String, ApiError> {
    if arguments.trim().is_empty() {
        return Ok("{}".to_owned());
    }
    match serde_json::from_str(arguments) {
        Ok(Value::Object(_)) => Ok(arguments.to_owned()),
        _ => Err(out_of_range(at, "a JSON object as text", &Value::from(arguments))),
    }
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
            {"role": "user", "name": "Ann", "content": "c"}
        ]));
        let mut expected = [("system", "be brief"), ("user", "a\nb"), ("assistant", ""), ("user", "c")]
            .map(|(role, content)| Message::text(role, content));
        expected[3].name = Some("Ann".to_owned());
        assert_eq!(messages.unwrap(), expected);
    }

    /// A message of the assistant with a call of `function`.
    fn called(function: &Value) -> Value {
        let call = json!({"id": "a", "type": "function", "function": function});
        json!({"role": "assistant", "content": null, "tool_calls": [call]})
    }

    #[test]
    fn calls_are_read_as_the_model_wrote_them() {
        let messages = read_list(&json!([
            called(&json!({"name": "f", "arguments": "{\"a\":  1}"})),
            {"role": "tool", "tool_call_id": "a", "content": "4"},
            {"role": "assistant", "content": "x", "reasoning": "hm", "tool_calls": []},
            called(&json!({"name": "f", "arguments": ""})),
        ]));
        let messages = messages.unwrap();
        let call =
            |arguments: &str| ToolCall { id: "a".to_owned(), name: "f".to_owned(), arguments: arguments.to_owned() };
        assert_eq!(messages[0].tool_calls, [call("{\"a\":  1}")]);
        assert_eq!(messages[1].tool_call_id.as_deref(), Some("a"));
        assert_eq!((messages[2].reasoning.as_deref(), messages[2].tool_calls.len()), (Some("hm"), 0));
        assert_eq!(messages[3].tool_calls, [call("{}")]);
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
            (json!([{"role": "user", "content": "x", "name": "a b"}]), "messages[0].name"),
            (json!([{"role": "user", "content": "x", "name": 5}]), "messages[0].name"),
            (json!([{"role": "user", "content": "x", "tool_calls": [{}]}]), "messages[0].tool_calls"),
            (json!([{"role": "tool", "content": "x", "tool_call_id": 5}]), "messages[0].tool_call_id"),
            (json!([{"role": "assistant", "tool_calls": {}}]), "messages[0].tool_calls"),
            (json!([{"role": "assistant", "tool_calls": [5]}]), "messages[0].tool_calls[0]"),
            (json!([{"role": "assistant", "tool_calls": [{}]}]), "messages[0].tool_calls[0].id"),
            (
                json!([{"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]}]),
                "messages[0].tool_calls[0].type",
            ),
            (json!([{"role": "assistant", "tool_calls": [{"id": "a"}]}]), "messages[0].tool_calls[0].function"),
            (json!([called(&json!({"arguments": "{}"}))]), "messages[0].tool_calls[0].function.name"),
            (json!([called(&json!({"name": "f"}))]), "messages[0].tool_calls[0].function.arguments"),
            (json!([called(&json!({"name": "f", "arguments": {}}))]), "messages[0].tool_calls[0].function.arguments"),
            (json!([called(&json!({"name": "f", "arguments": "[]"}))]), "messages[0].tool_calls[0].function.arguments"),
            (
                json!([called(&json!({"name": "f", "arguments": "{\"a\""}))]),
                "messages[0].tool_calls[0].function.arguments",
            ),
            (json!([{"role": "assistant", "function_call": {"name": "f"}}]), "messages[0].function_call"),
            (json!([{"role": "assistant", "content": "x", "reasoning_content": 5}]), "messages[0].reasoning_content"),
        ] {
            let error = read_list(&messages).unwrap_err();
            assert_eq!(error.json()["error"]["param"], param, "{messages}");
        }
    }
}
