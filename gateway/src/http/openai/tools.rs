//! Reads `tools`, `tool_choice` and `parallel_tool_calls`.

use serde_json::Value;

use super::params::{Params, missing, out_of_range, wrong_type};
use crate::http::error::ApiError;
use crate::http::generation::text_model::{Tool, ToolChoice};
use crate::http::limits::{SCHEMA_DEPTH_MAX, TOOLS_MAX};

/// Longest name of a tool, in bytes, as in OpenAI's reference.
const NAME_BYTES_MAX: usize = 64;

/// The tools of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ValidTools {
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: ToolChoice,
    /// True if the model may call several tools at once.
    pub(crate) parallel: bool,
}

/// Reads the tools and the choice among them.
///
/// # Errors
/// A 400 that names the parameter.
pub(crate) fn read(params: &Params<'_>) -> Result<ValidTools, ApiError> {
    refuse_functions(params)?;
    let list = params.list("tools")?.unwrap_or_default();
    if list.len() > TOOLS_MAX {
        let message = format!("Invalid value for 'tools': expected at most {TOOLS_MAX} tools, found {}.", list.len());
        return Err(ApiError::bad_request("invalid_value", message).about("tools"));
    }
    let mut tools: Vec<Tool> = Vec::with_capacity(list.len());
    for (index, found) in list.iter().enumerate() {
        let at = format!("tools[{index}]");
        let tool = read_tool(&Params::at(&at, "a tool of the type function", found)?)?;
        if tools.iter().any(|known| known.name == tool.name) {
            let name = Value::from(tool.name);
            return Err(out_of_range(&format!("{at}.function.name"), "a name that no other tool has", &name));
        }
        tools.push(tool);
    }
    let choice = match params.get("tool_choice") {
        None => ToolChoice::Auto,
        Some(choice) => read_choice(choice, &tools)?,
    };
    let parallel = params.get("parallel_tool_calls").is_none() || params.flag("parallel_tool_calls")?;
    Ok(ValidTools { tools, choice, parallel: parallel && !names_function(params) })
}

/// Refuses the older names of tools.
fn refuse_functions(params: &Params<'_>) -> Result<(), ApiError> {
    let functions = params.list("functions")?.is_some_and(|list| !list.is_empty());
    let call = params.get("function_call").is_some_and(|call| !matches!(call.as_str(), Some("none" | "auto")));
    for (key, newer, found) in [("functions", "tools", functions), ("function_call", "tool_choice", call)] {
        if found {
            let message = format!("'{key}' is not supported: use '{newer}', which took its place.");
            return Err(ApiError::unsupported(key, message));
        }
    }
    Ok(())
}

fn read_tool(tool: &Params<'_>) -> Result<Tool, ApiError> {
    match tool.required_text("type")? {
        "function" => {}
        "custom" => {
            let message = "Tools of type 'custom' are not supported: expected a tool of type function.";
            return Err(ApiError::unsupported(&tool.path("type"), message));
        }
        found => return Err(out_of_range(&tool.path("type"), "function", &Value::from(found))),
    }
    let expected = "an object with name, description and parameters";
    let function = Params::at(&tool.path("function"), expected, tool.required("function", expected)?)?;
    let name = function.required_text("name")?;
    if !is_name(name) {
        let expected = format!("1 to {NAME_BYTES_MAX} letters, digits, '_', '-' and '.'");
        return Err(out_of_range(&function.path("name"), &expected, &Value::from(name)));
    }
    let parameters = function.get("parameters");
    if let Some(schema) = parameters {
        check_schema(&function.path("parameters"), schema)?;
    }
    Ok(Tool {
        name: name.to_owned(),
        description: function.text("description")?.map(str::to_owned),
        parameters: parameters.cloned(),
        strict: function.flag("strict")?,
    })
}

