//! Answers to connections on which no HTTP is served: one over the cap, and one that speaks http where https is served.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::debug;

use crate::http::error::ApiError;
use crate::http::limits::{BARE_REPLY_TIMEOUT, RETRY_AFTER_S};

/// Bytes of its request that are read and discarded, so that the client gets to read the refusal.
const DISCARDED_MAX: u64 = 64 << 10;

/// One of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BareReply {
    /// 503: every connection is busy.
    Overload,
    /// 400: the client did not begin with TLS.
    NotHttps,
}

// === impl BareReply ===

impl BareReply {
    /// Sends the answer and closes the connection, within a bounded time.
    pub(crate) async fn send(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        match tokio::time::timeout(BARE_REPLY_TIMEOUT, self.write(stream)).await {
            Ok(Ok(())) => debug!(reply = ?self, "a connection was refused"),
            Ok(Err(error)) => debug!(reply = ?self, %error, "a connection ended before its refusal"),
            Err(_) => debug!(reply = ?self, "a connection did not take its refusal in time"),
        }
    }

    async fn write(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let (error, more) = match self {
            Self::Overload => (ApiError::too_many_connections(), format!("Retry-After: {RETRY_AFTER_S}\r\n")),
            Self::NotHttps => (ApiError::https_required(), String::new()),
        };
        let body = serde_json::to_string(&error.body())?;
        let (status, length) = (error.status, body.len());
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}Connection: \
             close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(DISCARDED_MAX), &mut tokio::io::sink()).await?;
        Ok(())
    }
}
