//! The JSON value of an argument that a model wrote as bare text, by the type that the tool's schema declares.

use serde_json::Value;

use crate::text::conversation::Tool;

/// The declared type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParameterType {
    /// Text.
    Text,
    /// Anything but text.
    Json,
    /// Unknown, or text among others.
    Any,
}

// === impl ParameterType ===

impl ParameterType {
    /// The type of the parameter `key` of `tool`.
    pub(super) fn of(tool: Option<&Tool>, key: &str) -> Self {
        let schema = tool.and_then(|tool| tool.parameters.as_ref()?.get("properties")?.get(key));
        schema.map_or(Self::Any, Self::declared)
    }

    fn declared(schema: &Value) -> Self {
        let named = |name: &Value| if name == "string" { Self::Text } else { Self::Json };
        let joined = |types: &mut dyn Iterator<Item = Self>| {
            types.reduce(|one, other| if one == other { one } else { Self::Any }).unwrap_or(Self::Any)
        };
        match (&schema["type"], &schema["enum"], schema.get("const")) {
            (name @ Value::String(_), ..) => named(name),
            (Value::Array(names), ..) => joined(&mut names.iter().map(named)),
            (_, Value::Array(values), _) => joined(&mut values.iter().map(Self::of_value)),
            (.., Some(value)) => Self::of_value(value),
            _ => match ["anyOf", "oneOf"].iter().find_map(|key| schema[*key].as_array()) {
                Some(schemas) if schemas.iter().all(|schema| schema.get("type").is_some()) => {
                    joined(&mut schemas.iter().map(Self::declared))
                }
                _ => Self::Any,
            },
        }
    }

    fn of_value(value: &Value) -> Self {
        if value.is_string() { Self::Text } else { Self::Json }
    }

    /// The JSON text of an argument that is written as `value`.
    pub(super) fn json(self, value: &str) -> String {
        let text = || format!("\"{}\"", json_string(value));
        if self == Self::Text {
            return text();
        }
        match value.trim() {
            "True" => "true".to_owned(),
            "False" => "false".to_owned(),
            "None" => "null".to_owned(),
            trimmed if serde_json::from_str::<serde::de::IgnoredAny>(trimmed).is_ok() => trimmed.to_owned(),
            _ => text(),
        }
    }
}

/// `text` as the inside of a JSON string.
pub(super) fn json_string(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(schema: Value) -> ParameterType {
        let mut parameters = json!({"properties": {}});
        parameters["properties"]["a"] = schema;
        let parameters = Some(parameters);
        ParameterType::of(Some(&Tool { parameters, ..Tool::default() }), "a")
    }

    #[test]
    fn the_schema_says_whether_a_value_is_text() {
        assert_eq!(of(json!({"type": "string"})), ParameterType::Text);
        assert_eq!(of(json!({"enum": ["a", "b"]})), ParameterType::Text);
        assert_eq!(of(json!({"type": ["integer", "null"]})), ParameterType::Json);
        assert_eq!(of(json!({"anyOf": [{"type": "string"}, {"type": "null"}]})), ParameterType::Any);
        for schema in [json!({}), json!(true), json!({"$ref": "#/$defs/x"})] {
            assert_eq!(of(schema), ParameterType::Any);
        }
        assert_eq!(ParameterType::of(None, "a"), ParameterType::Any);
    }

    #[test]
    fn a_value_is_json_if_it_can_be_and_its_type_is_not_text() {
        assert_eq!(ParameterType::Text.json("5"), "\"5\"");
        assert_eq!(ParameterType::Any.json(" 5 "), "5");
        assert_eq!(ParameterType::Json.json("True"), "true");
        assert_eq!(ParameterType::Json.json("{\"a\":[1]}"), "{\"a\":[1]}");
        assert_eq!(ParameterType::Json.json("a \"b\""), "\"a \\\"b\\\"\"");
    }
}
