//! Reads and checks a chat's messages.

use serde_json::Value;

use super::tool_calls;
use crate::http::error::ApiError;
use crate::http::generation::text_model::Message;
use crate::http::params::{Params, out_of_range};

const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];
const EXPECTED_ROLE: &str = "system, user, assistant or tool";

/// Reads `messages`. None at all is a request to load the model.
///
/// # Errors
/// A 400 that names the message and the error in it.
pub(super) fn read(params: &Params<'_>) -> Result<Vec<Message>, ApiError> {
    let list = params.list("messages")?.unwrap_or_default();
    list.iter().enumerate().map(|(index, message)| read_one(&format!("messages[{index}]"), message)).collect()
}

/// Refuses images.
///
/// # Errors
/// A 400 if there is one.
pub(super) fn refuse_images(params: &Params<'_>) -> Result<(), ApiError> {
    if params.list("images")?.unwrap_or_default().is_empty() {
        return Ok(());
    }
    Err(ApiError::unsupported(&params.path("images"), "Images are not supported: this model reads text only."))
}

fn read_one(at: &str, message: &Value) -> Result<Message, ApiError> {
    let params = Params::at(at, "an object with role and content", message)?;
    refuse_images(&params)?;
    let found = params.required("role", EXPECTED_ROLE)?;
    let role = params.required_text("role")?.to_ascii_lowercase();
    if !ROLES.contains(&role.as_str()) {
        return Err(out_of_range(&params.path("role"), EXPECTED_ROLE, found));
    }
    let text = |key| Ok::<_, ApiError>(params.text(key)?.filter(|text| !text.is_empty()).map(str::to_owned));
    Ok(Message {
        role,
        content: params.text("content")?.unwrap_or_default().to_owned(),
        reasoning: text("thinking")?,
        tool_calls: tool_calls::read(&params)?,
        tool_call_id: text("tool_call_id")?,
        name: text("tool_name")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::generation::text_model::ToolCall;
    use serde_json::json;

    fn read_value(messages: &Value) -> Result<Vec<Message>, ApiError> {
        let body = json!({"messages": messages});
        read(&Params::new(body.as_object().unwrap()))
    }

    #[test]
    fn messages_have_text_reasoning_and_calls_of_tools() {
        let messages = read_value(&json!([
            {"role": "System", "content": "be brief"},
            {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [
                {"function": {"name": "now", "arguments": {"zone": "utc"}}}
            ]},
            {"role": "tool", "tool_name": "now", "tool_call_id": "call_0", "content": "12:00", "images": []},
        ]));
        let messages = messages.unwrap();
        assert_eq!(messages[0], Message::text("system", "be brief"));
        let call = ToolCall { id: String::new(), name: "now".to_owned(), arguments: r#"{"zone": "utc"}"#.to_owned() };
        let assistant = Message { reasoning: Some("hm".to_owned()), tool_calls: vec![call], ..messages[1].clone() };
        assert_eq!(messages[1], assistant);
        assert_eq!(messages[2].name.as_deref(), Some("now"));
        assert_eq!(messages[2].tool_call_id.as_deref(), Some("call_0"));
    }

    #[test]
    fn no_messages_are_no_error() {
        assert_eq!(read_value(&json!(null)).unwrap(), []);
        assert_eq!(read_value(&json!([])).unwrap(), []);
    }

    #[test]
    fn an_invalid_message_is_named() {
        for (message, param) in [
            (json!("hi"), "messages[0]"),
            (json!({"content": "hi"}), "messages[0].role"),
            (json!({"role": 5}), "messages[0].role"),
            (json!({"role": "robot"}), "messages[0].role"),
            (json!({"role": "user", "content": ["hi"]}), "messages[0].content"),
            (json!({"role": "user", "content": "hi", "images": ["aGk="]}), "messages[0].images"),
            (json!({"role": "assistant", "thinking": 5}), "messages[0].thinking"),
        ] {
            let error = read_value(&json!([message])).unwrap_err();
            assert_eq!(error.json()["error"]["param"], param, "{message}");
        }
    }
}
