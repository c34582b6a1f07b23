//! The pieces of a streamed answer, with the ids of their tokens.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

use crate::client::{Events, Failure, reason, truncated};

/// A part of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) token_ids: Vec<u32>,
    pub(super) text: String,
    /// The number of times that the answer was begun, which its last piece tells.
    pub(super) attempts: Option<u32>,
}

/// A response of `/v1/completions` that is being read.
pub(super) struct AnswerStream {
    body: Incoming,
    events: Events,
    /// Pieces that have been read and not been taken. One frame of the body has few of them.
    read: VecDeque<Piece>,
    done: bool,
    /// The next piece, if it was only waited for.
    peeked: Option<Result<Option<Piece>, Failure>>,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    timings: Option<Timings>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: String,
    #[serde(default)]
    token_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Timings {
    attempts: u32,
}

// === impl AnswerStream ===

impl AnswerStream {
    /// Reads the answer from `body`.
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, events: Events::default(), read: VecDeque::new(), done: false, peeked: None }
    }

    /// True if [`AnswerStream::next`] has something to tell within this time.
    pub(super) async fn is_ready_within(&mut self, time: Duration) -> bool {
        match tokio::time::timeout(time, self.next()).await {
            Ok(next) => {
                self.peeked = Some(next);
                true
            }
            Err(_) => false,
        }
    }

    /// The next piece. `None` after the last one. Cancel-safe.
    ///
    /// # Errors
    /// [`Failure`] if the answer ends early or is no stream of completions.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, Failure> {
        if let Some(next) = self.peeked.take() {
            return next;
        }
        loop {
            if let Some(piece) = self.read.pop_front() {
                return Ok(Some(piece));
            }
            if self.done {
                return Ok(None);
            }
            let Some(frame) = self.body.frame().await else {
                return Err(Failure::CutOff { reason: "no end of the answer was seen".to_owned() });
            };
            let frame = frame.map_err(|error| Failure::CutOff { reason: reason(&error) })?;
            let Some(bytes) = frame.data_ref() else { continue };
            let events = self.events.push(bytes);
            let events = events.map_err(|error| Failure::InvalidResponse { reason: error.to_string() })?;
            for event in events {
                match event.data.as_str() {
                    "[DONE]" => self.done = true,
                    data => self.read.push_back(parse(data)?),
                }
            }
        }
    }
}

fn parse(data: &str) -> Result<Piece, Failure> {
    let chunk: Chunk = serde_json::from_str(data)
        .map_err(|error| Failure::InvalidResponse { reason: format!("{error} in {:?}", truncated(data)) })?;
    if let Some(error) = chunk.error {
        let message = error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
        return Err(Failure::StreamError { message: truncated(&message) });
    }
    let mut piece = Piece { attempts: chunk.timings.map(|timings| timings.attempts), ..Piece::default() };
    for choice in chunk.choices {
        piece.text += &choice.text;
        piece.token_ids.extend(choice.token_ids);
    }
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_the_text_the_ids_and_at_the_end_the_attempts() {
        let piece = parse(r#"{"choices":[{"text":" a","index":0,"token_ids":[7,8]}]}"#).unwrap();
        assert_eq!(piece, Piece { token_ids: vec![7, 8], text: " a".to_owned(), attempts: None });
        let last = parse(r#"{"choices":[{"text":"","finish_reason":"length"}],"timings":{"attempts":2}}"#).unwrap();
        assert_eq!(last, Piece { attempts: Some(2), ..Piece::default() });
    }

    #[test]
    fn an_error_in_the_stream_has_its_message_and_anything_else_is_named() {
        let error = parse(r#"{"error":{"message":"layers 9..21 are held by nobody"}}"#).unwrap_err();
        assert_eq!(error, Failure::StreamError { message: "layers 9..21 are held by nobody".to_owned() });
        assert!(matches!(parse("<html>"), Err(Failure::InvalidResponse { .. })));
    }
}
