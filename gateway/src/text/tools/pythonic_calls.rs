//! Calls in Python's syntax: `[f(a="x", b=1), g()]`.
//!
//! A call is read once it is complete, as its arguments' JSON is not known before.

use super::known_tools::KnownTools;
use super::limits::HELD_BYTES_MAX;
use super::marks::could_become;
use super::python_literal::{PythonCall, ReadError};
use super::syntax::{Bare, Begin, CallSyntax, Step, whole_call};

/// Calls in Python's syntax.
#[derive(Debug)]
pub(super) struct PythonicCalls {
    /// Opening and closing mark.
    marks: (&'static str, &'static str),
    opens: Vec<&'static str>,
    bare: Bare,
    /// True while the list is open.
    list: bool,
    /// True if the current calls are between marks.
    marked: bool,
}

// === impl PythonicCalls ===

impl PythonicCalls {
    pub(super) fn new(marks: (&'static str, &'static str), bare: Bare) -> Self {
        let opens = Vec::from_iter(Some(marks.0).filter(|open| !open.is_empty()));
        Self { marks, opens, bare, list: false, marked: false }
    }

    fn call(text: &str, before: usize, end: bool, tools: &KnownTools) -> Begin {
        match PythonCall::read(text, |name| tools.get(name).is_some()) {
            Ok(call) => Begin::Call { used: before + call.used, parts: whole_call(call.name, call.arguments) },
            Err(ReadError::Incomplete) if !end && text.len() <= HELD_BYTES_MAX => Begin::More,
            Err(_) => Begin::NotACall,
        }
    }
}

impl CallSyntax for PythonicCalls {
    fn opens(&self) -> &[&'static str] {
        &self.opens
    }

    fn bare(&self) -> Bare {
        self.bare
    }

    fn begin(&mut self, text: &str, end: bool, tools: &KnownTools) -> Begin {
        let inside = if self.marks.0.is_empty() { None } else { text.strip_prefix(self.marks.0) };
        self.marked = inside.is_some();
        let mut rest = inside.unwrap_or(text).trim_start();
        self.list = rest.starts_with('[');
        if self.list {
            rest = rest[1..].trim_start();
        }
        if !self.list && !self.marked {
            return Begin::NotACall;
        }
        Self::call(rest, text.len() - rest.len(), end, tools)
    }

    fn step(&mut self, text: &str, end: bool, tools: &KnownTools) -> Step {
        let rest = text.trim_start();
        let space = text.len() - rest.len();
        let close = if self.marked { self.marks.1 } else { "" };
        if rest.is_empty() {
            return if end { Step::Closed { used: 0 } } else { Step::More };
        }
        if !close.is_empty() && rest.starts_with(close) {
            return Step::Closed { used: space + close.len() };
        }
        if !end && could_become(rest, &[close]) {
            return Step::More;
        }
        if self.list && rest.starts_with(']') {
            self.list = false;
            let used = space + 1;
            return if close.is_empty() { Step::Closed { used } } else { Step::Took { used, parts: Vec::new() } };
        }
        let next = rest.strip_prefix([',', ';']).unwrap_or(rest).trim_start();
        if next.is_empty() && !end {
            return Step::More;
        }
        if !self.list && !self.marked {
            return Step::Closed { used: 0 };
        }
        match Self::call(next, text.len() - next.len(), end, tools) {
            Begin::More => Step::More,
            Begin::NotACall => Step::Closed { used: 0 },
            Begin::Call { used, parts } => Step::Took { used, parts },
        }
    }
}
