//! The rules of calls whose arguments are written one by one, each in the form of its type.

use serde_json::{Map, Value};

use super::call_rules::{WriteJson, parameters};
use super::lark::Lark;
use super::values::{Notation, value};
use crate::text::conversation::Tool;
use crate::text::tools::ToolFormat;
use crate::text::tools::parameter_type::ParameterType;

/// The text around the parts of calls, and the notation of values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tagged {
    /// Before the first call.
    pub(super) open: &'static str,
    /// Before a call's name.
    pub(super) before: &'static str,
    /// Behind it.
    named: &'static str,
    /// Before a parameter's key.
    key: &'static str,
    /// Between a key and its value, if the value is text, and if it is not.
    text_value: &'static str,
    json_value: &'static str,
    /// Behind a value.
    value_end: &'static str,
    /// Between two parameters.
    comma: &'static str,
    /// Behind a call's last parameter.
    after: &'static str,
    /// Between two calls.
    pub(super) separator: &'static str,
    /// Behind the last call.
    pub(super) close: &'static str,
    notation: Notation,
}

const QWEN: Tagged = Tagged {
    open: "",
    before: "<tool_call>\n<function=",
    named: ">\n",
    key: "<parameter=",
    text_value: ">\n",
    json_value: ">\n",
    value_end: "\n</parameter>\n",
    comma: "",
    after: "</function>\n</tool_call>",
    separator: "\n",
    close: "",
    notation: Notation::Bare,
};

// === impl Tagged ===

impl Tagged {
    /// The text of a format without JSON arguments.
    pub(super) fn of(format: ToolFormat) -> Self {
        match format {
            ToolFormat::SeedOss => Self {
                before: "<seed:tool_call>\n<function=",
                text_value: ">",
                json_value: ">",
                value_end: "</parameter>\n",
                after: "</function>\n</seed:tool_call>",
                ..QWEN
            },
            ToolFormat::Glm => Self {
                before: "<tool_call>",
                named: "",
                key: "<arg_key>",
                text_value: "</arg_key><arg_value>",
                json_value: "</arg_key><arg_value>",
                value_end: "</arg_value>",
                after: "</tool_call>",
                separator: "",
                ..QWEN
            },
            ToolFormat::MiniMax => Self {
                open: "<minimax:tool_call>\n",
                before: "<invoke name=\"",
                named: "\">\n",
                key: "<parameter name=\"",
                text_value: "\">",
                json_value: "\">",
                value_end: "</parameter>\n",
                after: "</invoke>\n",
                separator: "",
                close: "</minimax:tool_call>",
                ..QWEN
            },
            ToolFormat::DeepSeekTags => Self {
                open: "<｜DSML｜function_calls>\n",
                before: "<｜DSML｜invoke name=\"",
                named: "\">\n",
                key: "<｜DSML｜parameter name=\"",
                text_value: "\" string=\"true\">",
                json_value: "\" string=\"false\">",
                value_end: "</｜DSML｜parameter>\n",
                after: "</｜DSML｜invoke>\n",
                separator: "",
                close: "</｜DSML｜function_calls>",
                ..QWEN
            },
            ToolFormat::Gemma => Self { notation: Notation::Gemma("<|\"|>"), ..GEMMA },
            ToolFormat::FunctionGemma => Self {
                before: "<start_function_call>call:",
                after: "}<end_function_call>",
                notation: Notation::Gemma("<escape>"),
                ..GEMMA
            },
            ToolFormat::Lfm => Self { open: "<|tool_call_start|>[", close: "]<|tool_call_end|>", ..PYTHON },
            ToolFormat::Pythonic => PYTHON,
            _ => QWEN,
        }
    }

    /// The expression of a call of `tool`.
    pub(super) fn call<E>(&self, tool: &Tool, lark: &mut Lark<'_>, json: &mut WriteJson<'_, E>) -> Result<String, E> {
        let schema = parameters(tool);
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let is_required =
            |key: &str| schema["required"].as_array().is_some_and(|keys| keys.iter().any(|one| one == key));
        let (mut required, mut optional) = (Vec::new(), Vec::new());
        for (key, property) in properties {
            let parameter = self.parameter(tool, key, property, lark, json)?;
            let parameter = lark.add(&parameter);
            if is_required(key) { required.push(parameter) } else { optional.push(parameter) }
        }
        let comma = lark.literal(self.comma);
        let parameters = joined(&required, &optional, &comma, lark);
        let before = lark.literal(&[self.before, tool.name.as_str(), self.named].concat());
        Ok(format!("{before} {parameters} {}", lark.literal(self.after)))
    }

    fn parameter<E>(
        &self,
        tool: &Tool,
        key: &str,
        property: &Value,
        lark: &mut Lark<'_>,
        json: &mut WriteJson<'_, E>,
    ) -> Result<String, E> {
        let kind = ParameterType::of(Some(tool), key);
        let before = |value: &str| [self.key, key, value].concat();
        if self.notation == Notation::Bare && kind != ParameterType::Json && property["enum"].is_null() {
            let before = lark.literal(&before(self.text_value));
            return Ok(format!("{before} {}", lark.text_until(self.value_end)));
        }
        let written = value(self.notation, property, tool.strict, lark, json)?;
        let before = lark.literal(&before(if kind == ParameterType::Json { self.json_value } else { self.text_value }));
        Ok(format!("{before} {written} {}", lark.literal(self.value_end)))
    }
}

const GEMMA: Tagged = Tagged {
    open: "",
    before: "<|tool_call>call:",
    named: "{",
    key: "",
    text_value: ":",
    json_value: ":",
    value_end: "",
    comma: ",",
    after: "}<tool_call|>",
    separator: "",
    close: "",
    notation: Notation::Gemma("<|\"|>"),
};
const PYTHON: Tagged = Tagged {
    open: "[",
    before: "",
    named: "(",
    key: "",
    text_value: "=",
    json_value: "=",
    value_end: "",
    comma: ", ",
    after: ")",
    separator: ", ",
    close: "]",
    notation: Notation::Python,
};

/// All `required` parameters, then any of the `optional` ones, in order, with `comma` between them.
fn joined(required: &[String], optional: &[String], comma: &str, lark: &mut Lark<'_>) -> String {
    let with_comma = |parameter: &String| format!("({comma} {parameter})?");
    let first = required.join(&format!(" {comma} "));
    if !required.is_empty() || comma.is_empty() {
        let rest: Vec<_> = optional.iter().map(with_comma).collect();
        return format!("{first} {}", rest.join(" "));
    }
    // Any of them may be the first one.
    let mut alternatives = Vec::new();
    let mut rest = String::new();
    for parameter in optional.iter().rev() {
        alternatives.push(format!("{parameter} {rest}"));
        rest = lark.add(&format!("{} {rest}", with_comma(parameter)));
    }
    if alternatives.is_empty() { String::new() } else { format!("({})?", alternatives.join(" | ")) }
}
