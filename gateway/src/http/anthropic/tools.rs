//! Reads `tools` and `tool_choice`. Accepted are tools that the client runs itself and describes. Those of Anthropic's
//! servers, and those whose schema only Anthropic's models know, have a `type` of their own and are refused by it.

use serde_json::Value;

use super::params::{Params, missing, out_of_range, wrong_type};
use crate::http::error::{ApiError, cut};
use crate::http::generation::text_model::{Tool, ToolChoice};

/// Longest name of a tool, in bytes, as in Anthropic's reference.
const NAME_BYTES_MAX: usize = 128;

/// The tools of a request.
#[derive(Debug, PartialEq)]
pub(crate) struct ValidTools {
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: ToolChoice,
    /// True if the model may call several tools at once.
    pub(crate) parallel: bool,
}

/// Reads the tools and the choice among them.
///
/// # Errors
/// A 400 that names the tool or the choice.
pub(crate) fn read(params: &Params<'_>) -> Result<ValidTools, ApiError> {
    let list = params.list("tools")?.unwrap_or_default();
    let mut tools: Vec<Tool> = Vec::with_capacity(list.len());
    for (index, found) in list.iter().enumerate() {
        let at = format!("tools[{index}]");
        let tool = read_tool(&Params::at(&at, "a tool", found)?)?;
        if tools.iter().any(|known| known.name == tool.name) {
            let name = Value::from(tool.name);
            return Err(out_of_range(&format!("{at}.name"), "a name that no other tool has", &name));
        }
        tools.push(tool);
    }
    let Some(choice) = params.object("tool_choice")? else {
        return Ok(ValidTools { tools, choice: ToolChoice::Auto, parallel: true });
    };
    let parallel = !choice.flag("disable_parallel_tool_use")?;
    Ok(ValidTools { choice: read_choice(&choice, &tools)?, tools, parallel })
}

fn read_tool(tool: &Params<'_>) -> Result<Tool, ApiError> {
    if let Some(kind) = tool.text("type")?.filter(|kind| *kind != "custom") {
        let at = tool.path("type");
        let message = format!(
            "Invalid value for '{at}': tools of type '{}' are not supported, expected a tool with name, description \
             and input_schema and without type, or of type custom.",
            cut(kind)
        );
        return Err(ApiError::unsupported(&at, message));
    }
    if tool.flag("defer_loading")? {
        let at = tool.path("defer_loading");
        return Err(ApiError::unsupported(&at, format!("'{at}' is not supported: every tool is shown to the model.")));
    }
    let name = tool.required_text("name")?;
    if !is_name(name) {
        let expected = format!("1 to {NAME_BYTES_MAX} letters, digits, '_' and '-'");
        return Err(out_of_range(&tool.path("name"), &expected, &Value::from(name)));
    }
    let schema = tool.required("input_schema", "a JSON schema of the type object")?;
    if !schema.is_object() {
        return Err(wrong_type(&tool.path("input_schema"), "a JSON schema of the type object", schema));
    }
    Ok(Tool {
        name: name.to_owned(),
        description: tool.text("description")?.map(str::to_owned),
        parameters: Some(schema.clone()),
        strict: tool.flag("strict")?,
    })
}

fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal)
}

