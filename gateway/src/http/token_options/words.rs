//! Reads the tokens that a request favours or forbids, by their ids or by texts.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::http::error::ApiError;
use crate::http::generation::text_model::{SpecialTokens, TextModel};
use crate::http::limits::{BAD_WORDS_MAX, BIASED_TOKENS_MAX, WORD_BYTES_MAX};
use crate::http::params::{Params, out_of_range, whole, wrong_type};

/// Bias with which a token cannot be chosen as long as there is any other.
const BAN: f32 = -1e5;

/// `logit_bias`: OpenAI's object of token ids, or llama.cpp's array of pairs. A key may also be a text, which stands
/// for its tokens.
///
/// # Errors
/// A 400 that names the entry.
pub(super) fn bias(params: &Params<'_>, text: &dyn TextModel) -> Result<Vec<(u32, f32)>, ApiError> {
    let expected = "an object from token ids to numbers, or an array of pairs of a token and a number";
    let param = params.path("logit_bias");
    let mut biases = BTreeMap::new();
    let mut add = |at: &str, tokens: Vec<u32>, bias: f32| {
        for token in tokens {
            biases.insert(token, bias);
        }
        if biases.len() > BIASED_TOKENS_MAX {
            let message = format!("Invalid value for '{at}': expected at most {BIASED_TOKENS_MAX} tokens.");
            return Err(ApiError::bad_request("invalid_value", message).about(&param));
        }
        Ok(())
    };
    match params.get("logit_bias") {
        None => {}
        Some(Value::Object(map)) => {
            for (key, value) in map {
                let at = format!("{param}.{key}");
                add(&at, tokens_of(&at, &Value::String(key.clone()), text)?, bias_of(&at, value)?)?;
            }
        }
        Some(Value::Array(pairs)) => {
            for (index, pair) in pairs.iter().enumerate() {
                let at = format!("{param}[{index}]");
                let Some([token, value]) = pair.as_array().map(Vec::as_slice) else {
                    return Err(wrong_type(&at, "a pair of a token and a number", pair));
                };
                add(&at, tokens_of(&at, token, text)?, bias_of(&at, value)?)?;
            }
        }
        Some(other) => return Err(wrong_type(&param, expected, other)),
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
    // OpenAI: "-100 or 100 should result in a ban or exclusive selection". Some models' logits spread further than
    // that.
    let scale = if bias.abs() >= 100.0 { f64::from(-BAN) / 100.0 } else { 1.0 };
    Ok((bias * scale) as f32)
}

/// `bad_words`: each word as it is, and after a space, as vLLM has it.
///
/// # Errors
/// A 400 that names the word.
pub(super) fn forbidden(params: &Params<'_>, text: &dyn TextModel) -> Result<Vec<Vec<u32>>, ApiError> {
    let words = strings(params, "bad_words", BAD_WORDS_MAX)?.unwrap_or_default();
    let mut forbidden = Vec::with_capacity(2 * words.len());
    for (index, word) in words.iter().enumerate() {
        let at = format!("{}[{index}]", params.path("bad_words"));
        for word in [word.clone(), format!(" {word}")] {
            let tokens = encode(&at, &word, text)?;
            if !tokens.is_empty() && !forbidden.contains(&tokens) {
                forbidden.push(tokens);
            }
        }
    }
    Ok(forbidden)
}

/// An array of strings that are not empty and not too long. `None` if it is absent.
///
/// # Errors
/// A 400 that names the string.
pub(super) fn strings(params: &Params<'_>, key: &str, most: usize) -> Result<Option<Vec<String>>, ApiError> {
    let (Some(list), param) = (params.list(key)?, params.path(key)) else { return Ok(None) };
    if list.len() > most {
        let message = format!("Invalid value for '{param}': expected at most {most} strings, found {}.", list.len());
        return Err(ApiError::bad_request("invalid_value", message).about(&param));
    }
    let read = |(index, value): (usize, &Value)| {
        let at = format!("{param}[{index}]");
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
    use serde_json::json;

    use super::*;
    use crate::http::generation::text_model::ByteText;

    fn bias_in(value: &Value) -> Result<Vec<(u32, f32)>, ApiError> {
        bias(&Params::new(value.as_object().unwrap()), &ByteText)
    }

    fn forbidden_in(value: &Value) -> Result<Vec<Vec<u32>>, ApiError> {
        forbidden(&Params::new(value.as_object().unwrap()), &ByteText)
    }

    #[test]
    fn biases_are_read_in_every_form() {
        let object = bias_in(&json!({"logit_bias": {"5": -1.5, "97": 100, "ab": -100}})).unwrap();
        assert_eq!(object, [(5, -1.5), (97, BAN), (98, BAN)]);
        let pairs = bias_in(&json!({"logit_bias": [[5, 2], ["c", false]]})).unwrap();
        assert_eq!(pairs, [(5, 2.0), (99, BAN)]);
    }

    #[test]
    fn words_are_forbidden_with_and_without_a_space() {
        assert_eq!(forbidden_in(&json!({"bad_words": ["no", "no"]})).unwrap(), [vec![110, 111], vec![32, 110, 111]]);
    }

    #[test]
    fn other_values_are_refused_by_name() {
        for (param, value) in [
            ("logit_bias", json!({"logit_bias": 5})),
            ("logit_bias.5", json!({"logit_bias": {"5": 101}})),
            ("logit_bias.5", json!({"logit_bias": {"5": true}})),
            ("logit_bias.256", json!({"logit_bias": {"256": 1}})),
            ("logit_bias.-1", json!({"logit_bias": {"-1": 1}})),
            ("logit_bias[0]", json!({"logit_bias": [[1, 2, 3]]})),
        ] {
            assert_eq!(bias_in(&value).unwrap_err().param(), Some(param), "{value}");
        }
        for (param, value) in [
            ("bad_words", json!({"bad_words": "no"})),
            ("bad_words[0]", json!({"bad_words": [""]})),
            ("bad_words[1]", json!({"bad_words": ["a", 1]})),
        ] {
            assert_eq!(forbidden_in(&value).unwrap_err().param(), Some(param), "{value}");
        }
    }
}
