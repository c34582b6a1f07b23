//! The errors of tensors that a shard does not have.

use std::io;
use std::path::PathBuf;

use schema::LayerRange;

use super::tensor_role::TensorRole;
use crate::repack::RepackError;

/// Errors of a tensor that a shard cannot return.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The file has none of that name.
    #[error("there is no tensor {name:?} in the model file")]
    Missing {
        /// The name.
        name: String,
    },
    /// It belongs to another stage.
    #[error("tensor {name:?} belongs to {role}: expected one of layers {layers}, which this shard holds")]
    Outside {
        /// The name.
        name: String,
        /// The part of the model that it belongs to.
        role: TensorRole,
        /// The shard's layers.
        layers: LayerRange,
    },
    /// It is the embedding table, which is read by rows.
    #[error("tensor {name:?} is not mapped for looking up tokens: read its rows through `embedding()`")]
    ByRows {
        /// The name.
        name: String,
    },
    /// It has too few rows.
    #[error("tensor {name:?} has {found} rows: expected at least {expected}")]
    Rows {
        /// The name.
        name: String,
        /// Number of rows needed.
        expected: usize,
        /// Its number of rows.
        found: usize,
    },
    /// It is requested as floats, but is larger than a norm or bias.
    #[error("tensor {name:?} is too large to expand to floats: expected at most {most} values, found {found}")]
    TooLarge {
        /// The name.
        name: String,
        /// Maximum number of values accepted.
        most: u64,
        /// Number of values in the tensor.
        found: u64,
    },
    /// It is to be copied, and its file has a number that no weight can have.
    #[error("tensor {name:?}: {cause}")]
    Repack {
        /// The name.
        name: String,
        /// The number found.
        cause: RepackError,
    },
    /// It is to be copied, and its file cannot be mapped.
    #[error("cannot map {} to copy tensor {name:?}", path.display())]
    Unreadable {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// It is a norm or a bias with a value that would make every result no number.
    #[error("tensor {name:?}: expected finite numbers, found {found} at place {index}: fetch the file again")]
    NotFinite {
        /// The name.
        name: String,
        /// The place of the value, counted from 0.
        index: usize,
        /// The value.
        found: f32,
    },
}
