//! Reads the options of a chat's prompt and of its reasoning: variables of the chat template, the end of the prompt,
//! and the bound on reasoning. Besides OpenAI's `reasoning_effort`, the names are those of vLLM and of llama.cpp's
//! server.

use serde_json::{Map, Value};

use super::params::{Params, out_of_range};
use crate::http::app_state::Settings;
use crate::http::error::ApiError;
use crate::http::generation::text_model::{Conversation, PromptEnding};
use crate::http::limits::TEMPLATE_BYTES_MAX;

/// OpenAI's values of `reasoning_effort`. `none` turns reasoning off.
const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];
/// The variables by which templates switch reasoning on and off: that of most models, and that of DeepSeek and Granite.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];

/// The options of a chat's prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TemplateOptions {
    /// Variables of the template.
    pub(crate) kwargs: Map<String, Value>,
    pub(crate) ending: PromptEnding,
    /// The template's source, if it is not the model's own.
    pub(crate) template: Option<String>,
    /// Most tokens of reasoning, if there is a bound.
    pub(crate) reasoning_tokens_max: Option<u32>,
}

/// Reads the options. A variable in `chat_template_kwargs` counts more than the parameter that stands for it.
///
/// # Errors
/// A 400 that names the parameter.
pub(crate) fn read(params: &Params<'_>, settings: &Settings) -> Result<TemplateOptions, ApiError> {
    let template = template(params, settings)?;
    params.object("chat_template_kwargs")?;
    let given = params.get("chat_template_kwargs").and_then(Value::as_object).cloned().unwrap_or_default();
    let conversation = Conversation { template_kwargs: given.clone(), ..Conversation::default() };
    if let Err(error) = conversation.check_variables() {
        let message = format!("Invalid value for 'chat_template_kwargs': {error}.");
        return Err(ApiError::bad_request("invalid_value", message).about("chat_template_kwargs"));
    }
    let mut kwargs = switches(params)?;
    kwargs.extend(given);
    // llama.cpp has -1 for "no bound".
    let budget = params.whole("thinking_budget_tokens", -1..=i128::from(u32::MAX))?;
    let reasoning_tokens_max = budget.and_then(|tokens| u32::try_from(tokens).ok());
    Ok(TemplateOptions { kwargs, ending: ending(params)?, template, reasoning_tokens_max })
}

/// The request's own template. It is untrusted, as is every template; yet its author decides what the model takes for
/// the system's words, so the operator has to allow it.
fn template(params: &Params<'_>, settings: &Settings) -> Result<Option<String>, ApiError> {
    let Some(template) = params.text("chat_template")?.filter(|template| !template.is_empty()) else { return Ok(None) };
    if !settings.trusts_request_chat_template {
        let message = "'chat_template' is not taken from requests by this server, unless its operator allows it with \
                       --trust-request-chat-template.";
        return Err(ApiError::unsupported("chat_template", message));
    }
    if template.len() > TEMPLATE_BYTES_MAX {
        let expected = format!("a template of at most {TEMPLATE_BYTES_MAX} bytes");
        return Err(out_of_range("chat_template", &expected, &Value::from(template)));
    }
    Ok(Some(template.to_owned()))
}

/// The variables that `reasoning_effort` and `enable_thinking` stand for.
fn switches(params: &Params<'_>) -> Result<Map<String, Value>, ApiError> {
    let mut kwargs = Map::new();
    let mut is_on = None;
    if let Some(effort) = params.text("reasoning_effort")? {
        if !EFFORTS.contains(&effort) {
            let expected = format!("one of {}", EFFORTS.join(", "));
            return Err(out_of_range("reasoning_effort", &expected, &Value::from(effort)));
        }
        kwargs.insert("reasoning_effort".to_owned(), effort.into());
        is_on = Some(effort != "none");
    }
    if params.get("enable_thinking").is_some() {
        let enabled = params.flag("enable_thinking")?;
        if is_on.is_some_and(|is_on| is_on != enabled) {
            let message = "Invalid value for 'enable_thinking': expected what 'reasoning_effort' says beside it.";
            return Err(ApiError::bad_request("invalid_value", message).about("enable_thinking"));
        }
        is_on = Some(enabled);
    }
    kwargs.extend(SWITCHES.into_iter().filter_map(|name| Some((name.to_owned(), is_on?.into()))));
    Ok(kwargs)
}

