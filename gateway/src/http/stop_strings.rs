//! The texts that end an answer, in every API.

use serde_json::Value;

use super::error::ApiError;
use super::limits::STOP_STRING_BYTES_MAX;
use super::params::{Params, out_of_range, wrong_type};

/// Reads the texts in `key`: one, or an array of `most` at most. None of them is empty.
///
/// # Errors
/// A 400 that names the parameter.
pub(crate) fn read(params: &Params<'_>, key: &str, most: usize) -> Result<Vec<String>, ApiError> {
    let at = params.path(key);
    let texts = match params.get(key) {
        None => Vec::new(),
        Some(found @ Value::Array(list)) if list.len() > most => {
            return Err(out_of_range(&at, &format!("at most {most} strings"), found));
        }
        Some(Value::Array(list)) => {
            let texts = list.iter().enumerate().map(|(index, stop)| text(&format!("{at}[{index}]"), "a string", stop));
            texts.collect::<Result<Vec<_>, _>>()?
        }
        Some(one) => vec![text(&at, "a string or an array of strings", one)?],
    };
    Ok(texts.into_iter().filter(|text| !text.is_empty()).collect())
}

fn text(at: &str, expected: &str, value: &Value) -> Result<String, ApiError> {
    let text = value.as_str().ok_or_else(|| wrong_type(at, expected, value))?;
    if text.len() > STOP_STRING_BYTES_MAX {
        return Err(out_of_range(at, &format!("a string of at most {STOP_STRING_BYTES_MAX} bytes"), value));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_value(stop: &Value) -> Result<Vec<String>, ApiError> {
        let body = json!({"options": {"stop": stop}});
        read(&Params::new(body.as_object().unwrap()).object("options").unwrap().unwrap(), "stop", 4)
    }

    #[test]
    fn stop_is_a_string_or_several_and_empty_ones_have_no_effect() {
        for (stop, texts) in [
            (json!(null), &[][..]),
            (json!("\n"), &["\n"]),
            (json!(""), &[]),
            (json!(["a", "", "b"]), &["a", "b"]),
            (json!("x".repeat(512)), &["x".repeat(512).as_str()]),
        ] {
            assert_eq!(read_value(&stop).unwrap(), texts);
        }
    }

    #[test]
    fn other_values_are_refused_by_name() {
        for (stop, param) in [
            (json!(5), "options.stop"),
            (json!({}), "options.stop"),
            (json!(["a", 5]), "options.stop[1]"),
            (json!(["a", "b", "c", "d", "e"]), "options.stop"),
            (json!("é".repeat(257)), "options.stop"),
            (json!(["x".repeat(513)]), "options.stop[0]"),
        ] {
            assert_eq!(read_value(&stop).unwrap_err().param(), Some(param));
        }
    }
}
