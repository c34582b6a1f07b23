//! Errors of one request.

use super::limits::CONNECT_TIMEOUT;

/// The reason that a request was not answered in full.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The connection could not be opened.
    #[error("cannot connect: {reason}")]
    Connect {
        /// The operating system's reason.
        reason: String,
    },
    /// The answer took longer than the timeout.
    #[error("not answered in full within {seconds} s")]
    Timeout {
        /// The timeout, in seconds.
        seconds: u64,
    },
    /// The endpoint refused the request.
    #[error("answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The endpoint's message.
        message: String,
    },
    /// The endpoint sent an error in the middle of an answer.
    #[error("an error instead of the rest of the answer: {message}")]
    StreamError {
        /// The endpoint's message.
        message: String,
    },
    /// The connection ended or broke in the middle of an answer.
    #[error("the connection ended before the answer did: {reason}")]
    CutOff {
        /// The error of the connection.
        reason: String,
    },
    /// The response is not a stream of completions.
    #[error("not a stream of completions: {reason}")]
    InvalidResponse {
        /// The part that could not be parsed, or the limit that was exceeded.
        reason: String,
    },
}

// === impl Failure ===

impl Failure {
    /// The kind under which failures are counted.
    pub fn kind(&self) -> String {
        match self {
            Self::Connect { .. } => "connect".to_owned(),
            Self::Timeout { .. } => "timeout".to_owned(),
            Self::Refused { status, .. } => format!("status {status}"),
            Self::StreamError { .. } => "gave up".to_owned(),
            Self::CutOff { .. } => "cut off".to_owned(),
            Self::InvalidResponse { .. } => "not understood".to_owned(),
        }
    }

    /// A connection was not opened within [`CONNECT_TIMEOUT`].
    pub(super) fn connect_timeout() -> Self {
        Self::Connect { reason: format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()) }
    }
}
