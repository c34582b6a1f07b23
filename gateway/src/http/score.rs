//! How probable the model found a token it chose, in the two shapes clients know.

use serde_json::{Value, json};

/// OpenAI's stand-in for a probability of nothing: JSON knows no infinity.
const LOGPROB_MIN: f32 = -9999.0;

/// One chosen token and its probability.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Score {
    /// Its id.
    pub(crate) token: u32,
    /// The bytes it stands for.
    pub(crate) bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub(crate) logprob: f32,
}

// === impl Score ===

impl Score {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn logprob(&self) -> f64 {
        let finite = if self.logprob.is_finite() { self.logprob.max(LOGPROB_MIN) } else { LOGPROB_MIN };
        f64::from(finite)
    }
}

/// `{"content": [{token, logprob, bytes, top_logprobs}]}`.
pub(crate) fn chat(scores: &[Score]) -> Value {
    let content: Vec<_> = scores
        .iter()
        .map(|score| {
            json!({"token": score.text(), "logprob": score.logprob(), "bytes": score.bytes, "top_logprobs": []})
        })
        .collect();
    json!({"content": content, "refusal": null})
}

/// `{tokens, token_logprobs, top_logprobs, text_offset, token_ids}`; offsets count characters of the answer from
/// `offset`. The ids are ours: half characters look alike in `tokens`.
pub(crate) fn completion(scores: &[Score], offset: usize) -> Value {
    let tokens: Vec<_> = scores.iter().map(Score::text).collect();
    let offsets: Vec<_> = tokens
        .iter()
        .scan(offset, |next, token| {
            let at = *next;
            *next += token.chars().count();
            Some(at)
        })
        .collect();
    let logprobs: Vec<_> = scores.iter().map(Score::logprob).collect();
    let ids: Vec<_> = scores.iter().map(|score| score.token).collect();
    json!({
        "tokens": tokens, "token_logprobs": logprobs, "top_logprobs": null, "text_offset": offsets, "token_ids": ids,
    })
}

/// Characters that `scores` add to the offsets of those after them.
pub(crate) fn characters(scores: &[Score]) -> usize {
    scores.iter().map(|score| score.text().chars().count()).sum()
}
