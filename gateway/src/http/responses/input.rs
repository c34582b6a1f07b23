//! Reads and checks the input of a request: a text, or items of the conversation.

use serde_json::Value;

use super::ids::Ids;
use super::item::{CallItem, CallOutputItem, Item, MessageItem, Part, ReasoningItem, Role, Status};
use super::word;
use crate::http::error::ApiError;
use crate::http::params::{Params, describe, missing, out_of_range, wrong_type};

/// One entry of the input.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum InputItem {
    /// The item itself.
    Given(Item),
    /// The id of an item of a kept response.
    Reference {
        /// The reference's place in the request, for errors.
        path: String,
        id: String,
    },
}

const ITEM_TYPES: &str = "one of message, function_call, function_call_output, reasoning, item_reference";
const ROLES: &[&str] = &["user", "assistant", "system", "developer"];
/// Types of content that the model cannot read.
const MEDIA: &[&str] = &["input_image", "input_file", "input_audio", "computer_screenshot"];

// === impl InputItem ===

impl InputItem {
    /// The id, if it is a reference.
    pub(super) fn reference(&self) -> Option<&str> {
        match self {
            Self::Given(_) => None,
            Self::Reference { id, .. } => Some(id),
        }
    }
}

/// Reads the input. Items without an id get one of `ids`.
///
/// # Errors
/// A 400 that names the item and what is wrong with it.
pub(super) fn read(params: &Params<'_>, ids: &mut Ids) -> Result<Vec<InputItem>, ApiError> {
    let expected = "a string or an array of items";
    match params.get("input") {
        None => Err(missing("input", expected)),
        Some(Value::String(text)) => {
            let content = vec![Part::InputText { text: text.clone() }];
            Ok(vec![InputItem::Given(message(ids.next("msg"), Role::User, content))])
        }
        Some(Value::Array(list)) => {
            list.iter().enumerate().map(|(index, item)| read_one(&format!("input[{index}]"), item, ids)).collect()
        }
        Some(other) => Err(wrong_type("input", expected, other)),
    }
}

fn read_one(path: &str, found: &Value, ids: &mut Ids) -> Result<InputItem, ApiError> {
    let item = Params::at(path, "an object", found)?;
    let item_type = match item.text("type")? {
        Some(item_type) => item_type,
        // Messages and references may leave their type out.
        None if item.get("role").is_some() => "message",
        None if item.get("id").is_some() => "item_reference",
        None => return Err(missing(&item.path("type"), ITEM_TYPES)),
    };
    let given = match item_type {
        "message" => read_message(&item, ids)?,
        "function_call" => read_call(&item, ids)?,
        "function_call_output" => read_call_output(&item, ids)?,
        "reasoning" => read_reasoning(&item, ids)?,
        "item_reference" => {
            let id = item.required_text("id")?.to_owned();
            return Ok(InputItem::Reference { path: path.to_owned(), id });
        }
        _ => {
            let message = format!(
                "Items of this type are not supported: this server runs no hosted tools. Expected {ITEM_TYPES}, found \
                 {}.",
                describe(&found["type"])
            );
            return Err(ApiError::unsupported(&item.path("type"), message));
        }
    };
    Ok(InputItem::Given(given))
}

fn message(id: String, role: Role, content: Vec<Part>) -> Item {
    Item::Message(MessageItem { id, status: Status::Completed, role, content })
}

fn id(item: &Params<'_>, ids: &mut Ids, prefix: &str) -> Result<String, ApiError> {
    Ok(item.text("id")?.map_or_else(|| ids.next(prefix), str::to_owned))
}

