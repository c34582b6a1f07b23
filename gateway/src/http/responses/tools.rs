//! Reads and checks the tools of a request and its choice among them. The model is offered functions only, those of
//! namespaces under a joined name.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::word;
use crate::http::error::{ApiError, cut};
use crate::http::generation::text_model::{Tool, ToolChoice};
use crate::http::limits::{TOOL_NAME_CHARS_MAX, TOOLS_MAX};
use crate::http::params::{Params, out_of_range, wrong_type};

/// Hosted tools that are left out if the request offers functions beside them. Codex sends them whenever it is not told
/// otherwise, and a model that is not offered them answers without. The answer's `tools` shows what was left.
const LEFT_OUT: &[&str] = &["web_search", "image_generation"];
/// Separates a namespace from the function's name in the name that the model sees.
const NAMESPACE_SEPARATOR: &str = "__";

/// The tools of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ValidTools {
    /// The functions that the model may call, each under the name that the model sees.
    pub(super) tools: Vec<Tool>,
    pub(super) choice: ToolChoice,
    /// Namespace and own name of each function of a namespace, by the name that the model sees.
    pub(super) namespaced: HashMap<String, (String, String)>,
    /// The tools as the answer repeats them.
    pub(super) tools_echo: Vec<Value>,
    /// The choice as the answer repeats it.
    pub(super) choice_echo: Value,
}

/// The name under which the model sees the function `name` of `namespace`.
pub(super) fn joined_name(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{}{NAMESPACE_SEPARATOR}{name}", namespace.trim_end_matches('_')),
        None => name.to_owned(),
    }
}

// === impl ValidTools ===

impl ValidTools {
    /// Reads `tools` and `tool_choice`.
    ///
    /// # Errors
    /// A 400 that names the tool and what is wrong with it.
    pub(super) fn read(params: &Params<'_>) -> Result<Self, ApiError> {
        let mut valid = Self::default();
        let mut left_out = Vec::new();
        for (index, found) in params.list("tools")?.unwrap_or_default().iter().enumerate() {
            let tool = Params::at(&format!("tools[{index}]"), "an object", found)?;
            match tool.required_text("type")? {
                "function" => {
                    valid.add(&tool, None)?;
                    valid.tools_echo.push(complete(found));
                }
                "namespace" => {
                    valid.add_namespace(&tool)?;
                    valid.tools_echo.push(found.clone());
                }
                name if LEFT_OUT.contains(&name) => {
                    left_out.push((tool.path("type"), name));
                }
                name => return Err(unsupported(&tool.path("type"), name)),
            }
        }
        if let (Some((path, name)), true) = (left_out.first(), valid.tools.is_empty()) {
            return Err(unsupported(path, name));
        }
        valid.read_choice(params)?;
        Ok(valid)
    }

    /// True if the choice names a function, which means exactly one call of it.
    pub(super) fn names_function(&self) -> bool {
        self.choice_echo["type"] == "function"
    }

    fn add_namespace(&mut self, namespace: &Params<'_>) -> Result<(), ApiError> {
        let name = tool_name(namespace)?;
        namespace.required("tools", "an array of functions")?;
        for (index, found) in namespace.list("tools")?.unwrap_or_default().iter().enumerate() {
            let tool = Params::at(&format!("{}[{index}]", namespace.path("tools")), "an object", found)?;
            match tool.required_text("type")? {
                "function" => self.add(&tool, Some(name))?,
                other => return Err(unsupported(&tool.path("type"), other)),
            }
        }
        Ok(())
    }

    fn add(&mut self, function: &Params<'_>, namespace: Option<&str>) -> Result<(), ApiError> {
        if self.tools.len() == TOOLS_MAX {
            let message = format!("Invalid value for 'tools': expected at most {TOOLS_MAX} functions, found more.");
            return Err(ApiError::bad_request("invalid_value", message).about("tools"));
        }
        let own_name = tool_name(function)?;
        function.object("parameters")?;
        let parameters = function.get("parameters").cloned();
        let name = joined_name(namespace, own_name);
        if self.tools.iter().any(|tool| tool.name == name) {
            let expected = "a name that no other tool has";
            return Err(out_of_range(&function.path("name"), expected, &Value::String(name)));
        }
        if let Some(namespace) = namespace {
            self.namespaced.insert(name.clone(), (namespace.to_owned(), own_name.to_owned()));
        }
        let description = function.text("description")?.map(str::to_owned);
        self.tools.push(Tool { name, description, parameters, strict: function.flag("strict")? });
        Ok(())
    }

