//! Finds the end of a JSON value in text that arrives in pieces.

use super::marks::could_become;

/// A place in a JSON value. It follows strings and brackets only, and does not check that the value is valid.
#[derive(Debug, Clone, Default)]
pub(super) struct JsonScan {
    /// Open brackets.
    depth: usize,
    /// True inside a string.
    string: bool,
    /// True after a backslash in a string.
    escaped: bool,
    /// True once the value has begun.
    begun: bool,
}

/// The part of a text that belongs to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Bytes at the start of the text that belong to the value.
    pub(super) used: usize,
    /// True if the value ends there.
    pub(super) ended: bool,
}

// === impl JsonScan ===

impl JsonScan {
    /// Follows more text of the value. Outside its strings, one of `closers` ends a value even if brackets are open.
    /// The beginning of a closer at the end of `text` is not used.
    pub(super) fn feed(&mut self, text: &str, closers: &[&str]) -> Scanned {
        for (at, character) in text.char_indices() {
            let rest = &text[at..];
            if !self.string {
                if closers.iter().any(|closer| !closer.is_empty() && rest.starts_with(closer)) {
                    return Scanned { used: at, ended: true };
                }
                if could_become(rest, closers) {
                    return Scanned { used: at, ended: false };
                }
                if self.depth == 0 && self.begun && (character.is_whitespace() || ",]}".contains(character)) {
                    return Scanned { used: at, ended: true };
                }
            }
            if self.step(character) {
                return Scanned { used: at + character.len_utf8(), ended: true };
            }
        }
        Scanned { used: text.len(), ended: false }
    }

    /// Takes one character. True if it ends the value.
    fn step(&mut self, character: char) -> bool {
        self.begun = true;
        if self.string {
            match character {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => {
                    self.string = false;
                    return self.depth == 0;
                }
                _ => {}
            }
            return false;
        }
        match character {
            '"' => self.string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

/// The JSON value at the start of `text`, as text. `None` if it is not complete.
pub(super) fn whole_value(text: &str) -> Option<&str> {
    let scanned = JsonScan::default().feed(text, &[]);
    scanned.ended.then(|| &text[..scanned.used])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_with_its_last_bracket_or_quote_or_before_a_delimiter() {
        for (text, value) in [
            (r#"{"a": "}\"]"} x"#, r#"{"a": "}\"]"}"#),
            ("[1, [2]], 3", "[1, [2]]"),
            (r#""a\\" "#, r#""a\\""#),
            ("12.5, 3", "12.5"),
            ("true}", "true"),
        ] {
            assert_eq!(whole_value(text), Some(value), "{text}");
        }
        for text in ["{\"a\": 1", "\"a", "12", ""] {
            assert_eq!(whole_value(text), None, "{text}");
        }
    }

    #[test]
    fn a_closer_ends_a_value_outside_strings_only() {
        let feed = |text| JsonScan::default().feed(text, &["</c>"]);
        assert_eq!(feed("{\"a\": \"</c>\", [</c>"), Scanned { used: 15, ended: true });
        assert_eq!(feed("{\"a\": 1</"), Scanned { used: 7, ended: false });
    }
}
