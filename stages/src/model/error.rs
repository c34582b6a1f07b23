//! Why a file's model cannot be run.

use crate::gguf::MetadataError;

/// A model that is not supported, or not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// A family that is not implemented.
    #[error("architecture {found:?} is not supported: expected one of {expected}")]
    Architecture {
        /// What the file says.
        found: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A key is missing or of the wrong type.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A value that makes no sense or asks for something that is not implemented.
    #[error("metadata key {key:?}: expected {expected}, found {found}")]
    Value {
        /// The key.
        key: String,
        /// What would have been accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Heads that cannot be kept in blocks of 8 bits.
    #[error(
        "keys and values are to be kept as q8_0, but heads have {key} and {value} values: expected multiples of 32, or f16"
    )]
    KvBlocks {
        /// Values in a head's key.
        key: usize,
        /// Values in a head's value.
        value: usize,
    },
    /// A tensor that is missing, of the wrong shape, or not understood.
    #[error("tensor {name:?}: expected {expected}, found {found}")]
    Tensor {
        /// Its name.
        name: String,
        /// What would have been accepted.
        expected: String,
        /// What is there.
        found: String,
    },
}
