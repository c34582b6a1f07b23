//! The bodies of both completion endpoints, whole and in chunks.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng;
use serde_json::{Map, Value, json};

use super::chorus::Usage;
use super::score::{self, Score};
use super::voice::Ended;

/// Which of the two shapes an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
}

/// What all bodies of one answer have in common.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    shape: Shape,
    id: String,
    created_s: u64,
    model: String,
    /// Whether scores were asked for.
    pub(crate) scored: bool,
}

/// One choice, complete.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// Its text.
    pub(crate) text: String,
    /// Its tokens' scores.
    pub(crate) scores: Vec<Score>,
    /// Why it ended.
    pub(crate) ended: Option<Ended>,
}

// === impl Answer ===

impl Answer {
    /// A new answer of `model`, with an id of its own.
    pub(crate) fn new(shape: Shape, model: &str, scored: bool) -> Self {
        let prefix = match shape {
            Shape::Chat => "chatcmpl",
            Shape::Completion => "cmpl",
        };
        let id = format!("{prefix}-{:032x}", rand::rng().random::<u128>());
        let created_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { shape, id, created_s, model: model.to_owned(), scored }
    }

    /// The whole answer.
    pub(crate) fn whole(&self, choices: &[Choice], usage: Usage, timings: Value) -> Value {
        let choices = choices.iter().enumerate().map(|(index, choice)| self.whole_choice(index, choice)).collect();
        let mut body = self.envelope(false, choices);
        body.insert("usage".to_owned(), usage_json(usage));
        body.insert("timings".to_owned(), timings);
        Value::Object(body)
    }

    fn whole_choice(&self, index: usize, choice: &Choice) -> Value {
        let logprobs = self.logprobs(&choice.scores, 0);
        let finish_reason = choice.ended.map(Ended::name);
        match self.shape {
            Shape::Chat => json!({
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": null},
                "logprobs": logprobs,
                "finish_reason": finish_reason,
            }),
            Shape::Completion => {
                json!({"text": choice.text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason})
            }
        }
    }

    /// The chunk that opens a choice, where the shape has one.
    pub(crate) fn opening(&self, index: usize) -> Option<Map<String, Value>> {
        let delta = json!({"role": "assistant", "content": ""});
        (self.shape == Shape::Chat).then(|| self.chunk(index, &delta, &Value::Null, None))
    }

    /// A chunk of text; `offset` is where its first token begins, in characters.
    pub(crate) fn piece(&self, index: usize, text: &str, scores: &[Score], offset: usize) -> Map<String, Value> {
        let delta = match self.shape {
            Shape::Chat => json!({"content": text}),
            Shape::Completion => json!(text),
        };
        self.chunk(index, &delta, &self.logprobs(scores, offset), None)
    }

    /// The chunk that ends a choice.
    pub(crate) fn ending(&self, index: usize, ended: Ended) -> Map<String, Value> {
        let delta = match self.shape {
            Shape::Chat => json!({}),
            Shape::Completion => json!(""),
        };
        self.chunk(index, &delta, &Value::Null, Some(ended))
    }

    /// The chunk without choices that carries the usage.
    pub(crate) fn usage(&self, usage: Usage) -> Map<String, Value> {
        let mut body = self.envelope(true, Vec::new());
        body.insert("usage".to_owned(), usage_json(usage));
        body
    }

    fn chunk(&self, index: usize, delta: &Value, logprobs: &Value, ended: Option<Ended>) -> Map<String, Value> {
        let key = match self.shape {
            Shape::Chat => "delta",
            Shape::Completion => "text",
        };
        let choice = json!({
            "index": index, key: delta, "logprobs": logprobs, "finish_reason": ended.map(Ended::name),
        });
        self.envelope(true, vec![choice])
    }

    fn logprobs(&self, scores: &[Score], offset: usize) -> Value {
        match self.shape {
            _ if !self.scored => Value::Null,
            Shape::Chat => score::chat(scores),
            Shape::Completion => score::completion(scores, offset),
        }
    }

    fn envelope(&self, chunk: bool, choices: Vec<Value>) -> Map<String, Value> {
        let object = match (self.shape, chunk) {
            (Shape::Chat, false) => "chat.completion",
            (Shape::Chat, true) => "chat.completion.chunk",
            (Shape::Completion, _) => "text_completion",
        };
        let mut body = Map::new();
        body.insert("id".to_owned(), json!(self.id));
        body.insert("object".to_owned(), json!(object));
        body.insert("created".to_owned(), json!(self.created_s));
        body.insert("model".to_owned(), json!(self.model));
        body.insert("choices".to_owned(), Value::Array(choices));
        body
    }
}

fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    })
}
