//! Reads `text`: the format that the answer's text must have, and its verbosity.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::word;
use crate::http::answer_form::{self, AnswerForm};
use crate::http::error::ApiError;
use crate::http::params::Params;

const VERBOSITIES: &[&str] = &["low", "medium", "high"];
const FORMATS: &[&str] = &["text", "json_object", "json_schema"];

/// The `text` of a request, and as the answer repeats it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ValidText {
    format: Value,
    verbosity: &'static str,
    /// The form that the format asks for, if it is not text.
    #[serde(skip)]
    pub(super) form: Option<AnswerForm>,
}

// === impl ValidText ===

impl ValidText {
    /// Reads the parameter.
    ///
    /// # Errors
    /// A 400 that names the member and lists what it may be, or says that the format is not supported yet.
    pub(super) fn read(params: &Params<'_>) -> Result<Self, ApiError> {
        let mut valid = Self::default();
        let Some(text) = params.object("text")? else { return Ok(valid) };
        if let Some(verbosity) = word::read(&text, "verbosity", VERBOSITIES)? {
            valid.verbosity = verbosity;
        }
        if let Some(found) = text.get("format") {
            let format = Params::at(&text.path("format"), "an object", found)?;
            if word::read(&format, "type", FORMATS)?.is_some() {
                valid.form = answer_form::response_format(&text.path("format"), &format)?;
            }
            valid.format = found.clone();
        }
        Ok(valid)
    }

    /// Adds the variable by which a chat template may know the verbosity, unless it is the usual one.
    pub(super) fn add_to(&self, template_kwargs: &mut Map<String, Value>) {
        if self.verbosity != "medium" {
            template_kwargs.insert("verbosity".to_owned(), json!(self.verbosity));
        }
    }
}

impl Default for ValidText {
    fn default() -> Self {
        Self { format: json!({"type": "text"}), verbosity: "medium", form: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::{GrammarSource, WhiteSpace};

    fn read(text: &Value) -> Result<ValidText, ApiError> {
        let body = json!({"text": text});
        ValidText::read(&Params::new(body.as_object().unwrap()))
    }

    #[test]
    fn plain_text_is_the_default() {
        for text in [json!(null), json!({}), json!({"format": null}), json!({"format": {"type": "text"}})] {
            assert_eq!(read(&text).unwrap(), ValidText::default(), "{text}");
        }
        assert_eq!(serde_json::to_value(ValidText::default()).unwrap()["format"], json!({"type": "text"}));
    }

    #[test]
    fn json_is_a_form() {
        let schema = json!({"type": "object"});
        for (format, source) in [
            (json!({"type": "json_object"}), GrammarSource::JsonObject),
            (
                json!({"type": "json_schema", "name": "n", "schema": schema, "strict": false}),
                GrammarSource::JsonSchema { schema: schema.clone(), strict: false, white_space: WhiteSpace::Chosen },
            ),
        ] {
            let found = read(&json!({"format": format})).unwrap();
            assert_eq!(found.form.map(|form| form.source), Some(source), "{format}");
        }
    }

    #[test]
    fn the_verbosity_reaches_the_template() {
        let mut kwargs = Map::new();
        read(&json!({"verbosity": "low"})).unwrap().add_to(&mut kwargs);
        assert_eq!(Value::Object(kwargs), json!({"verbosity": "low"}));
    }

    #[test]
    fn other_formats_are_refused_by_name() {
        for (text, param) in [
            (json!("json"), "text"),
            (json!({"verbosity": "lots"}), "text.verbosity"),
            (json!({"format": "json"}), "text.format"),
            (json!({"format": {"type": "xml"}}), "text.format.type"),
            (json!({"format": {"type": "json_schema", "name": "n"}}), "text.format.schema"),
            (json!({"format": {"type": "json_schema", "name": "n", "schema": 5}}), "text.format.schema"),
        ] {
            assert_eq!(read(&text).unwrap_err().param(), Some(param), "{text}");
        }
    }
}
