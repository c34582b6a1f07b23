//! Reads the form that an answer's text must have: `output_config.format`, or `output_format`, its name in the beta.

use serde_json::Value;

use super::params::{Params, out_of_range};
use crate::http::answer_form::{self, AnswerForm};
use crate::http::error::ApiError;

/// The one kind of form that Anthropic's API has.
const KIND: &str = "json_schema";

/// Reads the form, if the request asks for one.
///
/// # Errors
/// A 400 that names the parameter, or says that the form is given twice.
pub(crate) fn read(params: &Params<'_>) -> Result<Option<AnswerForm>, ApiError> {
    let config = params.object("output_config")?;
    let form = config.map_or(Ok(None), |config| read_format(&config, "format"))?;
    let beta = read_format(params, "output_format")?;
    if form.is_some() && beta.is_some() {
        let message = "Invalid value for 'output_format': expected no 'output_config.format' beside it.";
        return Err(ApiError::bad_request("invalid_value", message).about("output_format"));
    }
    Ok(form.or(beta))
}

fn read_format(params: &Params<'_>, key: &str) -> Result<Option<AnswerForm>, ApiError> {
    let Some(format) = params.object(key)? else { return Ok(None) };
    let kind = format.required_text("type")?;
    if kind != KIND {
        return Err(out_of_range(&format.path("type"), KIND, &Value::from(kind)));
    }
    answer_form::response_format(&params.path(key), &format)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::grammar::{GrammarSource, WhiteSpace};

    fn read_body(body: &Value) -> Result<Option<AnswerForm>, ApiError> {
        read(&Params::new(body.as_object().unwrap()))
    }

    #[test]
    fn a_schema_is_read_under_either_name() {
        let schema = json!({"type": "object", "additionalProperties": false});
        let format = json!({"type": "json_schema", "schema": schema});
        let source = GrammarSource::JsonSchema { schema, strict: true, white_space: WhiteSpace::Chosen };
        for (body, param) in [
            (json!({"output_config": {"format": format, "effort": "low"}}), "output_config.format.schema"),
            (json!({"output_format": format}), "output_format.schema"),
        ] {
            let form = AnswerForm { param: param.to_owned(), source: source.clone() };
            assert_eq!(read_body(&body).unwrap(), Some(form));
        }
        for none in [json!({}), json!({"output_format": null, "output_config": {"format": null}})] {
            assert_eq!(read_body(&none).unwrap(), None);
        }
    }

    #[test]
    fn other_forms_are_refused_by_name() {
        let format = json!({"type": "json_schema", "schema": {}});
        for (body, param) in [
            (json!({"output_format": "json"}), "output_format"),
            (json!({"output_format": {}}), "output_format.type"),
            (json!({"output_format": {"type": "json_object"}}), "output_format.type"),
            (json!({"output_config": {"format": {"type": "text"}}}), "output_config.format.type"),
            (json!({"output_config": {"format": {"type": "json_schema"}}}), "output_config.format.schema"),
            (json!({"output_config": {"format": {"type": "json_schema", "schema": 5}}}), "output_config.format.schema"),
            (json!({"output_config": {"format": format}, "output_format": format}), "output_format"),
        ] {
            assert_eq!(read_body(&body).unwrap_err().param(), Some(param), "{body}");
        }
    }
}
