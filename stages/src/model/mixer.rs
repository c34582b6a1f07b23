//! The part of a layer that combines positions.

use schema::record::KvType;

use super::error::UnsupportedModel;
use super::tensors::Presence;

/// The part of a layer that combines a position with those before it.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    /// Attention whose query heads share key-value heads in groups.
    Attention(AttentionSpec),
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
    /// Number of tokens back that a position attends to, itself included. `u32::MAX` if there is no window.
    pub window: u32,
    /// Index of its rotary embedding in the model's. `None` in a layer without positions.
    pub rope: Option<usize>,
    /// Divisor of the products of queries and keys.
    pub score_divisor: f32,
    /// Norms of queries and keys.
    pub query_key_norm: QueryKeyNorm,
    /// Biases of queries, keys and values.
    pub biases: Presence,
}

/// Norms of queries and keys, before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// None.
    None,
    /// Each head on its own, all with the same weights.
    Head,
}

// === impl Mixer ===

impl Mixer {
    /// Values that one token's keys and values have.
    pub fn kv_values(&self) -> usize {
        match self {
            Self::Attention(attention) => attention.key_width() + attention.value_width(),
        }
    }

    /// Checks that keys and values can be stored as `kv_type`.
    ///
    /// # Errors
    /// [`UnsupportedModel::KvBlocks`] when a head's key or value does not fill whole blocks of `q8_0`.
    pub fn check_kv(&self, kv_type: KvType) -> Result<(), UnsupportedModel> {
        let (key, value) = match self {
            Self::Attention(attention) => (attention.key, attention.value),
        };
        let whole = |values: usize| values.is_multiple_of(KvType::Q8_BLOCK);
        if kv_type == KvType::F16 || (whole(key) && whole(value)) {
            return Ok(());
        }
        Err(UnsupportedModel::KvBlocks { key, value })
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