    fn read_choice(&mut self, params: &Params<'_>) -> Result<(), ApiError> {
        let expected = "one of none, auto, required, or an object";
        let Some(found) = params.get("tool_choice") else {
            self.choice_echo = json!("auto");
            return Ok(());
        };
        self.choice = match found {
            Value::String(_) => match word::of("tool_choice", found, &["none", "auto", "required"])? {
                "none" => ToolChoice::None,
                "required" => ToolChoice::Required,
                _ => ToolChoice::Auto,
            },
            Value::Object(_) => self.read_choice_object(&Params::at("tool_choice", "an object", found)?)?,
            other => return Err(wrong_type("tool_choice", expected, other)),
        };
        if self.choice == ToolChoice::Required && self.tools.is_empty() {
            let message = "Invalid value for 'tool_choice': expected 'tools' beside 'required', found none.";
            return Err(ApiError::bad_request("invalid_value", message).about("tool_choice"));
        }
        self.choice_echo = found.clone();
        Ok(())
    }

    fn read_choice_object(&self, choice: &Params<'_>) -> Result<ToolChoice, ApiError> {
        match choice.required_text("type")? {
            "function" => Ok(ToolChoice::Allowed { names: vec![self.offered(choice)?], required: true }),
            "allowed_tools" => {
                let required = word::read(choice, "mode", &["auto", "required"])? == Some("required");
                Ok(ToolChoice::Allowed { names: self.read_allowed(choice)?, required })
            }
            name => Err(unsupported(&choice.path("type"), name)),
        }
    }

    fn read_allowed(&self, choice: &Params<'_>) -> Result<Vec<String>, ApiError> {
        let (at, expected) = (choice.path("tools"), format!("an array of 1 to {TOOLS_MAX} functions"));
        let found = choice.required("tools", &expected)?;
        let list = choice.list("tools")?.unwrap_or_default();
        if !(1..=TOOLS_MAX).contains(&list.len()) {
            return Err(out_of_range(&at, &expected, found));
        }
        let mut names = Vec::with_capacity(list.len());
        for (index, found) in list.iter().enumerate() {
            let tool = Params::at(&format!("{at}[{index}]"), "an object", found)?;
            match tool.required_text("type")? {
                "function" => names.push(self.offered(&tool)?),
                name => return Err(unsupported(&tool.path("type"), name)),
            }
        }
        Ok(names)
    }

    /// The name that the model sees of the function that `choice` names.
    fn offered(&self, choice: &Params<'_>) -> Result<String, ApiError> {
        let name = joined_name(choice.text("namespace")?, choice.required_text("name")?);
        if self.tools.iter().any(|tool| tool.name == name) {
            return Ok(name);
        }
        let names: Vec<_> = self.tools.iter().map(|tool| tool.name.as_str()).collect();
        let expected = format!("the name of a function in 'tools' ({})", cut(&names.join(", ")));
        Err(out_of_range(&choice.path("name"), &expected, &Value::String(name)))
    }
}

/// A function with every field that the reference requires of an answer.
fn complete(function: &Value) -> Value {
    let mut complete = function.clone();
    for (field, absent) in [("description", Value::Null), ("parameters", Value::Null), ("strict", json!(false))] {
        if complete[field].is_null() {
            complete[field] = absent;
        }
    }
    complete
}

fn tool_name<'a>(tool: &Params<'a>) -> Result<&'a str, ApiError> {
    let name = tool.required_text("name")?;
    let is_legal = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    if (1..=TOOL_NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(is_legal) {
        return Ok(name);
    }
    let expected = format!("1 to {TOOL_NAME_CHARS_MAX} letters, digits, '_' and '-'");
    Err(out_of_range(&tool.path("name"), &expected, &Value::String(name.to_owned())))
}

