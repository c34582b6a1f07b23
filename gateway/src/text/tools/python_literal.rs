//! Reads a call and its literals in Python's syntax, and writes the arguments as JSON.

use super::limits::PYTHON_DEPTH_MAX;
use super::parameter_type::json_string;

/// A whole call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PythonCall {
    /// Bytes of the call.
    pub(super) used: usize,
    pub(super) name: String,
    /// The arguments as a JSON object.
    pub(super) arguments: String,
}

/// The reason why a text cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadError {
    /// It ends too early.
    Incomplete,
    /// It is no call of a known function with named arguments that are literals.
    NotACall,
}

// === impl PythonCall ===

impl PythonCall {
    /// Reads the call at the start of `text`. `known` says if there is a function of a name.
    ///
    /// # Errors
    /// [`ReadError`] as soon as the text shows that it is no such call.
    pub(super) fn read(text: &str, known: impl Fn(&str) -> bool) -> Result<Self, ReadError> {
        let mut reader = Reader { rest: text };
        let name = reader.name()?;
        let open = reader.next()?;
        if open != '(' || !known(name) {
            return Err(ReadError::NotACall);
        }
        let mut arguments = "{".to_owned();
        reader.skip(1);
        while reader.next()? != ')' {
            let key = reader.name()?;
            reader.expect('=')?;
            if arguments.len() > 1 {
                arguments.push_str(", ");
            }
            arguments.push_str(&format!("\"{}\": ", json_string(key)));
            reader.value(0, &mut arguments)?;
            if reader.next()? != ')' {
                reader.expect(',')?;
            }
        }
        reader.skip(1);
        arguments.push('}');
        Ok(Self { used: text.len() - reader.rest.len(), name: name.to_owned(), arguments })
    }
}

struct Reader<'t> {
    rest: &'t str,
}

// === impl Reader ===

impl<'t> Reader<'t> {
    /// The next character that is no white space, which is not consumed.
    fn next(&mut self) -> Result<char, ReadError> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next().ok_or(ReadError::Incomplete)
    }

    /// Skips `bytes` bytes that were read as characters.
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn expect(&mut self, expected: char) -> Result<(), ReadError> {
        if self.next()? != expected {
            return Err(ReadError::NotACall);
        }
        self.skip(expected.len_utf8());
        Ok(())
    }

    /// A name of letters, digits, `_`, `.` and `-`. The character behind it must be there.
    fn name(&mut self) -> Result<&'t str, ReadError> {
        self.next()?;
        let other = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-'));
        let end = self.rest.find(other).ok_or(ReadError::Incomplete)?;
        let name = &self.rest[..end];
        self.skip(end);
        if name.is_empty() { Err(ReadError::NotACall) } else { Ok(name) }
    }

    /// Reads a literal and appends it to `json`.
    fn value(&mut self, depth: usize, json: &mut String) -> Result<(), ReadError> {
        if depth > PYTHON_DEPTH_MAX {
            return Err(ReadError::NotACall);
        }
        match self.next()? {
            quote @ ('"' | '\'') => {
                let text = self.string(quote)?;
                json.push_str(&format!("\"{}\"", json_string(&text)));
                Ok(())
            }
            '[' => self.items(']', depth, json),
            '(' => self.items(')', depth, json),
            '{' => self.dictionary(depth, json),
            _ => self.scalar(json),
        }
    }

    fn items(&mut self, close: char, depth: usize, json: &mut String) -> Result<(), ReadError> {
        self.skip(1);
        json.push('[');
        let mut first = true;
        while self.next()? != close {
            if !std::mem::take(&mut first) {
                json.push_str(", ");
            }
            self.value(depth + 1, json)?;
            if self.next()? != close {
                self.expect(',')?;
            }
        }
        self.skip(1);
        json.push(']');
        Ok(())
    }

    fn dictionary(&mut self, depth: usize, json: &mut String) -> Result<(), ReadError> {
        self.skip(1);
        json.push('{');
        let mut first = true;
        loop {
            let quote = match self.next()? {
                '}' => break,
                quote @ ('"' | '\'') => quote,
                _ => return Err(ReadError::NotACall),
            };
            if !std::mem::take(&mut first) {
                json.push_str(", ");
            }
            let key = self.string(quote)?;
            self.expect(':')?;
            json.push_str(&format!("\"{}\": ", json_string(&key)));
            self.value(depth + 1, json)?;
            if self.next()? != '}' {
                self.expect(',')?;
            }
        }
        self.skip(1);
        json.push('}');
        Ok(())
    }

    /// A number, or one of Python's and JSON's constants.
    fn scalar(&mut self, json: &mut String) -> Result<(), ReadError> {
        let end = self.rest.find(|c: char| c.is_whitespace() || ",)]}".contains(c)).ok_or(ReadError::Incomplete)?;
        let word = &self.rest[..end];
        let word = match word {
            "True" => "true",
            "False" => "false",
            "None" => "null",
            number => number.strip_prefix('+').unwrap_or(number),
        };
        if serde_json::from_str::<serde::de::IgnoredAny>(word).is_err() {
            return Err(ReadError::NotACall);
        }
        json.push_str(word);
        self.skip(end);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<String, ReadError> {
        self.skip(1);
        let mut text = String::new();
        let mut characters = self.rest.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => match characters.next().ok_or(ReadError::Incomplete)?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    '0' => text.push('\0'),
                    '\n' => {}
                    'x' => text.push(hexadecimal(&mut characters, 2)?),
                    'u' => text.push(hexadecimal(&mut characters, 4)?),
                    'U' => text.push(hexadecimal(&mut characters, 8)?),
                    escaped @ ('\\' | '\'' | '"') => text.push(escaped),
                    // As in Python, a backslash before another character is one.
                    other => text.extend(['\\', other]),
                },
                _ if character == quote => {
                    self.skip(at + 1);
                    return Ok(text);
                }
                _ => text.push(character),
            }
        }
        Err(ReadError::Incomplete)
    }
}

