//! Turns one sequence's token events into deltas: counts the tokens, decodes them, separates reasoning, text and calls
//! of tools, and ends the text at a stop string.
//!
//! Stop strings are looked for in the text only. In reasoning and in the arguments of calls they end nothing.

use std::sync::Arc;
use std::time::Instant;

use engine::generate::{Failure, Finish, ScoredToken, Timings, TokenEvent};

use super::inference_span::InferenceSpan;
use super::options::GenerationOptions;
use super::text_model::{AnswerPart, AnswerPlan, Decoder, TextModel};
use super::timings::ArrivalTimes;
use super::token_logprob::TokenLogprob;
use crate::text::{AnswerParser, CallIds, StopStrings};

/// The decoder of one choice: turns the events of its sequence into text.
pub(crate) struct ChoiceDecoder {
    text: Arc<dyn TextModel>,
    decoder: Box<dyn Decoder>,
    /// The parser of an answer to a chat. `None` for raw text.
    parser: Option<AnswerParser>,
    call_ids: CallIds,
    /// Calls that began.
    calls: usize,
    /// Most calls.
    calls_max: usize,
    stops: StopStrings,
    /// Tokens that end the sequence. They add no text.
    stop_tokens: Arc<[u32]>,
    /// True if the request asks for log-probabilities.
    wants_logprobs: bool,
    /// Number of the likeliest tokens to name beside each token of the answer.
    top_logprobs: usize,
    /// The same for the tokens of the prompt.
    prompt_logprobs: usize,
    /// The beginning of the choice's text, until it is sent: its prompt, if the request asks for that.
    echo: Option<String>,
    /// Log-probabilities of the prompt's tokens, if the request asks for them.
    prompt: Vec<TokenLogprob>,
    /// True if these are the first of the choice's own, because its text begins with the prompt.
    prompt_belongs: bool,
    /// Log-probabilities of the tokens whose text is still held back.
    logprobs: Vec<TokenLogprob>,
    /// True if the request asks for the ids of tokens.
    wants_token_ids: bool,
    /// The tokens whose text is still held back, if it does.
    token_ids: Vec<u32>,
    tokens: u64,
    /// Sum of the log-probabilities of the answer's tokens.
    logprob_sum: f64,
    /// Tokens of the prompt that were in the prefix cache, so that they were not computed.
    cached_tokens: u32,
    arrivals: ArrivalTimes,
    timings: Option<Timings>,
    span: Option<InferenceSpan>,
}

/// The reason why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A stop token or a stop string came.
    Stop,
    /// The choice has as many tokens as it may have.
    Length,
    /// The model called tools and waits for their results.
    ToolCalls,
}

/// The part that one token event adds to a choice.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// Text to send. It may be empty.
    pub(crate) text: String,
    /// Reasoning before the answer. It may be empty.
    pub(crate) reasoning: String,
    /// Parts of calls of tools.
    pub(crate) tool_calls: Vec<ToolCallDelta>,
    /// Log-probabilities of the tokens in `text`, if the request asks for them.
    pub(crate) logprobs: Vec<TokenLogprob>,
    /// The tokens in `text`, and those without text before them, if the request asks for their ids.
    pub(crate) token_ids: Vec<u32>,
    /// Log-probabilities of the prompt's tokens, if the request asks for them apart. Set on the first delta only.
    pub(crate) prompt: Vec<TokenLogprob>,
    /// The reason why the choice ended. Set on its last delta only.
    pub(crate) end: Option<Result<Ended, Failure>>,
    /// The stop string that ended the text, if one did. Set together with `end`.
    pub(crate) stop_string: Option<String>,
}

/// A part of a call of a tool. The first part of a call has its id and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ToolCallDelta {
    /// Number of the call in its choice, from 0.
    pub(crate) index: usize,
    /// The call's id.
    pub(crate) id: Option<String>,
    /// The tool's name.
    pub(crate) name: Option<String>,
    /// More of the arguments' JSON text.
    pub(crate) arguments: String,
}

