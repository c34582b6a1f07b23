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
