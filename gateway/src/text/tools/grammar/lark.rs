//! Writes rules of a Lark grammar.

use std::fmt::Write;

use crate::text::tools::marks::find_first;

/// Any text. In a rule, control tokens are no text.
pub(super) const ANY_TEXT: &str = "/(?s:.*)/";

/// The rules of a grammar.
#[derive(Debug)]
pub(super) struct Lark<'a> {
    rules: String,
    /// Number of rules with names of their own.
    named: usize,
    /// The marks that are control tokens: they are referred to by their ids.
    control: &'a [(u32, String)],
}

// === impl Lark ===

impl<'a> Lark<'a> {
    pub(super) fn new(control: &'a [(u32, String)]) -> Self {
        Self { rules: String::new(), named: 0, control }
    }

    /// Adds the rule `name`.
    pub(super) fn rule(&mut self, name: &str, body: &str) {
        let _ = writeln!(self.rules, "{name}: {body}");
    }

    /// Adds a rule, and returns its name.
    pub(super) fn add(&mut self, body: &str) -> String {
        let name = self.name();
        self.rule(&name, body);
        name
    }

    /// A name that no rule has.
    pub(super) fn name(&mut self) -> String {
        self.named += 1;
        format!("rule_{}", self.named)
    }

    /// The expression of exactly `text`, in which marks that are control tokens are these tokens.
    pub(super) fn literal(&self, text: &str) -> String {
        let spellings: Vec<&str> = self.control.iter().map(|(_, spelling)| spelling.as_str()).collect();
        let mut terms = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (at, mark) = find_first(rest, &spellings).unwrap_or((rest.len(), ""));
            if at > 0 {
                terms.push(quoted(&rest[..at]));
            }
            if let Some(id) = self.id(mark) {
                terms.push(format!("<[{id}]>"));
            }
            rest = &rest[at + mark.len()..];
        }
        terms.join(" ")
    }

    /// The expression of any text up to `close`, and of `close` itself.
    pub(super) fn text_until(&mut self, close: &str) -> String {
        if self.begins_with_control(close) {
            return format!("{ANY_TEXT} {}", self.literal(close));
        }
        // Lazy: it ends with the first `close`.
        let name = self.name();
        self.rule(&format!("{name}[lazy]"), &format!("/(?s:.*){}/", escaped(close)));
        name
    }

    /// True if `text` begins with a control token.
    pub(super) fn begins_with_control(&self, text: &str) -> bool {
        self.control.iter().any(|(_, spelling)| text.starts_with(spelling.as_str()))
    }

    /// The whole grammar.
    pub(super) fn finish(self) -> String {
        self.rules
    }

    fn id(&self, mark: &str) -> Option<u32> {
        self.control.iter().find(|(_, spelling)| spelling == mark).map(|(id, _)| *id)
    }
}

/// `text` as a string of Lark, which has the escapes of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A regular expression that matches exactly `text`.
pub(super) fn escaped(text: &str) -> String {
    let mut pattern = String::new();
    for character in text.chars() {
        let _ = match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' => write!(pattern, "{character}"),
            other => write!(pattern, "\\x{{{:X}}}", u32::from(other)),
        };
    }
    pattern
}
