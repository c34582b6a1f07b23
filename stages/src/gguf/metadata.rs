//! A file's metadata, read by key and type.
//!
//! Integers of another width are converted if the value fits, and 64-bit floats are rounded. Nothing else is converted:
//! a number is not read as text, a float not as an integer.

use std::collections::BTreeMap;

use super::MetadataError;
use super::error::quoted;
use super::value::{Numbers, Strings, Value, ValueKind};

/// Metadata values by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    values: BTreeMap<Box<str>, Value>,
}

// === impl Metadata ===

macro_rules! getters {
    ($(
        $(#[$doc:meta])*
        $required:ident, $optional:ident, $default:ident: $type:ty, $expected:literal, $convert:expr;
    )*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`MetadataError`] when the key is absent, of another type, or out of range.
            pub fn $required(&self, key: &str) -> Result<$type, MetadataError> {
                self.$optional(key)?.ok_or_else(|| absent(key, $expected))
            }

            #[doc = concat!("As [`Self::", stringify!($required), "`], with `None` for an absent key.")]
            ///
            /// # Errors
            /// [`MetadataError`] when the value is of another type or out of range.
            pub fn $optional(&self, key: &str) -> Result<Option<$type>, MetadataError> {
                let convert: fn(&Value) -> Option<$type> = $convert;
                self.convert(key, $expected, convert)
            }

            #[doc = concat!("As [`Self::", stringify!($required), "`], with `default` for an absent key.")]
            ///
            /// # Errors
            /// [`MetadataError`] when the value is of another type or out of range.
            pub fn $default(&self, key: &str, default: $type) -> Result<$type, MetadataError> {
                Ok(self.$optional(key)?.unwrap_or(default))
            }
        )*
    };
}

impl Metadata {
    getters! {
        /// The integer of `key`.
        u32, get_u32, u32_or: u32, "u32", |value| integer(value)?.try_into().ok();
        /// The integer of `key`.
        u64, get_u64, u64_or: u64, "u64", |value| integer(value)?.try_into().ok();
        /// The integer of `key`.
        i32, get_i32, i32_or: i32, "i32", |value| integer(value)?.try_into().ok();
        /// The float of `key`. A 64-bit float is rounded.
        f32, get_f32, f32_or: f32, "f32", float;
        /// The boolean of `key`.
        bool, get_bool, bool_or: bool, "bool", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        };
        /// The integers of `key`.
        u32_array, get_u32_array, u32_array_or: Vec<u32>, "array of u32",
            |value| numbers(value)?.iter().map(|one| integer(&one)?.try_into().ok()).collect();
        /// The integers of `key`.
        i32_array, get_i32_array, i32_array_or: Vec<i32>, "array of i32",
            |value| numbers(value)?.iter().map(|one| integer(&one)?.try_into().ok()).collect();
        /// The floats of `key`. 64-bit floats are rounded.
        f32_array, get_f32_array, f32_array_or: Vec<f32>, "array of f32",
            |value| numbers(value)?.iter().map(|one| float(&one)).collect();
        /// The booleans of `key`.
        bool_array, get_bool_array, bool_array_or: Vec<bool>, "array of bool",
            |value| {
                numbers(value)?.iter().map(|one| if let Value::Bool(one) = one { Some(one) } else { None }).collect()
            };
    }

    /// The text of `key`.
    ///
    /// # Errors
    /// [`MetadataError`] when the key is absent or of another type.
    pub fn str(&self, key: &str) -> Result<&str, MetadataError> {
        self.get_str(key)?.ok_or_else(|| absent(key, "string"))
    }

    /// The text of `key`, `None` for an absent key.
    ///
    /// # Errors
    /// [`MetadataError`] when the value is of another type.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>, MetadataError> {
        self.convert(key, "string", |value| if let Value::String(text) = value { Some(&**text) } else { None })
    }

    /// The text of `key`, `default` for an absent key.
    ///
    /// # Errors
    /// [`MetadataError`] when the value is of another type.
    pub fn str_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str, MetadataError> {
        Ok(self.get_str(key)?.unwrap_or(default))
    }

    /// The texts of `key`.
    ///
    /// # Errors
    /// [`MetadataError`] when the key is absent or of another type.
    pub fn str_array(&self, key: &str) -> Result<&Strings, MetadataError> {
        self.get_str_array(key)?.ok_or_else(|| absent(key, "array of string"))
    }

    /// The texts of `key`, `None` for an absent key.
    ///
    /// # Errors
    /// [`MetadataError`] when the value is of another type.
    pub fn get_str_array(&self, key: &str) -> Result<Option<&Strings>, MetadataError> {
        self.convert(key, "array of string", |value| if let Value::Strings(texts) = value { Some(texts) } else { None })
    }

    /// The value of `key`, of any type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (&**key, value))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// True if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Sets `key` and returns its previous value.
    pub fn insert(&mut self, key: &str, value: Value) -> Option<Value> {
        self.values.insert(key.into(), value)
    }

    fn convert<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, MetadataError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let wrong = || MetadataError { key: quoted(key), expected: expected.to_owned(), found: value.describe() };
        convert(value).map(Some).ok_or_else(wrong)
    }
}

