//! The options of choosing tokens, read from a request: sampling, biases, penalties and forbidden words. Names and
//! ranges are those of OpenAI's API, of vLLM and of llama.cpp's server.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::generate::{Dry, Penalties, TokenOptions};
use rand::Rng;
use schema::frame::Sampling;
use serde_json::Value;

use super::params::{Params, out_of_range, whole, wrong_type};
use crate::http::error::ApiError;
use crate::http::generation::text_model::{SpecialTokens, TextModel};
use crate::http::limits::{
    BAD_WORDS_MAX, BIASED_TOKENS_MAX, DRY_BREAKERS_MAX, DRY_TOKENS_MAX, TEMPERATURE_MIN, WORD_BYTES_MAX,
};

/// Bias with which a token cannot be chosen as long as there is any other.
const BAN: f32 = -1e5;
/// Tokens that llama.cpp's server penalises by default: the last ones of prompt and answer.
const REPEAT_LAST_TOKENS: u32 = 64;
/// llama.cpp's threshold of `xtc`.
const XTC_THRESHOLD: f64 = 0.1;
/// llama.cpp's values for the penalty of repeated passages.
const DRY_BASE: f64 = 1.75;
const DRY_ALLOWED: u32 = 2;
const DRY_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// Reads the options.
///
/// # Errors
/// A 400 that names the parameter.
pub(crate) fn read(params: &Params<'_>, text: &dyn TextModel) -> Result<TokenOptions, ApiError> {
    let tokens_min = params.whole("min_tokens", 0..=i128::from(u32::MAX))?.map_or(0, |tokens| tokens as u32);
    Ok(TokenOptions {
        bias: bias(params, text)?,
        penalties: penalties(params, text)?,
        tokens_min,
        forbidden: bad_words(params, text)?,
        ..TokenOptions::new(sampling(params)?)
    })
}

fn sampling(params: &Params<'_>) -> Result<Sampling, ApiError> {
    let share = |key: &str, default: f64| Ok::<_, ApiError>(params.number(key, 0.0..=1.0)?.unwrap_or(default) as f32);
    let temperature = params.number("temperature", 0.0..=2.0)?.unwrap_or(1.0);
    let top_k = params.whole("top_k", -1..=i128::from(i32::MAX))?.map_or(0, |k| k.max(0) as u32);
    let top_p = share("top_p", 1.0)?;
    let seed = params.whole("seed", i128::from(i64::MIN)..=i128::from(u64::MAX))?;
    // llama.cpp has -1 for "off".
    let top_n_sigma = params.number("top_n_sigma", -1.0..=100.0)?.unwrap_or(0.0).max(0.0) as f32;
    let (xtc_probability, xtc_threshold) = (share("xtc_probability", 0.0)?, share("xtc_threshold", XTC_THRESHOLD)?);
    // The smallest probability mass above 0 is already covered by the likeliest token alone.
    let (top_p, top_k) = if top_p > 0.0 { (top_p, top_k) } else { (1.0, 1) };
    Ok(Sampling {
        temperature: if temperature < TEMPERATURE_MIN { 0.0 } else { temperature as f32 },
        top_k,
        top_p,
        min_p: share("min_p", 0.0)?,
        typical_p: share("typical_p", 1.0)?,
        top_n_sigma,
        xtc_probability,
        xtc_threshold: if xtc_probability > 0.0 { xtc_threshold } else { 0.0 },
        // A negative seed keeps its bits, so that all seeds stay different.
        seed: seed.map_or_else(|| rand::rng().random(), |seed| seed as u64),
        choice: 0,
    })
}

