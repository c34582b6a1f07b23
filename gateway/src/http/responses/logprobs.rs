//! The log-probabilities of an answer's tokens.

use serde::Serialize;

use crate::http::generation::token_logprob::{TokenLogprob, TokenScore};

/// One token with its log-probability.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct LogprobBody {
    #[serde(flatten)]
    token: ScoreBody,
    /// The likeliest tokens in its place, the likeliest first.
    top_logprobs: Vec<ScoreBody>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ScoreBody {
    token: String,
    logprob: Option<f64>,
    bytes: Vec<u8>,
}

// === impl LogprobBody ===

impl LogprobBody {
    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let all = self.top_logprobs.iter().chain([&self.token]);
        all.map(|score| size_of_val(score) + score.token.len() + score.bytes.len()).sum()
    }
}

impl From<&TokenLogprob> for LogprobBody {
    fn from(token: &TokenLogprob) -> Self {
        let top_logprobs = token.alternatives.iter().map(ScoreBody::from).collect();
        Self { token: ScoreBody::from(&token.token), top_logprobs }
    }
}

// === impl ScoreBody ===

impl From<&TokenScore> for ScoreBody {
    fn from(token: &TokenScore) -> Self {
        Self { token: token.text(), logprob: token.finite(), bytes: token.bytes.clone() }
    }
}