// === impl Delta ===

impl Delta {
    /// True if it adds nothing that a client sees.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.reasoning.is_empty() && self.tool_calls.is_empty() && self.prompt.is_empty()
    }
}

// === impl ChoiceDecoder ===

impl ChoiceDecoder {
    /// The decoder of the sequence with the number `choice` of those that continue `prompt`. It is submitted at `now`,
    /// and ends at one of `stop_tokens`.
    pub(crate) fn new(
        text: &Arc<dyn TextModel>,
        options: &GenerationOptions,
        stop_tokens: Arc<[u32]>,
        prompt: &[u32],
        choice: u32,
        now: Instant,
    ) -> Self {
        let plan = options.answer.as_ref();
        let single = plan.is_some_and(|plan| !plan.parallel_tool_calls);
        let scored = options.tokens.scores_prompt;
        let first = prompt.first().filter(|_| scored).map(|token| TokenLogprob::unscored(*token, &**text));
        let mut decoder = plan.map_or_else(|| text.decoder(), |plan| text.answer_decoder(plan));
        Self {
            // The answer may complete the last character of the prompt.
            echo: options.echo.then(|| prompt.iter().map(|token| decoder.push(*token)).collect()),
            prompt: first.into_iter().collect(),
            top_logprobs: options.top_logprobs,
            prompt_logprobs: options.prompt_logprobs.unwrap_or(options.top_logprobs),
            prompt_belongs: options.echo && options.logprobs,
            logprob_sum: 0.0,
            decoder,
            parser: plan.map(AnswerPlan::parser),
            call_ids: CallIds::new(prompt, options.tokens.sampling.seed, choice),
            calls: 0,
            calls_max: if single { 1 } else { usize::MAX },
            text: Arc::clone(text),
            stops: StopStrings::new(options.stop.clone()).including(options.includes_stop),
            stop_tokens,
            wants_logprobs: options.logprobs,
            logprobs: Vec::new(),
            wants_token_ids: options.token_ids,
            token_ids: Vec::new(),
            tokens: 0,
            cached_tokens: 0,
            arrivals: ArrivalTimes::new(now),
            timings: None,
            span: None,
        }
    }

    /// The decoder, which records the end in `span`.
    #[must_use]
    pub(crate) fn in_span(self, span: InferenceSpan) -> Self {
        Self { span: Some(span), ..self }
    }

    /// Number of tokens received, a stop token included.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Mean log-probability of the answer's tokens.
    pub(crate) fn mean_logprob(&self) -> f64 {
        self.logprob_sum / (self.tokens.max(1) as f64)
    }

    /// Tokens of the prompt that were in the prefix cache, so that they were not computed.
    pub(crate) fn cached_tokens(&self) -> u32 {
        self.cached_tokens
    }

    /// The pipeline's timings if the sequence finished, else the timings measured here.
    pub(crate) fn timings(&self) -> Timings {
        self.timings.clone().unwrap_or_else(|| self.arrivals.timings())
    }

    /// Takes the next event and returns the delta it adds.
    pub(crate) fn push_event(&mut self, event: TokenEvent, now: Instant) -> Delta {
        let delta = self.decode(event, now);
        if let (Some(span), Some(end)) = (&self.span, &delta.end) {
            span.ended(self.tokens, self.cached_tokens, end);
        }
        delta
    }

    fn decode(&mut self, event: TokenEvent, now: Instant) -> Delta {
        match event {
            TokenEvent::Started { cached_tokens } => {
                self.cached_tokens = cached_tokens;
                Delta::default()
            }
            TokenEvent::Scored(score) => self.scored(&score),
            TokenEvent::Token(score) => self.token(&score, now),
            TokenEvent::Finished { finish, timings } => self.finish(finish, timings),
            // Nothing is generated for an embedding.
            TokenEvent::Embedded { .. } => Delta::default(),
            TokenEvent::Failed(failure) => Delta { end: Some(Err(failure)), ..Delta::default() },
        }
    }