fn ending(params: &Params<'_>) -> Result<PromptEnding, ApiError> {
    let continued = params.flag("continue_final_message")?;
    let generation = match params.get("add_generation_prompt") {
        None => None,
        Some(_) => Some(params.flag("add_generation_prompt")?),
    };
    match (continued, generation) {
        (true, Some(true)) => {
            let message = "Invalid value for 'continue_final_message': expected 'add_generation_prompt' to be false \
                           beside it.";
            Err(ApiError::bad_request("invalid_value", message).about("continue_final_message"))
        }
        (true, _) => Ok(PromptEnding::Continued),
        (false, Some(false)) => Ok(PromptEnding::Complete),
        (false, _) => Ok(PromptEnding::Generation),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_body(body: &Value) -> Result<TemplateOptions, ApiError> {
        read(&Params::new(body.as_object().unwrap()), &Settings::default())
    }

    #[test]
    fn a_template_is_taken_only_where_the_operator_trusts_requests() {
        let body = |template: Value| json!({"chat_template": template});
        for absent in [json!(null), json!("")] {
            assert_eq!(read_body(&body(absent)).unwrap().template, None);
        }
        let error = read_body(&body(json!("{{ messages }}"))).unwrap_err();
        assert_eq!(error.param(), Some("chat_template"));
        assert!(error.json()["error"]["message"].as_str().unwrap().contains("--trust-request-chat-template"));
        let trusting = Settings { trusts_request_chat_template: true, ..Settings::default() };
        let read = |template| read(&Params::new(body(template).as_object().unwrap()), &trusting);
        assert_eq!(read(json!("{{ messages }}")).unwrap().template.as_deref(), Some("{{ messages }}"));
        for bad in [json!(5), json!(["a"]), json!("x".repeat(TEMPLATE_BYTES_MAX + 1))] {
            assert_eq!(read(bad).unwrap_err().param(), Some("chat_template"));
        }
    }

    #[test]
    fn reasoning_becomes_variables_of_the_template() {
        for (body, kwargs) in [
            (json!({}), json!({})),
            (
                json!({"reasoning_effort": "high"}),
                json!({"reasoning_effort": "high", "enable_thinking": true, "thinking": true}),
            ),
            (
                json!({"reasoning_effort": "none", "enable_thinking": false}),
                json!({"reasoning_effort": "none", "enable_thinking": false, "thinking": false}),
            ),
            (json!({"enable_thinking": false}), json!({"enable_thinking": false, "thinking": false})),
            (
                json!({"enable_thinking": false, "chat_template_kwargs": {"thinking": true, "x": [1, {}]}}),
                json!({"enable_thinking": false, "thinking": true, "x": [1, {}]}),
            ),
            (json!({"reasoning_effort": null, "chat_template_kwargs": null}), json!({})),
        ] {
            assert_eq!(Value::Object(read_body(&body).unwrap().kwargs), kwargs, "{body}");
        }
    }

    #[test]
    fn the_prompt_ends_as_the_request_says() {
        for (body, ending) in [
            (json!({}), PromptEnding::Generation),
            (json!({"add_generation_prompt": true}), PromptEnding::Generation),
            (json!({"add_generation_prompt": false}), PromptEnding::Complete),
            (json!({"continue_final_message": true}), PromptEnding::Continued),
            (json!({"continue_final_message": true, "add_generation_prompt": false}), PromptEnding::Continued),
        ] {
            assert_eq!(read_body(&body).unwrap().ending, ending, "{body}");
        }
    }

    #[test]
    fn a_budget_bounds_reasoning_and_minus_one_does_not() {
        let budget =
            |tokens: Value| read_body(&json!({"thinking_budget_tokens": tokens})).unwrap().reasoning_tokens_max;
        assert_eq!(
            (budget(json!(0)), budget(json!(5)), budget(json!(-1)), budget(json!(null))),
            (Some(0), Some(5), None, None)
        );
    }

    #[test]
    fn other_values_are_refused_by_name() {
        for (body, param) in [
            (json!({"chat_template_kwargs": []}), "chat_template_kwargs"),
            (json!({"chat_template_kwargs": {"messages": []}}), "chat_template_kwargs"),
            (json!({"chat_template_kwargs": {"__now": 5}}), "chat_template_kwargs"),
            (json!({"chat_template_kwargs": {"x": "x".repeat(1 << 17)}}), "chat_template_kwargs"),
            (json!({"reasoning_effort": "much"}), "reasoning_effort"),
            (json!({"reasoning_effort": 5}), "reasoning_effort"),
            (json!({"enable_thinking": "yes"}), "enable_thinking"),
            (json!({"enable_thinking": false, "reasoning_effort": "low"}), "enable_thinking"),
            (json!({"thinking_budget_tokens": -2}), "thinking_budget_tokens"),
            (json!({"thinking_budget_tokens": "few"}), "thinking_budget_tokens"),
            (json!({"continue_final_message": true, "add_generation_prompt": true}), "continue_final_message"),
            (json!({"add_generation_prompt": 1}), "add_generation_prompt"),
        ] {
            assert_eq!(read_body(&body).unwrap_err().json()["error"]["param"], param, "{body}");
        }
    }
}
