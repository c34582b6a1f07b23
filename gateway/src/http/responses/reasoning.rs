//! Reads `reasoning`: the effort that the model is to make before it answers.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::word;
use crate::http::error::ApiError;
use crate::http::params::Params;

const EFFORTS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh", "max"];
const SUMMARIES: &[&str] = &["auto", "concise", "detailed"];

/// The `reasoning` of a request, and as the answer repeats it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct ValidReasoning {
    effort: Option<&'static str>,
    /// The kind of summary that the answer has: always none, since the reasoning itself is in the answer.
    summary: (),
}

// === impl ValidReasoning ===

impl ValidReasoning {
    /// Reads the parameter. A request for summaries is accepted and has no effect.
    ///
    /// # Errors
    /// A 400 that names the member and lists what it may be.
    pub(super) fn read(params: &Params<'_>) -> Result<Self, ApiError> {
        let Some(reasoning) = params.object("reasoning")? else { return Ok(Self::default()) };
        for key in ["summary", "generate_summary"] {
            word::read(&reasoning, key, SUMMARIES)?;
        }
        Ok(Self { effort: word::read(&reasoning, "effort", EFFORTS)?, summary: () })
    }

    /// Adds the variables by which chat templates know the effort. Templates have two of them: a switch, and a word.
    pub(super) fn add_to(&self, template_kwargs: &mut Map<String, Value>) {
        let Some(effort) = self.effort else { return };
        template_kwargs.insert("enable_thinking".to_owned(), json!(effort != "none"));
        if effort != "none" {
            template_kwargs.insert("reasoning_effort".to_owned(), json!(effort));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value) -> Result<ValidReasoning, ApiError> {
        ValidReasoning::read(&Params::new(body.as_object().unwrap()))
    }

    #[test]
    fn the_effort_reaches_the_template_as_a_switch_and_a_word() {
        let kwargs = |reasoning: Value| {
            let mut kwargs = Map::new();
            read(&json!({"reasoning": reasoning})).unwrap().add_to(&mut kwargs);
            Value::Object(kwargs)
        };
        assert_eq!(kwargs(json!(null)), json!({}));
        assert_eq!(kwargs(json!({"effort": null, "summary": "auto"})), json!({}));
        assert_eq!(kwargs(json!({"effort": "none"})), json!({"enable_thinking": false}));
        assert_eq!(kwargs(json!({"effort": "low"})), json!({"enable_thinking": true, "reasoning_effort": "low"}));
    }

    #[test]
    fn another_word_is_refused_with_its_path() {
        for (reasoning, param) in [
            (json!("high"), "reasoning"),
            (json!({"effort": "huge"}), "reasoning.effort"),
            (json!({"summary": true}), "reasoning.summary"),
        ] {
            assert_eq!(read(&json!({"reasoning": reasoning})).unwrap_err().param(), Some(param));
        }
    }
}
