//! Sampling parameters under llama.cpp's names and with its defaults. llama-server and Ollama share them.

use engine::generate::{Penalties, TokenOptions};
use rand::Rng;
use schema::frame::Sampling;
use serde_json::Value;

use super::error::ApiError;
use super::limits::{LLAMA_STOP_STRINGS_MAX, STOP_STRING_BYTES_MAX, TEMPERATURE_MIN};
use super::params::{Params, out_of_range, wrong_type};

/// The defaults in which the two servers differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SamplingDefaults {
    pub(crate) top_p: f64,
    pub(crate) min_p: f64,
}

/// Defaults that both servers have.
pub(crate) const TEMPERATURE: f64 = 0.8;
pub(crate) const TOP_K: u32 = 40;
pub(crate) const REPEAT_LAST_TOKENS: u32 = 64;
const XTC_THRESHOLD: f64 = 0.1;

/// Highest temperature. llama.cpp has no limit; above this one all tokens are about equally likely.
const TEMPERATURE_MAX: f64 = 100.0;
/// Range of `repeat_penalty`.
const REPEAT_PENALTY: std::ops::RangeInclusive<f64> = 0.01..=100.0;
/// Range of the penalties that are subtracted from logits.
const PENALTY: std::ops::RangeInclusive<f64> = -100.0..=100.0;

/// Reads the method of choosing tokens.
///
/// # Errors
/// A 400 that names the parameter.
pub(crate) fn read(params: &Params<'_>, defaults: SamplingDefaults) -> Result<TokenOptions, ApiError> {
    let mut options = TokenOptions::new(sampling(params, defaults)?);
    options.penalties = penalties(params)?;
    Ok(options)
}

fn sampling(params: &Params<'_>, defaults: SamplingDefaults) -> Result<Sampling, ApiError> {
    let share = |key, default| Ok::<_, ApiError>(params.number(key, 0.0..=1.0)?.unwrap_or(default) as f32);
    let temperature = params.number("temperature", 0.0..=TEMPERATURE_MAX)?.unwrap_or(TEMPERATURE);
    let top_k = params.whole("top_k", -1..=i128::from(i32::MAX))?.map_or(TOP_K, |k| k.max(0) as u32);
    let top_p = share("top_p", defaults.top_p)?;
    // The smallest probability mass above 0 is already covered by the likeliest token alone.
    let (top_p, top_k) = if top_p > 0.0 { (top_p, top_k) } else { (1.0, 1) };
    Ok(Sampling {
        temperature: if temperature < TEMPERATURE_MIN { 0.0 } else { temperature as f32 },
        top_k,
        top_p,
        min_p: share("min_p", defaults.min_p)?,
        typical_p: share("typical_p", 1.0)?,
        top_n_sigma: params.number("top_n_sigma", -1.0..=100.0)?.map_or(0.0, |sigma| sigma.max(0.0) as f32),
        xtc_probability: share("xtc_probability", 0.0)?,
        xtc_threshold: share("xtc_threshold", XTC_THRESHOLD)?,
        seed: seed(params)?,
        choice: 0,
    })
}

/// The seed. -1, as the absence of one, means a random one.
fn seed(params: &Params<'_>) -> Result<u64, ApiError> {
    let seed = params.whole("seed", i128::from(i64::MIN)..=i128::from(u64::MAX))?.filter(|seed| *seed != -1);
    Ok(seed.map_or_else(|| rand::rng().random(), |seed| seed as u64))
}

fn penalties(params: &Params<'_>) -> Result<Penalties, ApiError> {
    let penalties = Penalties {
        repetition: params.number("repeat_penalty", REPEAT_PENALTY)?.unwrap_or(1.0) as f32,
        last_tokens: match params.whole("repeat_last_n", -1..=i128::from(u32::MAX))? {
            None => Some(REPEAT_LAST_TOKENS),
            Some(-1) => None,
            Some(tokens) => Some(tokens as u32),
        },
        presence: params.number("presence_penalty", PENALTY)?.unwrap_or(0.0) as f32,
        frequency: params.number("frequency_penalty", PENALTY)?.unwrap_or(0.0) as f32,
        dry: None,
    };
    let neutral = Penalties { last_tokens: penalties.last_tokens, ..Penalties::NONE };
    // A window without tokens switches all of them off, as in llama.cpp.
    let off = penalties.last_tokens == Some(0) || penalties == neutral;
    Ok(if off { Penalties::NONE } else { penalties })
}

/// Most tokens of the answer, from a parameter in which -1 means no limit and -2 the rest of the context. `None` if it
/// is absent. The caller lowers a limit beyond the context.
///
/// # Errors
/// A 400 that names the parameter.
pub(crate) fn tokens_max(params: &Params<'_>, key: &str) -> Result<Option<u32>, ApiError> {
    let tokens = params.whole(key, -2..=i128::from(u32::MAX))?;
    Ok(tokens.map(|tokens| if tokens < 0 { u32::MAX } else { tokens as u32 }))
}

