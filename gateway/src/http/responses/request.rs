//! A request for a response, checked.

use serde_json::{Map, Value};

use super::echo::{self, Echo};
use super::ids::Ids;
use super::input::{self, InputItem};
use super::options::{self, ValidOptions};
use super::reasoning::ValidReasoning;
use super::text_format::ValidText;
use super::tools::ValidTools;
use super::{unsupported, word};
use crate::http::app_state::Settings;
use crate::http::error::ApiError;
use crate::http::generation::options::GenerationOptions;
use crate::http::generation::text_model::TextModel;
use crate::http::params::{Params, wrong_type};
use crate::http::served_model::ModelInfo;
use crate::http::token_options::SamplingRules;

/// A request that can be served once its earlier response and its references are found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ValidRequest {
    /// The new items of the conversation.
    pub(super) input: Vec<InputItem>,
    pub(super) tools: ValidTools,
    /// Variables of the chat template.
    pub(super) template_kwargs: Map<String, Value>,
    pub(super) generation: GenerationOptions,
    /// True if the oldest messages are left out of a conversation that does not fit the context.
    pub(super) truncates: bool,
    /// True if the answer is streamed as events.
    pub(super) stream: bool,
    /// The request's parameters, with the instructions and the id of the earlier response.
    pub(super) echo: Echo,
}

// === impl ValidRequest ===

impl ValidRequest {
    /// Reads a body. Items without an id get one of `ids`.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub(super) fn read(
        body: &Map<String, Value>,
        model: &ModelInfo,
        settings: &Settings,
        text: &dyn TextModel,
        ids: &mut Ids,
    ) -> Result<Self, ApiError> {
        let params = Params::new(body);
        unsupported::refuse(&params)?;
        let options = ValidOptions::read(&params, text, &model.sampling(SamplingRules::OPENAI))?;
        let mut generation = options.generation;
        let tools = ValidTools::read(&params)?;
        let (reasoning, mut text_format) = (ValidReasoning::read(&params)?, ValidText::read(&params)?);
        let mut template_kwargs = Map::new();
        reasoning.add_to(&mut template_kwargs);
        text_format.add_to(&mut template_kwargs);
        generation.form = text_format.form.take();
        let truncation = word::read(&params, "truncation", &["auto", "disabled"])?.unwrap_or("disabled");
        params.text("service_tier")?;
        let owned = |key| Ok::<_, ApiError>(params.text(key)?.map(str::to_owned));
        let echo = Echo {
            background: false,
            frequency_penalty: options.frequency_penalty,
            instructions: owned("instructions")?,
            max_output_tokens: generation.tokens_max,
            max_tool_calls: params.whole("max_tool_calls", 0..=i128::from(u32::MAX))?.map(|calls| calls as u32),
            metadata: echo::metadata(&params)?,
            parallel_tool_calls: parallel_tool_calls(&params)?,
            presence_penalty: options.presence_penalty,
            previous_response_id: owned("previous_response_id")?,
            prompt_cache_key: owned("prompt_cache_key")?,
            reasoning,
            safety_identifier: owned("safety_identifier")?,
            service_tier: "default",
            store: options::store(&params)? && settings.stored_responses_max > 0,
            temperature: options.temperature,
            text: text_format,
            tool_choice: tools.choice_echo.clone(),
            tools: tools.tools_echo.clone(),
            top_logprobs: options.top_logprobs,
            top_p: options.top_p,
            truncation,
            user: owned("user")?,
        };
        let (truncates, stream) = (truncation == "auto", options::stream(&params)?);
        Ok(Self { input: input::read(&params, ids)?, tools, template_kwargs, generation, truncates, stream, echo })
    }
}

