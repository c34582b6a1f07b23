//! The part of a layer that combines positions.

use schema::record::{KvBlocks, KvType};

use super::error::UnsupportedModel;
use super::tensors::Presence;
use crate::format::Format;

/// The part of a layer that combines a position with those before it.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    /// Attention whose query heads share key-value heads in groups.
    Attention(AttentionSpec),
    /// Attention of all heads to one compressed row a token (MLA).
    Latent(LatentSpec),
    /// A convolution over the last few tokens, between two gates.
    ShortConv(ShortConvSpec),
}

/// Grouped attention: its sizes and constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Number of query heads.
    pub heads: usize,
    /// Number of key-value heads. Divides `heads`.
    pub kv_heads: usize,
    /// Values in a head's key (and query).
    pub key: usize,
    /// Values in a head's value.
    pub value: usize,
    /// The tokens that a position attends to.
    pub window: Window,
    /// Index of its rotary embedding in the model's. `None` in a layer without positions.
    pub rope: Option<usize>,
    /// Divisor of the products of queries and keys.
    pub score_divisor: f32,
    /// Norms of queries and keys.
    pub query_key_norm: QueryKeyNorm,
    /// Presence of these norms, in a model that may have them.
    pub norms: Presence,
    /// True if the norms of heads come after the rotation, not before it.
    pub norm_after_rope: bool,
    /// True if each head's values are divided by their root mean square.
    pub value_norm: bool,
    /// True if the matrix that makes keys makes values, too.
    pub shared_key_value: bool,
    /// Biases of queries, keys and values.
    pub biases: Presence,
    /// True if the output has a bias.
    pub output_bias: bool,
    /// True if each head has a sink: a score beside those of tokens, which takes a part of the weights and has no
    /// value.
    pub sinks: bool,
    /// True if one tensor makes queries, keys and values, one after the other.
    pub fused: bool,
    /// Bound that scores are bent to, by `bound * tanh(score / bound)`.
    pub softcap: Option<f32>,
    /// The growth of scores with the position of the query.
    pub temperature: Option<Temperature>,
}

/// The tokens that a position attends to, itself included: of those up to it, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// All.
    All,
    /// All of the text, those after it included. A text goes through such a layer whole.
    Text,
    /// The last ones, of this number.
    Last(u32),
    /// Those of its own chunk: positions are divided into chunks of this number, which do not overlap.
    Chunk(u32),
}

/// A factor of scores that grows with the position of the query:
/// `1 + scale * ln(1 + floor((position + first) / length))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// Factor of the logarithm.
    pub scale: f32,
    /// Tokens after which it grows.
    pub length: u32,
    /// The number that the first position counts as.
    pub first: u32,
}

/// Latent attention: its sizes and constants. A token stores `rank` compressed values, from which each head's keys and
/// values would be made, and `rotated` values of a key that all heads share. A head's query is multiplied with the
/// matrix that makes its keys, and its result with that which makes its values, so that neither is ever made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentSpec {
    /// Number of heads.
    pub heads: usize,
    /// Width that queries are compressed to, if they are.
    pub query_rank: Option<usize>,
    /// Compressed values of a token.
    pub rank: usize,
    /// Values of a head's key that are not rotated.
    pub plain: usize,
    /// Values of the shared key, which are rotated.
    pub rotated: usize,
    /// Values in a head's value.
    pub value: usize,
    /// Index of its rotary embedding in the model's.
    pub rope: usize,
    /// Divisor of the products of queries and keys.
    pub score_divisor: f32,
    /// The format of the tensor that makes both keys and values, in older files, which have one: its part for keys is
    /// copied, transposed. `None` if each has a tensor.
    pub joint: Option<Format>,
}

/// A short convolution (LFM2): a row makes two gates and an input of `width` values each. The first gate is multiplied
/// with the input. Each channel of the product is convolved with its own last `taps` values, a row's own included, and
/// the second gate is multiplied with the sum. The products of the last tokens are the layer's state: they are kept as
/// the values of a layer with a window of `taps` tokens, so that no state has to be rewound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortConvSpec {
    /// Number of channels.
    pub width: usize,
    /// Tokens that a row's sum is made of. At least 2.
    pub taps: u32,
}

/// Norms of queries and keys, before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// None.
    None,
    /// Each head on its own, all with the same weights.
    Head,
    /// Each head on its own, without weights.
    UnitHead,
    /// All heads of a row together.
    Row,
}

// === impl Mixer ===

impl Mixer {
    /// Bytes that one token's keys and values take, stored as `kv_type`. Products of a convolution are kept in single
    /// precision whatever the type.
    pub fn kv_bytes(&self, kv_type: KvType) -> u64 {
        let values = match self {
            Self::Attention(attention) => attention.key_width() + attention.value_width(),
            Self::Latent(latent) => latent.stored(),
            Self::ShortConv(conv) => return (conv.width * size_of::<f32>()) as u64,
        };
        kv_type.bytes(values as u64).unwrap_or(u64::MAX)
    }

