//! Why a request failed, and why a whole run did.

use std::io;
use std::path::PathBuf;

use super::limits::CONNECT_TIMEOUT;

/// Why a request was not answered in full.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("cannot connect: {reason}")]
    Connect {
        /// The operating system's reason.
        reason: String,
    },
    /// The answer took longer than was allowed.
    #[error("not answered in full within {seconds} s")]
    Timeout {
        /// What was allowed.
        seconds: u64,
    },
    /// The endpoint said no.
    #[error("answered {status}: {said}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        said: String,
    },
    /// The endpoint gave up in the middle of an answer.
    #[error("an error instead of the rest of the answer: {said}")]
    GaveUp {
        /// Its words.
        said: String,
    },
    /// The connection ended or broke in the middle of an answer.
    #[error("the connection ended before the answer did: {reason}")]
    CutOff {
        /// In which way.
        reason: String,
    },
    /// Something else than a stream of completions.
    #[error("not a stream of completions: {reason}")]
    NotUnderstood {
        /// What is wrong with it.
        reason: String,
    },
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The endpoint was tried and did not serve.
    #[error("cannot measure {endpoint}: {method} {path}")]
    Endpoint {
        /// Which one.
        endpoint: String,
        /// The request's method.
        method: &'static str,
        /// The request's path.
        path: String,
        /// What came of it.
        #[source]
        cause: Failure,
    },
    /// It serves no model, or does not say which.
    #[error("cannot measure {endpoint}: GET {path} names no model; say which with --model")]
    NoModel {
        /// Which one.
        endpoint: String,
        /// Where it was asked.
        path: String,
    },
    /// The plot.
    #[error("cannot write the plot to {}", path.display())]
    Plot {
        /// Where to.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
}

// === impl Failure ===

impl Failure {
    /// What failures are counted by.
    pub fn kind(&self) -> String {
        match self {
            Self::Connect { .. } => "connect".to_owned(),
            Self::Timeout { .. } => "timeout".to_owned(),
            Self::Refused { status, .. } => format!("status {status}"),
            Self::GaveUp { .. } => "gave up".to_owned(),
            Self::CutOff { .. } => "cut off".to_owned(),
            Self::NotUnderstood { .. } => "not understood".to_owned(),
        }
    }

    /// No connection in time.
    pub(super) fn connect_timeout() -> Self {
        Self::Connect { reason: format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()) }
    }
}