fn check_schema(at: &str, schema: &Value) -> Result<(), ApiError> {
    if !schema.is_object() {
        return Err(wrong_type(at, "a JSON schema of the type object", schema));
    }
    if depth(schema) > SCHEMA_DEPTH_MAX {
        return Err(out_of_range(at, &format!("a schema of at most {SCHEMA_DEPTH_MAX} levels"), schema));
    }
    match &schema["type"] {
        Value::Null => Ok(()),
        Value::String(kind) if kind == "object" => Ok(()),
        found => Err(out_of_range(&format!("{at}.type"), "object", found)),
    }
}

/// Levels of `value`: parsing a body bounds them.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal)
}

fn read_choice(choice: &Value, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    let expected = "none, auto, required, or an object that names tools";
    let read = match choice {
        Value::String(mode) => match mode.as_str() {
            "none" => return Ok(ToolChoice::None),
            "auto" => return Ok(ToolChoice::Auto),
            "required" => ToolChoice::Required,
            _ => return Err(out_of_range("tool_choice", expected, choice)),
        },
        Value::Object(_) => {
            let choice = Params::at("tool_choice", expected, choice)?;
            match choice.required_text("type")? {
                "function" => ToolChoice::Allowed { names: vec![read_name(&choice, tools)?], required: true },
                "allowed_tools" => read_allowed(&choice, tools)?,
                found => {
                    let at = choice.path("type");
                    return Err(out_of_range(&at, "function or allowed_tools", &Value::from(found)));
                }
            }
        }
        other => return Err(wrong_type("tool_choice", expected, other)),
    };
    if tools.is_empty() { Err(missing("tools", "the tools of which one has to be called")) } else { Ok(read) }
}

fn read_allowed(choice: &Params<'_>, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    let expected = "an object with mode and tools";
    let allowed = Params::at(&choice.path("allowed_tools"), expected, choice.required("allowed_tools", expected)?)?;
    let required = match allowed.required_text("mode")? {
        "auto" => false,
        "required" => true,
        found => return Err(out_of_range(&allowed.path("mode"), "auto or required", &Value::from(found))),
    };
    allowed.required("tools", "an array of tools")?;
    let list = allowed.list("tools")?.unwrap_or_default();
    if list.is_empty() {
        return Err(out_of_range(&allowed.path("tools"), "at least one tool", &Value::Array(Vec::new())));
    }
    let names = list.iter().enumerate().map(|(index, tool)| {
        let tool = Params::at(&format!("{}[{index}]", allowed.path("tools")), "a tool of the type function", tool)?;
        match tool.required_text("type")? {
            "function" => read_name(&tool, tools),
            found => Err(out_of_range(&tool.path("type"), "function", &Value::from(found))),
        }
    });
    Ok(ToolChoice::Allowed { names: names.collect::<Result<_, _>>()?, required })
}

/// True if the choice names a function, which means exactly one call of it.
fn names_function(params: &Params<'_>) -> bool {
    params.get("tool_choice").is_some_and(|choice| choice["type"] == "function")
}

