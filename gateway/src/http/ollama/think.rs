//! `think`: if, and how much, the model reasons before it answers.

use serde_json::{Map, Value};

use crate::http::error::ApiError;
use crate::http::params::{Params, out_of_range, wrong_type};

const EXPECTED: &str = "true, false, low, medium, high or max";
/// The variables by which templates switch reasoning on and off.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];
const LEVELS: [&str; 4] = ["low", "medium", "high", "max"];

/// The value of `think`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Think {
    /// The model answers at once.
    Off,
    /// It reasons as much as its template says.
    On,
    /// It reasons as much as the level says.
    Level(&'static str),
}

// === impl Think ===

impl Think {
    /// Reads `think`. `None` if it is absent, so that the template's own default holds.
    ///
    /// # Errors
    /// A 400 if it is neither a boolean nor a level.
    pub(super) fn read(params: &Params<'_>) -> Result<Option<Self>, ApiError> {
        let at = || params.path("think");
        match params.get("think") {
            None => Ok(None),
            Some(Value::Bool(false)) => Ok(Some(Self::Off)),
            Some(Value::Bool(true)) => Ok(Some(Self::On)),
            Some(found @ Value::String(text)) => {
                let level = LEVELS.into_iter().find(|level| level == text);
                level.map(|level| Some(Self::Level(level))).ok_or_else(|| out_of_range(&at(), EXPECTED, found))
            }
            Some(other) => Err(wrong_type(&at(), EXPECTED, other)),
        }
    }

    /// The variables that tell it to a chat template.
    pub(super) fn template_kwargs(self) -> Map<String, Value> {
        let switch = |name: &str| (name.to_owned(), Value::Bool(self != Self::Off));
        let mut kwargs: Map<_, _> = SWITCHES.into_iter().map(switch).collect();
        if let Self::Level(level) = self {
            kwargs.insert("reasoning_effort".to_owned(), Value::from(level));
        }
        kwargs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(think: &Value) -> Result<Option<Think>, ApiError> {
        let body = json!({"think": think});
        Think::read(&Params::new(body.as_object().unwrap()))
    }

    #[test]
    fn it_is_a_boolean_or_a_level() {
        assert_eq!(read(&json!(null)).unwrap(), None);
        assert_eq!(read(&json!(false)).unwrap(), Some(Think::Off));
        assert_eq!(read(&json!(true)).unwrap(), Some(Think::On));
        assert_eq!(read(&json!("high")).unwrap(), Some(Think::Level("high")));
        for think in [json!("hard"), json!(3), json!({})] {
            assert_eq!(read(&think).unwrap_err().json()["error"]["param"], "think", "{think}");
        }
    }

    #[test]
    fn the_template_is_told_both_if_and_how_much() {
        assert_eq!(json!(Think::Off.template_kwargs()), json!({"enable_thinking": false, "thinking": false}));
        assert_eq!(json!(Think::On.template_kwargs()), json!({"enable_thinking": true, "thinking": true}));
        let level = json!({"enable_thinking": true, "thinking": true, "reasoning_effort": "low"});
        assert_eq!(json!(Think::Level("low").template_kwargs()), level);
    }
}
