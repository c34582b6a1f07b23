//! The rules of calls in every format.

use serde_json::{Value, json};

use super::lark::{ANY_TEXT, Lark};
use super::parameter_rules::Tagged;
use crate::text::conversation::Tool;
use crate::text::tools::call_text::CallText;
use crate::text::tools::{KnownTools, ToolFormat};

/// The answers that a grammar allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallMode {
    /// Calls, at least one.
    Required,
    /// Any text, with calls in it.
    Optional,
    /// Calls, or an answer by the body of this rule.
    Or(String),
}

/// A grammar of calls.
#[derive(Debug, Clone, Copy)]
pub struct CallGrammar<'a> {
    /// The format of calls.
    pub format: ToolFormat,
    /// The tools.
    pub tools: &'a KnownTools,
    /// True if there may be several calls.
    pub parallel: bool,
    /// The answers that are allowed.
    pub mode: &'a CallMode,
    /// The format's marks that are control tokens, with their ids.
    pub control: &'a [(u32, String)],
}

/// Writes `%json` values of a schema. With the flag, all of it must be enforced.
pub(super) type WriteJson<'w, E> = dyn FnMut(&Value, bool) -> Result<String, E> + 'w;

// === impl CallGrammar ===

impl CallGrammar<'_> {
    /// True if the mode can be held to. A mark of which a control token is a part, but not the beginning, cannot be
    /// told from text before it is complete.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let lark = Lark::new(self.control);
        let spells = |mark: &str| self.control.iter().any(|(_, spelling)| mark.contains(spelling.as_str()));
        *self.mode != CallMode::Optional
            || self.format.mark().is_none_or(|mark| lark.begins_with_control(mark) || !spells(mark))
    }

    /// The grammar's text. `write_json` writes a JSON value that fits a schema, as the body of a rule.
    ///
    /// # Errors
    /// Those of `write_json`.
    pub fn lark<E>(&self, mut write_json: impl FnMut(&Value, bool) -> Result<String, E>) -> Result<String, E> {
        let mut lark = Lark::new(self.control);
        let calls = match self.format.call_text() {
            Some(text) => self.json_calls(&mut lark, text, &mut write_json)?,
            None => self.other_calls(&mut lark, &mut write_json)?,
        };
        let start = match self.format {
            ToolFormat::Harmony => self.messages(&lark, &calls),
            _ => self.start(&mut lark, &calls),
        };
        lark.rule("start", &start);
        Ok(lark.finish())
    }

    /// Calls whose arguments are one JSON object.
    fn json_calls<E>(&self, lark: &mut Lark<'_>, mut text: CallText, json: &mut WriteJson<'_, E>) -> Result<String, E> {
        if self.skip_mark(lark, &mut text.open, &mut text.before) {
            text.separator = None;
        }
        let mut calls = Vec::new();
        for tool in self.tools.iter() {
            let arguments = json(&parameters(tool), tool.strict)?;
            let arguments = lark.add(&arguments);
            let before = lark.literal(&[text.before, tool.name.as_str(), text.between].concat());
            calls.push(lark.add(&format!("{before} {arguments} {}", lark.literal(text.after))));
        }
        Ok(self.section(lark, text.open, &calls, text.separator, text.close))
    }

    /// Calls whose arguments are written one by one.
    fn other_calls<E>(&self, lark: &mut Lark<'_>, json: &mut WriteJson<'_, E>) -> Result<String, E> {
        let mut text = Tagged::of(self.format);
        let apart = self.skip_mark(lark, &mut text.open, &mut text.before);
        let mut calls = Vec::new();
        for tool in self.tools.iter() {
            let body = text.call(tool, lark, json)?;
            calls.push(lark.add(&body));
        }
        let separator = Some(text.separator).filter(|_| !apart);
        Ok(self.section(lark, text.open, &calls, separator, text.close))
    }

    /// Takes the mark away that begins calls, if it is read as the end of the text before it. True if each call has one
    /// of its own.
    fn skip_mark(&self, lark: &Lark<'_>, open: &mut &'static str, before: &mut &'static str) -> bool {
        let Some(mark) = self.mark_in_text(lark) else { return false };
        let each = open.is_empty();
        let first = if each { before } else { open };
        *first = first.strip_prefix(mark).unwrap_or(first);
        each
    }

    /// A rule of one or several calls, with the marks around all of them.
    fn section(
        &self,
        lark: &mut Lark<'_>,
        open: &str,
        calls: &[String],
        separator: Option<&str>,
        close: &str,
    ) -> String {
        let call = lark.add(&calls.join(" | "));
        let more =
            separator.filter(|_| self.parallel).map(|separator| format!("({} {call})*", lark.literal(separator)));
        let terms = [lark.literal(open), call, more.unwrap_or_default(), lark.literal(close)];
        lark.add(&terms.join(" "))
    }

    /// The body of the rule `start`.
    fn start(&self, lark: &mut Lark<'_>, calls: &str) -> String {
        match self.mode {
            CallMode::Required => calls.to_owned(),
            CallMode::Or(answer) => format!("{calls} | {}", lark.add(answer)),
            CallMode::Optional => self.with_text(lark, calls),
        }
    }

    /// Any text with calls in it. Where a call has no mark, text is what does not begin with a bracket.
    fn with_text(&self, lark: &mut Lark<'_>, calls: &str) -> String {
        let repeat = if self.parallel { "*" } else { "?" };
        match (self.format.mark(), self.mark_in_text(lark)) {
            (None, _) => format!("{calls} | {}", lark.add("/[^{\\[](?s:.*)/")),
            (_, Some(mark)) => {
                let (text, tail) = (lark.text_until(mark), lark.add(ANY_TEXT));
                format!("({text} {calls}){repeat} {tail}")
            }
            (Some(_), None) => {
                let text = lark.add(ANY_TEXT);
                format!("{text} ({calls} {text}){repeat}")
            }
        }
    }

    /// The mark that begins calls, if it is no control token, so that it is read as the end of the text before it.
    fn mark_in_text(&self, lark: &Lark<'_>) -> Option<&'static str> {
        self.format.mark().filter(|mark| *self.mode == CallMode::Optional && !lark.begins_with_control(mark))
    }

    /// Messages in channels, of which the last is a call, or may be one.
    fn messages(&self, lark: &Lark<'_>, calls: &str) -> String {
        let message = |header: &str| {
            let end = lark.literal("<|end|><|start|>assistant");
            format!("{} {ANY_TEXT} {end}", lark.literal(header))
        };
        let analysis = message("<|channel|>analysis<|message|>");
        let preamble = message("<|channel|>commentary<|message|>");
        let answer = lark.literal("<|channel|>final<|message|>");
        let last = match self.mode {
            CallMode::Required => calls.to_owned(),
            CallMode::Optional => format!("{calls} | {answer} {ANY_TEXT}"),
            CallMode::Or(body) => format!("{calls} | {answer} ({body})"),
        };
        format!("({analysis} | {preamble})* ({last})")
    }
}

/// The schema of a tool's arguments: an object, whatever the schema says.
pub(super) fn parameters(tool: &Tool) -> Value {
    match &tool.parameters {
        Some(Value::Object(schema)) => {
            let mut schema = schema.clone();
            schema.entry("type").or_insert_with(|| json!("object"));
            Value::Object(schema)
        }
        _ => json!({"type": "object", "properties": {}, "additionalProperties": false}),
    }
}
