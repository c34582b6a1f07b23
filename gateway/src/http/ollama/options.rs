//! `options`: the method of choosing tokens, and the length of the answer.

use serde_json::Map;

use crate::http::error::ApiError;
use crate::http::generation::options::GenerationOptions;
use crate::http::generation::text_model::TextModel;
use crate::http::limits::LLAMA_STOP_STRINGS_MAX;
use crate::http::params::Params;
use crate::http::stop_strings;
use crate::http::token_options::{self, SamplingRules};
use crate::http::unsupported::{self, Neutral, is_one, is_zero};

/// Options of older versions that would change an answer and that this server does not have. They are refused unless
/// their value has no effect. Those of loading (`num_ctx`, `num_gpu`, `use_mmap` …) do not change an answer.
const UNSUPPORTED: &[(&str, Neutral)] =
    &[("mirostat", is_zero), ("tfs_z", is_one), ("penalize_newline", |value| value.as_bool() == Some(true))];

/// Reads `options`, and `logprobs` beside it.
///
/// # Errors
/// A 400 that names the option.
pub(super) fn read(
    params: &Params<'_>,
    text: &dyn TextModel,
    rules: &SamplingRules,
) -> Result<GenerationOptions, ApiError> {
    let none = Map::new();
    let options = params.object("options")?.unwrap_or_else(|| Params::new(&none));
    unsupported::refuse(&options, UNSUPPORTED, "is not supported by this server")?;
    options.whole("num_ctx", 0..=i128::from(u32::MAX))?;
    options.whole("num_keep", -1..=i128::from(u32::MAX))?;
    let tokens = token_options::read(&options, text, rules)?;
    let mut generation = GenerationOptions::new(tokens.sampling.seed);
    generation.tokens = tokens;
    // 0 means the default, as in Ollama.
    generation.tokens_max = token_options::tokens_max(&options, "num_predict")?.filter(|tokens| *tokens > 0);
    generation.stop = stop_strings::read(&options, "stop", LLAMA_STOP_STRINGS_MAX)?;
    generation.logprobs = params.flag("logprobs")?;
    let top = params.whole("top_logprobs", 0..=20)?.unwrap_or(0) as u32;
    generation.top_logprobs = top as usize;
    generation.tokens.alternatives = (generation.logprobs && top > 0).then_some(top);
    Ok(generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::generation::text_model::ByteText;
    use serde_json::{Value, json};

    fn read_value(value: &Value) -> Result<GenerationOptions, ApiError> {
        read(&Params::new(value.as_object().unwrap()), &ByteText, &SamplingRules::OLLAMA)
    }

    #[test]
    fn absent_options_have_ollamas_defaults() {
        for body in [json!({}), json!({"options": null}), json!({"options": {}})] {
            let options = read_value(&body).unwrap();
            let sampling = options.tokens.sampling;
            assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.8, 40, 0.9));
            assert_eq!((options.tokens_max, options.stop.len(), options.logprobs), (None, 0, false));
        }
    }

    #[test]
    fn the_length_is_open_with_minus_one_and_the_default_with_zero() {
        let length = |predict: i64| read_value(&json!({"options": {"num_predict": predict}})).unwrap().tokens_max;
        assert_eq!([-2, -1, 0, 7].map(length), [Some(u32::MAX), Some(u32::MAX), None, Some(7)]);
    }

    #[test]
    fn options_of_loading_and_unknown_ones_change_nothing() {
        let body = json!({"options": {
            "num_ctx": 1_000_000, "num_keep": 4, "num_batch": 512, "num_gpu": 99, "use_mmap": true, "num_thread": 8,
            "mirostat": 0, "tfs_z": 1.0, "penalize_newline": true, "some_new_option": [1], "seed": 1
        }});
        let plain = read_value(&json!({"options": {"seed": 1}})).unwrap();
        assert_eq!(read_value(&body).unwrap(), plain);
    }

    #[test]
    fn options_that_this_server_does_not_have_are_refused_by_name() {
        for (key, value) in [
            ("mirostat", json!(2)),
            ("tfs_z", json!(0.5)),
            ("penalize_newline", json!(false)),
            ("num_ctx", json!("large")),
            ("num_predict", json!(-3)),
            ("stop", json!(5)),
        ] {
            let error = read_value(&json!({"options": {key: value}})).unwrap_err();
            assert_eq!(error.json()["error"]["param"], format!("options.{key}"));
        }
        assert!(read_value(&json!({"options": [1]})).is_err());
        assert!(read_value(&json!({"logprobs": true, "top_logprobs": 21})).is_err());
    }
}
