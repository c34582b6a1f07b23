//! Gemma's calls: `call:name{key:<|"|>text<|"|>,number:5}`. Keys are bare, and texts have quotes of their own.

use super::known_tools::KnownTools;
use super::limits::HEADER_BYTES_MAX;
use super::marks::{could_become, pending};
use super::parameter_type::{ParameterType, json_string};
use super::syntax::{Begin, CallSyntax, Step};
use crate::text::answer_part::AnswerPart;

/// The marks of one family.
#[derive(Debug)]
pub(super) struct GemmaMarks {
    /// The mark before a call. Alone, since a call has but one.
    pub(super) opens: &'static [&'static str],
    /// The mark behind a call.
    pub(super) close: &'static str,
    /// The quote around texts.
    pub(super) quote: &'static str,
}

/// Gemma's calls.
#[derive(Debug)]
pub(super) struct GemmaCalls {
    marks: &'static GemmaMarks,
    /// Open brackets.
    depth: usize,
    /// True inside a text.
    quoted: bool,
    /// A bare key or value that is not complete.
    word: String,
    /// True once the arguments are complete.
    complete: bool,
}

// === impl GemmaCalls ===

impl GemmaCalls {
    pub(super) fn new(marks: &'static GemmaMarks) -> Self {
        Self { marks, depth: 0, quoted: false, word: String::new(), complete: false }
    }

    /// Translates the start of `text` to JSON, appended to `json`. Returns the bytes that it used.
    fn translate(&mut self, text: &str, end: bool, json: &mut String) -> usize {
        let &GemmaMarks { close, quote, .. } = self.marks;
        let mut at = 0;
        while let Some(character) = text[at..].chars().next() {
            let rest = &text[at..];
            if self.quoted {
                let (length, closed) = match rest.find(quote) {
                    Some(length) => (length, true),
                    None if end => (rest.len(), false),
                    None => (rest.len() - pending(rest, &[quote]), false),
                };
                json.push_str(&json_string(&rest[..length]));
                at += length;
                if !closed {
                    return at;
                }
                (self.quoted, at) = (false, at + quote.len());
                json.push('"');
            } else if rest.starts_with(quote) {
                (self.quoted, at) = (true, at + quote.len());
                json.push('"');
            } else if rest.starts_with(close) {
                self.complete = true;
                return at;
            } else if !end && could_become(rest, &[quote, close]) {
                return at;
            } else {
                self.bare(character, json);
                at += character.len_utf8();
                if self.complete {
                    return at;
                }
            }
        }
        at
    }

    /// Takes a character outside of texts.
    fn bare(&mut self, character: char, json: &mut String) {
        match character {
            '{' | '[' => {
                self.depth += 1;
                json.push(character);
            }
            '}' | ']' => {
                self.literal(json);
                json.push(character);
                self.depth = self.depth.saturating_sub(1);
                self.complete = self.depth == 0;
            }
            ',' => {
                self.literal(json);
                json.push_str(", ");
            }
            ':' => {
                let key = std::mem::take(&mut self.word);
                if !key.trim().is_empty() {
                    json.push_str(&format!("\"{}\"", json_string(key.trim())));
                }
                json.push_str(": ");
            }
            _ if self.word.len() < HEADER_BYTES_MAX => self.word.push(character),
            _ => {
                self.literal(json);
                self.word.push(character);
            }
        }
    }

    /// Writes the word that is complete as a value.
    fn literal(&mut self, json: &mut String) {
        let word = std::mem::take(&mut self.word);
        if !word.trim().is_empty() {
            json.push_str(&ParameterType::Json.json(word.trim()));
        }
    }
}

impl CallSyntax for GemmaCalls {
    fn opens(&self) -> &[&'static str] {
        self.marks.opens
    }

    fn begin(&mut self, text: &str, end: bool, tools: &KnownTools) -> Begin {
        let more = if end || text.len() > HEADER_BYTES_MAX { Begin::NotACall } else { Begin::More };
        let open = self.marks.opens.iter().find(|open| text.starts_with(**open)).map_or(0, |open| open.len());
        let rest = text[open..].trim_start();
        let Some(header) = rest.strip_prefix("call:") else {
            return if could_become(rest, &["call:"]) { more } else { Begin::NotACall };
        };
        let Some(brace) = header.find('{') else { return more };
        let name = header[..brace].trim();
        if tools.get(name).is_none() {
            return Begin::NotACall;
        }
        *self = Self::new(self.marks);
        let used = text.len() - header.len() + brace;
        Begin::Call { used, parts: vec![AnswerPart::Call { name: name.to_owned() }] }
    }

    fn step(&mut self, text: &str, end: bool, _: &KnownTools) -> Step {
        if !self.complete {
            let mut json = String::new();
            let used = self.translate(text, end, &mut json);
            let mut parts = Vec::new();
            AnswerPart::Arguments(json).add_to(&mut parts);
            if self.complete {
                parts.push(AnswerPart::CallEnd);
            } else if used == 0 {
                return if end { Step::Closed { used: 0 } } else { Step::More };
            }
            return Step::Took { used, parts };
        }
        let rest = text.trim_start();
        let space = text.len() - rest.len();
        if rest.starts_with(self.marks.close) {
            Step::Closed { used: space + self.marks.close.len() }
        } else if !end && (rest.is_empty() || could_become(rest, &[self.marks.close])) {
            Step::More
        } else {
            Step::Closed { used: 0 }
        }
    }
}
