//! Reads gpt-oss's answers: messages in channels, each with a header.
//!
//! ```text
//! <|channel|>analysis<|message|>reasoning<|end|>
//! <|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>
//! <|start|>assistant<|channel|>final<|message|>text<|return|>
//! ```
//!
//! The prompt ends with `<|start|>assistant`, or within a message that the model continues.

use super::answer_parser::AnswerStart;
use super::answer_part::AnswerPart;
use super::tools::KnownTools;
use super::tools::marks::{find_first, pending};

/// All marks of the format.
pub(super) const MARKS: &[&str] =
    &["<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"];
/// The marks behind a message. A header begins with the first two of [`MARKS`] if the model leaves one out.
const ENDS: &[&str] = &["<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>"];
/// Bytes of a header. It has a role, a channel, a recipient and a content type.
const HEADER_BYTES_MAX: usize = 1 << 10;

/// An incremental parser of one answer.
#[derive(Debug)]
pub(super) struct HarmonyParser {
    tools: KnownTools,
    /// Text that is not consumed.
    buffer: String,
    place: Place,
    /// True if reasoning, or text, came in an earlier message.
    had_reasoning: bool,
    had_text: bool,
}

/// The place in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the mark that ends a header.
    Header,
    /// In a message. `begun` is true after its first character.
    Message { kind: Kind, begun: bool },
    /// Text without any header.
    Plain,
}

/// The use of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Text,
    Call,
}

// === impl HarmonyParser ===

impl HarmonyParser {
    /// A parser of an answer that may call `tools`, and at whose `start` the prompt ends.
    pub(super) fn new(tools: KnownTools, start: AnswerStart) -> Self {
        let place = match start {
            AnswerStart::Beginning => Place::Header,
            AnswerStart::Reasoning => Place::Message { kind: Kind::Reasoning, begun: false },
            AnswerStart::Text => Place::Message { kind: Kind::Text, begun: false },
        };
        Self { tools, buffer: String::new(), place, had_reasoning: false, had_text: false }
    }

    /// Takes more text and appends the parts that it completes to `parts`.
    pub(super) fn push(&mut self, text: &str, parts: &mut Vec<AnswerPart>) {
        self.buffer.push_str(text);
        while self.step(false, parts) {}
    }

    /// Takes the end of the text and appends the rest to `parts`.
    pub(super) fn finish(&mut self, parts: &mut Vec<AnswerPart>) {
        while self.step(true, parts) {}
        if let Place::Message { kind: Kind::Call, .. } = self.place {
            // The mark behind a call is a stop token.
            parts.push(AnswerPart::CallEnd);
            self.place = Place::Header;
        }
    }

    /// False if more text is needed.
    fn step(&mut self, end: bool, parts: &mut Vec<AnswerPart>) -> bool {
        match self.place {
            Place::Header => self.header(end, parts),
            Place::Message { kind, begun } => self.message(kind, begun, end, parts),
            Place::Plain => {
                AnswerPart::Text(std::mem::take(&mut self.buffer)).add_to(parts);
                false
            }
        }
    }

    fn header(&mut self, end: bool, parts: &mut Vec<AnswerPart>) -> bool {
        let Some(at) = self.buffer.find("<|message|>") else {
            let begins =
                |mark: &str| self.buffer.trim_start().starts_with(mark) || mark.starts_with(self.buffer.trim_start());
            let is_header = ["<|start|>", "<|channel|>", "to=", "assistant", "<|constrain|>"].into_iter().any(begins);
            if end || !is_header || self.buffer.len() > HEADER_BYTES_MAX {
                if self.buffer.trim().is_empty() {
                    return false;
                }
                self.place = Place::Plain;
                return true;
            }
            return false;
        };
        let rest = self.buffer.split_off(at + "<|message|>".len());
        let header = std::mem::replace(&mut self.buffer, rest);
        let kind = match recipient(&header[..at]) {
            Some(recipient) => match recipient.strip_prefix("functions.").filter(|name| self.tools.get(name).is_some())
            {
                Some(name) => {
                    parts.push(AnswerPart::Call { name: name.to_owned() });
                    Kind::Call
                }
                // A call of nothing that the request knows is text, header and all.
                None => {
                    AnswerPart::Text(header).add_to(parts);
                    Kind::Text
                }
            },
            None if channel(&header[..at]) == "analysis" => Kind::Reasoning,
            None => Kind::Text,
        };
        self.place = Place::Message { kind, begun: false };
        true
    }