fn read_message(item: &Params<'_>, ids: &mut Ids) -> Result<Item, ApiError> {
    item.required("role", &word::list(ROLES))?;
    let role = match word::read(item, "role", ROLES)?.unwrap_or_default() {
        "assistant" => Role::Assistant,
        "system" => Role::System,
        "developer" => Role::Developer,
        _ => Role::User,
    };
    let part = |text: String| match role {
        Role::Assistant => Part::output(text, Vec::new()),
        Role::User | Role::System | Role::Developer => Part::InputText { text },
    };
    let expected = "a string or an array of text parts";
    let content = match item.required("content", expected)? {
        Value::String(text) => vec![part(text.clone())],
        Value::Array(parts) => {
            let read = |(index, found)| read_part(&format!("{}[{index}]", item.path("content")), found, part);
            parts.iter().enumerate().map(read).collect::<Result<_, _>>()?
        }
        other => return Err(wrong_type(&item.path("content"), expected, other)),
    };
    Ok(message(id(item, ids, "msg")?, role, content))
}

/// A part of a message. `part` makes one of the message's role from a text.
fn read_part(path: &str, found: &Value, part: impl Fn(String) -> Part) -> Result<Part, ApiError> {
    let expected = "one of input_text, output_text, refusal";
    let found_part = Params::at(path, "an object", found)?;
    match found_part.required("type", expected)?.as_str() {
        Some("input_text" | "output_text" | "text") => Ok(part(found_part.required_text("text")?.to_owned())),
        Some("refusal") => Ok(Part::Refusal { refusal: found_part.required_text("refusal")?.to_owned() }),
        Some(kind) if MEDIA.contains(&kind) => Err(reads_text_only(path, kind)),
        Some(_) => Err(out_of_range(&found_part.path("type"), expected, &found["type"])),
        None => Err(wrong_type(&found_part.path("type"), expected, &found["type"])),
    }
}

fn reads_text_only(path: &str, kind: &str) -> ApiError {
    let message = format!("Parts of type '{kind}' are not supported: this model reads text only.");
    ApiError::unsupported(path, message)
}

fn read_call(item: &Params<'_>, ids: &mut Ids) -> Result<Item, ApiError> {
    Ok(Item::FunctionCall(CallItem {
        id: id(item, ids, "fc")?,
        status: Status::Completed,
        call_id: item.required_text("call_id")?.to_owned(),
        namespace: item.text("namespace")?.map(str::to_owned),
        name: item.required_text("name")?.to_owned(),
        arguments: item.required_text("arguments")?.to_owned(),
    }))
}

fn read_call_output(item: &Params<'_>, ids: &mut Ids) -> Result<Item, ApiError> {
    let expected = "a string or an array of parts of type input_text";
    let output = match item.required("output", expected)? {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let read = |(index, found)| {
                read_part(&format!("{}[{index}]", item.path("output")), found, |text| Part::InputText { text })
            };
            let parts = parts.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
            parts.iter().map(Part::text).collect::<Vec<_>>().join("\n")
        }
        other => return Err(wrong_type(&item.path("output"), expected, other)),
    };
    Ok(Item::FunctionCallOutput(CallOutputItem {
        id: id(item, ids, "fco")?,
        status: Status::Completed,
        call_id: item.required_text("call_id")?.to_owned(),
        output,
    }))
}

