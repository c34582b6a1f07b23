//! The log-probabilities of tokens, in the shapes of the two completion endpoints, and in vLLM's shape for prompts.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::http::generation::token_logprob::{TokenLogprob, TokenNames, TokenScore};

/// A chat's `logprobs`.
#[derive(Debug, Serialize)]
pub(crate) struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: (),
}

#[derive(Debug, Serialize)]
struct ChatToken {
    #[serde(flatten)]
    token: ChatAlternative,
    top_logprobs: Vec<ChatAlternative>,
}

#[derive(Debug, Serialize)]
struct ChatAlternative {
    token: String,
    logprob: Option<f64>,
    bytes: Vec<u8>,
}

/// A completion's `logprobs`: parallel lists. `token_ids` is an extension, because all tokens that are only a part of a
/// character look alike.
#[derive(Debug, Serialize)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    /// Null for the first token of a prompt.
    token_logprobs: Vec<Option<f64>>,
    /// For each token, the likeliest ones and the token itself. Null if the request asks for none.
    top_logprobs: Option<Vec<Option<Map<String, Value>>>>,
    text_offset: Vec<usize>,
    token_ids: Vec<u32>,
}

/// vLLM's `prompt_logprobs`: for each token of the prompt an object from token ids to scores, null for the first token.
pub(crate) type PromptLogprobs = Vec<Option<Map<String, Value>>>;

#[derive(Debug, Serialize)]
struct PromptScore {
    logprob: Option<f64>,
    rank: Option<u32>,
    decoded_token: String,
}

// === impl ChatLogprobs ===

impl ChatLogprobs {
    pub(crate) fn new(tokens: &[TokenLogprob], names: TokenNames) -> Self {
        let score = |score: &TokenScore| ChatAlternative::new(score, names);
        let token = |token: &TokenLogprob| ChatToken {
            token: score(&token.token),
            top_logprobs: token.alternatives.iter().map(score).collect(),
        };
        Self { content: tokens.iter().map(token).collect(), refusal: () }
    }
}

// === impl ChatAlternative ===

impl ChatAlternative {
    fn new(token: &TokenScore, names: TokenNames) -> Self {
        Self { token: token.name(names), logprob: token.finite(), bytes: token.bytes.clone() }
    }
}

// === impl CompletionLogprobs ===

impl CompletionLogprobs {
    /// `text_offset` counts characters from the start of the choice's text. `offset` characters came before these
    /// tokens.
    pub(crate) fn new(tokens: &[TokenLogprob], offset: usize, names: TokenNames) -> Self {
        let start = |next: &mut usize, token: &TokenLogprob| {
            let length = token.token.text().chars().count();
            Some(std::mem::replace(next, *next + length))
        };
        let likeliest = |token: &TokenLogprob| likeliest(token, names);
        let names_others = tokens.iter().any(|token| !token.alternatives.is_empty());
        Self {
            text_offset: tokens.iter().scan(offset, start).collect(),
            tokens: tokens.iter().map(|token| token.token.name(names)).collect(),
            token_logprobs: tokens.iter().map(|token| token.token.finite()).collect(),
            top_logprobs: names_others.then(|| tokens.iter().map(likeliest).collect()),
            token_ids: tokens.iter().map(|token| token.token.token).collect(),
        }
    }
}

/// The likeliest tokens and the token itself, from texts to log-probabilities. `None` if the token has no score.
fn likeliest(token: &TokenLogprob, names: TokenNames) -> Option<Map<String, Value>> {
    token.token.logprob?;
    let all = token.alternatives.iter().chain([&token.token]);
    Some(all.map(|token| (token.key(names), token.finite().into())).collect())
}

/// The scores of a prompt's tokens.
pub(crate) fn of_prompt(tokens: &[TokenLogprob]) -> PromptLogprobs {
    let scores = |token: &TokenLogprob| {
        token.token.logprob?;
        let score = |token: &TokenScore, rank: Option<u32>| {
            let score = PromptScore { logprob: token.finite(), rank, decoded_token: token.text() };
            (token.token.to_string(), serde_json::to_value(score).unwrap_or_default())
        };
        let others = token.alternatives.iter().zip(1..).map(|(other, rank)| score(other, Some(rank)));
        Some(others.chain([score(&token.token, token.rank)]).collect())
    };
    tokens.iter().map(scores).collect()
}

/// Number of characters in `tokens`. The offsets of later tokens grow by it.
pub(crate) fn characters(tokens: &[TokenLogprob]) -> usize {
    tokens.iter().map(|token| token.token.text().chars().count()).sum()
}
