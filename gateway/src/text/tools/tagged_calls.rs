//! Calls as tags, one for each argument: `<function=f><parameter=a>1</parameter></function>`.
//!
//! The arguments become a JSON object. A value that the tool's schema declares as text is passed on as it comes. Of
//! other values the type is known at their end only.

use super::known_tools::KnownTools;
use super::limits::{HEADER_BYTES_MAX, HELD_BYTES_MAX};
use super::marks::{could_become, find_first, pending};
use super::parameter_type::{ParameterType, json_string};
use super::syntax::{Begin, CallSyntax, Step};
use crate::text::answer_part::AnswerPart;

/// The marks of one family.
#[derive(Debug)]
pub(super) struct TaggedMarks {
    /// Marks at which calls begin.
    pub(super) opens: &'static [&'static str],
    /// The marks around calls.
    pub(super) section: (&'static str, &'static str),
    /// The mark before a call's name. It may be empty.
    pub(super) open: &'static str,
    /// The marks behind a name. Those that begin a parameter or end the call belong to what follows.
    pub(super) name_ends: &'static [&'static str],
    /// The mark behind a call's last parameter.
    pub(super) close: &'static str,
    /// The mark before a parameter's key.
    pub(super) key_open: &'static str,
    /// The mark behind the key.
    pub(super) key_close: &'static str,
    /// The mark before the value, if there is one. Between it and the key there may be attributes.
    pub(super) value_open: &'static str,
    /// The mark behind the value.
    pub(super) value_close: &'static str,
    /// True if a line break after the mark before a value, and one before the mark behind it, are not part of it.
    pub(super) lines: bool,
}

/// Calls as tags.
#[derive(Debug)]
pub(super) struct TaggedCalls {
    marks: &'static TaggedMarks,
    /// The current tool's name.
    name: String,
    /// True before the call's first parameter.
    first: bool,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a parameter or the end of a call.
    Parameters,
    /// In a value. `begun` is true after its first character.
    Value { kind: ParameterType, begun: bool },
    /// After a call.
    Between,
}

// === impl TaggedCalls ===

impl TaggedCalls {
    pub(super) fn new(marks: &'static TaggedMarks) -> Self {
        Self { marks, name: String::new(), first: true, place: Place::Between }
    }

    /// Reads the call at the start of `text`, up to its name. `before` bytes are consumed before it.
    fn call(&mut self, text: &str, before: usize, end: bool, tools: &KnownTools) -> Begin {
        let more = if end || text.len() > HEADER_BYTES_MAX { Begin::NotACall } else { Begin::More };
        let &TaggedMarks { open, name_ends, key_open, close, .. } = self.marks;
        let Some(header) = text.strip_prefix(open) else {
            return if could_become(text, &[open]) { more } else { Begin::NotACall };
        };
        let Some((at, mark)) = find_first(header, name_ends) else { return more };
        let name = header[..at].trim();
        if tools.get(name).is_none() {
            return Begin::NotACall;
        }
        let behind = if mark == key_open || mark == close { 0 } else { mark.len() };
        (self.name, self.first, self.place) = (name.to_owned(), true, Place::Parameters);
        let parts = vec![AnswerPart::Call { name: name.to_owned() }];
        Begin::Call { used: before + open.len() + at + behind, parts }
    }