fn unsupported(path: &str, name: &str) -> ApiError {
    let message = format!(
        "Tools of type '{}' are not supported: this server runs no tools itself. Expected function, or namespace with \
         functions.",
        cut(name)
    );
    ApiError::unsupported(path, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value) -> Result<ValidTools, ApiError> {
        ValidTools::read(&Params::new(body.as_object().unwrap()))
    }

    fn function(name: &str) -> Value {
        json!({"type": "function", "name": name, "parameters": {"type": "object"}, "strict": null})
    }

    #[test]
    fn without_tools_there_is_nothing_to_choose() {
        let valid = read(&json!({"tools": null, "tool_choice": null})).unwrap();
        assert!(valid.tools.is_empty());
        assert_eq!((valid.choice, valid.choice_echo), (ToolChoice::Auto, json!("auto")));
    }

    #[test]
    fn functions_of_a_namespace_are_offered_under_a_joined_name() {
        let namespace =
            json!({"type": "namespace", "name": "mcp__files", "description": "d", "tools": [function("read")]});
        let valid = read(&json!({"tools": [function("shell"), namespace]})).unwrap();
        let names: Vec<_> = valid.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["shell", "mcp__files__read"]);
        assert_eq!(valid.namespaced["mcp__files__read"], ("mcp__files".to_owned(), "read".to_owned()));
        assert_eq!(valid.tools_echo[1], namespace);
    }

    #[test]
    fn hosted_tools_that_codex_always_sends_are_left_out_beside_functions_only() {
        let search = json!({"type": "web_search", "external_web_access": false});
        let valid = read(&json!({"tools": [search, function("shell"), {"type": "image_generation"}]})).unwrap();
        // The answer repeats a function with all its fields.
        let shell = json!({
            "type": "function", "name": "shell", "description": null, "parameters": {"type": "object"}, "strict": false
        });
        assert_eq!((valid.tools.len(), valid.tools_echo), (1, vec![shell]));
        let error = read(&json!({"tools": [search]})).unwrap_err();
        assert_eq!(error.param(), Some("tools[0].type"));
        assert!(error.message().contains("'web_search'"), "{error:?}");
    }

    #[test]
    fn the_choice_names_functions_that_are_offered() {
        let with = |choice: Value| read(&json!({"tools": [function("a"), function("b")], "tool_choice": choice}));
        assert_eq!(with(json!("none")).unwrap().choice, ToolChoice::None);
        assert_eq!(with(json!("required")).unwrap().choice, ToolChoice::Required);
        let allowed = |names: &[&str], required| ToolChoice::Allowed {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            required,
        };
        let one = with(json!({"type": "function", "name": "b"})).unwrap();
        assert!(one.names_function());
        assert_eq!((one.choice, one.choice_echo), (allowed(&["b"], true), json!({"type": "function", "name": "b"})));
        let tools = json!([{"type": "function", "name": "a"}, {"type": "function", "name": "b"}]);
        let some = with(json!({"type": "allowed_tools", "mode": "auto", "tools": tools})).unwrap();
        assert!(!some.names_function());
        assert_eq!(some.choice, allowed(&["a", "b"], false));
    }

    #[test]
    fn tools_that_cannot_be_offered_are_refused_with_their_path() {
        let nested = json!({"type": "namespace", "name": "n", "tools": [{"type": "custom", "name": "c"}]});
        let double = json!([function("n__f"), {"type": "namespace", "name": "n", "tools": [function("f")]}]);
        for (body, param) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": ["f"]}), "tools[0]"),
            (json!({"tools": [{"name": "f"}]}), "tools[0].type"),
            (json!({"tools": [function("a"), {"type": "custom", "name": "apply_patch"}]}), "tools[1].type"),
            (json!({"tools": [function("a"), {"type": "mcp"}]}), "tools[1].type"),
            (json!({"tools": [function("a"), {"type": "file_search"}]}), "tools[1].type"),
            (json!({"tools": [{"type": "function"}]}), "tools[0].name"),
            (json!({"tools": [function("")]}), "tools[0].name"),
            (json!({"tools": [function("a b")]}), "tools[0].name"),
            (json!({"tools": [function(&"x".repeat(129))]}), "tools[0].name"),
            (json!({"tools": [function("a"), function("a")]}), "tools[1].name"),
            (json!({"tools": double}), "tools[1].tools[0].name"),
            (json!({"tools": [nested]}), "tools[0].tools[0].type"),
            (json!({"tools": [{"type": "function", "name": "a", "parameters": []}]}), "tools[0].parameters"),
            (json!({"tools": [{"type": "function", "name": "a", "strict": 1}]}), "tools[0].strict"),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"tool_choice": "any"}), "tool_choice"),
            (json!({"tool_choice": 5}), "tool_choice"),
            (json!({"tools": [function("a")], "tool_choice": {"type": "web_search"}}), "tool_choice.type"),
            (json!({"tools": [function("a")], "tool_choice": {"type": "function", "name": "z"}}), "tool_choice.name"),
            (
                json!({"tools": [function("a")], "tool_choice": {"type": "allowed_tools", "tools": []}}),
                "tool_choice.tools",
            ),
        ] {
            let error = read(&body).unwrap_err();
            assert_eq!(error.param(), Some(param), "{body}: {}", error.message());
        }
    }
}
