//! The messages of a machine that joins and of the cluster: one line of JSON each way, inside TLS whose server is known
//! by its pin.

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The request of a machine.
#[derive(Serialize, Deserialize)]
pub(super) struct JoinRequest {
    /// The token's id.
    pub token: String,
    /// Its secret, in hex.
    pub secret: String,
    /// The machine's name, for the log.
    pub machine: String,
    /// The public key for which it wants a certificate, in hex.
    pub public_key: String,
}

/// The answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JoinReply {
    /// The machine is let in.
    Welcome {
        /// The cluster key, as 64 hex digits.
        cluster_key: String,
        /// The certificate for its public key, in PEM form.
        certificate: String,
    },
    /// It is not.
    Refused {
        /// The reason.
        reason: Refusal,
    },
}

/// The reason for which a machine is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The store has no such token.
    #[error("the cluster does not know this token: expected one that `baton token list` shows there")]
    Unknown,
    /// Its time is over.
    #[error("the token has expired: `baton token create` makes a new one, on the machine that shares the cluster")]
    Expired,
    /// It was taken back.
    #[error("the token was revoked: `baton token create` makes a new one, on the machine that shares the cluster")]
    Revoked,
    /// The request is not one.
    #[error("the cluster does not understand the request: is baton of the same version there?")]
    Request,
    /// The cluster cannot answer now.
    #[error("the cluster cannot let machines in now: {0}")]
    Internal(String),
}

/// Reads one line of at most `max` bytes. `None` if it is longer, not text, or not such a value.
pub(super) async fn read_line<T: for<'a> Deserialize<'a>>(
    stream: &mut (impl AsyncRead + Unpin),
    max: u64,
) -> std::io::Result<Option<T>> {
    let mut line = Vec::new();
    let mut stream = stream.take(max);
    let mut byte = [0];
    while stream.read(&mut byte).await? == 1 {
        if byte[0] == b'\n' {
            return Ok(serde_json::from_slice(&line).ok());
        }
        line.push(byte[0]);
    }
    Ok(None)
}

/// Writes one line.
pub(super) async fn write_line(stream: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await?;
    stream.shutdown().await
}
