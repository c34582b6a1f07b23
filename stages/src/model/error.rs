//! Errors of a file whose model cannot be run.

use crate::gguf::MetadataError;

/// A model that is not supported or not complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedModel {
    /// A family that is not implemented.
    #[error("architecture {found:?} is not supported: expected one of {expected}")]
    Architecture {
        /// The architecture that the file names.
        found: String,
        /// The accepted values.
        expected: String,
    },
    /// A key is missing or of the wrong type.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A value that is out of range or requests something that is not implemented.
    #[error("metadata key {key:?}: expected {expected}, found {found}")]
    Value {
        /// The key.
        key: String,
        /// The accepted values.
        expected: String,
        /// The value found.
        found: String,
    },
    /// Attention heads whose keys and values do not fill whole blocks of `q8_0`.
    #[error(
        "keys and values are to be kept as q8_0, but heads have {key} and {value} values: expected multiples of 32, or \
         f16"
    )]
    KvBlocks {
        /// Values in a head's key.
        key: usize,
        /// Values in a head's value.
        value: usize,
    },
    /// A model that only the processor computes.
    #[error(
        "{family} models are not computed on a GPU, because of {feature}: expected equal dense layers, or the device \
         cpu (`--device cpu`), which computes every model"
    )]
    Accelerator {
        /// The model's family.
        family: &'static str,
        /// The feature that the GPU runner does not have.
        feature: &'static str,
    },
    /// A tensor that is missing, has the wrong shape, or is unknown.
    #[error("tensor {name:?}: expected {expected}, found {found}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// The accepted values.
        expected: String,
        /// The value found.
        found: String,
    },
}