fn parallel_tool_calls(params: &Params<'_>) -> Result<bool, ApiError> {
    match params.get("parallel_tool_calls") {
        None => Ok(true),
        Some(Value::Bool(parallel)) => Ok(*parallel),
        Some(other) => Err(wrong_type("parallel_tool_calls", "a boolean", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::generation::text_model::ByteText;
    use serde_json::json;

    fn read(body: &Value) -> Result<ValidRequest, ApiError> {
        let model = ModelInfo { name: "tiny".to_owned(), context_tokens: 64, ..ModelInfo::default() };
        ValidRequest::read(body.as_object().unwrap(), &model, &Settings::default(), &ByteText, &mut Ids::from_seed(1))
    }

    #[test]
    fn a_plain_request_has_the_defaults_of_the_reference() {
        let request = read(&json!({"model": "tiny", "input": "hi"})).unwrap();
        assert_eq!(
            serde_json::to_value(&request.echo).unwrap(),
            json!({
                "background": false, "frequency_penalty": 0.0, "instructions": null, "max_output_tokens": null,
                "max_tool_calls": null, "metadata": {}, "parallel_tool_calls": true, "presence_penalty": 0.0,
                "previous_response_id": null, "prompt_cache_key": null,
                "reasoning": {"effort": null, "summary": null}, "safety_identifier": null, "service_tier": "default",
                "store": true, "temperature": 1.0, "text": {"format": {"type": "text"}, "verbosity": "medium"},
                "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled",
                "user": null
            })
        );
        assert!(!request.truncates && !request.stream && request.template_kwargs.is_empty());
    }

    #[test]
    fn the_request_of_codex_is_read() {
        // The form in which Codex asks a provider with the wire API "responses" (codex-rs/core/src/client.rs).
        let request = read(&json!({
            "model": "tiny", "instructions": "You are a coding agent.",
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "permissions"}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "environment"}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "list the files"}]},
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "ls"}],
                 "encrypted_content": null},
                {"type": "function_call", "name": "shell_command", "arguments": "{\"command\":\"ls\"}",
                 "call_id": "call_1"},
                {"type": "function_call_output", "call_id": "call_1", "output": "src"}
            ],
            "tools": [
                {"type": "function", "name": "shell_command", "description": "Runs a command.", "strict": false,
                 "parameters": {"type": "object", "properties": {"command": {"type": "string"}}}},
                {"type": "namespace", "name": "multi_agent_v1", "description": "Sub-agents.", "tools": [
                    {"type": "function", "name": "spawn_agent", "description": "", "strict": false, "parameters": {}}
                ]},
                {"type": "web_search", "external_web_access": false}
            ],
            "tool_choice": "auto", "parallel_tool_calls": false, "reasoning": null, "store": false, "stream": true,
            "include": ["reasoning.encrypted_content"], "prompt_cache_key": "0199", "client_metadata": {"a": "b"}
        }));
        let request = request.unwrap();
        assert!(request.stream && !request.echo.store && !request.echo.parallel_tool_calls);
        let names: Vec<_> = request.tools.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["shell_command", "multi_agent_v1__spawn_agent"]);
        assert_eq!(request.input.len(), 6);
    }

    #[test]
    fn effort_verbosity_and_truncation_are_read() {
        let request = read(&json!({
            "input": "hi", "reasoning": {"effort": "high"}, "text": {"verbosity": "low"}, "truncation": "auto"
        }));
        let request = request.unwrap();
        let expected = json!({"enable_thinking": true, "reasoning_effort": "high", "verbosity": "low"});
        assert_eq!(Value::Object(request.template_kwargs), expected);
        assert!(request.truncates);
    }

    #[test]
    fn wrong_types_are_refused_by_name() {
        for (param, value) in [
            ("instructions", json!(["x"])),
            ("metadata", json!("x")),
            ("previous_response_id", json!(5)),
            ("parallel_tool_calls", json!("yes")),
            ("truncation", json!("always")),
            ("store", json!(1)),
            ("stream", json!("yes")),
            ("max_tool_calls", json!(-1)),
            ("user", json!({})),
            ("service_tier", json!(1)),
            ("input", json!(null)),
        ] {
            let mut body = json!({"input": "hi"});
            body[param] = value;
            assert_eq!(read(&body).unwrap_err().param(), Some(param), "{body}");
        }
    }

    #[test]
    fn nothing_is_kept_where_the_server_keeps_nothing() {
        let model = ModelInfo { name: "tiny".to_owned(), context_tokens: 64, ..ModelInfo::default() };
        let settings = Settings { stored_responses_max: 0, ..Settings::default() };
        let body = json!({"input": "hi"});
        let body = body.as_object().unwrap();
        let request = ValidRequest::read(body, &model, &settings, &ByteText, &mut Ids::from_seed(1));
        assert!(!request.unwrap().echo.store);
    }
}