    fn scored(&mut self, score: &ScoredToken) -> Delta {
        self.prompt.push(TokenLogprob::scored(score, self.prompt_logprobs, &*self.text));
        Delta::default()
    }

    fn token(&mut self, score: &ScoredToken, now: Instant) -> Delta {
        let token = score.token;
        self.tokens += 1;
        self.logprob_sum += f64::from(score.logprob);
        self.arrivals.token(now);
        if self.wants_token_ids {
            self.token_ids.push(token);
        }
        if self.stop_tokens.contains(&token) {
            return Delta::default();
        }
        if self.wants_logprobs {
            self.logprobs.push(TokenLogprob::scored(score, self.top_logprobs, &*self.text));
        }
        let text = self.decoder.push(token);
        let parts = match &mut self.parser {
            Some(parser) => parser.push(&text),
            None => vec![AnswerPart::Text(text)],
        };
        self.delta(parts, None)
    }

    fn finish(&mut self, finish: Finish, timings: Timings) -> Delta {
        self.timings = Some(timings);
        let ended = match finish {
            Finish::Stop => Ended::Stop,
            Finish::Length => Ended::Length,
        };
        let parts = self.parser.as_mut().map(AnswerParser::finish).unwrap_or_default();
        self.delta(parts, Some(ended))
    }

    /// A delta with `parts`, less the text that can still belong to a stop string. With `ended`, or if the parts end
    /// the answer, it also has the text held back so far.
    fn delta(&mut self, parts: Vec<AnswerPart>, ended: Option<Ended>) -> Delta {
        let mut delta = Delta { text: self.echo.take().unwrap_or_default(), ..Delta::default() };
        let mut end = ended;
        for part in parts {
            if let Some(early) = self.add(part, &mut delta) {
                end = Some(early);
                break;
            }
        }
        if end.is_some() {
            delta.text.push_str(&self.stops.finish());
        }
        // A model that called tools and ended by itself waits for their results.
        if end == Some(Ended::Stop) && self.calls > 0 && delta.stop_string.is_none() {
            end = Some(Ended::ToolCalls);
        }
        let prompt = std::mem::take(&mut self.prompt);
        if self.prompt_belongs {
            self.logprobs.splice(0..0, prompt);
        } else {
            delta.prompt = prompt;
        }
        let adds = !delta.text.is_empty() || !delta.reasoning.is_empty() || !delta.tool_calls.is_empty();
        if adds || end.is_some() {
            delta.logprobs = std::mem::take(&mut self.logprobs);
            delta.token_ids = std::mem::take(&mut self.token_ids);
        }
        delta.end = end.map(Ok);
        delta
    }

    /// Adds a part to a delta. Returns the reason if it ends the answer.
    fn add(&mut self, part: AnswerPart, delta: &mut Delta) -> Option<Ended> {
        match part {
            AnswerPart::Reasoning(text) => delta.reasoning.push_str(&text),
            AnswerPart::Text(text) => {
                let stopped = self.stops.push(&text);
                delta.text.push_str(&stopped.emit);
                delta.stop_string = stopped.matched;
                return delta.stop_string.is_some().then_some(Ended::Stop);
            }
            AnswerPart::Call { name } => {
                if self.calls == self.calls_max {
                    return Some(Ended::ToolCalls);
                }
                let (id, name) = (Some(self.call_ids.id(self.calls)), Some(name));
                delta.tool_calls.push(ToolCallDelta { index: self.calls, id, name, arguments: String::new() });
                self.calls += 1;
            }
            AnswerPart::Arguments(arguments) => {
                let index = self.calls.saturating_sub(1);
                match delta.tool_calls.last_mut().filter(|call| call.index == index) {
                    Some(call) => call.arguments.push_str(&arguments),
                    None => delta.tool_calls.push(ToolCallDelta { index, arguments, ..ToolCallDelta::default() }),
                }
            }
            AnswerPart::CallEnd => return (self.calls == self.calls_max).then_some(Ended::ToolCalls),
        }
        None
    }
}
