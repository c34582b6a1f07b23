//! Assembles one answer from its stream events. Times are passed in, and nothing here reads a clock or a socket.

use std::time::Duration;

use serde::Deserialize;

use super::limits::EVENTS_MAX;
use crate::client::{Failure, truncated};

/// An answer that arrived in full. All times count from the moment at which the request was due.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    /// Time until the first text.
    pub(super) time_to_first_token: Option<Duration>,
    /// Times between successive pieces of text.
    pub(super) gaps: Vec<Duration>,
    /// Time until the end of the answer.
    pub(super) end_to_end: Duration,
    /// Number of pieces of text.
    pub(super) pieces: u64,
    /// Token counts that the endpoint reported, if it reported any.
    pub(super) usage: Option<Usage>,
}

/// Token counts that the endpoint reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Usage {
    /// Tokens of the prompt.
    pub(super) prompt_tokens: u64,
    /// Tokens of the answer.
    #[serde(default)]
    pub(super) completion_tokens: u64,
    /// Details about the prompt's tokens.
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

/// Assembles an answer from its events.
#[derive(Debug, Default)]
pub(super) struct AnswerDecoder {
    first: Option<Duration>,
    last: Option<Duration>,
    gaps: Vec<Duration>,
    usage: Option<Usage>,
    /// True once a choice had a `finish_reason`.
    finished: bool,
    /// True once the stream sent `[DONE]`.
    done: bool,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

/// A choice of a chat (`delta`) or of a completion (`text`).
#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    /// Text that reasoning models send before the answer. It counts as text because a reader sees it too.
    #[serde(default)]
    reasoning_content: Option<String>,
}

// === impl AnswerDecoder ===

impl AnswerDecoder {
    /// Handles the data of an event that arrived at `at`.
    ///
    /// # Errors
    /// [`Failure`] if the data is an error or not a part of a completion.
    pub(super) fn push(&mut self, data: &str, at: Duration) -> Result<(), Failure> {
        if data == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_str(data)
            .map_err(|error| Failure::InvalidResponse { reason: format!("{error} in {:?}", truncated(data)) })?;
        if let Some(error) = chunk.error {
            let message = error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
            return Err(Failure::StreamError { message: truncated(&message) });
        }
        self.usage = chunk.usage.or(self.usage);
        self.finished |= chunk.choices.iter().any(|choice| choice.finish_reason.is_some());
        if chunk.choices.iter().any(Choice::has_text) {
            self.push_text(at)?;
        }
        Ok(())
    }

    fn push_text(&mut self, at: Duration) -> Result<(), Failure> {
        if self.gaps.len() >= EVENTS_MAX {
            return Err(Failure::InvalidResponse { reason: format!("more than {EVENTS_MAX} pieces of text") });
        }
        match self.last {
            Some(last) => self.gaps.push(at.saturating_sub(last)),
            None => self.first = Some(at),
        }
        self.last = Some(at);
        Ok(())
    }

    /// True once the stream sent `[DONE]`.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Ends the answer: its HTTP body ended at `at`.
    ///
    /// # Errors
    /// [`Failure::CutOff`] if the completion had not ended.
    pub(super) fn end(self, at: Duration) -> Result<Answer, Failure> {
        if !self.done && !self.finished {
            return Err(Failure::CutOff { reason: "no end of the completion was seen".to_owned() });
        }
        let pieces = self.gaps.len() as u64 + u64::from(self.first.is_some());
        Ok(Answer { time_to_first_token: self.first, gaps: self.gaps, end_to_end: at, pieces, usage: self.usage })
    }
}

// === impl Answer ===

impl Answer {
    /// Tokens of the answer: the endpoint's count, or else the number of pieces of text.
    pub(super) fn tokens(&self) -> u64 {
        self.usage.map_or(self.pieces, |usage| usage.completion_tokens)
    }
}

// === impl Usage ===

impl Usage {
    /// Tokens of the prompt that the endpoint found in its prefix cache.
    pub(super) fn cached_tokens(&self) -> u64 {
        self.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0)
    }
}

// === impl Choice ===

impl Choice {
    fn has_text(&self) -> bool {
        let delta = self.delta.iter().flat_map(|delta| [&delta.content, &delta.reasoning_content]);
        delta.chain([&self.text]).flatten().any(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn decode(events: &[(&str, u64)], end: u64) -> Result<Answer, Failure> {
        let mut decoder = AnswerDecoder::default();
        for (data, at) in events {
            decoder.push(data, MS(*at))?;
        }
        decoder.end(MS(end))
    }

    #[test]
    fn only_pieces_with_text_count() {
        let usage = concat!(
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"#,
            r#""prompt_tokens_details":{"cached_tokens":2}}}"#
        );
        let answer = decode(
            &[
                (r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#, 5),
                (r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#, 30),
                (r#"{"choices":[{"delta":{"content":"one"}}],"usage":null}"#, 40),
                (r#"{"choices":[{"text":"two"}]}"#, 65),
                (r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#, 66),
                (usage, 67),
                ("[DONE]", 68),
            ],
            70,
        )
        .unwrap();
        assert_eq!(
            (answer.time_to_first_token, answer.gaps.as_slice(), answer.end_to_end),
            (Some(MS(30)), &[MS(10), MS(25)][..], MS(70))
        );
        assert_eq!((answer.pieces, answer.tokens(), answer.usage.unwrap().cached_tokens()), (3, 4, 2));
    }

    #[test]
    fn without_usage_pieces_are_counted() {
        let answer =
            decode(&[(r#"{"choices":[{"text":"a"}]}"#, 1), (r#"{"choices":[{"text":"b"}]}"#, 2), ("[DONE]", 3)], 3);
        assert_eq!(answer.unwrap().tokens(), 2);
    }

    #[test]
    fn an_answer_needs_an_end() {
        let text = (r#"{"choices":[{"text":"a"}]}"#, 1);
        assert_eq!(decode(&[text], 2).unwrap_err().kind(), "cut off");
        assert!(decode(&[text, (r#"{"choices":[{"text":"","finish_reason":"stop"}]}"#, 2)], 2).is_ok());
    }

    #[test]
    fn errors_and_invalid_data_have_different_kinds() {
        let error = decode(&[(r#"{"error":{"message":"layers 9..21 are held by nobody"}}"#, 1)], 2).unwrap_err();
        assert_eq!(error, Failure::StreamError { message: "layers 9..21 are held by nobody".to_owned() });
        assert_eq!(decode(&[("<html>", 1)], 2).unwrap_err().kind(), "not understood");
    }
}