    /// Number of tokens back, a row's own included, whose keys and values it needs. 0 if it needs all of them.
    pub fn window_tokens(&self) -> u32 {
        match self {
            Self::Attention(AttentionSpec { window: Window::All | Window::Text, .. }) | Self::Latent(_) => 0,
            Self::Attention(attention) => attention.window.tokens_max(),
            Self::ShortConv(conv) => conv.taps,
        }
    }

    /// Blocks of keys and values that such a layer has in `pool`.
    pub fn blocks(&self, pool: KvBlocks) -> u32 {
        match self {
            Self::Attention(attention) => attention.window.blocks(pool),
            Self::Latent(_) => pool.full,
            Self::ShortConv(conv) => conv.window().blocks(pool),
        }
    }

    /// Checks that keys and values can be stored as `kv_type`.
    ///
    /// # Errors
    /// [`UnsupportedModel::KvBlocks`] when a head's key or value does not fill whole blocks of `q8_0`.
    pub fn check_kv(&self, kv_type: KvType) -> Result<(), UnsupportedModel> {
        let (key, value) = match self {
            Self::Attention(attention) => (attention.key, attention.value),
            Self::Latent(latent) => (latent.stored(), latent.rank),
            Self::ShortConv(_) => return Ok(()),
        };
        let whole = |values: usize| values.is_multiple_of(KvType::Q8_BLOCK);
        if kv_type == KvType::F16 || (whole(key) && whole(value)) {
            return Ok(());
        }
        Err(UnsupportedModel::KvBlocks { key, value })
    }
}

// === impl Window ===

impl Window {
    /// The first position that `position` attends to.
    #[inline(always)]
    pub fn first(self, position: u32) -> u32 {
        match self {
            Self::All | Self::Text => 0,
            Self::Last(tokens) => (position + 1).saturating_sub(tokens),
            Self::Chunk(tokens) => position - position % tokens.max(1),
        }
    }

    /// Most tokens that a position attends to, `u32::MAX` for all.
    pub fn tokens_max(self) -> u32 {
        match self {
            Self::All | Self::Text => u32::MAX,
            Self::Last(tokens) | Self::Chunk(tokens) => tokens,
        }
    }

    /// Blocks of keys and values that a layer with this window has in `pool`.
    pub fn blocks(self, pool: KvBlocks) -> u32 {
        match self {
            Self::All | Self::Text => pool.full,
            Self::Last(_) | Self::Chunk(_) => pool.window,
        }
    }
}

// === impl Temperature ===

impl Temperature {
    /// The factor of a query at `position`.
    pub fn at(self, position: u32) -> f32 {
        let lengths = f64::from(position.saturating_add(self.first) / self.length.max(1));
        (1.0 + f64::from(self.scale) * lengths.ln_1p()) as f32
    }
}

// === impl ShortConvSpec ===

impl ShortConvSpec {
    /// The tokens whose products a row reads.
    pub fn window(&self) -> Window {
        Window::Last(self.taps)
    }

    /// Values in the two gates and the input of a row.
    pub fn parts(&self) -> usize {
        3 * self.width
    }
}

// === impl LatentSpec ===

impl LatentSpec {
    /// Values that a token stores.
    pub fn stored(&self) -> usize {
        self.rank + self.rotated
    }

    /// The copy of the part of a joint tensor that makes keys: its format and bytes. `None` without a joint tensor.
    pub fn key_copy(&self) -> Option<(Format, u64)> {
        // Half precision rounds quantised weights by far less than their quantisation did.
        let format = match self.joint? {
            exact @ (Format::F32 | Format::F16 | Format::BF16) => exact,
            _ => Format::F16,
        };
        Some((format, (self.heads * self.rank * self.plain * format.block_bytes()) as u64))
    }

    /// Values in a head's query, as it is made.
    pub fn query(&self) -> usize {
        self.plain + self.rotated
    }
}

// === impl AttentionSpec ===

impl AttentionSpec {
    /// Number of query heads that share a key-value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Values in a row of queries.
    pub fn query_width(&self) -> usize {
        self.heads * self.key
    }

    /// Values in a row of keys.
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.key
    }

    /// Values in a row of attention values (V).
    pub fn value_width(&self) -> usize {
        self.kv_heads * self.value
    }

    /// Values in a row of attention's output.
    pub fn output_width(&self) -> usize {
        self.heads * self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_grow_with_whole_lengths_of_the_position() {
        let temperature = Temperature { scale: 0.1, length: 100, first: 0 };
        assert_eq!([0, 99].map(|position| temperature.at(position)), [1.0, 1.0]);
        let expected = (1.0 + f64::from(0.1_f32) * 3.0_f64.ln()) as f32;
        assert_eq!([200, 299].map(|position| temperature.at(position)), [expected; 2]);
        let from_one = Temperature { first: 1, ..temperature };
        assert_eq!([199, 298].map(|position| from_one.at(position)), [expected; 2]);
    }

    #[test]
    fn a_window_begins_a_number_of_tokens_back_and_a_chunk_at_a_multiple() {
        let first = |window: Window| [0, 6, 7, 8, 20].map(|position| window.first(position));
        assert_eq!(first(Window::All), [0; 5]);
        assert_eq!(first(Window::Last(7)), [0, 0, 1, 2, 14]);
        assert_eq!(first(Window::Chunk(7)), [0, 0, 7, 7, 14]);
    }
}
