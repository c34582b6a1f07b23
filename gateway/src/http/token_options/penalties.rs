//! Reads the penalties: for tokens that were used, and for passages that repeat themselves.

use std::sync::Arc;

use engine::generate::{Dry, Penalties};

use super::rules::SamplingRules;
use super::words::strings;
use crate::http::error::ApiError;
use crate::http::generation::text_model::TextModel;
use crate::http::limits::{DRY_BREAKERS_MAX, DRY_TOKENS_MAX};
use crate::http::params::Params;

/// Range of the penalty that logits are divided by.
const REPETITION: std::ops::RangeInclusive<f64> = 0.01..=100.0;
/// llama.cpp's values for the penalty of repeated passages.
const DRY_BASE: f64 = 1.75;
const DRY_ALLOWED: u32 = 2;
const DRY_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// Reads the penalties.
///
/// # Errors
/// A 400 that names the parameter.
pub(super) fn read(params: &Params<'_>, text: &dyn TextModel, rules: &SamplingRules) -> Result<Penalties, ApiError> {
    let range = || -rules.penalty_max..=rules.penalty_max;
    let number = |key: &str| params.number(key, range()).map(|value| value.unwrap_or(0.0) as f32);
    let of_all = params.number("repetition_penalty", REPETITION)?;
    let of_last = params.number("repeat_penalty", REPETITION)?;
    if of_all.is_some() && of_last.is_some() {
        let at = params.path("repeat_penalty");
        let message =
            format!("Invalid value for '{at}': expected no '{}' beside it.", params.path("repetition_penalty"));
        return Err(ApiError::bad_request("invalid_value", message).about(&at));
    }
    let last_tokens = match params.whole("repeat_last_n", -1..=i128::from(i32::MAX))? {
        Some(-1) => None,
        Some(last) => Some(last as u32),
        None if of_last.is_some() => rules.defaults.repeat_last_tokens,
        None => rules.defaults.last_tokens,
    };
    let penalties = Penalties {
        repetition: of_all.or(of_last).unwrap_or(rules.defaults.repetition) as f32,
        last_tokens,
        presence: number("presence_penalty")?,
        frequency: number("frequency_penalty")?,
        dry: None,
    };
    let is_off = rules.is_llama_cpp && last_tokens == Some(0);
    let is_neutral = penalties == Penalties { last_tokens, ..Penalties::NONE };
    let used = if is_off || is_neutral { Penalties::NONE } else { penalties };
    Ok(Penalties { dry: dry(params, text)?, ..used })
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::generation::text_model::ByteText;

    fn read_value(value: &Value, rules: &SamplingRules) -> Result<Penalties, ApiError> {
        read(&Params::new(value.as_object().unwrap()), &ByteText, rules)
    }

    fn openai(value: &Value) -> Penalties {
        read_value(value, &SamplingRules::OPENAI).unwrap()
    }

    fn ollama(value: &Value) -> Penalties {
        read_value(value, &SamplingRules::OLLAMA).unwrap()
    }

    #[test]
    fn without_a_penalty_there_are_none_whatever_they_would_count() {
        for value in [json!({}), json!({"repeat_penalty": 1.0, "repeat_last_n": 9, "presence_penalty": 0})] {
            assert_eq!([openai(&value), ollama(&value)], [Penalties::NONE, Penalties::NONE]);
        }
    }

    #[test]
    fn every_parameter_is_read() {
        let value = json!({
            "repeat_penalty": 1.5, "repeat_last_n": 10, "presence_penalty": 0.5, "frequency_penalty": -0.5
        });
        let penalties = Penalties { repetition: 1.5, last_tokens: Some(10), presence: 0.5, frequency: -0.5, dry: None };
        assert_eq!([openai(&value), ollama(&value)], [penalties.clone(), penalties]);
    }

    #[test]
    fn both_spellings_of_the_repetition_penalty_have_their_own_range() {
        let counted = |penalties: Penalties| (penalties.repetition, penalties.last_tokens);
        let (vllm, llama) = (json!({"repetition_penalty": 1.2}), json!({"repeat_penalty": 1.2}));
        assert_eq!(counted(openai(&vllm)), (1.2, None));
        assert_eq!(counted(openai(&llama)), (1.2, Some(64)));
        assert_eq!(counted(ollama(&llama)), (1.2, Some(64)));
        let all = json!({"repeat_penalty": 1.2, "repeat_last_n": -1});
        assert_eq!([openai(&all), ollama(&all)].map(counted), [(1.2, None); 2]);
    }

    #[test]
    fn a_window_without_tokens_switches_all_penalties_off_for_llama_cpp() {
        let value = json!({"repeat_penalty": 1.3, "repeat_last_n": 0, "presence_penalty": 0.5});
        assert_eq!(ollama(&value), Penalties::NONE);
        assert_eq!(openai(&value).presence, 0.5);
    }

    #[test]
    fn a_penalty_of_repeated_passages_finds_the_tokens_that_end_them() {
        let value = json!({"dry_multiplier": 0.8});
        for dry in [openai(&value), ollama(&value)].map(|penalties| penalties.dry.unwrap()) {
            assert_eq!((dry.base, dry.allowed, &*dry.breakers), (1.75, 2, &[10, 34, 42, 58][..]));
        }
        assert_eq!(openai(&json!({"dry_multiplier": 0})).dry, None);
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (param, value) in [
            ("presence_penalty", json!({"presence_penalty": 100.5})),
            ("frequency_penalty", json!({"frequency_penalty": "high"})),
            ("repetition_penalty", json!({"repetition_penalty": 0})),
            ("repeat_penalty", json!({"repeat_penalty": 0})),
            ("repeat_penalty", json!({"repeat_penalty": 1.1, "repetition_penalty": 1.1})),
            ("repeat_last_n", json!({"repeat_last_n": -2})),
            ("repeat_last_n", json!({"repeat_last_n": 1.5})),
            ("dry_base", json!({"dry_base": 0.5})),
            ("dry_sequence_breakers[0]", json!({"dry_sequence_breakers": [7]})),
        ] {
            for rules in [SamplingRules::OPENAI, SamplingRules::OLLAMA] {
                assert_eq!(read_value(&value, &rules).unwrap_err().param(), Some(param), "{value}");
            }
        }
        assert!(read_value(&json!({"presence_penalty": 2.5}), &SamplingRules::OPENAI).is_err());
    }
}
