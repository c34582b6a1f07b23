//! Separates the calls of tools in a model's text from the text around them, while it arrives.
//!
//! Nothing is lost: what looks like a call and turns out not to be one of a known tool is text. Once a call began (its
//! name is known), all up to its end belongs to it, even if its arguments are not valid JSON. White space directly
//! before a call, and behind the last one, is no text.

use super::format::ToolFormat;
use super::known_tools::KnownTools;
use super::limits::SPACE_BYTES_MAX;
use super::marks::{find_first, pending};
use super::syntax::{Bare, Begin, CallSyntax, Step};
use crate::text::answer_part::AnswerPart;

/// An incremental parser of one answer.
#[derive(Debug)]
pub struct CallParser {
    syntax: Box<dyn CallSyntax>,
    tools: KnownTools,
    /// Text that is not consumed.
    buffer: String,
    /// True between the beginning of a call and the end of its section.
    inside: bool,
    /// True while the answer has no text but white space.
    blank: bool,
    /// True while the current line of the text is blank.
    line_start: bool,
    /// True after a call, before other text.
    after_call: bool,
}

// === impl CallParser ===

impl CallParser {
    /// A parser of calls of `tools` in `format`, at the start of an answer.
    pub fn new(format: ToolFormat, tools: KnownTools) -> Self {
        Self {
            syntax: format.syntax(),
            tools,
            buffer: String::new(),
            inside: false,
            blank: true,
            line_start: true,
            after_call: false,
        }
    }

    /// Takes more text and appends the parts that it completes to `parts`.
    pub fn push(&mut self, text: &str, parts: &mut Vec<AnswerPart>) {
        self.buffer.push_str(text);
        self.run(false, parts);
    }

    /// Takes the end of the text and appends the rest to `parts`.
    pub fn finish(&mut self, parts: &mut Vec<AnswerPart>) {
        self.run(true, parts);
    }

    fn run(&mut self, end: bool, parts: &mut Vec<AnswerPart>) {
        while if self.inside { self.step(end, parts) } else { self.search(end, parts) } {}
    }

    /// Goes on within calls. False if more text is needed.
    fn step(&mut self, end: bool, parts: &mut Vec<AnswerPart>) -> bool {
        match self.syntax.step(&self.buffer, end, &self.tools) {
            Step::More => false,
            Step::Took { used, parts: new } => {
                self.buffer.drain(..used);
                new.into_iter().for_each(|part| part.add_to(parts));
                true
            }
            Step::Closed { used } => {
                self.buffer.drain(..used);
                self.inside = false;
                true
            }
        }
    }

    /// Looks for the beginning of a call. False if more text is needed.
    fn search(&mut self, end: bool, parts: &mut Vec<AnswerPart>) -> bool {
        let Some((at, opening)) = self.opening() else {
            let held = if end { 0 } else { self.held() };
            self.emit(self.buffer.len() - held, parts);
            return false;
        };
        let before = &self.buffer[..at];
        let space = before.len() - before.trim_end().len();
        if self.emit(at - space, parts) {
            return true;
        }
        match self.syntax.begin(&self.buffer[space..], end, &self.tools) {
            Begin::More => false,
            Begin::NotACall => {
                self.emit(space + opening, parts);
                true
            }
            Begin::Call { used, parts: new } => {
                self.buffer.drain(..space + used);
                new.into_iter().for_each(|part| part.add_to(parts));
                (self.inside, self.after_call) = (true, true);
                true
            }
        }
    }

    /// The first place in the buffer at which a call may begin, and the length of the mark or bracket there.
    fn opening(&self) -> Option<(usize, usize)> {
        let marked = find_first(&self.buffer, self.syntax.opens()).map(|(at, mark)| (at, mark.len()));
        let bare = self.bare().map(|at| (at, 1));
        marked.into_iter().chain(bare).min()
    }

    /// The first bracket in the buffer that begins a call without a mark.
    fn bare(&self) -> Option<usize> {
        let bracket = |from: usize| {
            let rest = self.buffer[from..].trim_start();
            rest.starts_with(['{', '[']).then(|| self.buffer.len() - rest.len())
        };
        let breaks = || self.buffer.match_indices('\n').map(|(at, _)| at + 1);
        match self.syntax.bare() {
            Bare::Nowhere => None,
            Bare::Start => self.blank.then(|| bracket(0)).flatten(),
            Bare::Line => self.line_start.then_some(0).into_iter().chain(breaks()).find_map(bracket),
        }
    }

    /// Bytes at the end of the buffer that may belong to a call.
    fn held(&self) -> usize {
        let mark = pending(&self.buffer, self.syntax.opens());
        let before = &self.buffer[..self.buffer.len() - mark];
        let space = before.len() - before.trim_end().len();
        mark + if space > SPACE_BYTES_MAX { 0 } else { space }
    }

    /// Moves the first `bytes` bytes of the buffer to `parts`, as text. False if there are none.
    fn emit(&mut self, bytes: usize, parts: &mut Vec<AnswerPart>) -> bool {
        let text: String = self.buffer.drain(..bytes).collect();
        if text.is_empty() {
            return false;
        }
        let blank = |text: &str| text.trim().is_empty();
        let last_line = text.rsplit('\n').next().unwrap_or_default();
        self.line_start = blank(last_line) && (self.line_start || text.contains('\n'));
        if !blank(&text) {
            (self.blank, self.after_call) = (false, false);
        } else if self.after_call {
            return true;
        }
        AnswerPart::Text(text).add_to(parts);
        true
    }
}