/// The name of one of `tools`.
fn read_name(choice: &Params<'_>, tools: &[Tool]) -> Result<String, ApiError> {
    let expected = "an object with the name of a tool";
    let function = Params::at(&choice.path("function"), expected, choice.required("function", expected)?)?;
    let name = function.required_text("name")?;
    if tools.iter().any(|tool| tool.name == name) {
        Ok(name.to_owned())
    } else {
        Err(out_of_range(&function.path("name"), "the name of one of the tools", &Value::from(name)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_body(body: &Value) -> Result<ValidTools, ApiError> {
        read(&Params::new(body.as_object().unwrap()))
    }

    fn look() -> Value {
        json!({"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": true}})
    }

    #[test]
    fn tools_are_read_with_their_schemas() {
        let add = json!({"type": "function", "function": {"name": "add", "description": "Adds.", "strict": null}});
        let found = read_body(&json!({"tools": [look(), add]})).unwrap();
        let parameters = Some(json!({"type": "object"}));
        let first = Tool { name: "look".to_owned(), parameters, strict: true, ..Tool::default() };
        let add = Tool { name: "add".to_owned(), description: Some("Adds.".to_owned()), ..Tool::default() };
        assert_eq!(found, ValidTools { tools: vec![first, add], choice: ToolChoice::Auto, parallel: true });
        assert!(!read_body(&json!({"tools": [look()], "parallel_tool_calls": false})).unwrap().parallel);
        assert_eq!(read_body(&json!({"tools": null, "functions": [], "function_call": "auto"})).unwrap().tools, []);
    }

    #[test]
    fn each_choice_is_read() {
        let name = json!({"type": "function", "function": {"name": "look"}});
        let allowed = |mode| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [name]}});
        let named = |required| ToolChoice::Allowed { names: vec!["look".to_owned()], required };
        // A function by name means exactly one call.
        for (choice, expected, parallel) in [
            (json!("none"), ToolChoice::None, true),
            (json!("auto"), ToolChoice::Auto, true),
            (json!("required"), ToolChoice::Required, true),
            (name.clone(), named(true), false),
            (allowed("auto"), named(false), true),
            (allowed("required"), named(true), true),
        ] {
            let found = read_body(&json!({"tools": [look()], "tool_choice": choice})).unwrap();
            assert_eq!((found.choice, found.parallel), (expected, parallel), "{choice}");
        }
        assert_eq!(read_body(&json!({"tool_choice": "none"})).unwrap().choice, ToolChoice::None);
    }

    #[test]
    fn other_tools_and_choices_are_refused_by_name() {
        let tool = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
        let chosen = |choice: Value| json!({"tools": [look()], "tool_choice": choice});
        let mut deep = json!({});
        for _ in 0..40 {
            deep = json!({"properties": deep});
        }
        for (body, param) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": vec![look(); 257]}), "tools"),
            (json!({"tools": ["look"]}), "tools[0]"),
            (json!({"tools": [{"function": {"name": "look"}}]}), "tools[0].type"),
            (json!({"tools": [{"type": "custom", "custom": {"name": "look"}}]}), "tools[0].type"),
            (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
            (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
            (tool(json!({})), "tools[0].function.name"),
            (tool(json!({"name": ""})), "tools[0].function.name"),
            (tool(json!({"name": "a b"})), "tools[0].function.name"),
            (tool(json!({"name": "a".repeat(65)})), "tools[0].function.name"),
            (tool(json!({"name": "a", "description": 5})), "tools[0].function.description"),
            (tool(json!({"name": "a", "parameters": []})), "tools[0].function.parameters"),
            (tool(json!({"name": "a", "parameters": {"type": "string"}})), "tools[0].function.parameters.type"),
            (tool(json!({"name": "a", "parameters": deep})), "tools[0].function.parameters"),
            (tool(json!({"name": "a", "strict": "yes"})), "tools[0].function.strict"),
            (json!({"tools": [look(), look()]}), "tools[1].function.name"),
            (json!({"tool_choice": "required"}), "tools"),
            (chosen(json!("any")), "tool_choice"),
            (chosen(json!(5)), "tool_choice"),
            (chosen(json!({})), "tool_choice.type"),
            (chosen(json!({"type": "custom"})), "tool_choice.type"),
            (chosen(json!({"type": "function"})), "tool_choice.function"),
            (chosen(json!({"type": "function", "function": {"name": "add"}})), "tool_choice.function.name"),
            (chosen(json!({"type": "allowed_tools"})), "tool_choice.allowed_tools"),
            (
                chosen(json!({"type": "allowed_tools", "allowed_tools": {"mode": "all"}})),
                "tool_choice.allowed_tools.mode",
            ),
            (
                chosen(json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}})),
                "tool_choice.allowed_tools.tools",
            ),
            (
                chosen(json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "mcp"}]}})),
                "tool_choice.allowed_tools.tools[0].type",
            ),
            (json!({"tools": [look()], "parallel_tool_calls": "no"}), "parallel_tool_calls"),
            (json!({"functions": [{"name": "look"}]}), "functions"),
            (json!({"function_call": {"name": "look"}}), "function_call"),
        ] {
            assert_eq!(read_body(&body).unwrap_err().json()["error"]["param"], param, "{body}");
        }
    }
}
