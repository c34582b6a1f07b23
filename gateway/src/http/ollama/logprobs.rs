//! The log-probabilities of an answer's tokens, in Ollama's form.

use serde::Serialize;

use crate::http::generation::token_logprob::{TokenLogprob, TokenScore};

/// One token of the answer.
#[derive(Debug, Serialize)]
pub(super) struct LogprobBody {
    #[serde(flatten)]
    token: ScoreBody,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top_logprobs: Vec<ScoreBody>,
}

#[derive(Debug, Serialize)]
struct ScoreBody {
    token: String,
    logprob: Option<f64>,
    bytes: Vec<u8>,
}

// === impl LogprobBody ===

impl LogprobBody {
    pub(super) fn new(token: &TokenLogprob) -> Self {
        let top_logprobs = token.alternatives.iter().map(ScoreBody::new).collect();
        Self { token: ScoreBody::new(&token.token), top_logprobs }
    }
}

// === impl ScoreBody ===

impl ScoreBody {
    fn new(token: &TokenScore) -> Self {
        Self { token: token.text(), logprob: token.finite(), bytes: token.bytes.clone() }
    }
}
