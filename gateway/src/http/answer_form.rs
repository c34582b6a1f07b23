//! The form that an answer must have: `response_format` of OpenAI's API, and the parameters of vLLM and of llama.cpp's
//! server for the same.

use engine::generate::SharedGrammar;
use serde_json::Value;

use super::params::{Params, missing, out_of_range, wrong_type};
use crate::grammar::{GrammarError, GrammarSource, WhiteSpace};

use crate::http::error::ApiError;
use crate::http::generation::text_model::TextModel;

/// A form, and the parameter that asks for it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AnswerForm {
    /// Path of the parameter.
    pub(crate) param: String,
    /// The grammar of the form.
    pub(crate) source: GrammarSource,
}

// === impl AnswerForm ===

impl AnswerForm {
    /// Compiles the grammar for the model of `text`. Blocks for milliseconds, seconds at most.
    ///
    /// # Errors
    /// A 400 about the parameter that names what is wrong or not supported, or a 503 if too many grammars are being
    /// compiled.
    pub(crate) fn compile(&self, text: &dyn TextModel) -> Result<SharedGrammar, ApiError> {
        text.compile_grammar(&self.source).map_err(|error| match error {
            GrammarError::Busy { .. } => ApiError::unavailable(format!("The grammar cannot be compiled now: {error}.")),
            GrammarError::Internal { .. } | GrammarError::Thread(_) => ApiError::internal(format!("{error}.")),
            error => {
                let message = format!("Invalid value for '{}': {error}.", self.param);
                ApiError::bad_request("invalid_value", message).about(&self.param)
            }
        })
    }
}

/// Reads the form of the answer, if the request asks for one.
///
/// # Errors
/// A 400 that names the parameter: for a wrong type, an unknown form, or two forms at once.
pub(crate) fn read(params: &Params<'_>) -> Result<Option<AnswerForm>, ApiError> {
    let mut found = Vec::new();
    if let Some(format) = params.object("response_format")? {
        found.extend(response_format("response_format", &format)?);
    }
    if let Some(outputs) = params.object("structured_outputs")? {
        let keys =
            [("json", JSON), ("regex", REGEX), ("choice", CHOICE), ("grammar", GRAMMAR), ("json_object", OBJECT)];
        for (key, read) in keys {
            found.extend(one(&format!("structured_outputs.{key}"), outputs.get(key), read)?);
        }
        if outputs.flag("disable_any_whitespace")? {
            fix_white_space(&mut found)?;
        }
    }
    let keys = [
        ("guided_json", JSON),
        ("guided_regex", REGEX),
        ("guided_choice", CHOICE),
        ("guided_grammar", GRAMMAR),
        ("guided_json_object", OBJECT),
        ("json_schema", JSON),
        ("grammar", GRAMMAR),
    ];
    for (key, read) in keys {
        found.extend(one(key, params.get(key), read)?);
    }
    if let [first, second, ..] = &found[..] {
        let message = format!("Invalid value for '{}': expected no '{}' beside it.", second.param, first.param);
        return Err(ApiError::bad_request("invalid_value", message).about(&second.param));
    }
    Ok(found.pop())
}

/// Fixes the white space of the JSON form that a request asks for.
fn fix_white_space(found: &mut [AnswerForm]) -> Result<(), ApiError> {
    match found {
        [AnswerForm { source: GrammarSource::JsonSchema { white_space, .. }, .. }] => *white_space = WhiteSpace::Fixed,
        [AnswerForm { source: source @ GrammarSource::JsonObject, .. }] => {
            let schema = serde_json::json!({"type": "object"});
            *source = GrammarSource::JsonSchema { schema, strict: true, white_space: WhiteSpace::Fixed };
        }
        _ => {
            let at = "structured_outputs.disable_any_whitespace";
            return Err(out_of_range(at, "json or json_object beside it, and no other form", &true.into()));
        }
    }
    Ok(())
}