/// The strings that end the text: one, or an array of them. None of them is empty.
///
/// # Errors
/// A 400 that names the parameter.
pub(crate) fn stop_strings(params: &Params<'_>) -> Result<Vec<String>, ApiError> {
    let at = params.path("stop");
    let list = match params.get("stop") {
        None => return Ok(Vec::new()),
        Some(found @ Value::Array(list)) if list.len() > LLAMA_STOP_STRINGS_MAX => {
            return Err(out_of_range(&at, &format!("at most {LLAMA_STOP_STRINGS_MAX} strings"), found));
        }
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let text = |stop: &Value| {
        let text = stop.as_str().ok_or_else(|| wrong_type(&at, "a string or an array of strings", stop))?;
        if text.len() > STOP_STRING_BYTES_MAX {
            return Err(out_of_range(&at, &format!("strings of at most {STOP_STRING_BYTES_MAX} bytes"), stop));
        }
        Ok(text.to_owned())
    };
    let texts = list.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.into_iter().filter(|stop| !stop.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DEFAULTS: SamplingDefaults = SamplingDefaults { top_p: 0.9, min_p: 0.0 };

    fn options(value: &Value) -> Result<TokenOptions, ApiError> {
        read(&Params::new(value.as_object().unwrap()), DEFAULTS)
    }

    #[test]
    fn absent_parameters_have_llama_cpps_defaults() {
        let options = options(&json!({"seed": 3})).unwrap();
        let sampling = Sampling { temperature: 0.8, top_k: 40, top_p: 0.9, seed: 3, ..options.sampling };
        assert_eq!(options.sampling, sampling);
        assert_eq!((options.sampling.min_p, options.sampling.typical_p), (0.0, 1.0));
        assert_eq!(options.penalties, Penalties::NONE);
    }

    #[test]
    fn every_parameter_is_read() {
        let options = options(&json!({
            "temperature": 0.5, "top_k": 7, "top_p": 0.5, "min_p": 0.25, "typical_p": 0.75, "top_n_sigma": 2,
            "xtc_probability": 0.5, "xtc_threshold": 0.25, "seed": 9, "repeat_penalty": 1.5, "repeat_last_n": 10,
            "presence_penalty": 0.5, "frequency_penalty": -0.5
        }));
        let options = options.unwrap();
        let sampling = Sampling {
            temperature: 0.5,
            top_k: 7,
            top_p: 0.5,
            min_p: 0.25,
            typical_p: 0.75,
            top_n_sigma: 2.0,
            xtc_probability: 0.5,
            xtc_threshold: 0.25,
            seed: 9,
            choice: 0,
        };
        let penalties = Penalties { repetition: 1.5, last_tokens: Some(10), presence: 0.5, frequency: -0.5, dry: None };
        assert_eq!((options.sampling, options.penalties), (sampling, penalties));
    }

    #[test]
    fn values_that_switch_something_off_do_so() {
        let off = options(&json!({"top_k": 0, "top_p": 1, "min_p": 0, "repeat_penalty": 1.3, "repeat_last_n": 0}));
        let off = off.unwrap();
        assert_eq!((off.sampling.top_k, off.sampling.top_p), (0, 1.0));
        assert_eq!(off.penalties, Penalties::NONE, "no token is looked back at");
        let whole = options(&json!({"repeat_penalty": 1.3, "repeat_last_n": -1})).unwrap();
        assert_eq!(whole.penalties.last_tokens, None);
        let greedy = options(&json!({"temperature": 0, "top_p": 0})).unwrap().sampling;
        assert_eq!((greedy.temperature, greedy.top_k, greedy.top_p), (0.0, 1, 1.0));
    }

    #[test]
    fn a_seed_of_minus_one_is_another_one_each_time() {
        let seed = |value: &Value| options(value).unwrap().sampling.seed;
        assert_ne!(seed(&json!({"seed": -1})), seed(&json!({"seed": -1})));
        assert_eq!(seed(&json!({"seed": -2})), seed(&json!({"seed": -2})));
    }

    #[test]
    fn limits_may_be_open_and_stop_is_one_string_or_several() {
        let value = json!({"n": -1, "rest": -2, "some": 5, "stop": ["a", "", "b"]});
        let params = Params::new(value.as_object().unwrap());
        let limits = ["n", "rest", "some", "absent"].map(|key| tokens_max(&params, key).unwrap());
        assert_eq!(limits, [Some(u32::MAX), Some(u32::MAX), Some(5), None]);
        assert_eq!(stop_strings(&params).unwrap(), ["a", "b"]);
        for bad in [json!({"stop": 5}), json!({"stop": ["a", 5]}), json!({"stop": vec!["a"; 17]})] {
            assert!(stop_strings(&Params::new(bad.as_object().unwrap())).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_out_of_range_are_named_with_their_path() {
        for (key, value) in [
            ("temperature", json!(-1)),
            ("top_k", json!(-2)),
            ("top_p", json!(1.5)),
            ("typical_p", json!("all")),
            ("repeat_penalty", json!(0)),
            ("repeat_last_n", json!(1.5)),
            ("seed", json!("random")),
        ] {
            let body = json!({"options": {key: value}});
            let params = Params::new(body.as_object().unwrap());
            let error = read(&params.object("options").unwrap().unwrap(), DEFAULTS).unwrap_err();
            assert_eq!(error.json()["error"]["param"], format!("options.{key}"));
        }
    }
}
