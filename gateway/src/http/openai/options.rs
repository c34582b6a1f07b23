//! The options of a request to either completion endpoint, checked.

use std::ops::RangeInclusive;

use engine::generate::TokenOptions;
use schema::frame::ALTERNATIVES_MAX;
use serde_json::Value;

use super::params::{Params, whole};
use super::unsupported;
use crate::http::answer_form;
use crate::http::app_state::Settings;
use crate::http::error::ApiError;
use crate::http::generation::options::GenerationOptions;
use crate::http::generation::text_model::TextModel;
use crate::http::generation::token_logprob::TokenNames;
use crate::http::limits::{STOP_STRINGS_MAX, STOP_TOKENS_MAX};
use crate::http::served_model::ModelInfo;
use crate::http::stop_strings;
use crate::http::token_options::{self, SamplingRules};

/// Values of `priority`. The next smaller one is reserved for requests that were overtaken too often.
pub(crate) const PRIORITIES: RangeInclusive<i128> = -(i32::MAX as i128)..=i32::MAX as i128;

/// A request's options, each within its range.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ValidOptions {
    pub(crate) generation: GenerationOptions,
    /// True if the answer is streamed as events.
    pub(crate) stream: bool,
    pub(crate) usage: StreamedUsage,
    /// True if a stream says how much of its prompts is computed.
    pub(crate) progress: bool,
    /// The way in which log-probabilities name tokens.
    pub(crate) token_names: TokenNames,
}

/// The usage in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamedUsage {
    /// It has none.
    None,
    /// A last chunk has it.
    AtEnd,
    /// Every chunk has the usage so far, and a last one all of it.
    Always,
}

// === impl ValidOptions ===

impl ValidOptions {
    /// Reads and checks the options that the endpoints share. `logprobs` reads the parameters for the log-probabilities
    /// of the answer, which differ: the number of the likeliest tokens to report beside each, or `None` if none are
    /// asked for.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub(crate) fn read(
        params: &Params<'_>,
        logprobs: impl FnOnce(&Params<'_>) -> Result<Option<u32>, ApiError>,
        model: &ModelInfo,
        settings: &Settings,
        text: &dyn TextModel,
    ) -> Result<Self, ApiError> {
        unsupported::refuse(params)?;
        let stream = params.flag("stream")?;
        let logprobs = logprobs(params)?;
        let prompt_logprobs = prompt_logprobs(params, stream)?;
        let tokens = TokenOptions {
            // One number for both, because both may be of the same micro-batch. The answer shows those asked for.
            alternatives: logprobs.max(prompt_logprobs),
            scores_prompt: prompt_logprobs.is_some(),
            ..token_options::read(params, text, &model.sampling(SamplingRules::OPENAI))?
        };
        let generation = GenerationOptions {
            tokens,
            form: answer_form::read(params)?,
            tokens_max: tokens_max(params)?,
            stop: stop_strings::read(params, "stop", STOP_STRINGS_MAX)?,
            includes_stop: params.flag("include_stop_str_in_output")?,
            stop_tokens: stop_tokens(params)?,
            ignore_eos: params.flag("ignore_eos")?,
            choices: params.whole("n", 1..=i128::from(settings.choices_max))?.map_or(1, |n| n as u32),
            priority: params.whole("priority", PRIORITIES)?.map_or(0, |priority| priority as i32),
            logprobs: logprobs.is_some(),
            top_logprobs: logprobs.unwrap_or(0) as usize,
            prompt_logprobs: prompt_logprobs.map(|top| top as usize),
            token_ids: params.flag("return_token_ids")?,
            ..GenerationOptions::new(0)
        };
        let are_ids = params.flag("return_tokens_as_token_ids")?;
        let token_names = if are_ids { TokenNames::Ids } else { TokenNames::Texts };
        let progress = params.flag("return_progress")?;
        Ok(Self { generation, stream, usage: StreamedUsage::read(params, stream)?, progress, token_names })
    }
}

/// vLLM's `prompt_logprobs`: the number of the likeliest tokens to report beside each token of the prompt. -1 and
/// `false` mean that none are asked for.
fn prompt_logprobs(params: &Params<'_>, stream: bool) -> Result<Option<u32>, ApiError> {
    if params.get("prompt_logprobs") == Some(&Value::Bool(false)) {
        return Ok(None);
    }
    let top =
        params.whole("prompt_logprobs", -1..=i128::from(ALTERNATIVES_MAX))?.and_then(|top| u32::try_from(top).ok());
    if top.is_some() && stream {
        let message = "Invalid value for 'prompt_logprobs': expected 'stream' to be false beside it.";
        return Err(ApiError::bad_request("invalid_value", message).about("prompt_logprobs"));
    }
    Ok(top)
}

