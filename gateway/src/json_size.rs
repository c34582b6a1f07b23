//! The size of a JSON text once it is parsed, counted before.

/// The numbers of a JSON text's parts that take memory when it is parsed: up to 144 times the bytes of the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct JsonSize {
    /// Values, or a few more. Parsed, each takes 72 bytes.
    pub(crate) values: usize,
    /// Lists and objects. Parsed, each takes 300 bytes.
    pub(crate) lists: usize,
}

/// A JSON text has more of something than it may have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {most} {of}, found {found}")]
pub(crate) struct TooMuchJson {
    of: &'static str,
    most: usize,
    found: usize,
}

// === impl JsonSize ===

impl JsonSize {
    /// Counts what `text` has, be it JSON or not.
    pub(crate) fn of(text: &[u8]) -> Self {
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

    /// Checks that it has at most as much as `most`.
    ///
    /// # Errors
    /// [`TooMuchJson`] with what there is too much of.
    pub(crate) fn within(self, most: Self) -> Result<(), TooMuchJson> {
        if self.lists > most.lists {
            return Err(TooMuchJson { of: "lists and objects", most: most.lists, found: self.lists });
        }
        if self.values > most.values {
            return Err(TooMuchJson { of: "values", most: most.values, found: self.values });
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
    fn a_text_of_nothing_but_lists_or_numbers_is_refused_before_it_is_parsed() {
        let most = JsonSize { values: 1000, lists: 100 };
        let error = |text: String| JsonSize::of(text.as_bytes()).within(most).unwrap_err().to_string();
        assert_eq!(error("[".repeat(101)), "expected at most 100 lists and objects, found 101");
        assert_eq!(error("1,".repeat(1000)), "expected at most 1000 values, found 1001");
        assert!(JsonSize::of("1,".repeat(999).as_bytes()).within(most).is_ok());
    }
}
