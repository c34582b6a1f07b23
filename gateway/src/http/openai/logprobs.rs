//! The log-probabilities of an answer's tokens, in the shapes of the two completion endpoints.

use serde::Serialize;

use crate::http::generation::token_logprob::TokenLogprob;

/// A chat's `logprobs`.
#[derive(Debug, Serialize)]
pub(crate) struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: (),
}

#[derive(Debug, Serialize)]
struct ChatToken {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
    top_logprobs: [(); 0],
}

/// A completion's `logprobs`: parallel lists. `token_ids` is an extension, because all tokens that are only a part of a
/// character look alike.
#[derive(Debug, Serialize)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f64>,
    top_logprobs: (),
    text_offset: Vec<usize>,
    token_ids: Vec<u32>,
}

// === impl ChatLogprobs ===

impl ChatLogprobs {
    pub(crate) fn new(tokens: &[TokenLogprob]) -> Self {
        let token = |token: &TokenLogprob| ChatToken {
            token: token.text(),
            logprob: token.finite(),
            bytes: token.bytes.clone(),
            top_logprobs: [],
        };
        Self { content: tokens.iter().map(token).collect(), refusal: () }
    }
}

// === impl CompletionLogprobs ===

impl CompletionLogprobs {
    /// `text_offset` counts characters from the start of the answer. `offset` characters came before these tokens.
    pub(crate) fn new(tokens: &[TokenLogprob], offset: usize) -> Self {
        let texts: Vec<_> = tokens.iter().map(TokenLogprob::text).collect();
        let start = |next: &mut usize, text: &String| Some(std::mem::replace(next, *next + text.chars().count()));
        Self {
            text_offset: texts.iter().scan(offset, start).collect(),
            tokens: texts,
            token_logprobs: tokens.iter().map(TokenLogprob::finite).collect(),
            top_logprobs: (),
            token_ids: tokens.iter().map(|token| token.token).collect(),
        }
    }
}

/// Number of characters in `tokens`. The offsets of later tokens grow by it.
pub(crate) fn characters(tokens: &[TokenLogprob]) -> usize {
    tokens.iter().map(|token| token.text().chars().count()).sum()
}
