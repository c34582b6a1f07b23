//! Calls as a name in plain text, followed by the arguments as JSON: `[TOOL_CALLS]name[ARGS]{…}`.

use super::json_scan::JsonScan;
use super::known_tools::KnownTools;
use super::limits::HEADER_BYTES_MAX;
use super::marks::{could_become, find_first};
use super::syntax::{Begin, CallSyntax, Step, whole_call};
use crate::text::answer_part::AnswerPart;

/// The marks of one family.
#[derive(Debug)]
pub(super) struct NamedMarks {
    /// Marks at which calls begin: that of a section of calls, if there is one, and that of a call.
    pub(super) opens: &'static [&'static str],
    /// The mark before each call.
    pub(super) open: &'static str,
    /// The mark between name and arguments. Without it, the arguments begin with `{`.
    pub(super) separator: &'static str,
    /// The mark behind each call, if there is one.
    pub(super) close: &'static str,
    /// The mark behind the last call, if there is one.
    pub(super) section_close: &'static str,
    /// The form of the name.
    pub(super) name: NameForm,
}

/// The form in which a name is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameForm {
    /// The name, or `function`, the separator, the name, and the arguments in a fenced block (DeepSeek).
    Fenced,
    /// The name, or the name, `[CALL_ID]` and an id (Mistral).
    CallId,
    /// `functions.`, the name, a colon and the call's number (Kimi).
    Numbered,
}

/// Calls as a name and JSON.
#[derive(Debug)]
pub(super) struct NamedCalls {
    marks: &'static NamedMarks,
    scan: JsonScan,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Arguments,
    /// Before the mark that closes a call.
    Closing,
    Between,
}

// === impl NamedCalls ===

impl NamedCalls {
    pub(super) fn new(marks: &'static NamedMarks) -> Self {
        Self { marks, scan: JsonScan::default(), place: Place::Between }
    }

    /// Reads the call at the start of `text`, up to its arguments. `before` bytes are consumed before it.
    fn call(&mut self, text: &str, before: usize, end: bool, tools: &KnownTools) -> Begin {
        let more = if end || text.len() > HEADER_BYTES_MAX { Begin::NotACall } else { Begin::More };
        let &NamedMarks { open, separator, close, .. } = self.marks;
        let Some(header) = text.strip_prefix(open) else {
            return if could_become(text, &[open]) { more } else { Begin::NotACall };
        };
        let brace = if self.marks.name == NameForm::CallId { "{" } else { "" };
        let Some((at, mark)) = find_first(header, &[separator, brace, close]) else { return more };
        let behind = if mark == separator { mark.len() } else { 0 };
        let (used, rest) = (open.len() + at + behind, &header[at + behind..]);
        let written = match self.marks.name {
            NameForm::Fenced if mark == separator => fenced_name(&header[..at], rest),
            form => Some((plain_name(&header[..at], form), 0)),
        };
        let Some((name, skipped)) = written else { return more };
        if tools.get(&name).is_none() {
            return Begin::NotACall;
        }
        if mark == close {
            self.place = Place::Closing;
            return Begin::Call { used: before + used, parts: whole_call(name, "{}".to_owned()) };
        }
        (self.scan, self.place) = (JsonScan::default(), Place::Arguments);
        Begin::Call { used: before + used + skipped, parts: vec![AnswerPart::Call { name }] }
    }

    fn arguments(&mut self, text: &str, end: bool) -> Step {
        let &NamedMarks { open, close, section_close, .. } = self.marks;
        let scanned = self.scan.feed(text, &[open, close, section_close]);
        let used = if end && !scanned.ended { text.len() } else { scanned.used };
        let mut parts = Vec::new();
        AnswerPart::Arguments(text[..used].to_owned()).add_to(&mut parts);
        if scanned.ended {
            parts.push(AnswerPart::CallEnd);
            self.place = if close.is_empty() { Place::Between } else { Place::Closing };
        } else if used == 0 {
            return if end { Step::Closed { used: 0 } } else { Step::More };
        }
        Step::Took { used, parts }
    }

    fn closing(&mut self, text: &str, end: bool) -> Step {
        let fenced = self.marks.name == NameForm::Fenced;
        let rest = text.trim_start_matches(|c: char| c.is_whitespace() || fenced && c == '`');
        let space = text.len() - rest.len();
        if !end && (rest.is_empty() || could_become(rest, &[self.marks.close])) {
            return Step::More;
        }
        self.place = Place::Between;
        let used = if rest.starts_with(self.marks.close) { space + self.marks.close.len() } else { 0 };
        Step::Took { used, parts: Vec::new() }
    }

    fn between(&mut self, text: &str, end: bool, tools: &KnownTools) -> Step {
        let &NamedMarks { open, section_close, .. } = self.marks;
        let rest = text.trim_start();
        let space = text.len() - rest.len();
        if !section_close.is_empty() && rest.starts_with(section_close) {
            return Step::Closed { used: space + section_close.len() };
        }
        if !end && (rest.is_empty() || could_become(rest, &[open, section_close])) {
            return Step::More;
        }
        match self.call(rest, space, end, tools) {
            Begin::More => Step::More,
            Begin::NotACall => Step::Closed { used: 0 },
            Begin::Call { used, parts } => Step::Took { used, parts },
        }
    }
}

impl CallSyntax for NamedCalls {
    fn opens(&self) -> &[&'static str] {
        self.marks.opens
    }

    fn begin(&mut self, text: &str, end: bool, tools: &KnownTools) -> Begin {
        let section = self.marks.opens.iter().find(|mark| text.starts_with(*mark) && **mark != self.marks.open);
        let rest = text[section.map_or(0, |mark| mark.len())..].trim_start();
        self.call(rest, text.len() - rest.len(), end, tools)
    }

    fn step(&mut self, text: &str, end: bool, tools: &KnownTools) -> Step {
        match self.place {
            Place::Arguments => self.arguments(text, end),
            Place::Closing => self.closing(text, end),
            Place::Between => self.between(text, end, tools),
        }
    }
}

fn plain_name(header: &str, form: NameForm) -> String {
    let name = match form {
        NameForm::CallId => header.split("[CALL_ID]").next().unwrap_or_default(),
        NameForm::Numbered => {
            let name = header.trim().strip_prefix("functions.").unwrap_or(header.trim());
            name.rsplit_once(':').map_or(name, |(name, _)| name)
        }
        NameForm::Fenced => header,
    };
    name.trim().to_owned()
}

/// The name in DeepSeek's older form (`function`, separator, name, line break, fenced arguments) or its newer one
/// (name, separator, arguments), and the bytes of `rest`, the text behind the separator, that come before the
/// arguments. `None` if more text is needed.
fn fenced_name(header: &str, rest: &str) -> Option<(String, usize)> {
    let brace = rest.find('{')?;
    match rest[..brace].trim() {
        "" => Some((header.trim().to_owned(), brace)),
        before => Some((before.lines().next().unwrap_or_default().trim().to_owned(), brace)),
    }
}