/// `logit_bias`: OpenAI's object of token ids, or llama.cpp's array of pairs. A key may also be a text, which stands
/// for its tokens.
fn bias(params: &Params<'_>, text: &dyn TextModel) -> Result<Vec<(u32, f32)>, ApiError> {
    let expected = "an object from token ids to numbers, or an array of pairs of a token and a number";
    let mut biases = BTreeMap::new();
    let mut add = |at: &str, tokens: Vec<u32>, bias: f32| {
        for token in tokens {
            biases.insert(token, bias);
        }
        if biases.len() > BIASED_TOKENS_MAX {
            let message = format!("Invalid value for '{at}': expected at most {BIASED_TOKENS_MAX} tokens.");
            return Err(ApiError::bad_request("invalid_value", message).about("logit_bias"));
        }
        Ok(())
    };
    match params.get("logit_bias") {
        None => {}
        Some(Value::Object(map)) => {
            for (key, value) in map {
                let at = format!("logit_bias.{key}");
                add(&at, tokens_of(&at, &Value::String(key.clone()), text)?, bias_of(&at, value)?)?;
            }
        }
        Some(Value::Array(pairs)) => {
            for (index, pair) in pairs.iter().enumerate() {
                let at = format!("logit_bias[{index}]");
                let Some([token, value]) = pair.as_array().map(Vec::as_slice) else {
                    return Err(wrong_type(&at, "a pair of a token and a number", pair));
                };
                add(&at, tokens_of(&at, token, text)?, bias_of(&at, value)?)?;
            }
        }
        Some(other) => return Err(wrong_type("logit_bias", expected, other)),
    }
    Ok(biases.into_iter().collect())
}

/// The tokens that a key of `logit_bias` stands for: a token id, or the tokens of a text.
fn tokens_of(at: &str, key: &Value, text: &dyn TextModel) -> Result<Vec<u32>, ApiError> {
    let ids = 0..=i128::from(text.vocab_size()) - 1;
    match key {
        Value::String(key) => match key.parse::<i64>() {
            Ok(id) => Ok(vec![whole(at, &id.into(), ids)? as u32]),
            Err(_) => encode(at, key, text),
        },
        id => Ok(vec![whole(at, id, ids)? as u32]),
    }
}

fn bias_of(at: &str, value: &Value) -> Result<f32, ApiError> {
    let expected = "a number from -100 to 100, or false to ban the token";
    let bias = match value {
        Value::Bool(false) => return Ok(BAN),
        value => value.as_f64().ok_or_else(|| wrong_type(at, expected, value))?,
    };
    if !(-100.0..=100.0).contains(&bias) {
        return Err(out_of_range(at, expected, value));
    }
    // OpenAI: "-100 or 100 should result in a ban or exclusive selection". Some models' logits spread further.
    let scale = if bias.abs() >= 100.0 { f64::from(-BAN) / 100.0 } else { 1.0 };
    Ok((bias * scale) as f32)
}

fn penalties(params: &Params<'_>, text: &dyn TextModel) -> Result<Penalties, ApiError> {
    let number = |key: &str| params.number(key, -2.0..=2.0).map(|value| value.unwrap_or(0.0) as f32);
    let of_all = params.number("repetition_penalty", 0.01..=10.0)?;
    let of_last = params.number("repeat_penalty", 0.01..=10.0)?;
    if of_all.is_some() && of_last.is_some() {
        let message = "Invalid value for 'repeat_penalty': expected no 'repetition_penalty' beside it.";
        return Err(ApiError::bad_request("invalid_value", message).about("repeat_penalty"));
    }
    let last = params.whole("repeat_last_n", -1..=i128::from(i32::MAX))?;
    let last_tokens = match last {
        Some(-1) => None,
        Some(last) => Some(last as u32),
        None => of_last.map(|_| REPEAT_LAST_TOKENS),
    };
    Ok(Penalties {
        repetition: of_all.or(of_last).unwrap_or(1.0) as f32,
        last_tokens,
        presence: number("presence_penalty")?,
        frequency: number("frequency_penalty")?,
        dry: dry(params, text)?,
    })
}

