//! The parameters of a request, as its answer repeats them.

use serde::Serialize;
use serde_json::{Map, Value};

use super::reasoning::ValidReasoning;
use super::text_format::ValidText;
use crate::http::error::ApiError;
use crate::http::limits::{METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX};
use crate::http::params::{Params, out_of_range, wrong_type};

/// The fields of a response that come from its request. Those that were not given have the values that held.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Echo {
    /// Always false: no response runs in the background.
    pub(super) background: bool,
    pub(super) frequency_penalty: f64,
    pub(super) instructions: Option<String>,
    pub(super) max_output_tokens: Option<u32>,
    pub(super) max_tool_calls: Option<u32>,
    pub(super) metadata: Map<String, Value>,
    pub(super) parallel_tool_calls: bool,
    pub(super) presence_penalty: f64,
    pub(super) previous_response_id: Option<String>,
    pub(super) prompt_cache_key: Option<String>,
    pub(super) reasoning: ValidReasoning,
    pub(super) safety_identifier: Option<String>,
    /// Always `default`: there is one tier.
    pub(super) service_tier: &'static str,
    /// True if the response is kept.
    pub(super) store: bool,
    pub(super) temperature: f64,
    pub(super) text: ValidText,
    pub(super) tool_choice: Value,
    pub(super) tools: Vec<Value>,
    pub(super) top_logprobs: u32,
    pub(super) top_p: f64,
    pub(super) truncation: &'static str,
    pub(super) user: Option<String>,
}

/// Reads `metadata`: a few short texts that the client finds again in the answer.
///
/// # Errors
/// A 400 that names the pair that is too long or no text.
pub(super) fn metadata(params: &Params<'_>) -> Result<Map<String, Value>, ApiError> {
    let Some(found) = params.get("metadata") else { return Ok(Map::new()) };
    let pairs = found.as_object().ok_or_else(|| wrong_type("metadata", "an object of strings", found))?;
    if pairs.len() > METADATA_PAIRS_MAX {
        return Err(out_of_range("metadata", &format!("at most {METADATA_PAIRS_MAX} pairs"), found));
    }
    let object = Params::at("metadata", "an object", found)?;
    for (key, value) in pairs {
        let text = object.text(key)?.unwrap_or_default();
        if key.chars().count() > METADATA_KEY_CHARS_MAX || text.chars().count() > METADATA_VALUE_CHARS_MAX {
            let expected = format!(
                "keys of at most {METADATA_KEY_CHARS_MAX} and values of at most {METADATA_VALUE_CHARS_MAX} characters"
            );
            return Err(out_of_range("metadata", &expected, value));
        }
    }
    Ok(pairs.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(found: &Value) -> Result<Map<String, Value>, ApiError> {
        let body = json!({"metadata": found});
        metadata(&Params::new(body.as_object().unwrap()))
    }

    #[test]
    fn metadata_are_a_few_short_texts() {
        assert_eq!(Value::Object(read(&json!({"a": "b"})).unwrap()), json!({"a": "b"}));
        assert!(read(&json!(null)).unwrap().is_empty());
        let many: Map<String, Value> = (0..17).map(|number| (number.to_string(), json!(""))).collect();
        for (found, param) in [
            (json!([]), "metadata"),
            (json!({"a": 5}), "metadata.a"),
            (json!({"a": "x".repeat(513)}), "metadata"),
            (json!({"x".repeat(65): ""}), "metadata"),
            (Value::Object(many), "metadata"),
        ] {
            assert_eq!(read(&found).unwrap_err().param(), Some(param), "{found}");
        }
    }
}
