//! Calls as JSON objects, alone or in an array, between marks or bare.

use super::call_object::{Head, arguments_text, read_head};
use super::json_scan::{JsonScan, whole_value};
use super::known_tools::KnownTools;
use super::limits::HELD_BYTES_MAX;
use super::syntax::{Bare, Begin, CallSyntax, Step, whole_call};
use crate::text::answer_part::AnswerPart;

/// Calls as JSON objects.
#[derive(Debug)]
pub(super) struct JsonCalls {
    opens: Vec<&'static str>,
    /// Opening marks, each with its closing mark, which may be empty.
    pairs: &'static [(&'static str, &'static str)],
    bare: Bare,
    /// The closing mark of the current calls.
    close: &'static str,
    /// True while an array is open.
    array: bool,
    /// Objects that are open around the arguments.
    levels: usize,
    scan: JsonScan,
    place: Place,
}

/// A place in calls that began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the arguments' first character.
    Before,
    /// In the arguments.
    Arguments,
    /// After the arguments, in the call's object.
    Rest,
    /// After a call's object.
    Between,
}

// === impl JsonCalls ===

impl JsonCalls {
    pub(super) fn new(pairs: &'static [(&'static str, &'static str)], bare: Bare) -> Self {
        Self {
            opens: pairs.iter().map(|(open, _)| *open).collect(),
            pairs,
            bare,
            close: "",
            array: false,
            levels: 0,
            scan: JsonScan::default(),
            place: Place::Between,
        }
    }

    /// Reads the call at the start of `text`, which is an object. `before` bytes are consumed before it.
    fn call(&mut self, text: &str, before: usize, end: bool, tools: &KnownTools) -> Begin {
        match read_head(text, self.close.is_empty(), tools) {
            Head::More if end || text.len() > HELD_BYTES_MAX => Begin::NotACall,
            Head::More => Begin::More,
            Head::NotACall => Begin::NotACall,
            Head::Open { used, name, levels } => {
                (self.levels, self.scan, self.place) = (levels, JsonScan::default(), Place::Before);
                Begin::Call { used: before + used, parts: vec![AnswerPart::Call { name }] }
            }
            Head::Whole { used, name, arguments } => {
                self.place = Place::Between;
                Begin::Call { used: before + used, parts: whole_call(name, arguments) }
            }
        }
    }

    /// Reads the first character of the arguments. Objects are passed on as they come, other values as a whole.
    fn before(&mut self, text: &str, end: bool) -> Step {
        if text.starts_with('{') || text.len() > HELD_BYTES_MAX {
            self.place = Place::Arguments;
            return self.arguments(text, end);
        }
        match whole_value(text) {
            Some(value) => {
                self.place = Place::Rest;
                let parts = vec![AnswerPart::Arguments(arguments_text(value)), AnswerPart::CallEnd];
                Step::Took { used: value.len(), parts }
            }
            None if end => Step::Took { used: text.len(), parts: vec![AnswerPart::Arguments(text.to_owned())] },
            None => Step::More,
        }
    }

    fn arguments(&mut self, text: &str, end: bool) -> Step {
        let scanned = self.scan.feed(text, &[self.close]);
        let used = if end && !scanned.ended { text.len() } else { scanned.used };
        let mut parts = Vec::new();
        AnswerPart::Arguments(text[..used].to_owned()).add_to(&mut parts);
        if scanned.ended {
            self.place = Place::Rest;
            parts.push(AnswerPart::CallEnd);
        } else if used == 0 {
            return Step::More;
        }
        Step::Took { used, parts }
    }

    /// Skips the rest of the call's object, such as an id of the model's own.
    fn rest(&mut self, text: &str, end: bool) -> Step {
        let mut at = 0;
        while self.levels > 0 {
            let rest = &text[at..];
            let Some(character) = rest.chars().next() else { break };
            if !self.close.is_empty() && rest.starts_with(self.close) {
                self.levels = 0;
            } else if character == '"' {
                let Some(string) = whole_value(rest) else { break };
                at += string.len();
            } else {
                match character {
                    '{' => self.levels += 1,
                    '}' => self.levels -= 1,
                    _ => {}
                }
                at += character.len_utf8();
            }
        }
        if self.levels == 0 {
            self.place = Place::Between;
        } else if end || text.len() > HELD_BYTES_MAX {
            return Step::Closed { used: text.len() };
        } else if at == 0 {
            return Step::More;
        }
        Step::Took { used: at, parts: Vec::new() }
    }

    fn between(&mut self, text: &str, end: bool, tools: &KnownTools) -> Step {
        let rest = text.trim_start();
        let space = text.len() - rest.len();
        let took = |bytes: usize| Step::Took { used: space + bytes, parts: Vec::new() };
        let closed = Step::Closed { used: 0 };
        if rest.is_empty() {
            return if end { closed } else { Step::More };
        }
        if !self.close.is_empty() && rest.starts_with(self.close) {
            return Step::Closed { used: space + self.close.len() };
        }
        if !end && self.close.starts_with(rest) {
            return Step::More;
        }
        if rest.starts_with('{') {
            return match self.call(rest, space, end, tools) {
                Begin::More => Step::More,
                Begin::NotACall => closed,
                Begin::Call { used, parts } => Step::Took { used, parts },
            };
        }
        if self.array && rest.starts_with(']') {
            self.array = false;
            return if self.close.is_empty() { Step::Closed { used: space + 1 } } else { took(1) };
        }
        if rest.starts_with([',', ';']) {
            let next = rest[1..].trim_start();
            return match next.chars().next() {
                None if !end => Step::More,
                Some('{') => took(rest.len() - next.len()),
                _ if self.close.is_empty() => closed,
                _ => took(1),
            };
        }
        // A bracket too many, as models write it.
        if !self.close.is_empty() && rest.starts_with([']', '}']) { took(1) } else { closed }
    }
}

impl CallSyntax for JsonCalls {
    fn opens(&self) -> &[&'static str] {
        &self.opens
    }

    fn bare(&self) -> Bare {
        self.bare
    }

    fn begin(&mut self, text: &str, end: bool, tools: &KnownTools) -> Begin {
        let more = || if end { Begin::NotACall } else { Begin::More };
        let pair = self.pairs.iter().find(|(open, _)| text.starts_with(open));
        let (open, close) = *pair.unwrap_or(&("", ""));
        (self.close, self.array) = (close, false);
        let mut rest = text[open.len()..].trim_start();
        if let Some(inside) = rest.strip_prefix('[') {
            self.array = true;
            rest = inside.trim_start();
        }
        match rest.chars().next() {
            None => more(),
            Some('{') => self.call(rest, text.len() - rest.len(), end, tools),
            Some(_) => Begin::NotACall,
        }
    }

    fn step(&mut self, text: &str, end: bool, tools: &KnownTools) -> Step {
        match self.place {
            Place::Before | Place::Arguments if text.is_empty() => {
                if end {
                    Step::Closed { used: 0 }
                } else {
                    Step::More
                }
            }
            Place::Before => self.before(text, end),
            Place::Arguments => self.arguments(text, end),
            Place::Rest => self.rest(text, end),
            Place::Between => self.between(text, end, tools),
        }
    }
}
