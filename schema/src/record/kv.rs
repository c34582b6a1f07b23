//! The storage of keys and values in a cluster: the number format, and the room in tokens.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number format of stored keys and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    /// Half precision, two bytes per value.
    #[default]
    F16,
    /// Blocks of [`KvType::Q8_BLOCK`] values of one head: a half-precision scale per block and a signed byte per value.
    #[serde(rename = "q8_0")]
    Q8,
}

/// Room for keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvRoom {
    /// Capacity in tokens.
    pub tokens: u32,
    /// The number format.
    pub kv_type: KvType,
}

/// The bounds of a room for keys and values that follows the stages' memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvGrowth {
    /// The most tokens that it may have, however much memory there is.
    pub tokens_max: u32,
    /// Upper bound of the scratch memory that a shard needs beside a room of so many tokens, in bytes.
    pub scratch_bytes: u64,
}

/// A word that is not the name of a [`KvType`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("keys and values are to be kept as {found:?}: expected f16 or q8_0")]
pub struct KvTypeError {
    found: String,
}

// === impl KvType ===

impl KvType {
    /// Number of values that share a scale in `q8_0`.
    pub const Q8_BLOCK: usize = 32;
    /// Size of such a block in bytes: two for the scale and one per value.
    const Q8_BLOCK_BYTES: u64 = 2 + Self::Q8_BLOCK as u64;

    /// Bytes that `values` values take. `None` if the result does not fit 64 bits. `q8_0` takes whole blocks.
    pub fn bytes(self, values: u64) -> Option<u64> {
        match self {
            Self::F16 => values.checked_mul(2),
            Self::Q8 => values.div_ceil(Self::Q8_BLOCK as u64).checked_mul(Self::Q8_BLOCK_BYTES),
        }
    }

    /// The name of the format in settings and in the store.
    pub fn word(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8 => "q8_0",
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for KvType {
    type Err = KvTypeError;
    fn from_str(text: &str) -> Result<Self, KvTypeError> {
        let known = [Self::F16, Self::Q8].into_iter().find(|kv_type| kv_type.word() == text);
        known.ok_or_else(|| KvTypeError { found: text.chars().take(40).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bits_take_34_bytes_where_half_precision_takes_64() {
        assert_eq!((KvType::F16.bytes(64), KvType::Q8.bytes(64)), (Some(128), Some(68)));
        assert_eq!((KvType::F16.bytes(u64::MAX), KvType::Q8.bytes(u64::MAX)), (None, None));
    }

    #[test]
    fn a_type_is_read_as_it_is_written_and_others_are_refused() {
        for kv_type in [KvType::F16, KvType::Q8] {
            assert_eq!(kv_type.to_string().parse(), Ok(kv_type));
            assert_eq!(serde_json::to_string(&kv_type).unwrap(), format!("\"{kv_type}\""));
        }
        let error = "q4_0".parse::<KvType>().unwrap_err().to_string();
        assert_eq!(error, "keys and values are to be kept as \"q4_0\": expected f16 or q8_0");
        let error = serde_json::from_str::<KvType>("\"q4_0\"").unwrap_err().to_string();
        assert!(error.contains("expected `f16` or `q8_0`"), "{error}");
    }
}