/// Reasoning that an earlier answer had. Its summary is not what the model wrote, and what another server encrypted
/// cannot be read, so both are left out.
fn read_reasoning(item: &Params<'_>, ids: &mut Ids) -> Result<Item, ApiError> {
    let mut content = Vec::new();
    if let Some(list) = item.list("content")? {
        for (index, found) in list.iter().enumerate() {
            let part = Params::at(&format!("{}[{index}]", item.path("content")), "an object", found)?;
            word::read(&part, "type", &["reasoning_text"])?;
            content.push(Part::ReasoningText { text: part.required_text("text")?.to_owned() });
        }
    }
    Ok(Item::Reasoning(ReasoningItem { id: id(item, ids, "rs")?, summary: [], content, status: Status::Completed }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_value(input: &Value) -> Result<Vec<InputItem>, ApiError> {
        let body = json!({"input": input});
        read(&Params::new(body.as_object().unwrap()), &mut Ids::from_seed(1))
    }

    fn items(input: &Value) -> Value {
        let read = read_value(input).unwrap().into_iter();
        read.map(|item| match item {
            InputItem::Given(item) => serde_json::to_value(item).unwrap(),
            InputItem::Reference { id, .. } => json!(id),
        })
        .collect()
    }

    #[test]
    fn a_text_is_one_message_of_the_user() {
        assert_eq!(
            items(&json!("hello")),
            json!([{
                "type": "message", "id": "msg_00000000000000000000000000000001", "status": "completed", "role": "user",
                "content": [{"type": "input_text", "text": "hello"}]
            }])
        );
    }

    #[test]
    fn every_kind_of_item_is_read() {
        let read = items(&json!([
            {"role": "developer", "content": "be brief"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "id": "rs_9", "summary": [], "encrypted_content": null,
             "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "id": "msg_9", "role": "assistant", "phase": "commentary",
             "content": [{"type": "output_text", "text": "b", "annotations": []},
                         {"type": "refusal", "refusal": "no"}]},
            {"type": "function_call", "call_id": "call_1", "name": "f", "namespace": "n", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1",
             "output": [{"type": "input_text", "text": "1"}, {"type": "input_text", "text": "2"}]},
            {"type": "item_reference", "id": "msg_old"},
            {"id": "msg_older"}
        ]));
        let types: Vec<_> = read.as_array().unwrap().iter().map(|item| item["type"].clone()).collect();
        let call_types = ["function_call", "function_call_output"];
        assert_eq!(types[..4], ["message", "message", "reasoning", "message"]);
        assert_eq!(types[4..6], call_types);
        assert_eq!(read[0]["role"], "developer");
        assert_eq!((&read[2]["id"], &read[2]["content"][0]["text"]), (&json!("rs_9"), &json!("hm")));
        assert_eq!(
            (&read[3]["content"][0]["type"], &read[3]["content"][1]["refusal"]),
            (&json!("output_text"), &json!("no"))
        );
        assert_eq!(read[4]["namespace"], "n");
        assert_eq!(read[5]["output"], "1\n2");
        assert_eq!((&read[6], &read[7]), (&json!("msg_old"), &json!("msg_older")));
    }

    #[test]
    fn reasoning_of_another_server_is_left_out() {
        let read = items(&json!([{
            "type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA",
            "summary": [{"type": "summary_text", "text": "s"}]
        }]));
        assert_eq!(read[0]["content"], json!([]));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_path() {
        for (input, param) in [
            (json!(null), "input"),
            (json!(5), "input"),
            (json!(["hello"]), "input[0]"),
            (json!([{"content": "x"}]), "input[0].type"),
            (json!([{"type": 5}]), "input[0].type"),
            (json!([{"type": "web_search_call", "id": "ws_1"}]), "input[0].type"),
            (json!([{"type": "custom_tool_call"}]), "input[0].type"),
            (json!([{"type": "message", "content": "x"}]), "input[0].role"),
            (json!([{"role": "king", "content": "x"}]), "input[0].role"),
            (json!([{"role": "user"}]), "input[0].content"),
            (json!([{"role": "user", "content": 5}]), "input[0].content"),
            (json!([{"role": "user", "content": ["x"]}]), "input[0].content[0]"),
            (json!([{"role": "user", "content": [{"type": "input_image"}]}]), "input[0].content[0]"),
            (json!([{"role": "user", "content": [{"type": "video"}]}]), "input[0].content[0].type"),
            (json!([{"role": "user", "content": [{"type": "input_text"}]}]), "input[0].content[0].text"),
            (json!([{"type": "function_call", "name": "f", "arguments": "{}"}]), "input[0].call_id"),
            (json!([{"type": "function_call", "call_id": "c", "arguments": "{}"}]), "input[0].name"),
            (json!([{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]), "input[0].arguments"),
            (json!([{"type": "function_call_output", "call_id": "c"}]), "input[0].output"),
            (
                json!([{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}]),
                "input[0].output[0]",
            ),
            (json!([{"type": "reasoning", "content": "x"}]), "input[0].content"),
            (json!([{"type": "reasoning", "content": [{"type": "text"}]}]), "input[0].content[0].type"),
            (json!([{"type": "item_reference"}]), "input[0].id"),
        ] {
            let error = read_value(&input).unwrap_err();
            assert_eq!(error.param(), Some(param), "{input}: {}", error.message());
        }
    }
}