/// `max_completion_tokens` wins over `max_tokens`, its older name.
fn tokens_max(params: &Params<'_>) -> Result<Option<u32>, ApiError> {
    // No token is a request for the scores of the prompt alone.
    let scores = params.flag("echo")? || prompt_logprobs(params, false)?.is_some();
    let range = || if scores { 0..=i128::from(u32::MAX) } else { 1..=i128::from(u32::MAX) };
    let older = params.whole("max_tokens", range())?;
    let newer = params.whole("max_completion_tokens", range())?;
    Ok(newer.or(older).map(|tokens| tokens as u32))
}

fn stop_tokens(params: &Params<'_>) -> Result<Vec<u32>, ApiError> {
    let list = params.list("stop_token_ids")?.unwrap_or_default();
    if list.len() > STOP_TOKENS_MAX {
        let message =
            format!("Invalid value for 'stop_token_ids': expected at most {STOP_TOKENS_MAX}, found {}.", list.len());
        return Err(ApiError::bad_request("invalid_value", message).about("stop_token_ids"));
    }
    let ids = list.iter().map(|id| whole("stop_token_ids", id, 0..=i128::from(u32::MAX)).map(|id| id as u32));
    ids.collect()
}

// === impl StreamedUsage ===

impl StreamedUsage {
    /// Reads OpenAI's `include_usage` and vLLM's `continuous_usage_stats`, which has no effect without the first.
    fn read(params: &Params<'_>, stream: bool) -> Result<Self, ApiError> {
        let Some(options) = params.object("stream_options")? else { return Ok(Self::None) };
        if !stream {
            let message = "The 'stream_options' parameter is only allowed when 'stream' is true.";
            return Err(ApiError::bad_request("invalid_value", message).about("stream_options"));
        }
        Ok(match (options.flag("include_usage")?, options.flag("continuous_usage_stats")?) {
            (false, _) => Self::None,
            (true, false) => Self::AtEnd,
            (true, true) => Self::Always,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::generation::text_model::ByteText;
    use schema::frame::Sampling;
    use serde_json::json;

    fn read(value: &Value) -> Result<ValidOptions, ApiError> {
        let model = ModelInfo { name: "tiny".to_owned(), context_tokens: 64, ..ModelInfo::default() };
        let params = Params::new(value.as_object().unwrap());
        ValidOptions::read(&params, |_| Ok(None), &model, &Settings::default(), &ByteText)
    }

    #[test]
    fn absent_parameters_have_the_defaults_of_the_reference() {
        let options = read(&json!({"seed": 7})).unwrap();
        let sampling = Sampling { seed: 7, ..Sampling::PLAIN };
        assert_eq!(options.generation.tokens, TokenOptions::new(sampling));
        assert_eq!(
            (options.generation.tokens_max, options.generation.choices, options.generation.priority, options.stream),
            (None, 1, 0, false)
        );
        assert!(options.generation.stop.is_empty());
    }

    #[test]
    fn the_newer_name_of_the_token_limit_wins() {
        let options = read(&json!({"max_tokens": 5, "max_completion_tokens": 9})).unwrap();
        assert_eq!(options.generation.tokens_max, Some(9));
    }

    #[test]
    fn usage_at_the_end_of_a_stream_needs_a_stream() {
        assert!(read(&json!({"stream_options": {"include_usage": true}})).is_err());
        let options = read(&json!({"stream": true, "stream_options": {"include_usage": true}})).unwrap();
        assert_eq!(options.usage, StreamedUsage::AtEnd);
        let usage_of = |options| read(&json!({"stream": true, "stream_options": options})).unwrap().usage;
        assert_eq!(usage_of(json!({"include_usage": true, "continuous_usage_stats": true})), StreamedUsage::Always);
        assert_eq!(usage_of(json!({"continuous_usage_stats": true})), StreamedUsage::None);
    }

    #[test]
    fn a_priority_is_a_whole_number_of_either_sign() {
        assert_eq!(read(&json!({"priority": -5})).unwrap().generation.priority, -5);
        for priority in [json!("high"), json!(0.5), json!(i32::MIN), json!(1_u64 << 40)] {
            let error = read(&json!({"priority": priority})).unwrap_err();
            assert_eq!(error.json()["error"]["param"], "priority");
        }
    }

    #[test]
    fn the_scores_of_a_prompt_need_no_token_and_no_stream() {
        let options = read(&json!({"prompt_logprobs": 2, "max_tokens": 0})).unwrap().generation;
        assert_eq!((options.tokens_max, options.prompt_logprobs), (Some(0), Some(2)));
        assert!(options.tokens.scores_prompt && options.tokens.alternatives == Some(2));
        for value in
            [json!({"max_tokens": 0}), json!({"prompt_logprobs": 1, "stream": true}), json!({"prompt_logprobs": 21})]
        {
            assert!(read(&value).is_err(), "{value} was accepted");
        }
    }
}
