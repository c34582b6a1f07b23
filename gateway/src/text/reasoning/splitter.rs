//! Separates the reasoning at the start of a model's answer from the text behind it, while it arrives.
//!
//! White space around reasoning is part of neither. Everything behind the reasoning, and an answer that does not begin
//! with it, is text.

use super::ReasoningFormat;
use crate::text::answer_part::AnswerPart;
use crate::text::tools::marks::{could_become, pending};

/// Bytes of white space that are held back inside reasoning, as its end may follow.
const SPACE_BYTES_MAX: usize = 256;

/// An incremental splitter of one answer.
#[derive(Debug)]
pub(in crate::text) struct ReasoningSplitter {
    format: ReasoningFormat,
    /// Text that is not consumed.
    buffer: String,
    place: Place,
    /// True if there was reasoning.
    had_reasoning: bool,
}

/// The place in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first character that is no white space.
    Start,
    /// In the reasoning, before its first such character.
    Opened,
    Reasoning,
    Text,
}

// === impl ReasoningSplitter ===

impl ReasoningSplitter {
    /// A splitter at the start of an answer. With `opened`, the prompt ends within the reasoning.
    pub(in crate::text) fn new(format: ReasoningFormat, opened: bool) -> Self {
        let place = if opened { Place::Opened } else { Place::Start };
        Self { format, buffer: String::new(), place, had_reasoning: false }
    }

    /// Takes more text. Appends reasoning to `parts` and returns the text behind it.
    pub(in crate::text) fn push(&mut self, text: &str, parts: &mut Vec<AnswerPart>) -> String {
        self.buffer.push_str(text);
        self.run(false, parts)
    }

    /// Takes the end of the answer. Appends the rest of the reasoning to `parts` and returns the rest of the text.
    pub(in crate::text) fn finish(&mut self, parts: &mut Vec<AnswerPart>) -> String {
        self.run(true, parts)
    }

    fn run(&mut self, end: bool, parts: &mut Vec<AnswerPart>) -> String {
        loop {
            let go_on = match self.place {
                Place::Start => self.start(end),
                Place::Opened => self.opened(end),
                Place::Reasoning => self.reasoning(end, parts),
                Place::Text => return std::mem::take(&mut self.buffer),
            };
            if !go_on {
                return String::new();
            }
        }
    }

    /// False if more text is needed, as in the functions below.
    fn start(&mut self, end: bool) -> bool {
        let rest = self.buffer.trim_start();
        if let Some(behind) = rest.strip_prefix(self.format.open) {
            (self.buffer, self.place) = (behind.to_owned(), Place::Opened);
            return true;
        }
        if !end && (rest.is_empty() || could_become(rest, &[self.format.open])) {
            return false;
        }
        if self.had_reasoning {
            self.buffer = rest.to_owned();
        }
        self.place = Place::Text;
        true
    }

    fn opened(&mut self, end: bool) -> bool {
        let rest = self.buffer.trim_start();
        if rest.is_empty() {
            self.buffer.clear();
            return false;
        }
        // Some models write the mark again that the prompt ended with.
        if let Some(behind) = rest.strip_prefix(self.format.open) {
            self.buffer = behind.to_owned();
            return true;
        }
        if !end && could_become(rest, &[self.format.open]) {
            return false;
        }
        (self.buffer, self.place) = (rest.to_owned(), Place::Reasoning);
        true
    }

    fn reasoning(&mut self, end: bool, parts: &mut Vec<AnswerPart>) -> bool {
        let close = self.format.close;
        if let Some(at) = self.buffer.find(close) {
            let behind = self.buffer.split_off(at + close.len());
            self.buffer.truncate(at);
            AnswerPart::Reasoning(self.buffer.trim_end().to_owned()).add_to(parts);
            (self.buffer, self.place, self.had_reasoning) = (behind, Place::Start, true);
            return true;
        }
        let held = if end { 0 } else { pending(&self.buffer, &[close]) };
        let ready = &self.buffer[..self.buffer.len() - held];
        let space = ready.len() - ready.trim_end().len();
        let space = if space > SPACE_BYTES_MAX { 0 } else { space };
        let at = ready.len() - space;
        let kept = self.buffer.split_off(at);
        AnswerPart::Reasoning(std::mem::replace(&mut self.buffer, kept)).add_to(parts);
        false
    }
}
