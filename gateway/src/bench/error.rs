//! Errors of a whole run.

use std::io;
use std::path::PathBuf;

use crate::client::{Failure, TrustError};

/// The reason that nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The endpoint did not answer a test request.
    #[error("cannot measure {endpoint}: {method} {path}")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// The request's method.
        method: &'static str,
        /// The request's path.
        path: String,
        /// The failure of that request.
        #[source]
        cause: Failure,
    },
    /// TLS cannot be used.
    #[error("cannot measure {endpoint}")]
    Trust {
        /// The endpoint.
        endpoint: String,
        /// The reason.
        #[source]
        cause: TrustError,
    },
    /// The endpoint lists no model.
    #[error("cannot measure {endpoint}: GET {path} lists no model; name one with --model")]
    NoModel {
        /// The endpoint.
        endpoint: String,
        /// The path of the list.
        path: String,
    },
    /// The plot could not be written.
    #[error("cannot write the plot to {}", path.display())]
    Plot {
        /// The path of the plot.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
}
