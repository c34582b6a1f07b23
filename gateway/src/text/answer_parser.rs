//! Separates a model's answer into reasoning, text and calls of tools, while it arrives.

use super::answer_part::AnswerPart;
use super::harmony::HarmonyParser;
use super::reasoning::{ReasoningFormat, ReasoningSplitter};
use super::tools::{CallParser, KnownTools, ToolFormat};

/// The way in which a model writes its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerFormat {
    /// The format of calls.
    pub tools: ToolFormat,
    /// The marks around reasoning, if the model reasons.
    pub reasoning: Option<ReasoningFormat>,
}

/// The place in an answer at which a prompt ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AnswerStart {
    /// Its beginning.
    #[default]
    Beginning,
    /// Within its reasoning.
    Reasoning,
    /// Within its text.
    Text,
}

/// An incremental parser of one answer.
#[derive(Debug)]
pub struct AnswerParser(Parser);

#[derive(Debug)]
enum Parser {
    Harmony(HarmonyParser),
    Marked { reasoning: Option<ReasoningSplitter>, calls: Option<CallParser> },
}

// === impl AnswerFormat ===

impl AnswerFormat {
    /// The parser of an answer that may call `tools`.
    #[must_use]
    pub fn parser(self, tools: KnownTools, start: AnswerStart) -> AnswerParser {
        if self.tools == ToolFormat::Harmony {
            return AnswerParser(Parser::Harmony(HarmonyParser::new(tools, start)));
        }
        let splits = self.reasoning.filter(|_| start != AnswerStart::Text);
        AnswerParser(Parser::Marked {
            reasoning: splits.map(|format| ReasoningSplitter::new(format, start == AnswerStart::Reasoning)),
            calls: (!tools.is_empty()).then(|| CallParser::new(self.tools, tools)),
        })
    }

    /// The marks of reasoning, and with `tools` those of calls. Those that are control tokens of the vocabulary have to
    /// reach the parser as text.
    #[must_use]
    pub fn marks(self, tools: bool) -> Vec<&'static str> {
        let mut marks: Vec<_> = self.reasoning.into_iter().flat_map(ReasoningFormat::marks).collect();
        if tools || self.tools == ToolFormat::Harmony {
            marks.extend(self.tools.marks());
        }
        marks
    }
}

// === impl AnswerParser ===

impl AnswerParser {
    /// Takes more text of the answer. Returns the parts that it completes.
    pub fn push(&mut self, text: &str) -> Vec<AnswerPart> {
        let mut parts = Vec::new();
        match &mut self.0 {
            Parser::Harmony(parser) => parser.push(text, &mut parts),
            Parser::Marked { reasoning, calls } => {
                let text = reasoning.as_mut().map_or_else(|| text.to_owned(), |split| split.push(text, &mut parts));
                match calls {
                    Some(calls) => calls.push(&text, &mut parts),
                    None => AnswerPart::Text(text).add_to(&mut parts),
                }
            }
        }
        parts
    }