fn dry(params: &Params<'_>, text: &dyn TextModel) -> Result<Option<Dry>, ApiError> {
    let multiplier = params.number("dry_multiplier", 0.0..=100.0)?.unwrap_or(0.0) as f32;
    let base = params.number("dry_base", 1.0..=10.0)?.unwrap_or(DRY_BASE) as f32;
    let allowed = params.whole("dry_allowed_length", 0..=i128::from(i32::MAX))?.map_or(DRY_ALLOWED, |n| n as u32);
    let last = params.whole("dry_penalty_last_n", -1..=i128::from(i32::MAX))?.unwrap_or(-1);
    let breakers = strings(params, "dry_sequence_breakers", DRY_BREAKERS_MAX)?;
    if multiplier == 0.0 || last == 0 {
        return Ok(None);
    }
    let breakers = breakers.unwrap_or_else(|| DRY_BREAKERS.map(str::to_owned).to_vec());
    let contains = |bytes: &[u8], word: &String| bytes.windows(word.len()).any(|part| part == word.as_bytes());
    let ends = |token: &u32| {
        let bytes = text.token_bytes(*token);
        breakers.iter().any(|word| contains(&bytes, word))
    };
    let breakers: Arc<[u32]> = (0..text.vocab_size()).filter(ends).collect();
    let last_tokens = if last < 0 { DRY_TOKENS_MAX } else { (last as u32).min(DRY_TOKENS_MAX) };
    Ok(Some(Dry { multiplier, base, allowed, last_tokens, breakers }))
}

/// `bad_words`: each word as it is, and after a space, as vLLM has it.
fn bad_words(params: &Params<'_>, text: &dyn TextModel) -> Result<Vec<Vec<u32>>, ApiError> {
    let words = strings(params, "bad_words", BAD_WORDS_MAX)?.unwrap_or_default();
    let mut forbidden = Vec::with_capacity(2 * words.len());
    for (index, word) in words.iter().enumerate() {
        let at = format!("bad_words[{index}]");
        for word in [word.clone(), format!(" {word}")] {
            let tokens = encode(&at, &word, text)?;
            if !tokens.is_empty() && !forbidden.contains(&tokens) {
                forbidden.push(tokens);
            }
        }
    }
    Ok(forbidden)
}

/// An array of strings that are not empty and not too long.
fn strings(params: &Params<'_>, key: &str, most: usize) -> Result<Option<Vec<String>>, ApiError> {
    let Some(list) = params.list(key)? else { return Ok(None) };
    let about = |message: String| ApiError::bad_request("invalid_value", message).about(key);
    if list.len() > most {
        return Err(about(format!(
            "Invalid value for '{key}': expected at most {most} strings, found {}.",
            list.len()
        )));
    }
    let read = |(index, value): (usize, &Value)| {
        let at = format!("{key}[{index}]");
        let word = value.as_str().ok_or_else(|| wrong_type(&at, "a string", value))?;
        if word.is_empty() || word.len() > WORD_BYTES_MAX {
            return Err(out_of_range(&at, &format!("a string of 1 to {WORD_BYTES_MAX} bytes"), value));
        }
        Ok(word.to_owned())
    };
    list.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
}

