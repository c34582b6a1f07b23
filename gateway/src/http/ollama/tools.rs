//! Reads and checks the tools that the model may call.

use serde_json::Value;

use crate::http::error::ApiError;
use crate::http::generation::text_model::Tool;
use crate::http::params::{Params, out_of_range};

/// Reads `tools`.
///
/// # Errors
/// A 400 that names the tool and the error in it.
pub(super) fn read(params: &Params<'_>) -> Result<Vec<Tool>, ApiError> {
    let list = params.list("tools")?.unwrap_or_default();
    list.iter().enumerate().map(|(index, tool)| read_one(&format!("tools[{index}]"), tool)).collect()
}

fn read_one(at: &str, tool: &Value) -> Result<Tool, ApiError> {
    let expected = "an object with type and function";
    let params = Params::at(at, expected, tool)?;
    if let Some(found) = params.get("type").filter(|kind| kind.as_str() != Some("function")) {
        return Err(out_of_range(&params.path("type"), "function", found));
    }
    let function = params.required("function", "an object with name, description and parameters")?;
    let function = Params::at(&params.path("function"), "an object with name, description and parameters", function)?;
    // Checked to be an object, and otherwise left as it is: the template gets all of it.
    function.object("parameters")?;
    Ok(Tool {
        name: function.required_text("name")?.to_owned(),
        description: function.text("description")?.map(str::to_owned),
        parameters: function.get("parameters").cloned(),
        strict: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_value(tools: &Value) -> Result<Vec<Tool>, ApiError> {
        let body = json!({"tools": tools});
        read(&Params::new(body.as_object().unwrap()))
    }

    #[test]
    fn a_tool_is_a_function_with_a_schema() {
        let parameters = json!({"type": "object", "properties": {"zone": {"type": "string"}}});
        let function = json!({"name": "now", "description": "the time", "parameters": parameters});
        let tools = read_value(&json!([{"type": "function", "function": function}])).unwrap();
        let expected = Tool {
            name: "now".to_owned(),
            description: Some("the time".to_owned()),
            parameters: Some(parameters),
            strict: false,
        };
        assert_eq!(tools, [expected]);
    }

    #[test]
    fn an_invalid_tool_is_named() {
        for (tool, param) in [
            (json!("now"), "tools[0]"),
            (json!({"type": "retrieval"}), "tools[0].type"),
            (json!({"type": "function"}), "tools[0].function"),
            (json!({"function": {"description": "x"}}), "tools[0].function.name"),
            (json!({"function": {"name": "x", "parameters": "none"}}), "tools[0].function.parameters"),
        ] {
            let error = read_value(&json!([tool])).unwrap_err();
            assert_eq!(error.json()["error"]["param"], param, "{tool}");
        }
    }
}