    /// Takes the end of the answer. Returns the parts that were held back.
    pub fn finish(&mut self) -> Vec<AnswerPart> {
        let mut parts = Vec::new();
        match &mut self.0 {
            Parser::Harmony(parser) => parser.finish(&mut parts),
            Parser::Marked { reasoning, calls } => {
                let text = reasoning.as_mut().map(|split| split.finish(&mut parts)).unwrap_or_default();
                match calls {
                    Some(calls) => {
                        calls.push(&text, &mut parts);
                        calls.finish(&mut parts);
                    }
                    None => AnswerPart::Text(text).add_to(&mut parts),
                }
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::conversation::{Tool, ToolChoice};

    const THINK: ReasoningFormat = ReasoningFormat { open: "<think>", close: "</think>" };

    fn parse(pieces: &[&str], start: AnswerStart) -> Vec<AnswerPart> {
        let tool = Tool { name: "f".to_owned(), ..Tool::default() };
        let format = AnswerFormat { tools: ToolFormat::Hermes, reasoning: Some(THINK) };
        let mut parser = format.parser(KnownTools::new(&[tool], &ToolChoice::Auto), start);
        let mut all: Vec<_> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
        all.extend(parser.finish());
        let mut merged = Vec::new();
        all.into_iter().for_each(|part| part.add_to(&mut merged));
        merged
    }

    /// The parts of `text`, which have to be the same wherever it is cut: the reasoning, the text and the calls.
    fn split(text: &str, start: AnswerStart) -> (String, String, usize) {
        let whole = parse(&[text], start);
        for (at, _) in text.char_indices() {
            assert_eq!(parse(&[&text[..at], &text[at..]], start), whole, "cut at {at}: {text:?}");
        }
        let characters: Vec<&str> = text.split("").filter(|character| !character.is_empty()).collect();
        assert_eq!(parse(&characters, start), whole, "in characters: {text:?}");
        let mut split = (String::new(), String::new(), 0);
        for part in whole {
            match part {
                AnswerPart::Reasoning(more) => split.0.push_str(&more),
                AnswerPart::Text(more) => split.1.push_str(&more),
                AnswerPart::Call { .. } => split.2 += 1,
                AnswerPart::Arguments(_) | AnswerPart::CallEnd => {}
            }
        }
        split
    }

    #[test]
    fn reasoning_comes_before_the_text_and_white_space_between_them_is_neither() {
        for (answer, start, reasoning, text) in [
            ("<think>\nHm < 5.\n</think>\n\nYes.", AnswerStart::Beginning, "Hm < 5.", "Yes."),
            ("\n <think>Hm.</think>Yes.", AnswerStart::Beginning, "Hm.", "Yes."),
            ("Hm.\n\nHm!</think>\nYes.", AnswerStart::Reasoning, "Hm.\n\nHm!", "Yes."),
            ("<think>\nHm.</think>Yes.", AnswerStart::Reasoning, "Hm.", "Yes."),
            ("<think>a</think>\n<think>b</think>c", AnswerStart::Beginning, "ab", "c"),
            ("<think>\n\n</think>\n\nYes.", AnswerStart::Beginning, "", "Yes."),
            ("<think>cut off </thi", AnswerStart::Beginning, "cut off </thi", ""),
            ("Yes <think> no</think>", AnswerStart::Beginning, "", "Yes <think> no</think>"),
            (" \nYes.", AnswerStart::Beginning, "", " \nYes."),
            ("<thin air", AnswerStart::Beginning, "", "<thin air"),
            ("<think>x</think> y", AnswerStart::Text, "", "<think>x</think> y"),
            ("<think>a</think>\n", AnswerStart::Beginning, "a", ""),
        ] {
            assert_eq!(split(answer, start), (reasoning.to_owned(), text.to_owned(), 0), "{answer:?}");
        }
    }

    #[test]
    fn calls_are_looked_for_behind_the_reasoning_only() {
        let call = "<tool_call>{\"name\": \"f\"}</tool_call>";
        let answer = format!("<think>maybe {call}</think>\n\n{call}");
        assert_eq!(split(&answer, AnswerStart::Beginning), (format!("maybe {call}"), String::new(), 1));
    }

    #[test]
    fn reasoning_is_passed_on_as_it_comes() {
        let format = AnswerFormat { tools: ToolFormat::Json, reasoning: Some(THINK) };
        let mut parser = format.parser(KnownTools::default(), AnswerStart::Reasoning);
        let reasoning = |text: &str| vec![AnswerPart::Reasoning(text.to_owned())];
        assert_eq!(parser.push("One"), reasoning("One"));
        assert_eq!(parser.push(" two </"), reasoning(" two"));
        assert_eq!(parser.push("b>"), reasoning(" </b>"));
        assert_eq!(parser.push("</think> x"), [AnswerPart::Text("x".to_owned())]);
    }
}
