//! The size of a JSON text once it is parsed, counted before.

use super::error::ApiError;
use super::limits::{JSON_LISTS_MAX, JSON_VALUES_MAX};

/// The numbers of a JSON text's parts that take memory when it is parsed: up to 144 times the bytes of the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct JsonSize {
    /// Values, or a few more.
    values: usize,
    /// Lists and objects.
    lists: usize,
}

// === impl JsonSize ===

impl JsonSize {
    /// Counts what `text` has, be it JSON or not.
    pub(super) fn of(text: &[u8]) -> Self {
        let mut size = Self { values: 1, lists: 0 };
        let mut bytes = text.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => skip_string(&mut bytes),
                b',' => size.values += 1,
                b'[' | b'{' => {
                    size.values += 1;
                    size.lists += 1;
                }
                _ => {}
            }
        }
        size
    }

    /// Checks it against the bounds of a body.
    ///
    /// # Errors
    /// A 413 that says what there is too much of.
    pub(super) fn check(self) -> Result<(), ApiError> {
        if self.lists > JSON_LISTS_MAX {
            return Err(ApiError::too_many_in_body("lists and objects", self.lists, JSON_LISTS_MAX));
        }
        if self.values > JSON_VALUES_MAX {
            return Err(ApiError::too_many_in_body("values", self.values, JSON_VALUES_MAX));
        }
        Ok(())
    }
}

/// Goes on to the end of a string whose first quote was read.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_and_commas_in_strings_count_for_nothing() {
        let text = br#"{"a": [1, 2, {"b": "[,{\"[\\"}], "c": []}"#;
        assert_eq!(JsonSize::of(text), JsonSize { values: 1 + 4 + 3, lists: 4 });
        assert_eq!(JsonSize::of(br#""never ends [\"#), JsonSize { values: 1, lists: 0 });
    }

    #[test]
    fn a_body_of_nothing_but_lists_or_numbers_is_refused_before_it_is_parsed() {
        let error = |text: String| JsonSize::of(text.as_bytes()).check().unwrap_err().message().to_owned();
        let lists = error("[".repeat(JSON_LISTS_MAX + 1));
        assert!(lists.contains("at most 65536 lists and objects, found 65537"), "{lists}");
        let values = error("1,".repeat(JSON_VALUES_MAX));
        assert!(values.contains("at most 524288 values, found 524289"), "{values}");
        assert!(JsonSize::of("1,".repeat(JSON_VALUES_MAX - 1).as_bytes()).check().is_ok());
    }
}
