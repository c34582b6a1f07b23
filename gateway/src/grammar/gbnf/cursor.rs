//! A place in a GBNF text.

use crate::grammar::{GrammarError, Position};

/// The rest of a text, and how much was read. A copy remembers the place.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'t> {
    text: &'t str,
    /// The byte at which the rest begins.
    at: usize,
}

// === impl Cursor ===

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// The next character, if there is one.
    pub(super) fn peek(self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// The character after the next one.
    pub(super) fn peek_second(self) -> Option<char> {
        self.text[self.at..].chars().nth(1)
    }

    /// Reads the next character.
    pub(super) fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    /// Reads `expected` if it comes next. True if it does.
    pub(super) fn eat(&mut self, expected: &str) -> bool {
        let found = self.text[self.at..].starts_with(expected);
        self.at += if found { expected.len() } else { 0 };
        found
    }

    /// Reads the characters for which `belongs` is true.
    pub(super) fn eat_while(&mut self, belongs: impl Fn(char) -> bool) -> &'t str {
        let rest = &self.text[self.at..];
        let length = rest.find(|character| !belongs(character)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Reads white space and comments. Line breaks only if `lines` is true.
    pub(super) fn skip_space(&mut self, lines: bool) {
        loop {
            self.eat_while(|character| matches!(character, ' ' | '\t') || lines && matches!(character, '\r' | '\n'));
            if self.peek() != Some('#') {
                return;
            }
            self.eat_while(|character| !matches!(character, '\r' | '\n'));
        }
    }

    /// The place at which the rest begins. It takes time to find: only mistakes need it.
    pub(super) fn position(self) -> Position {
        let before = &self.text[..self.at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Position::Text { line, column }
    }

    /// A mistake at this place: `expected`, and what comes instead.
    pub(super) fn expected(self, expected: &str) -> GrammarError {
        let found = match self.peek() {
            Some(character) => format!("{character:?}"),
            None => "the end".to_owned(),
        };
        let reason = format!("expected {expected}, found {found}");
        GrammarError::Invalid { reason, position: Some(self.position()) }
    }
}
