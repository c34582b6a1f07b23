//! `format`: the form that an answer must have.

use serde_json::Value;

use crate::grammar::{GrammarSource, WhiteSpace};
use crate::http::answer_form::AnswerForm;
use crate::http::error::ApiError;
use crate::http::params::{Params, out_of_range, wrong_type};

const EXPECTED: &str = "json or a JSON schema, which is an object";

/// Reads `format`: `json` for any JSON object, or a schema. `None` if any text will do.
///
/// # Errors
/// A 400 if it is neither `json` nor an object.
pub(super) fn read(params: &Params<'_>) -> Result<Option<AnswerForm>, ApiError> {
    let form = |source| Ok(Some(AnswerForm { param: params.path("format"), source }));
    match params.get("format") {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text == "json" => form(GrammarSource::JsonObject),
        Some(found @ Value::String(_)) => Err(out_of_range(&params.path("format"), EXPECTED, found)),
        Some(schema @ Value::Object(_)) => {
            form(GrammarSource::JsonSchema { schema: schema.clone(), strict: true, white_space: WhiteSpace::Chosen })
        }
        Some(other) => Err(wrong_type(&params.path("format"), EXPECTED, other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_value(format: &Value) -> Result<Option<GrammarSource>, ApiError> {
        let body = json!({"format": format});
        Ok(read(&Params::new(body.as_object().unwrap()))?.map(|form| form.source))
    }

    #[test]
    fn it_is_json_or_a_schema() {
        assert_eq!(read_value(&json!(null)).unwrap(), None);
        assert_eq!(read_value(&json!("")).unwrap(), None);
        assert_eq!(read_value(&json!("json")).unwrap(), Some(GrammarSource::JsonObject));
        let schema = json!({"type": "object"});
        let source =
            GrammarSource::JsonSchema { schema: schema.clone(), strict: true, white_space: WhiteSpace::Chosen };
        assert_eq!(read_value(&schema).unwrap(), Some(source));
        for format in [json!("yaml"), json!(["json"]), json!(true)] {
            assert_eq!(read_value(&format).unwrap_err().json()["error"]["param"], "format", "{format}");
        }
    }
}
