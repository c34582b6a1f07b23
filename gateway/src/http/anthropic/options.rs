//! The options of a request to `POST /v1/messages`, checked.

use super::params::Params;
use crate::http::error::ApiError;
use crate::http::generation::options::GenerationOptions;
use crate::http::generation::text_model::TextModel;
use crate::http::limits::STOP_SEQUENCES_MAX;
use crate::http::stop_strings;
use crate::http::token_options::{self, SamplingRules};

/// A request's options, each within its range.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ValidOptions {
    pub(crate) generation: GenerationOptions,
    /// Most tokens of the answer.
    pub(crate) tokens_max: u32,
    /// True if the answer is streamed as events.
    pub(crate) stream: bool,
}

// === impl ValidOptions ===

impl ValidOptions {
    /// Reads and checks the options. Those that Anthropic's reference does not have, such as `seed`, are extensions, as
    /// in OpenAI's API.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub(crate) fn read(params: &Params<'_>, text: &dyn TextModel, rules: &SamplingRules) -> Result<Self, ApiError> {
        params.required("max_tokens", "a whole number from 1")?;
        let tokens_max = params.whole("max_tokens", 1..=i128::from(u32::MAX))?.unwrap_or(1) as u32;
        // The reference has no single text here.
        params.list("stop_sequences")?;
        let generation = GenerationOptions {
            tokens: token_options::read(params, text, rules)?,
            tokens_max: Some(tokens_max),
            stop: stop_strings::read(params, "stop_sequences", STOP_SEQUENCES_MAX)?,
            ..GenerationOptions::new(0)
        };
        Ok(Self { generation, tokens_max, stream: params.flag("stream")? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::generation::text_model::ByteText;

    fn read(body: &Value) -> Result<ValidOptions, ApiError> {
        ValidOptions::read(&Params::new(body.as_object().unwrap()), &ByteText, &SamplingRules::ANTHROPIC)
    }

    #[test]
    fn absent_parameters_have_the_defaults_of_the_reference() {
        let options = read(&json!({"max_tokens": 9, "seed": 7, "stream": null})).unwrap();
        let generation = GenerationOptions { tokens_max: Some(9), ..GenerationOptions::new(7) };
        assert_eq!(options, ValidOptions { generation, tokens_max: 9, stream: false });
    }

    #[test]
    fn every_parameter_is_read() {
        let options = read(&json!({
            "max_tokens": 1, "seed": -1, "stream": true, "temperature": 0.5, "top_p": 0.25, "top_k": 40,
            "stop_sequences": ["\n", "", "END"]
        }));
        let options = options.unwrap();
        let sampling = options.generation.tokens.sampling;
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.5, 0.25, 40));
        assert_eq!((sampling.seed, options.stream), (u64::MAX, true));
        assert_eq!(options.generation.stop, ["\n", "END"]);
    }

    #[test]
    fn a_temperature_of_zero_and_a_top_p_of_zero_mean_the_likeliest_token() {
        let sampling =
            read(&json!({"max_tokens": 1, "temperature": 0, "top_p": 0})).unwrap().generation.tokens.sampling;
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.0, 1.0, 1));
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (key, value, param) in [
            ("max_tokens", json!(null), "max_tokens"),
            ("max_tokens", json!(0), "max_tokens"),
            ("max_tokens", json!("many"), "max_tokens"),
            ("temperature", json!(1.1), "temperature"),
            ("top_p", json!(-0.1), "top_p"),
            ("top_k", json!(-2), "top_k"),
            ("seed", json!(0.5), "seed"),
            ("stream", json!("yes"), "stream"),
            ("stop_sequences", json!("\n"), "stop_sequences"),
            ("stop_sequences", json!(["a", 5]), "stop_sequences[1]"),
            ("stop_sequences", json!(["x".repeat(1000)]), "stop_sequences[0]"),
            ("stop_sequences", json!(vec!["a"; 65]), "stop_sequences"),
        ] {
            let mut body = json!({"max_tokens": 1});
            body[key] = value;
            assert_eq!(read(&body).unwrap_err().json()["error"]["param"], param, "{body}");
        }
    }
}