    /// The text that begins the next field of the object.
    fn comma(&mut self) -> &'static str {
        if std::mem::take(&mut self.first) { "{" } else { ", " }
    }

    fn parameters(&mut self, text: &str, end: bool, tools: &KnownTools) -> Step {
        let &TaggedMarks { section, close, key_open, .. } = self.marks;
        let rest = text.trim_start();
        let space = text.len() - rest.len();
        if rest.starts_with(key_open) {
            return self.key(rest, space, end, tools);
        }
        let closes = rest.starts_with(close) || rest.starts_with(section.1) || end && rest.is_empty();
        if closes {
            let used = if rest.starts_with(close) { space + close.len() } else { space };
            let json = if self.first { "{}" } else { "}" };
            self.place = Place::Between;
            let parts = vec![AnswerPart::Arguments(json.to_owned()), AnswerPart::CallEnd];
            return Step::Took { used, parts };
        }
        let marks = [key_open, close, section.1];
        if !end && (rest.is_empty() || could_become(rest, &marks)) {
            return Step::More;
        }
        // Text between parameters belongs to no argument. White space before a mark is the format's own.
        let used = find_first(rest, &marks).map_or(rest.len() - pending(rest, &marks), |(at, _)| at).max(1);
        let used = (used..=rest.len()).find(|&used| rest.is_char_boundary(used)).unwrap_or(rest.len());
        let used = space + rest[..used].trim_end().len();
        Step::Took { used, parts: vec![AnswerPart::Text(text[..used].to_owned())] }
    }

    fn key(&mut self, rest: &str, space: usize, end: bool, tools: &KnownTools) -> Step {
        let &TaggedMarks { key_open, key_close, value_open, .. } = self.marks;
        let incomplete = || {
            let lost = end || rest.len() > HEADER_BYTES_MAX;
            let parts = vec![AnswerPart::Text(rest.to_owned())];
            if lost { Step::Took { used: space + rest.len(), parts } } else { Step::More }
        };
        let behind = &rest[key_open.len()..];
        let Some(key_end) = behind.find(key_close) else { return incomplete() };
        let key = behind[..key_end].trim();
        let behind_key = &behind[key_end + key_close.len()..];
        let Some(attributes_end) = behind_key.find(value_open) else { return incomplete() };
        let kind = match behind_key[..attributes_end].trim() {
            r#"string="true""# => ParameterType::Text,
            r#"string="false""# => ParameterType::Json,
            _ => ParameterType::of(tools.get(&self.name), key),
        };
        self.place = Place::Value { kind, begun: false };
        let quote = if kind == ParameterType::Text { "\"" } else { "" };
        let json = format!("{}\"{}\": {quote}", self.comma(), json_string(key));
        let used = space + key_open.len() + key_end + key_close.len() + attributes_end + value_open.len();
        Step::Took { used, parts: vec![AnswerPart::Arguments(json)] }
    }

    fn value(&mut self, text: &str, end: bool, kind: ParameterType, begun: bool) -> Step {
        let &TaggedMarks { value_close, lines, .. } = self.marks;
        if lines && !begun {
            if !end && (text.is_empty() || text == "\r") {
                return Step::More;
            }
            self.place = Place::Value { kind, begun: true };
            let line_break = if text.starts_with("\r\n") { 2 } else { usize::from(text.starts_with('\n')) };
            if line_break > 0 {
                return Step::Took { used: line_break, parts: Vec::new() };
            }
        }
        let line = |value: &str| if lines { value.strip_suffix('\n').unwrap_or(value).len() } else { value.len() };
        if let Some(at) = text.find(value_close) {
            self.place = Place::Parameters;
            let value = &text[..line(&text[..at])];
            let json = if kind == ParameterType::Text { json_string(value) + "\"" } else { kind.json(value) };
            return Step::Took { used: at + value_close.len(), parts: vec![AnswerPart::Arguments(json)] };
        }
        let ready = if end {
            text.len()
        } else if kind == ParameterType::Text {
            line(&text[..text.len() - pending(text, &[value_close])])
        } else if text.len() > HELD_BYTES_MAX {
            // Too long for a number or the like.
            text.len() - pending(text, &[value_close])
        } else {
            0
        };
        if ready == 0 {
            return if end { Step::Closed { used: 0 } } else { Step::More };
        }
        let json = if kind == ParameterType::Text { json_string(&text[..ready]) } else { text[..ready].to_owned() };
        Step::Took { used: ready, parts: vec![AnswerPart::Arguments(json)] }
    }

    fn between(&mut self, text: &str, end: bool, tools: &KnownTools) -> Step {
        let &TaggedMarks { section, open, .. } = self.marks;
        let rest = text.trim_start();
        let space = text.len() - rest.len();
        if rest.starts_with(section.1) {
            return Step::Closed { used: space + section.1.len() };
        }
        if !end && (rest.is_empty() || could_become(rest, &[section.1, open])) {
            return Step::More;
        }
        // Where the name has no mark before it, a section has one call.
        if open.is_empty() {
            return Step::Closed { used: 0 };
        }
        match self.call(rest, space, end, tools) {
            Begin::More => Step::More,
            Begin::NotACall => Step::Closed { used: 0 },
            Begin::Call { used, parts } => Step::Took { used, parts },
        }
    }
}

impl CallSyntax for TaggedCalls {
    fn opens(&self) -> &[&'static str] {
        self.marks.opens
    }

    fn begin(&mut self, text: &str, end: bool, tools: &KnownTools) -> Begin {
        let rest = text.strip_prefix(self.marks.section.0).unwrap_or(text).trim_start();
        if rest.is_empty() {
            return if end { Begin::NotACall } else { Begin::More };
        }
        self.call(rest, text.len() - rest.len(), end, tools)
    }

    fn step(&mut self, text: &str, end: bool, tools: &KnownTools) -> Step {
        match self.place {
            Place::Parameters => self.parameters(text, end, tools),
            Place::Value { kind, begun } => self.value(text, end, kind, begun),
            Place::Between => self.between(text, end, tools),
        }
    }
}