    fn message(&mut self, kind: Kind, begun: bool, end: bool, parts: &mut Vec<AnswerPart>) -> bool {
        let found = find_first(&self.buffer, ENDS);
        let ready = match found {
            Some((at, _)) => at,
            None if end => self.buffer.len(),
            None => self.buffer.len() - pending(&self.buffer, ENDS),
        };
        let mut text: String = self.buffer.drain(..ready).collect();
        if !text.is_empty() {
            let had = if kind == Kind::Reasoning { &mut self.had_reasoning } else { &mut self.had_text };
            // Messages of one kind are paragraphs.
            if kind != Kind::Call && std::mem::replace(had, true) && !begun {
                text.insert_str(0, "\n\n");
            }
            self.place = Place::Message { kind, begun: true };
            let part = match kind {
                Kind::Reasoning => AnswerPart::Reasoning(text),
                Kind::Text => AnswerPart::Text(text),
                Kind::Call => AnswerPart::Arguments(text),
            };
            part.add_to(parts);
        }
        let Some((_, mark)) = found else { return false };
        if kind == Kind::Call {
            parts.push(AnswerPart::CallEnd);
        }
        if !matches!(mark, "<|start|>" | "<|channel|>") {
            self.buffer.drain(..mark.len());
        }
        self.place = Place::Header;
        true
    }
}

/// The recipient in a header: the word behind `to=`.
fn recipient(header: &str) -> Option<&str> {
    let (_, behind) = header.split_once("to=")?;
    behind.split(|c: char| c.is_whitespace() || c == '<').next().filter(|word| !word.is_empty())
}

/// The channel in a header.
fn channel(header: &str) -> &str {
    let behind = header.split_once("<|channel|>").map_or("", |(_, behind)| behind);
    behind.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::conversation::{Tool, ToolChoice};

    fn parse(pieces: &[&str], start: AnswerStart) -> Vec<AnswerPart> {
        let tool = Tool { name: "f".to_owned(), ..Tool::default() };
        let mut parser = HarmonyParser::new(KnownTools::new(&[tool], &ToolChoice::Auto), start);
        let mut all = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut all);
        }
        parser.finish(&mut all);
        let mut merged = Vec::new();
        all.into_iter().for_each(|part| part.add_to(&mut merged));
        merged
    }

    /// The parts of `text`, which have to be the same wherever it is cut.
    fn parts(text: &str) -> Vec<AnswerPart> {
        let whole = parse(&[text], AnswerStart::Beginning);
        for (at, _) in text.char_indices() {
            assert_eq!(parse(&[&text[..at], &text[at..]], AnswerStart::Beginning), whole, "cut at {at}: {text:?}");
        }
        let characters: Vec<&str> = text.split("").filter(|character| !character.is_empty()).collect();
        assert_eq!(parse(&characters, AnswerStart::Beginning), whole, "in characters: {text:?}");
        whole
    }

    fn text(text: &str) -> AnswerPart {
        AnswerPart::Text(text.to_owned())
    }

    fn reasoning(text: &str) -> AnswerPart {
        AnswerPart::Reasoning(text.to_owned())
    }

    #[test]
    fn messages_are_separated_by_their_channels() {
        let answer = "<|channel|>analysis<|message|>One.<|end|>\
                      <|start|>assistant<|channel|>analysis<|message|>Two.<|end|>\
                      <|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant\
                      <|channel|>final<|message|>Blue < red.<|return|>";
        assert_eq!(parts(answer), [reasoning("One.\n\nTwo."), text("I look.\n\nBlue < red.")]);
    }

    #[test]
    fn a_message_to_a_function_is_a_call() {
        let call = |arguments: &str| {
            let arguments = AnswerPart::Arguments(arguments.to_owned());
            vec![AnswerPart::Call { name: "f".to_owned() }, arguments, AnswerPart::CallEnd]
        };
        let thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant";
        let written = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}";
        // Behind a call comes a stop token, which adds no text.
        assert_eq!(parts(&format!("{thought}{written}")), [vec![reasoning("Hm.")], call("{\"a\": 1}")].concat());
        let other = " to=functions.f<|channel|>commentary json<|message|>{}<|call|>";
        assert_eq!(parts(other), call("{}"));
        assert_eq!(parts(&format!("{other}<|start|>assistant{other}")), [call("{}"), call("{}")].concat());
    }

    #[test]
    fn a_message_to_nobody_known_is_text_with_its_header() {
        let written = "<|channel|>commentary to=browser.search<|message|>{}";
        assert_eq!(parts(written), [text(written)]);
    }

    #[test]
    fn text_without_a_header_is_text() {
        for written in ["Hello there.", "<|channel|>analysis", "to be", "<|start|>"] {
            assert_eq!(parts(written), [text(written)]);
        }
        assert_eq!(parts("<|channel|>final<|message|>a<|end|>b"), [text("ab")]);
        assert_eq!(parts("<|channel|>final<|message|>a<|end|> \n"), [text("a")]);
    }

    #[test]
    fn an_answer_may_begin_within_a_message() {
        assert_eq!(parse(&["more.<|return|>"], AnswerStart::Text), [text("more.")]);
        let rest = "more.<|end|><|start|>assistant<|channel|>final<|message|>Yes.";
        assert_eq!(parse(&[rest], AnswerStart::Reasoning), [reasoning("more."), text("Yes.")]);
    }
}