/// Reads an object of the form of OpenAI's `response_format`. `at` is its path.
///
/// # Errors
/// As for [`read`].
pub(crate) fn response_format(at: &str, format: &Params<'_>) -> Result<Option<AnswerForm>, ApiError> {
    let expected = "text, json_object or json_schema";
    let kind_at = format!("{at}.type");
    let kind = format.get("type").ok_or_else(|| missing(&kind_at, expected))?;
    match kind.as_str() {
        Some("text") => Ok(None),
        // llama.cpp's server takes a schema here, too.
        Some("json_object") => match format.get("schema") {
            None => Ok(Some(AnswerForm { param: at.to_owned(), source: GrammarSource::JsonObject })),
            Some(schema) => one(&format!("{at}.schema"), Some(schema), JSON),
        },
        Some("json_schema") => {
            // OpenAI's form, or llama.cpp's, which has the schema beside the type.
            let (at, holder) = match format.get("json_schema") {
                Some(Value::Object(map)) => (format!("{at}.json_schema"), Params::new(map)),
                Some(other) => return Err(wrong_type(&format!("{at}.json_schema"), "an object", other)),
                None => (at.to_owned(), format.clone()),
            };
            let schema_at = format!("{at}.schema");
            let schema = holder.get("schema").ok_or_else(|| missing(&schema_at, "a JSON schema"))?;
            // A request that asks for `strict` leaves nothing open, white space included: most of its text is forced.
            let asked = match holder.get("strict") {
                None => (true, WhiteSpace::Chosen),
                Some(Value::Bool(true)) => (true, WhiteSpace::Fixed),
                Some(Value::Bool(false)) => (false, WhiteSpace::Chosen),
                Some(other) => return Err(wrong_type(&format!("{at}.strict"), "a boolean", other)),
            };
            let mut source = JSON(&schema_at, schema)?;
            if let Some(GrammarSource::JsonSchema { strict, white_space, .. }) = &mut source {
                (*strict, *white_space) = asked;
            }
            Ok(source.map(|source| AnswerForm { param: schema_at, source }))
        }
        Some(_) => Err(out_of_range(&kind_at, expected, kind)),
        None => Err(wrong_type(&kind_at, "a string", kind)),
    }
}

/// Reads the value of one parameter. `Ok(None)` if it asks for nothing.
type Read = fn(&str, &Value) -> Result<Option<GrammarSource>, ApiError>;

const JSON: Read = |at, value| match value {
    Value::Object(_) | Value::Bool(true) => {
        Ok(Some(GrammarSource::JsonSchema { schema: value.clone(), strict: true, white_space: WhiteSpace::Chosen }))
    }
    Value::String(text) => match serde_json::from_str(text) {
        Ok(schema @ (Value::Object(_) | Value::Bool(_))) => {
            Ok(Some(GrammarSource::JsonSchema { schema, strict: true, white_space: WhiteSpace::Chosen }))
        }
        Ok(_) | Err(_) => Err(out_of_range(at, "a JSON schema, as an object or as its text", value)),
    },
    other => Err(wrong_type(at, "a JSON schema, as an object or as its text", other)),
};
const REGEX: Read = |at, value| Ok(Some(GrammarSource::Regex(text(at, value)?)));
const GRAMMAR: Read = |at, value| {
    let text = text(at, value)?;
    // Rules of GBNF are written with "::=", which Lark does not have.
    Ok(Some(if text.contains("::=") { GrammarSource::Gbnf(text) } else { GrammarSource::Lark(text) }))
};
const OBJECT: Read = |at, value| match value {
    Value::Bool(asks) => Ok(asks.then_some(GrammarSource::JsonObject)),
    other => Err(wrong_type(at, "a boolean", other)),
};
const CHOICE: Read = |at, value| {
    let list = value.as_array().ok_or_else(|| wrong_type(at, "an array of strings", value))?;
    if list.is_empty() {
        return Err(out_of_range(at, "at least one string", value));
    }
    let choices = list.iter().enumerate().map(|(index, choice)| text(&format!("{at}[{index}]"), choice));
    choices.collect::<Result<_, _>>().map(|choices| Some(GrammarSource::Choice(choices)))
};

fn one(at: &str, value: Option<&Value>, read: Read) -> Result<Option<AnswerForm>, ApiError> {
    // An empty text or object asks for nothing, as in llama.cpp's server.
    let is_empty =
        |value: &Value| value.as_str() == Some("") || value.as_object().is_some_and(serde_json::Map::is_empty);
    let Some(value) = value.filter(|value| !is_empty(value)) else { return Ok(None) };
    Ok(read(at, value)?.map(|source| AnswerForm { param: at.to_owned(), source }))
}

