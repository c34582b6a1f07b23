//! The options of a request to `POST /v1/messages`, checked.

use rand::Rng;
use schema::frame::Sampling;

use super::params::{Params, out_of_range, wrong_type};
use crate::http::error::ApiError;
use crate::http::generation::options::GenerationOptions;
use crate::http::limits::{STOP_SEQUENCES_MAX, STOP_STRING_BYTES_MAX, TEMPERATURE_MIN};

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
    /// Reads and checks the options.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub(crate) fn read(params: &Params<'_>) -> Result<Self, ApiError> {
        params.required("max_tokens", "a whole number from 1")?;
        let tokens_max = params.whole("max_tokens", 1..=i128::from(u32::MAX))?.unwrap_or(1) as u32;
        let mut generation = GenerationOptions::new(seed(params)?);
        let seed = generation.tokens.sampling.seed;
        generation.tokens.sampling = Sampling { seed, ..sampling(params)? };
        generation.tokens_max = Some(tokens_max);
        generation.stop = stop_sequences(params)?;
        Ok(Self { generation, tokens_max, stream: params.flag("stream")? })
    }
}

/// The seed: an extension, as OpenAI's API has it. Without one each request gets another.
fn seed(params: &Params<'_>) -> Result<u64, ApiError> {
    let seed = params.whole("seed", i128::from(i64::MIN)..=i128::from(u64::MAX))?;
    // A negative seed keeps its bits, so that all seeds stay different.
    Ok(seed.map_or_else(|| rand::rng().random(), |seed| seed as u64))
}

fn sampling(params: &Params<'_>) -> Result<Sampling, ApiError> {
    let temperature = params.number("temperature", 0.0..=1.0)?.unwrap_or(1.0);
    let top_p = params.number("top_p", 0.0..=1.0)?.unwrap_or(1.0) as f32;
    let top_k = params.whole("top_k", 0..=i128::from(i32::MAX))?.unwrap_or(0) as u32;
    let temperature = if temperature < TEMPERATURE_MIN { 0.0 } else { temperature as f32 };
    // The smallest probability mass above 0 is already covered by the likeliest token alone.
    let (top_p, top_k) = if top_p > 0.0 { (top_p, top_k) } else { (1.0, 1) };
    Ok(Sampling { temperature, top_k, top_p, ..Sampling::PLAIN })
}

/// The texts that end the answer. Empty ones have no effect.
fn stop_sequences(params: &Params<'_>) -> Result<Vec<String>, ApiError> {
    let list = params.list("stop_sequences")?.unwrap_or_default();
    if list.len() > STOP_SEQUENCES_MAX {
        let message = format!(
            "Invalid value for 'stop_sequences': expected at most {STOP_SEQUENCES_MAX} strings, found {}.",
            list.len()
        );
        return Err(ApiError::bad_request("invalid_value", message).about("stop_sequences"));
    }
    let mut stop = Vec::new();
    for (index, found) in list.iter().enumerate() {
        let at = format!("stop_sequences[{index}]");
        let text = found.as_str().ok_or_else(|| wrong_type(&at, "a string", found))?;
        if text.len() > STOP_STRING_BYTES_MAX {
            return Err(out_of_range(&at, &format!("a string of at most {STOP_STRING_BYTES_MAX} bytes"), found));
        }
        if !text.is_empty() {
            stop.push(text.to_owned());
        }
    }
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &Value) -> Result<ValidOptions, ApiError> {
        ValidOptions::read(&Params::new(body.as_object().unwrap()))
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
            ("top_k", json!(-1), "top_k"),
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
