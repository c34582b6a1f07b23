//! The parts of a client's text that a rendering marks, so that they are found in the prompt.

use crate::text::rendered::Marks;

/// Longest word, in bytes, as for roles.
const WORD_BYTES_MAX: usize = 64;

/// A way of marking a client's text. Without `marks`, text stays as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marking<'a> {
    pub(super) marks: Option<Marks>,
    pub(super) level: Level,
    /// The control tokens' spellings.
    pub(super) control: &'a [String],
}

/// The text that is marked. Templates look at names, types and ids, so that some change their output if these are
/// marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// All text.
    All,
    /// All but single words, besides the messages themselves.
    NoWords,
    /// Only what spells control tokens, or could complete one.
    Control,
}

// === impl Marking ===

impl Marking<'_> {
    /// A message's text, a tool's result, a description or the arguments of a call.
    pub(super) fn content(&self, text: &str) -> String {
        match self.marks {
            None => text.to_owned(),
            Some(marks) if self.level == Level::Control => marks.around_control(text, self.control),
            Some(marks) => marks.around(text),
        }
    }

    /// A name, an id, or a string of a schema or of a template's variable. As with roles, a word cannot become a
    /// control token unless a template makes one of it.
    pub(super) fn text(&self, text: &str) -> String {
        if self.level != Level::All && self.is_word(text) { text.to_owned() } else { self.content(text) }
    }

    /// A key of an object. Templates look values up by their keys, so words are never marked.
    pub(super) fn key(&self, key: &str) -> String {
        match self.marks {
            Some(marks) if !self.is_word(key) => marks.around_control(key, self.control),
            _ => key.to_owned(),
        }
    }

    fn is_word(&self, text: &str) -> bool {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let spelled = |token: &String| !token.is_empty() && text.contains(token.as_str());
        text.len() <= WORD_BYTES_MAX && text.bytes().all(known) && !self.control.iter().any(spelled)
    }
}
