//! The longest text of a model whose tokens attend to those after them: such a text goes through the layers whole, in
//! one micro-batch. Pure.

use crate::frame::HIDDEN_STATE_BYTES_MAX;

/// Most tokens of such a text: the context of most models of this kind. A stage holds as many rows at once.
pub const TEXT_TOKENS_MAX: u32 = 2048;

/// Rows of several short texts that a gateway puts into one micro-batch, at most.
pub const TEXT_BATCH_ROWS_MAX: u32 = 256;

/// Most tokens of a text by a model with rows of `hidden` values: the hidden states of all of them come back together.
pub fn text_tokens_max(hidden: u64) -> u32 {
    let states = HIDDEN_STATE_BYTES_MAX as u64 / hidden.saturating_mul(size_of::<f32>() as u64).max(1);
    TEXT_TOKENS_MAX.min(u32::try_from(states).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_models_embed_shorter_texts() {
        assert_eq!([384, 768, 1024].map(text_tokens_max), [TEXT_TOKENS_MAX; 3]);
        assert_eq!(text_tokens_max(4096), 512);
        assert_eq!(text_tokens_max(u64::MAX), 1);
    }
}