/// The character with the code in the next `digits` hexadecimal digits. A code without one becomes U+FFFD.
fn hexadecimal(characters: &mut std::str::CharIndices<'_>, digits: usize) -> Result<char, ReadError> {
    let mut code = 0;
    for _ in 0..digits {
        let digit = characters.next().ok_or(ReadError::Incomplete)?.1.to_digit(16).ok_or(ReadError::NotACall)?;
        code = code << 4 | digit;
    }
    Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PythonCall, ReadError> {
        PythonCall::read(text, |name| name == "f")
    }

    #[test]
    fn literals_become_json() {
        for (text, arguments) in [
            ("f()", "{}"),
            ("f(a=1, b=-2.5,)", r#"{"a": 1, "b": -2.5}"#),
            (r#"f(a='it\'s "x"\n', b="é\x41\u00e9")"#, r#"{"a": "it's \"x\"\n", "b": "éAé"}"#),
            ("f(a=[1, (True, None)], b={'k': []})", r#"{"a": [1, [true, null]], "b": {"k": []}}"#),
            (" f ( a = 'b)' ) x", r#"{"a": "b)"}"#),
        ] {
            let call = read(text).unwrap();
            assert_eq!(call.arguments, arguments, "{text}");
            assert_eq!(&text[call.used..], text.strip_prefix(" f ( a = 'b)' )").unwrap_or_default(), "{text}");
        }
    }

    #[test]
    fn text_that_may_become_a_call_is_incomplete_and_other_text_is_none() {
        for text in ["", "f", "f(", "f(a", "f(a=", "f(a='x", "f(a='x\\", "f(a=1", "f(a=[1, ", "f(a='\\u00"] {
            assert_eq!(read(text), Err(ReadError::Incomplete), "{text}");
        }
        let deep = format!("f(a={}", "[".repeat(100));
        for text in ["g(", "f x", "f(1)", "f(a=x)", "f(a=g())", "f(a=1 b=2)", "f(a={1: 2})", "(", deep.as_str()] {
            assert_eq!(read(text), Err(ReadError::NotACall), "{text}");
        }
    }
}