fn read_choice(choice: &Params<'_>, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    let read = match choice.required_text("type")? {
        "auto" => return Ok(ToolChoice::Auto),
        "none" => return Ok(ToolChoice::None),
        "any" => ToolChoice::Required,
        "tool" => {
            let name = choice.required_text("name")?;
            if !tools.iter().any(|tool| tool.name == name) {
                return Err(out_of_range(&choice.path("name"), "the name of one of the tools", &Value::from(name)));
            }
            ToolChoice::Allowed { names: vec![name.to_owned()], required: true }
        }
        found => {
            let expected = "auto, any, tool or none";
            return Err(out_of_range(&choice.path("type"), expected, &Value::from(found)));
        }
    };
    if tools.is_empty() { Err(missing("tools", "the tools of which one has to be called")) } else { Ok(read) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_body(body: &Value) -> Result<ValidTools, ApiError> {
        read(&Params::new(body.as_object().unwrap()))
    }

    fn look() -> Value {
        json!({"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}})
    }

    #[test]
    fn a_tool_has_a_name_a_description_and_a_schema() {
        let add = json!({
            "type": "custom", "name": "mcp__math__add", "input_schema": {"type": "object"}, "strict": true,
            "cache_control": {"type": "ephemeral"}, "input_examples": [{}], "defer_loading": false
        });
        let found = read_body(&json!({"tools": [look(), add]})).unwrap();
        let look = Tool {
            name: "look".to_owned(),
            description: Some("Looks.".to_owned()),
            parameters: Some(json!({"type": "object", "properties": {}})),
            strict: false,
        };
        let add = Tool {
            name: "mcp__math__add".to_owned(),
            description: None,
            parameters: Some(json!({"type": "object"})),
            strict: true,
        };
        assert_eq!(found, ValidTools { tools: vec![look, add], choice: ToolChoice::Auto, parallel: true });
        assert_eq!(read_body(&json!({"tools": null})).unwrap().tools, []);
    }

    #[test]
    fn each_choice_is_read() {
        let named = ToolChoice::Allowed { names: vec!["look".to_owned()], required: true };
        for (choice, expected, parallel) in [
            (json!({"type": "auto"}), ToolChoice::Auto, true),
            (json!({"type": "auto", "disable_parallel_tool_use": true}), ToolChoice::Auto, false),
            (json!({"type": "any", "disable_parallel_tool_use": false}), ToolChoice::Required, true),
            (json!({"type": "tool", "name": "look", "disable_parallel_tool_use": true}), named, false),
            (json!({"type": "none"}), ToolChoice::None, true),
        ] {
            let found = read_body(&json!({"tools": [look()], "tool_choice": choice})).unwrap();
            assert_eq!((found.choice, found.parallel), (expected, parallel), "{choice}");
        }
        assert_eq!(read_body(&json!({"tool_choice": {"type": "auto"}})).unwrap().choice, ToolChoice::Auto);
    }

    #[test]
    fn other_tools_and_choices_are_refused_by_name() {
        for (body, param) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": ["look"]}), "tools[0]"),
            (json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}), "tools[0].type"),
            (json!({"tools": [look(), {"type": "bash_20250124", "name": "bash"}]}), "tools[1].type"),
            (json!({"tools": [{"name": "a", "input_schema": {}, "defer_loading": true}]}), "tools[0].defer_loading"),
            (json!({"tools": [{"input_schema": {}}]}), "tools[0].name"),
            (json!({"tools": [{"name": "", "input_schema": {}}]}), "tools[0].name"),
            (json!({"tools": [{"name": "two words", "input_schema": {}}]}), "tools[0].name"),
            (json!({"tools": [look(), look()]}), "tools[1].name"),
            (json!({"tools": [{"name": "a"}]}), "tools[0].input_schema"),
            (json!({"tools": [{"name": "a", "input_schema": "x"}]}), "tools[0].input_schema"),
            (json!({"tools": [{"name": "a", "input_schema": {}, "description": 5}]}), "tools[0].description"),
            (json!({"tools": [look()], "tool_choice": "auto"}), "tool_choice"),
            (json!({"tools": [look()], "tool_choice": {}}), "tool_choice.type"),
            (json!({"tools": [look()], "tool_choice": {"type": "required"}}), "tool_choice.type"),
            (json!({"tools": [look()], "tool_choice": {"type": "tool"}}), "tool_choice.name"),
            (json!({"tools": [look()], "tool_choice": {"type": "tool", "name": "add"}}), "tool_choice.name"),
            (json!({"tool_choice": {"type": "any"}}), "tools"),
        ] {
            assert_eq!(read_body(&body).unwrap_err().json()["error"]["param"], param, "{body}");
        }
    }
}
