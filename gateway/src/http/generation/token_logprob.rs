//! A token and its log-probability, with the likeliest tokens in its place.

use engine::generate::ScoredToken;

use super::text_model::TextModel;

/// The way in which an answer writes tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum TokenNames {
    /// By their texts.
    #[default]
    Texts,
    /// By their ids, as vLLM writes them: `token_id:123`. Tokens that are only a part of a character look different.
    Ids,
}

/// Replaces the logarithm of 0, as in OpenAI's API: JSON has no infinity.
const LOGPROB_MIN: f32 = -9999.0;

/// One token of an answer or of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TokenLogprob {
    /// The token.
    pub(crate) token: TokenScore,
    /// Its rank by probability, from 1. `None` if it is not known.
    pub(crate) rank: Option<u32>,
    /// The likeliest tokens in its place, the likeliest first: as many as the request asks for.
    pub(crate) alternatives: Vec<TokenScore>,
}

/// A token and its score.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TokenScore {
    /// Its id.
    pub(crate) token: u32,
    /// Its bytes. They are a part of a character if the character has several tokens.
    pub(crate) bytes: Vec<u8>,
    /// Natural logarithm of its probability. `None` for the first token of a prompt, which follows nothing.
    pub(crate) logprob: Option<f32>,
}

// === impl TokenLogprob ===

impl TokenLogprob {
    /// The token that the pipeline scored, with at most `top` of the likeliest ones.
    pub(crate) fn scored(score: &ScoredToken, top: usize, text: &dyn TextModel) -> Self {
        let of = |token, logprob| TokenScore { token, bytes: text.token_bytes(token), logprob: Some(logprob) };
        Self {
            token: of(score.token, score.logprob),
            rank: Some(score.rank).filter(|rank| *rank > 0),
            alternatives: score.alternatives.iter().take(top).map(|other| of(other.token, other.logprob)).collect(),
        }
    }

    /// The first token of a prompt, which has no score.
    pub(crate) fn unscored(token: u32, text: &dyn TextModel) -> Self {
        let token = TokenScore { token, bytes: text.token_bytes(token), logprob: None };
        Self { token, rank: None, alternatives: Vec::new() }
    }
}

// === impl TokenScore ===

impl TokenScore {
    /// Its text. Bytes that are no whole character become U+FFFD.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Its name.
    pub(crate) fn name(&self, names: TokenNames) -> String {
        match names {
            TokenNames::Texts => self.text(),
            TokenNames::Ids => format!("token_id:{}", self.token),
        }
    }

    /// Its name as the key of an object. Bytes that are no whole character are written as OpenAI's API writes them.
    pub(crate) fn key(&self, names: TokenNames) -> String {
        if names == TokenNames::Ids {
            return self.name(names);
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => self.bytes.iter().fold("bytes:".to_owned(), |key, byte| format!("{key}\\x{byte:02x}")),
        }
    }

    /// The logarithm as JSON can hold it: finite, at least -9999.
    pub(crate) fn finite(&self) -> Option<f64> {
        let finite = |logprob: f32| if logprob.is_finite() { logprob.max(LOGPROB_MIN) } else { LOGPROB_MIN };
        self.logprob.map(finite).map(f64::from)
    }
}
