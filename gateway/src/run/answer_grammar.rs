//! The grammars of a model's answers: calls that a request requires, calls that must fit their schemas, and the bound
//! on reasoning.

use std::sync::Arc;

use engine::generate::SharedGrammar;
use serde_json::json;

use super::grammars::Grammars;
use crate::grammar::{GrammarError, GrammarSource, WhiteSpace, lark_value};
use crate::http;
use crate::text::{
    AnswerFormat, AnswerPlan, AnswerStart, CallGrammar, CallMode, ControlMarks, ReasoningFormat, ReasoningGate,
    ReasoningTokens, Special, Tokenizer, ToolFormat,
};

/// The tokens that end gpt-oss's reasoning, and begin the text behind it.
const HARMONY_END: &str = "<|end|><|start|>assistant";
const HARMONY_TEXT: &str = "<|channel|>final<|message|>";

/// Makes the grammars of one model's answers.
pub(super) struct AnswerGrammars {
    tokenizer: Arc<Tokenizer>,
    compiler: Arc<Grammars>,
    format: AnswerFormat,
    marks: ControlMarks,
    /// The tokens of reasoning, if the model reasons.
    reasoning: Option<ReasoningTokens>,
    /// For gpt-oss: the tokens that begin the text behind reasoning that was ended.
    text_tokens: Vec<u32>,
}

// === impl AnswerGrammars ===

impl AnswerGrammars {
    /// The grammars of a model that writes in `format`, and `reasoning_end` between reasoning and text.
    pub(super) fn new(
        tokenizer: &Arc<Tokenizer>,
        compiler: Arc<Grammars>,
        format: AnswerFormat,
        marks: &ControlMarks,
        reasoning_end: Option<&str>,
    ) -> Self {
        let encode = |text: &str| tokenizer.encode_continuation(text, Special::Parse).unwrap_or_default();
        let is_harmony = format.tools == ToolFormat::Harmony;
        let tokens = |format: ReasoningFormat| {
            let (end, gap) = end_and_gap(format, if is_harmony { Some(HARMONY_END) } else { reasoning_end });
            let (tokenizer, marks) = (Arc::clone(tokenizer), marks.clone());
            ReasoningTokens { tokenizer, marks, format, end: encode(&end), gap: encode(&gap) }
        };
        let reasoning = format.reasoning.map(tokens).filter(|tokens| !tokens.end.is_empty());
        let text_tokens = if is_harmony { encode(HARMONY_TEXT) } else { Vec::new() };
        Self { tokenizer: Arc::clone(tokenizer), compiler, format, marks: marks.clone(), reasoning, text_tokens }
    }

    /// The grammar of an answer by `plan`. Its text has the form `text`, if there is one: then the answer is this text
    /// or calls, and nothing else.
    ///
    /// # Errors
    /// [`http::TextError`] when the grammar of its calls cannot be made.
    pub(super) fn of(
        &self,
        plan: &AnswerPlan,
        text: Option<http::TextForm>,
    ) -> Result<Option<SharedGrammar>, http::TextError> {
        let calls = self.calls(plan, text.as_ref())?;
        // Messages of gpt-oss have their reasoning among them.
        let covers_reasoning = self.format.tools == ToolFormat::Harmony && calls.is_some();
        let answer = calls.or(text.map(|form| form.grammar));
        let bounded = plan.reasoning_tokens_max.is_some() || answer.is_some() && !covers_reasoning;
        let Some(mut tokens) = self.reasoning.clone().filter(|_| bounded && plan.start != AnswerStart::Text) else {
            return Ok(answer);
        };
        if answer.is_none() {
            tokens.end.extend(&self.text_tokens);
        }
        let opened = plan.start == AnswerStart::Reasoning;
        let gate = ReasoningGate::new(tokens, opened, plan.reasoning_tokens_max, answer, covers_reasoning);
        Ok(Some(SharedGrammar::new(gate)))
    }

    /// The grammar of the calls, if they are bound to one, and of the text that may stand in their place.
    fn calls(
        &self,
        plan: &AnswerPlan,
        text: Option<&http::TextForm>,
    ) -> Result<Option<SharedGrammar>, http::TextError> {
        let is_strict = plan.tools.iter().any(|tool| tool.strict);
        if plan.tools.is_empty() || !plan.is_call_required && !is_strict && text.is_none() {
            return Ok(None);
        }
        let mode = match text {
            _ if plan.is_call_required => CallMode::Required,
            Some(form) => CallMode::Or(rule(&form.source)?),
            None => CallMode::Optional,
        };
        let grammar = CallGrammar {
            format: self.format.tools,
            tools: &plan.tools,
            parallel: plan.parallel_tool_calls,
            mode: &mode,
            control: self.marks.list(),
        };
        if !grammar.is_possible() {
            let message =
                "strict tools beside free text cannot be held to their schemas in this model's format of calls";
            return Err(http::TextError(message.to_owned()));
        }
        self.compile(&grammar).map(Some)
    }

    /// Compiles the grammar of calls.
    fn compile(&self, grammar: &CallGrammar<'_>) -> Result<SharedGrammar, http::TextError> {
        let stops = self.tokenizer.stop_tokens();
        let marks: Vec<u32> = grammar.control.iter().map(|(id, _)| *id).filter(|id| !stops.contains(id)).collect();
        let source =
            |text| if marks.is_empty() { GrammarSource::Lark(text) } else { GrammarSource::MarkedLark { text, marks } };
        let compiled = grammar
            .lark(|schema, strict| lark_value(schema, strict, WhiteSpace::Chosen))
            .and_then(|text| self.compiler.compile(&source(text)));
        compiled.map_err(|error: GrammarError| http::TextError(format!("the tools have no grammar: {error}")))
    }
}

/// The body of a rule for a text of the form `source`.
fn rule(source: &GrammarSource) -> Result<String, http::TextError> {
    let written = match source {
        GrammarSource::JsonObject => lark_value(&json!({"type": "object"}), true, WhiteSpace::Chosen),
        GrammarSource::JsonSchema { schema, strict, white_space } => lark_value(schema, *strict, *white_space),
        _ => {
            let message = "a grammar, a regular expression or a choice cannot stand beside tools that the model may \
                           call: expected a JSON schema, or a tool_choice of none or required";
            return Err(http::TextError(message.to_owned()));
        }
    };
    written.map_err(|error| http::TextError(error.to_string()))
}

/// The text that ends reasoning, up to the mark behind it, and the text between this mark and the answer. `written` is
/// what the template writes there.
fn end_and_gap(format: ReasoningFormat, written: Option<&str>) -> (String, String) {
    let written = written.and_then(|written| Some((written, written.find(format.close)? + format.close.len())));
    match written {
        Some((written, at)) => (written[..at].to_owned(), written[at..].to_owned()),
        None => (format.close.to_owned(), String::new()),
    }
}

#[cfg(test)]
mod tests;
