//! Mistral's calls: after `[TOOL_CALLS]`, older models write an array of objects, newer ones a name and its arguments.

use super::json_calls::JsonCalls;
use super::known_tools::KnownTools;
use super::named_calls::{NameForm, NamedCalls, NamedMarks};
use super::syntax::{Bare, Begin, CallSyntax, Step};

const OPEN: &str = "[TOOL_CALLS]";
const NAMED: NamedMarks = NamedMarks {
    opens: &[OPEN],
    open: OPEN,
    separator: "[ARGS]",
    close: "",
    section_close: "",
    name: NameForm::CallId,
};

/// Mistral's calls, in either form.
#[derive(Debug)]
pub(super) struct MistralCalls {
    array: JsonCalls,
    named: NamedCalls,
    /// True if the current calls are an array.
    is_array: bool,
}

// === impl MistralCalls ===

impl MistralCalls {
    pub(super) fn new() -> Self {
        let array = JsonCalls::new(&[(OPEN, "")], Bare::Nowhere);
        Self { array, named: NamedCalls::new(&NAMED), is_array: false }
    }

    fn current(&mut self) -> &mut dyn CallSyntax {
        if self.is_array { &mut self.array } else { &mut self.named }
    }
}

impl CallSyntax for MistralCalls {
    fn opens(&self) -> &[&'static str] {
        &[OPEN]
    }

    fn begin(&mut self, text: &str, end: bool, tools: &KnownTools) -> Begin {
        let rest = text.strip_prefix(OPEN).unwrap_or(text).trim_start();
        // `[CALL_ID]` and `[ARGS]` come after a name only.
        self.is_array = rest.starts_with(['[', '{']);
        self.current().begin(text, end, tools)
    }

    fn step(&mut self, text: &str, end: bool, tools: &KnownTools) -> Step {
        self.current().step(text, end, tools)
    }
}
