//! Reads `thinking` and `output_config.effort`, and makes of them variables of the chat template.

use serde_json::{Map, Value};

use super::params::{Params, out_of_range};
use crate::http::error::ApiError;

/// The variables by which templates switch reasoning on and off: that of most models, and that of DeepSeek and Granite.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];
/// Least budget of thinking, as in Anthropic's reference.
const BUDGET_TOKENS_MIN: i128 = 1024;
const EFFORTS: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];

/// The request's wishes for thinking.
#[derive(Debug, PartialEq)]
pub(crate) struct Thinking {
    /// Variables of the template. Without `thinking` in the request the model's own default stays.
    pub(crate) template_kwargs: Map<String, Value>,
    /// Most tokens of thinking, if there is a bound.
    pub(crate) tokens_max: Option<u32>,
    /// False if the client wants to know only that there was thinking.
    pub(crate) is_shown: bool,
}

/// Reads the wishes. A budget is a variable of the template, too: few models know it.
///
/// # Errors
/// A 400 that names the parameter.
pub(crate) fn read(params: &Params<'_>) -> Result<Thinking, ApiError> {
    let mut found = Thinking { template_kwargs: Map::new(), tokens_max: None, is_shown: true };
    if let Some(thinking) = params.object("thinking")? {
        found.read_switch(&thinking)?;
    }
    if let Some(effort) = params.object("output_config")?.as_ref().and_then(|config| config.get("effort")) {
        if !effort.as_str().is_some_and(|effort| EFFORTS.contains(&effort)) {
            let expected = format!("one of {}", EFFORTS.join(", "));
            return Err(out_of_range("output_config.effort", &expected, effort));
        }
        found.template_kwargs.insert("reasoning_effort".to_owned(), effort.clone());
    }
    Ok(found)
}

// === impl Thinking ===

impl Thinking {
    fn read_switch(&mut self, thinking: &Params<'_>) -> Result<(), ApiError> {
        let is_on = match thinking.required_text("type")? {
            "enabled" => {
                thinking.required("budget_tokens", "a whole number")?;
                let budget = thinking.whole("budget_tokens", BUDGET_TOKENS_MIN..=i128::from(u32::MAX))?;
                self.tokens_max = budget.map(|tokens| tokens as u32);
                let budget = self.tokens_max.map(|tokens| ("thinking_budget".to_owned(), Value::from(tokens)));
                self.template_kwargs.extend(budget);
                true
            }
            "adaptive" => true,
            "disabled" => false,
            found => {
                let expected = "enabled, adaptive or disabled";
                return Err(out_of_range(&thinking.path("type"), expected, &Value::from(found)));
            }
        };
        self.template_kwargs.extend(SWITCHES.map(|switch| (switch.to_owned(), Value::from(is_on))));
        self.is_shown = match thinking.text("display")? {
            None | Some("summarized") => true,
            Some("omitted") => false,
            Some(found) => {
                return Err(out_of_range(&thinking.path("display"), "summarized or omitted", &Value::from(found)));
            }
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_body(body: &Value) -> Result<Thinking, ApiError> {
        read(&Params::new(body.as_object().unwrap()))
    }

    #[test]
    fn thinking_becomes_variables_of_the_template() {
        for (body, kwargs) in [
            (json!({}), json!({})),
            (
                json!({"thinking": {"type": "enabled", "budget_tokens": 2048}}),
                json!({"thinking_budget": 2048, "enable_thinking": true, "thinking": true}),
            ),
            (json!({"thinking": {"type": "disabled"}}), json!({"enable_thinking": false, "thinking": false})),
            (
                json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
                json!({"enable_thinking": true, "thinking": true, "reasoning_effort": "high"}),
            ),
            (json!({"output_config": {"effort": null}}), json!({})),
        ] {
            assert_eq!(Value::Object(read_body(&body).unwrap().template_kwargs), kwargs, "{body}");
        }
    }

    #[test]
    fn thinking_is_shown_unless_the_client_wants_it_omitted() {
        let shown = |display: &Value| {
            read_body(&json!({"thinking": {"type": "adaptive", "display": display}})).unwrap().is_shown
        };
        assert!(shown(&json!(null)) && shown(&json!("summarized")) && !shown(&json!("omitted")));
        assert!(read_body(&json!({})).unwrap().is_shown);
    }

    #[test]
    fn other_wishes_are_refused_by_name() {
        for (body, param) in [
            (json!({"thinking": true}), "thinking"),
            (json!({"thinking": {}}), "thinking.type"),
            (json!({"thinking": {"type": "between_tools"}}), "thinking.type"),
            (json!({"thinking": {"type": "enabled"}}), "thinking.budget_tokens"),
            (json!({"thinking": {"type": "enabled", "budget_tokens": 1023}}), "thinking.budget_tokens"),
            (json!({"thinking": {"type": "adaptive", "display": "some"}}), "thinking.display"),
            (json!({"output_config": {"effort": "little"}}), "output_config.effort"),
            (json!({"output_config": "high"}), "output_config"),
        ] {
            assert_eq!(read_body(&body).unwrap_err().json()["error"]["param"], param, "{body}");
        }
    }
}
