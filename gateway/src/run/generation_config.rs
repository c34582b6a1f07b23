//! Reads the sampling that a model's file recommends: `general.sampling.*`, as llama.cpp's converter writes it from the
//! authors' `generation_config.json`.
//!
//! A value that cannot be used is left out and reported, not a reason to refuse the file: it is advice, the model
//! answers without it, and who downloaded the file cannot mend it.

use std::ops::RangeInclusive;

use stages::gguf::{Metadata, Value};

use crate::http::GenerationConfig;

/// The values that can be used, and a sentence about each one that cannot.
pub(super) fn read(metadata: &Metadata) -> (GenerationConfig, Vec<String>) {
    read_values(|key| metadata.get(key))
}

fn read_values<'v>(get: impl Fn(&str) -> Option<&'v Value>) -> (GenerationConfig, Vec<String>) {
    let mut problems = Vec::new();
    let mut number = |name: &str, range: RangeInclusive<f64>, is_whole: bool| {
        let key = format!("general.sampling.{name}");
        let found = get(&key)?;
        let number = match found {
            Value::Integer(_, number) => Some(*number as f64),
            // Files have 32-bit floats: 0.6, and not 0.6000000238418579.
            Value::Float(_, number) => (*number as f32).to_string().parse().ok(),
            _ => None,
        };
        let usable = number.filter(|number| range.contains(number) && (!is_whole || number.fract() == 0.0));
        if usable.is_none() {
            let (kind, found) = (if is_whole { "a whole number" } else { "a number" }, described(found));
            problems.push(format!("{key} is {found}: expected {kind} from {} to {}", range.start(), range.end()));
        }
        usable
    };
    let share = 0.0..=1.0;
    let config = GenerationConfig {
        temperature: number("temp", 0.0..=100.0, false),
        top_k: number("top_k", -1.0..=f64::from(i32::MAX), true).map(|k| k.max(0.0) as u32),
        top_p: number("top_p", share.clone(), false),
        min_p: number("min_p", share.clone(), false),
        xtc_probability: number("xtc_probability", share.clone(), false),
        xtc_threshold: number("xtc_threshold", share, false),
        repetition_penalty: number("penalty_repeat", 0.01..=100.0, false),
        repeat_last_n: number("penalty_last_n", -1.0..=f64::from(i32::MAX), true).map(|last| last as i32),
    };
    // Another method of choosing tokens, and another order of the filters. 0 is "not this method".
    number("mirostat", 0.0..=0.0, true);
    if let Some(found) = get("general.sampling.sequence") {
        let found = described(found);
        problems
            .push(format!("general.sampling.sequence is {found}: expected none, because the filters' order is fixed"));
    }
    (config, problems)
}

fn described(value: &Value) -> String {
    match value {
        Value::Integer(_, number) => number.to_string(),
        Value::Float(_, number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::String(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
        Value::Numbers(_) | Value::Strings(_) | Value::Nested { .. } => "an array".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use stages::gguf::ValueKind;

    use super::*;

    fn read_file(values: &[(&str, Value)]) -> (GenerationConfig, Vec<String>) {
        let values: BTreeMap<_, _> =
            values.iter().map(|(name, value)| (format!("general.sampling.{name}"), value)).collect();
        read_values(|key| values.get(key).copied())
    }

    fn float(number: f32) -> Value {
        Value::Float(ValueKind::F32, number.into())
    }

    fn integer(number: i128) -> Value {
        Value::Integer(ValueKind::I32, number)
    }

    #[test]
    fn a_file_without_such_values_recommends_nothing() {
        assert_eq!(read_file(&[]), (GenerationConfig::default(), Vec::new()));
    }

    #[test]
    fn every_value_is_read_and_floats_are_those_that_the_authors_wrote() {
        let (config, problems) = read_file(&[
            ("temp", float(0.6)),
            ("top_k", integer(20)),
            ("top_p", float(0.95)),
            ("min_p", integer(0)),
            ("xtc_probability", float(0.5)),
            ("xtc_threshold", float(0.1)),
            ("penalty_repeat", float(1.05)),
            ("penalty_last_n", integer(-1)),
            ("mirostat", integer(0)),
        ]);
        let expected = GenerationConfig {
            temperature: Some(0.6),
            top_k: Some(20),
            top_p: Some(0.95),
            min_p: Some(0.0),
            xtc_probability: Some(0.5),
            xtc_threshold: Some(0.1),
            repetition_penalty: Some(1.05),
            repeat_last_n: Some(-1),
        };
        assert_eq!((config, problems), (expected, Vec::new()));
    }

    #[test]
    fn a_value_that_cannot_be_used_is_left_out_by_name_and_the_others_count() {
        for (name, value, expected) in [
            ("temp", float(-0.5), "general.sampling.temp is -0.5: expected a number from 0 to 100"),
            ("temp", float(f32::NAN), "general.sampling.temp is NaN"),
            ("top_k", float(1.5), "expected a whole number from -1 to 2147483647"),
            ("top_p", Value::String("all".into()), "general.sampling.top_p is \"all\""),
            ("min_p", Value::Bool(true), "general.sampling.min_p is true"),
            ("penalty_repeat", integer(0), "expected a number from 0.01 to 100"),
            ("mirostat", integer(2), "general.sampling.mirostat is 2"),
            ("sequence", Value::String("top_k;temperature".into()), "the filters' order is fixed"),
        ] {
            let (config, problems) = read_file(&[(name, value), ("xtc_threshold", float(0.25))]);
            assert_eq!(config, GenerationConfig { xtc_threshold: Some(0.25), ..GenerationConfig::default() });
            assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
        }
    }
}
