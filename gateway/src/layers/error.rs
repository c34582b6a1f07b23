//! The reasons for which layers are not fetched.

use std::io;
use std::path::PathBuf;

use super::limits::LEFT_OUT_TIME;
use super::protocol::LayerRefusal;
use crate::models::ModelError;

/// A chunk that is not the one of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{source_name} sent a wrong chunk {chunk} of file {part}: expected BLAKE3 {expected}, found {found}; it is asked \
     for nothing for {left_out_s} s", left_out_s = LEFT_OUT_TIME.as_secs()
)]
pub struct WrongChunk {
    /// The sender.
    pub source_name: String,
    /// The file's number, from 1.
    pub part: usize,
    /// The chunk's number, from 0.
    pub chunk: u64,
    /// The hash of the manifest.
    pub expected: String,
    /// The hash of what came.
    pub found: String,
}

/// The reason for which layers are not fetched.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// A source does not answer.
    #[error("cannot reach {address}")]
    Connect {
        /// The source.
        address: String,
        /// The system's reason, or that of TLS.
        #[source]
        cause: io::Error,
    },
    /// A source breaks off.
    #[error("{address} broke off")]
    Broken {
        /// The source.
        address: String,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
    /// A source answers something that no baton does.
    #[error("{address} answered something else than was asked for")]
    Malformed {
        /// The source.
        address: String,
        /// The thing that was found.
        #[source]
        cause: io::Error,
    },
    /// A source refuses.
    #[error("{address} does not serve its layers: {reason}")]
    Refused {
        /// The source.
        address: String,
        /// Its reason.
        reason: LayerRefusal,
    },
    /// Certificates of this machine cannot be used.
    #[error("cannot use this machine's certificates: {0}")]
    Certificates(String),
    /// The port for layers was not opened.
    #[error("cannot open a port for layers")]
    Port(#[source] io::Error),
    /// The system has no resources for a connection.
    #[error("cannot prepare to fetch")]
    Runtime(#[source] io::Error),
    /// A source sent other bytes.
    #[error(transparent)]
    Wrong(#[from] WrongChunk),
    /// Every source is left out for a while, for these reasons.
    #[error("no source is left to fetch from for now: {0}")]
    NoSource(String),
    /// The files begin with no header.
    #[error("file {part} of the model has no usable header")]
    Header {
        /// The file's number, from 1.
        part: usize,
        /// The reason.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cache or a file in it cannot be used, or there is no room.
    #[error(transparent)]
    Cache(#[from] ModelError),
    /// The bytes that lie here may be those of another file, and a process reads them.
    #[error(
        "{path} has bytes of another manifest or without a map, and another process uses them: stop it first",
        path = path.display()
    )]
    InUse {
        /// The folder of the files.
        path: PathBuf,
    },
    /// Nothing came for a long time.
    #[error("nothing came for {waited_s} s")]
    Stalled {
        /// The time, in seconds.
        waited_s: u64,
        /// The last failure.
        #[source]
        cause: Box<LayersError>,
    },
    /// The order to stop came.
    #[error("stopped")]
    Stopped,
}

// === impl LayersError ===

impl LayersError {
    /// True if the source has other parts of the model only.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { reason: LayerRefusal::Missing, .. })
    }

    /// True if the same source may answer later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Broken { .. }
                | Self::Refused {
                    reason: LayerRefusal::Busy | LayerRefusal::NotYet | LayerRefusal::Hashing { .. },
                    ..
                }
        )
    }
}
