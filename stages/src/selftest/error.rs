//! The error of a test that could not be made.

use std::io;
use std::path::PathBuf;

use crate::device::DeviceError;
use crate::gguf::WriteError;

/// A test could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A model could not be written.
    #[error("cannot write a model to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A model could not be written.
    #[error(transparent)]
    Gguf(#[from] WriteError),
    /// The written model could not be read again or loaded.
    #[error("cannot read or load the model of the test: {0}")]
    Model(String),
}
