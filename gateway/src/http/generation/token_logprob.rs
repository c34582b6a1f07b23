//! A chosen token and its log-probability.

/// Replaces the logarithm of 0, as in OpenAI's API: JSON has no infinity.
const LOGPROB_MIN: f32 = -9999.0;

/// One chosen token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TokenLogprob {
    /// Its id.
    pub(crate) token: u32,
    /// Its bytes. They are a part of a character if the character has several tokens.
    pub(crate) bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub(crate) logprob: f32,
}

// === impl TokenLogprob ===

impl TokenLogprob {
    /// Its text. Bytes that are no whole character become U+FFFD.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The logarithm as JSON can hold it: finite, at least -9999.
    pub(crate) fn finite(&self) -> f64 {
        let finite = if self.logprob.is_finite() { self.logprob.max(LOGPROB_MIN) } else { LOGPROB_MIN };
        f64::from(finite)
    }
}