fn text(at: &str, value: &Value) -> Result<String, ApiError> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong_type(at, "a string", value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_value(value: &Value) -> Result<Option<AnswerForm>, ApiError> {
        read(&Params::new(value.as_object().unwrap()))
    }

    fn schema(strict: bool) -> GrammarSource {
        GrammarSource::JsonSchema { schema: json!({"type": "object"}), strict, white_space: WhiteSpace::Chosen }
    }

    #[test]
    fn every_spelling_of_a_form_is_read() {
        let own = json!({"type": "object"});
        let text = |text: &str| text.to_owned();
        let fixed = GrammarSource::JsonSchema { schema: own.clone(), strict: true, white_space: WhiteSpace::Fixed };
        for (value, param, source) in [
            (json!({"response_format": {"type": "json_object"}}), "response_format", GrammarSource::JsonObject),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": own}}}),
                "response_format.json_schema.schema",
                schema(true),
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"schema": own, "strict": false}}}),
                "response_format.json_schema.schema",
                schema(false),
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"schema": own, "strict": true}}}),
                "response_format.json_schema.schema",
                fixed.clone(),
            ),
            (
                json!({"response_format": {"type": "json_schema", "schema": own}}),
                "response_format.schema",
                schema(true),
            ),
            (
                json!({"response_format": {"type": "json_object", "schema": own}}),
                "response_format.schema",
                schema(true),
            ),
            (json!({"guided_json": "{\"type\": \"object\"}"}), "guided_json", schema(true)),
            (json!({"json_schema": own}), "json_schema", schema(true)),
            (json!({"guided_regex": "a+"}), "guided_regex", GrammarSource::Regex(text("a+"))),
            (json!({"guided_choice": ["a", "b"]}), "guided_choice", GrammarSource::Choice(vec![text("a"), text("b")])),
            (json!({"grammar": "root ::= \"a\""}), "grammar", GrammarSource::Gbnf(text("root ::= \"a\""))),
            (json!({"guided_grammar": "start: \"a\""}), "guided_grammar", GrammarSource::Lark(text("start: \"a\""))),
            (
                json!({"structured_outputs": {"json": own, "disable_any_whitespace": true}}),
                "structured_outputs.json",
                fixed.clone(),
            ),
            (
                json!({"structured_outputs": {"json_object": true, "disable_any_whitespace": true}}),
                "structured_outputs.json_object",
                fixed.clone(),
            ),
            (
                json!({"structured_outputs": {"regex": "b"}}),
                "structured_outputs.regex",
                GrammarSource::Regex(text("b")),
            ),
        ] {
            assert_eq!(read_value(&value).unwrap(), Some(AnswerForm { param: text(param), source }), "{value}");
        }
        for value in [
            json!({}),
            json!({"response_format": {"type": "text"}}),
            json!({"grammar": "", "json_schema": {}, "structured_outputs": {}, "guided_json_object": false}),
        ] {
            assert_eq!(read_value(&value).unwrap(), None, "{value}");
        }
    }

    #[test]
    fn wrong_forms_are_refused_by_name() {
        for (value, param) in [
            (json!({"response_format": "json"}), "response_format"),
            (json!({"response_format": {}}), "response_format.type"),
            (json!({"response_format": {"type": "xml"}}), "response_format.type"),
            (json!({"response_format": {"type": "json_schema"}}), "response_format.schema"),
            (json!({"response_format": {"type": "json_schema", "json_schema": []}}), "response_format.json_schema"),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}),
                "response_format.json_schema.schema",
            ),
            (json!({"guided_json": "not json"}), "guided_json"),
            (json!({"guided_choice": []}), "guided_choice"),
            (json!({"guided_choice": ["a", 1]}), "guided_choice[1]"),
            (json!({"grammar": 5}), "grammar"),
            (json!({"guided_regex": "a", "guided_choice": ["a"]}), "guided_choice"),
            (
                json!({"structured_outputs": {"regex": "a", "disable_any_whitespace": true}}),
                "structured_outputs.disable_any_whitespace",
            ),
            (
                json!({"structured_outputs": {"disable_any_whitespace": true}}),
                "structured_outputs.disable_any_whitespace",
            ),
        ] {
            let error = read_value(&value).unwrap_err();
            assert_eq!(error.json()["error"]["param"], param, "{value}");
        }
    }
}
