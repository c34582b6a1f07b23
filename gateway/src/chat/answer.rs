//! Decodes the events of a streamed chat answer.

use serde::Deserialize;

use crate::client::{Failure, truncated};

/// A piece of an answer, as the model writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Reasoning before the answer.
    Reasoning(String),
    /// The answer.
    Text(String),
    /// The part of the prompt that the endpoint has computed, before the first of the others.
    Progress(ComputedPrompt),
}

/// The part of a prompt that is computed, as baton and llama-server report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct ComputedPrompt {
    /// Tokens of the prompt.
    pub total: u64,
    /// Those that are computed, or were before.
    pub processed: u64,
}

/// The end of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerEnd {
    /// The reason that the answer ended: `stop`, `length` …
    pub finish_reason: Option<String>,
    /// The endpoint's timings, if it reports them as baton and llama-server do.
    pub timings: Option<AnswerTimings>,
}

/// The part of the `timings` field that people look at.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AnswerTimings {
    /// Tokens of the answer.
    pub predicted_n: u64,
    /// Tokens per second of the answer.
    pub predicted_per_second: f64,
    /// Time to the first token, in milliseconds.
    pub prompt_ms: f64,
    /// Names and layers of the stages that computed it.
    pub stages: Vec<AnswerStage>,
}

/// One stage of the `timings` field.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AnswerStage {
    /// The stage's name.
    pub stage: String,
    /// `[first, one past last]` layer.
    pub layers: [u32; 2],
}

/// Assembles an answer from its events.
#[derive(Debug, Default)]
pub(super) struct ChatDecoder {
    end: AnswerEnd,
    done: bool,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    timings: Option<AnswerTimings>,
    #[serde(default)]
    prompt_progress: Option<serde_json::Value>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
    /// The name of the same field at other endpoints.
    #[serde(default)]
    reasoning: Option<String>,
}

// === impl ChatDecoder ===

impl ChatDecoder {
    /// The pieces in the `data` of an event.
    ///
    /// # Errors
    /// [`Failure`] if the data is an error or not a part of an answer.
    pub(super) fn push(&mut self, data: &str) -> Result<Vec<Piece>, Failure> {
        if data == "[DONE]" {
            self.done = true;
            return Ok(Vec::new());
        }
        let chunk: Chunk = serde_json::from_str(data)
            .map_err(|error| Failure::InvalidResponse { reason: format!("{error} in {:?}", truncated(data)) })?;
        if let Some(error) = chunk.error {
            let message = error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
            return Err(Failure::StreamError { message: truncated(&message) });
        }
        self.end.timings = chunk.timings.or(self.end.timings.take());
        // One of another shape says nothing of the prompt, and the rest of the chunk counts all the same.
        let progress = chunk.prompt_progress.and_then(|progress| serde_json::from_value(progress).ok());
        let mut pieces: Vec<_> = progress.map(Piece::Progress).into_iter().collect();
        for choice in chunk.choices {
            self.end.finish_reason = choice.finish_reason.or(self.end.finish_reason.take());
            let reasoning = choice.delta.reasoning_content.or(choice.delta.reasoning);
            pieces.extend(reasoning.filter(|text| !text.is_empty()).map(Piece::Reasoning));
            pieces.extend(choice.delta.content.filter(|text| !text.is_empty()).map(Piece::Text));
        }
        Ok(pieces)
    }

    /// True once the stream sent `[DONE]`.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Ends the answer: its HTTP body has ended.
    ///
    /// # Errors
    /// [`Failure::CutOff`] if the answer had not ended.
    pub(super) fn end(self) -> Result<AnswerEnd, Failure> {
        if self.done || self.end.finish_reason.is_some() {
            Ok(self.end)
        } else {
            Err(Failure::CutOff { reason: "no end of the answer was seen".to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_and_text_come_apart_and_the_end_has_the_timings() {
        let mut decoder = ChatDecoder::default();
        let hm = r#"{"choices":[{"delta":{"reasoning_content":"hm","reasoning":"hm"},"finish_reason":null}]}"#;
        assert_eq!(decoder.push(hm).unwrap(), [Piece::Reasoning("hm".to_owned())]);
        let half = r#"{"choices":[{"delta":{"content":""}}],"prompt_progress":{"total":8,"cache":0,"processed":4}}"#;
        assert_eq!(decoder.push(half).unwrap(), [Piece::Progress(ComputedPrompt { total: 8, processed: 4 })]);
        let four = r#"{"choices":[{"delta":{"content":"4"}}]}"#;
        assert_eq!(decoder.push(four).unwrap(), [Piece::Text("4".to_owned())]);
        let last = r#"{"choices":[{"delta":{},"finish_reason":"stop"}],
            "timings":{"predicted_n":9,"predicted_per_second":12.5,"stages":[{"stage":"a","layers":[0,3],"rows":1}]}}"#;
        assert_eq!(decoder.push(last).unwrap(), []);
        decoder.push("[DONE]").unwrap();
        assert!(decoder.is_done());
        let end = decoder.end().unwrap();
        let timings = end.timings.unwrap();
        assert_eq!((end.finish_reason.as_deref(), timings.predicted_n), (Some("stop"), 9));
        assert_eq!(timings.stages, [AnswerStage { stage: "a".to_owned(), layers: [0, 3] }]);
    }

    #[test]
    fn an_error_or_an_early_end_is_no_answer() {
        let mut decoder = ChatDecoder::default();
        assert!(matches!(decoder.push(r#"{"error":{"message":"no"}}"#), Err(Failure::StreamError { .. })));
        assert!(matches!(decoder.push("<html>"), Err(Failure::InvalidResponse { .. })));
        assert!(matches!(decoder.end(), Err(Failure::CutOff { .. })));
    }
}
