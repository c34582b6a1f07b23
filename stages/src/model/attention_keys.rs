//! The metadata keys of attention: heads, windows.

use super::error::UnsupportedModel;
use super::keys::{HEAD_WIDTH_MAX, Keys, WIDTH_MAX};
use super::mixer::{AttentionSpec, QueryKeyNorm, Window};
use super::tensors::Presence;

/// The key of attention to tokens up to a position's own.
pub(super) const CAUSAL: &str = "attention.causal";

// === impl Keys ===

impl Keys<'_> {
    /// Attention of the usual keys over all tokens, with the first rotary embedding, without norms of heads and biases.
    pub(super) fn attention(&self) -> Result<AttentionSpec, UnsupportedModel> {
        let hidden = self.hidden()?;
        let heads = self.size("attention.head_count", WIDTH_MAX)?;
        let kv_heads = self.size_or("attention.head_count_kv", heads, WIDTH_MAX)?;
        let key = self.size_or("attention.key_length", hidden / heads, HEAD_WIDTH_MAX)?;
        let value = self.size_or("attention.value_length", key, HEAD_WIDTH_MAX)?;
        self.attention_of(heads, kv_heads, key, value)
    }

    /// The same to all of a text, those after a token included.
    pub(super) fn text_attention(&self) -> Result<AttentionSpec, UnsupportedModel> {
        if self.flag(CAUSAL)? {
            let expected = format!("false, as tokens of a {} model attend to the whole text", self.family);
            return Err(self.wrong(CAUSAL, expected, true));
        }
        self.refuse_window()?;
        Ok(AttentionSpec { window: Window::Text, ..self.attention()? })
    }

    /// The same for these numbers of heads and values in them.
    pub(super) fn attention_of(
        &self,
        heads: usize,
        kv_heads: usize,
        key: usize,
        value: usize,
    ) -> Result<AttentionSpec, UnsupportedModel> {
        if !heads.is_multiple_of(kv_heads) {
            return Err(self.wrong("attention.head_count_kv", format!("a divisor of the {heads} heads"), kv_heads));
        }
        if heads * key.max(value) > WIDTH_MAX as usize {
            return Err(self.wrong("attention.head_count", format!("heads of {key} in {WIDTH_MAX} values"), heads));
        }
        Ok(AttentionSpec {
            heads,
            kv_heads,
            key,
            value,
            window: Window::All,
            rope: Some(0),
            score_divisor: (key as f32).sqrt(),
            query_key_norm: QueryKeyNorm::None,
            norms: Presence::Required,
            norm_after_rope: false,
            value_norm: false,
            shared_key_value: false,
            biases: Presence::Refused,
            output_bias: false,
            sinks: false,
            fused: false,
            softcap: None,
            temperature: None,
        })
    }

    /// The window of a family that has one, in a file that names one. Without a window, and if no sequence is longer,
    /// all tokens are attended to.
    pub(super) fn window(&self) -> Result<Window, UnsupportedModel> {
        match self.count("attention.sliding_window")? {
            0 => Ok(Window::All),
            window if window >= self.context_tokens()? => Ok(Window::All),
            window => Ok(Window::Last(window)),
        }
    }

    /// Refuses a window, for a family that has none.
    pub(super) fn refuse_window(&self) -> Result<(), UnsupportedModel> {
        if self.window()? == Window::All {
            return Ok(());
        }
        let (family, context_tokens) = (self.family, self.context_tokens()?);
        let expected = format!("none below the context of {context_tokens}, as {family} has no window here");
        Err(self.wrong("attention.sliding_window", expected, self.count("attention.sliding_window")?))
    }
}
