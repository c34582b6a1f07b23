//! The options of a request's generation: sampling, limits and scores.

use engine::generate::TokenOptions;
use schema::frame::ALTERNATIVES_MAX;
use serde_json::Value;

use super::word;
use crate::http::error::ApiError;
use crate::http::generation::options::GenerationOptions;
use crate::http::generation::text_model::TextModel;
use crate::http::openai::options::PRIORITIES;
use crate::http::params::{Params, wrong_type};
use crate::http::token_options::{self, SamplingRules};

/// The part of `include` that changes an answer.
const LOGPROBS: &str = "message.output_text.logprobs";
/// Everything that `include` may list. Apart from [`LOGPROBS`], it is about tools that this server does not run, or
/// about reasoning, which is never encrypted here: its text is in the answer.
const INCLUDABLE: &[&str] = &[
    LOGPROBS,
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];

/// The options, each within its range.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ValidOptions {
    pub(super) generation: GenerationOptions,
    /// As the request has it, or its default, for the answer.
    pub(super) temperature: f64,
    /// As the request has it, or its default, for the answer.
    pub(super) top_p: f64,
    /// As the request has it, for the answer.
    pub(super) presence_penalty: f64,
    /// As the request has it, for the answer.
    pub(super) frequency_penalty: f64,
    /// Number of the likeliest tokens at each position that the answer has.
    pub(super) top_logprobs: u32,
}

// === impl ValidOptions ===

impl ValidOptions {
    /// Reads the options. Those that OpenAI's reference does not have are extensions, as in the older endpoints.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub(super) fn read(params: &Params<'_>, text: &dyn TextModel, rules: &SamplingRules) -> Result<Self, ApiError> {
        let top_logprobs = params.whole("top_logprobs", 0..=i128::from(ALTERNATIVES_MAX))?.map_or(0, |top| top as u32);
        let logprobs = includes_logprobs(params)? || top_logprobs > 0;
        let tokens = TokenOptions {
            alternatives: logprobs.then_some(top_logprobs),
            ..token_options::read(params, text, rules)?
        };
        let generation = GenerationOptions {
            tokens,
            tokens_max: params.whole("max_output_tokens", 1..=i128::from(u32::MAX))?.map(|tokens| tokens as u32),
            priority: params.whole("priority", PRIORITIES)?.map_or(0, |priority| priority as i32),
            logprobs,
            top_logprobs: top_logprobs as usize,
            ..GenerationOptions::new(0)
        };
        let temperature = params.number("temperature", 0.0..=2.0)?.unwrap_or(rules.defaults.temperature);
        let top_p = params.number("top_p", 0.0..=1.0)?.unwrap_or(rules.defaults.top_p);
        let penalty = |name| Ok::<_, ApiError>(params.number(name, -2.0..=2.0)?.unwrap_or(0.0));
        let (presence_penalty, frequency_penalty) = (penalty("presence_penalty")?, penalty("frequency_penalty")?);
        Ok(Self { generation, temperature, top_p, presence_penalty, frequency_penalty, top_logprobs })
    }
}

/// True if the answer's texts are to have log-probabilities.
fn includes_logprobs(params: &Params<'_>) -> Result<bool, ApiError> {
    let mut includes = false;
    for (index, found) in params.list("include")?.unwrap_or_default().iter().enumerate() {
        includes |= word::of(&format!("include[{index}]"), found, INCLUDABLE)? == LOGPROBS;
    }
    Ok(includes)
}

/// True if the answer is streamed as events. `stream_options` needs that; obfuscation is accepted and has no effect.
///
/// # Errors
/// A 400 that names the parameter.
pub(super) fn stream(params: &Params<'_>) -> Result<bool, ApiError> {
    let stream = params.flag("stream")?;
    let Some(options) = params.object("stream_options")? else { return Ok(stream) };
    if !stream {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is true.";
        return Err(ApiError::bad_request("invalid_value", message).about("stream_options"));
    }
    options.flag("include_obfuscation")?;
    Ok(stream)
}

/// True if the response is kept. A response that says nothing of it is.
///
/// # Errors
/// A 400 if it is no boolean.
pub(super) fn store(params: &Params<'_>) -> Result<bool, ApiError> {
    match params.get("store") {
        None => Ok(true),
        Some(Value::Bool(store)) => Ok(*store),
        Some(other) => Err(wrong_type("store", "a boolean", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::generation::text_model::ByteText;
    use schema::frame::Sampling;
    use serde_json::json;

    fn read(body: &Value) -> Result<ValidOptions, ApiError> {
        ValidOptions::read(&Params::new(body.as_object().unwrap()), &ByteText, &SamplingRules::OPENAI)
    }

    #[test]
    fn absent_options_have_the_defaults_of_the_reference() {
        let options = read(&json!({"seed": 7, "temperature": null})).unwrap();
        assert_eq!(options.generation, GenerationOptions::new(7));
        assert_eq!((options.temperature, options.top_p, options.top_logprobs), (1.0, 1.0, 0));
    }

    #[test]
    fn every_option_reaches_the_generation() {
        let options = read(&json!({
            "temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "seed": -1, "priority": -2,
            "max_output_tokens": 16, "presence_penalty": 0.5
        }));
        let generation = options.unwrap().generation;
        let sampling =
            Sampling { temperature: 0.0, top_k: 3, top_p: 0.5, min_p: 0.1, seed: u64::MAX, ..Sampling::PLAIN };
        assert_eq!(generation.tokens.sampling, sampling);
        assert_eq!((generation.tokens_max, generation.priority), (Some(16), -2));
        assert_eq!(generation.tokens.penalties.presence, 0.5);
    }

    #[test]
    fn log_probabilities_are_included_on_request() {
        let asked = |body: Value| {
            let generation = read(&body).unwrap().generation;
            (generation.logprobs, generation.top_logprobs, generation.tokens.alternatives)
        };
        assert_eq!(asked(json!({"include": ["reasoning.encrypted_content"]})), (false, 0, None));
        assert_eq!(asked(json!({"include": [LOGPROBS]})), (true, 0, Some(0)));
        assert_eq!(asked(json!({"include": [LOGPROBS], "top_logprobs": 2})), (true, 2, Some(2)));
        assert_eq!(asked(json!({"top_logprobs": 2})), (true, 2, Some(2)));
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (body, param) in [
            (json!({"temperature": 2.1}), "temperature"),
            (json!({"top_p": -1}), "top_p"),
            (json!({"top_logprobs": 21}), "top_logprobs"),
            (json!({"max_output_tokens": 0}), "max_output_tokens"),
            (json!({"max_output_tokens": "many"}), "max_output_tokens"),
            (json!({"include": "logprobs"}), "include"),
            (json!({"include": ["everything"]}), "include[0]"),
            (json!({"seed": 1.5}), "seed"),
        ] {
            assert_eq!(read(&body).unwrap_err().param(), Some(param), "{body}");
        }
    }

    #[test]
    fn stream_options_need_a_stream_and_responses_are_kept_unless_refused() {
        let read = |body: &Value| {
            let params = Params::new(body.as_object().unwrap());
            (stream(&params).ok(), store(&params).ok())
        };
        assert_eq!(read(&json!({})), (Some(false), Some(true)));
        assert_eq!(read(&json!({"stream": true, "store": false})), (Some(true), Some(false)));
        let obfuscated = json!({"stream": true, "stream_options": {"include_obfuscation": false}, "store": null});
        assert_eq!(read(&obfuscated), (Some(true), Some(true)));
        assert_eq!(read(&json!({"stream_options": {}, "store": "no"})), (None, None));
    }
}
