//! Reads and checks the prompts of a raw completion, or the inputs to be embedded: text, or token ids of the
//! vocabulary.

use serde_json::Value;

use super::params::{Params, missing, out_of_range, whole, wrong_type};
use crate::http::error::ApiError;

/// One prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// Text to be encoded.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}

const EXPECTED: &str = "a string, an array of strings, an array of token ids, or an array of such arrays";

/// Reads one to `prompts_max` prompts from the parameter `key`.
///
/// # Errors
/// A 400 that names the invalid parameter.
pub(crate) fn read(
    params: &Params<'_>,
    key: &str,
    vocab_size: u32,
    prompts_max: usize,
) -> Result<Vec<Prompt>, ApiError> {
    let list = match params.get(key) {
        None => return Err(missing(key, EXPECTED)),
        Some(Value::String(text)) => return Ok(vec![Prompt::Text(text.clone())]),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(wrong_type(key, EXPECTED, other)),
    };
    if list.first().is_some_and(Value::is_number) {
        return Ok(vec![tokens(key, list, vocab_size)?]);
    }
    if list.is_empty() || list.len() > prompts_max {
        let message = format!("Invalid value for '{key}': expected 1 to {prompts_max} {key}s, found {}.", list.len());
        return Err(ApiError::bad_request("invalid_value", message).about(key));
    }
    list.iter().enumerate().map(|(index, prompt)| read_one(&format!("{key}[{index}]"), prompt, vocab_size)).collect()
}

fn read_one(at: &str, prompt: &Value, vocab_size: u32) -> Result<Prompt, ApiError> {
    match prompt {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(list) => tokens(at, list, vocab_size),
        other => Err(wrong_type(at, "a string or an array of token ids", other)),
    }
}

fn tokens(at: &str, list: &[Value], vocab_size: u32) -> Result<Prompt, ApiError> {
    if list.is_empty() {
        return Err(out_of_range(at, "at least one token id", &Value::Array(Vec::new())));
    }
    let range = || 0..=i128::from(vocab_size) - 1;
    let ids = list.iter().enumerate().map(|(index, id)| Ok(whole(&format!("{at}[{index}]"), id, range())? as u32));
    Ok(Prompt::Tokens(ids.collect::<Result<_, ApiError>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_value(prompt: &Value) -> Result<Vec<Prompt>, ApiError> {
        let body = json!({"prompt": prompt});
        read(&Params::new(body.as_object().unwrap()), "prompt", 256, 4)
    }

    #[test]
    fn the_four_shapes_are_read() {
        let text = |text: &str| Prompt::Text(text.to_owned());
        assert_eq!(read_value(&json!("a")).unwrap(), [text("a")]);
        assert_eq!(read_value(&json!(["a", "b"])).unwrap(), [text("a"), text("b")]);
        assert_eq!(read_value(&json!([1, 255])).unwrap(), [Prompt::Tokens(vec![1, 255])]);
        let two = [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])];
        assert_eq!(read_value(&json!([[1], [2, 3]])).unwrap(), two);
    }

    #[test]
    fn other_shapes_and_unknown_tokens_are_refused_with_their_position() {
        for (prompt, param) in [
            (json!(null), "prompt"),
            (json!(5), "prompt"),
            (json!([]), "prompt"),
            (json!(["a", "b", "c", "d", "e"]), "prompt"),
            (json!([1, "a"]), "prompt[1]"),
            (json!([256]), "prompt[0]"),
            (json!([-1]), "prompt[0]"),
            (json!([[]]), "prompt[0]"),
            (json!([{"a": 1}]), "prompt[0]"),
        ] {
            let error = read_value(&prompt).unwrap_err();
            assert_eq!(error.json()["error"]["param"], param, "{prompt}");
        }
    }
}