fn encode(at: &str, word: &str, text: &dyn TextModel) -> Result<Vec<u32>, ApiError> {
    text.encode_text(word, SpecialTokens::PLAIN).map_err(|error| {
        ApiError::bad_request("invalid_value", format!("'{at}' cannot be encoded: {error}.")).about(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::generation::text_model::ByteText;
    use serde_json::json;

    fn read_value(value: &Value) -> Result<TokenOptions, ApiError> {
        read(&Params::new(value.as_object().unwrap()), &ByteText)
    }

    #[test]
    fn absent_parameters_have_the_defaults_of_the_reference() {
        let options = read_value(&json!({"seed": 7})).unwrap();
        let sampling = Sampling { seed: 7, ..Sampling::PLAIN };
        assert_eq!(options, TokenOptions::new(sampling));
    }

    #[test]
    fn without_a_seed_each_request_gets_another() {
        let seed = || read_value(&json!({})).unwrap().sampling.seed;
        assert_ne!(seed(), seed());
    }

    #[test]
    fn a_top_p_of_zero_and_a_tiny_temperature_mean_the_likeliest_token() {
        let sampling = read_value(&json!({"top_p": 0})).unwrap().sampling;
        assert_eq!((sampling.top_p, sampling.top_k), (1.0, 1));
        assert_eq!(read_value(&json!({"temperature": 1e-9})).unwrap().sampling.temperature, 0.0);
    }

    #[test]
    fn negative_seeds_stay_different() {
        let seed = |seed: i64| read_value(&json!({"seed": seed})).unwrap().sampling.seed;
        assert_eq!(seed(-1), u64::MAX);
        assert_ne!(seed(-2), seed(-1));
    }

    #[test]
    fn biases_are_read_in_every_form() {
        let object = read_value(&json!({"logit_bias": {"5": -1.5, "97": 100, "ab": -100}})).unwrap();
        assert_eq!(object.bias, [(5, -1.5), (97, BAN), (98, BAN)]);
        let pairs = read_value(&json!({"logit_bias": [[5, 2], ["c", false]]})).unwrap();
        assert_eq!(pairs.bias, [(5, 2.0), (99, BAN)]);
    }

    #[test]
    fn both_spellings_of_the_repetition_penalty_have_their_own_range() {
        let vllm = read_value(&json!({"repetition_penalty": 1.2})).unwrap().penalties;
        assert_eq!((vllm.repetition, vllm.last_tokens), (1.2, None));
        let llama = read_value(&json!({"repeat_penalty": 1.2})).unwrap().penalties;
        assert_eq!((llama.repetition, llama.last_tokens), (1.2, Some(64)));
        let all = read_value(&json!({"repeat_penalty": 1.2, "repeat_last_n": -1})).unwrap().penalties;
        assert_eq!(all.last_tokens, None);
    }

    #[test]
    fn words_are_forbidden_with_and_without_a_space() {
        let options = read_value(&json!({"bad_words": ["no", "no"]})).unwrap();
        assert_eq!(options.forbidden, [vec![110, 111], vec![32, 110, 111]]);
    }

    #[test]
    fn a_penalty_of_repeated_passages_finds_the_tokens_that_end_them() {
        let dry = read_value(&json!({"dry_multiplier": 0.8})).unwrap().penalties.dry.unwrap();
        assert_eq!((dry.base, dry.allowed, &*dry.breakers), (1.75, 2, &[10, 34, 42, 58][..]));
        assert_eq!(read_value(&json!({"dry_multiplier": 0})).unwrap().penalties.dry, None);
    }

    #[test]
    fn every_parameter_outside_its_range_is_refused_by_name() {
        for (param, value) in [
            ("temperature", json!({"temperature": 2.1})),
            ("top_p", json!({"top_p": -0.1})),
            ("top_k", json!({"top_k": -2})),
            ("min_p", json!({"min_p": "0.1"})),
            ("typical_p", json!({"typical_p": 1.5})),
            ("top_n_sigma", json!({"top_n_sigma": -2})),
            ("xtc_probability", json!({"xtc_probability": 2})),
            ("xtc_threshold", json!({"xtc_threshold": true})),
            ("seed", json!({"seed": 1.5})),
            ("min_tokens", json!({"min_tokens": -1})),
            ("presence_penalty", json!({"presence_penalty": 2.5})),
            ("frequency_penalty", json!({"frequency_penalty": "high"})),
            ("repetition_penalty", json!({"repetition_penalty": 0})),
            ("repeat_penalty", json!({"repeat_penalty": 1.1, "repetition_penalty": 1.1})),
            ("repeat_last_n", json!({"repeat_last_n": -2})),
            ("logit_bias", json!({"logit_bias": 5})),
            ("logit_bias.5", json!({"logit_bias": {"5": 101}})),
            ("logit_bias.5", json!({"logit_bias": {"5": true}})),
            ("logit_bias.256", json!({"logit_bias": {"256": 1}})),
            ("logit_bias.-1", json!({"logit_bias": {"-1": 1}})),
            ("logit_bias[0]", json!({"logit_bias": [[1, 2, 3]]})),
            ("bad_words", json!({"bad_words": "no"})),
            ("bad_words[0]", json!({"bad_words": [""]})),
            ("bad_words[1]", json!({"bad_words": ["a", 1]})),
            ("dry_base", json!({"dry_base": 0.5})),
            ("dry_sequence_breakers[0]", json!({"dry_sequence_breakers": [7]})),
        ] {
            let error = read_value(&value).unwrap_err();
            assert_eq!(error.json()["error"]["param"], param, "{value}");
        }
    }
}