fn absent(key: &str, expected: &str) -> MetadataError {
    MetadataError { key: quoted(key), expected: expected.to_owned(), found: "no such key".to_owned() }
}

fn integer(value: &Value) -> Option<i128> {
    if let Value::Integer(_, value) = value { Some(*value) } else { None }
}

fn float(value: &Value) -> Option<f32> {
    match value {
        Value::Float(ValueKind::F32 | ValueKind::F64, value) => Some(*value as f32),
        _ => None,
    }
}

fn numbers(value: &Value) -> Option<&Numbers> {
    if let Value::Numbers(numbers) = value { Some(numbers) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(value: impl Into<Value>) -> Metadata {
        let mut metadata = Metadata::default();
        metadata.insert("a.key", value.into());
        metadata
    }

    #[test]
    fn an_integer_of_another_width_is_converted_when_it_fits() {
        let metadata = metadata(7u64);
        assert_eq!(metadata.u32("a.key").unwrap(), 7);
        assert_eq!(metadata.i32("a.key").unwrap(), 7);
    }

    #[test]
    fn an_integer_that_does_not_fit_names_key_type_and_value() {
        let error = metadata(1u64 << 32).u32("a.key").unwrap_err();
        assert_eq!(error.to_string(), r#"metadata key "a.key": expected u32, found u64 4294967296"#);
        let error = metadata(-1i32).u64("a.key").unwrap_err();
        assert_eq!(error.to_string(), r#"metadata key "a.key": expected u64, found i32 -1"#);
    }

    #[test]
    fn an_absent_key_is_an_error_none_or_the_default_as_requested() {
        let metadata = Metadata::default();
        let error = metadata.str("general.architecture").unwrap_err();
        assert_eq!(error.to_string(), r#"metadata key "general.architecture": expected string, found no such key"#);
        assert_eq!(metadata.get_f32("x").unwrap(), None);
        assert_eq!(metadata.f32_or("x", 0.5).unwrap(), 0.5);
    }

    #[test]
    fn a_default_does_not_hide_a_value_of_the_wrong_type() {
        let error = metadata("many").u32_or("a.key", 3).unwrap_err();
        assert_eq!(error.to_string(), r#"metadata key "a.key": expected u32, found string "many""#);
        assert!(metadata(1u32).f32("a.key").is_err(), "an integer is no float");
        assert!(metadata(1u32).bool("a.key").is_err(), "an integer is no bool");
    }

    #[test]
    fn arrays_keep_their_order_and_their_type() {
        assert_eq!(metadata(&[3u32, 1, 2][..]).i32_array("a.key").unwrap(), [3, 1, 2]);
        assert_eq!(metadata(&[0.5f32, -1.0][..]).f32_array("a.key").unwrap(), [0.5, -1.0]);
        let strings = metadata(&["b", "", "äé"][..]);
        assert_eq!(strings.str_array("a.key").unwrap().iter().collect::<Vec<_>>(), ["b", "", "äé"]);
        assert_eq!(
            strings.u32_array("a.key").unwrap_err().to_string(),
            r#"metadata key "a.key": expected array of u32, found array of 3 string"#
        );
        assert!(metadata(&[-1i32][..]).u32_array("a.key").is_err(), "one element out of range is an error");
    }
}
