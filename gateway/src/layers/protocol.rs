//! The messages about layers, inside the TLS of the shared port: a head of JSON with its length before it, and, after
//! that of an answer, the bytes that it announces. A connection takes one request after the other.

use schema::Fingerprint;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::limits::HEAD_BYTES_MAX;

/// The name of this protocol (ALPN).
pub(crate) const LAYERS_PROTOCOL: &[u8] = b"baton-layers/1";

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LayerRequest {
    /// The manifest of a model.
    Manifest {
        /// The model.
        fingerprint: Fingerprint,
        /// True if whoever asks would rather be told that the model is being hashed, and ask again, than wait.
        #[serde(default)]
        polls: bool,
    },
    /// Bytes of one of its files, at most as many as are asked for at once. A machine that has only parts of the model
    /// answers with the first whole chunks of them.
    Bytes {
        /// The file's number.
        part: usize,
        /// The first byte.
        start: u64,
        /// The number of bytes.
        bytes: u64,
        /// The model. Older machines do not say, and mean the one that they asked the manifest of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<Fingerprint>,
    },
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LayerReply {
    /// So many bytes follow.
    Body(u64),
    /// None do.
    Refused(LayerRefusal),
}

/// The reason for which a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum LayerRefusal {
    /// The machine has not opened its model yet.
    #[error("it has not opened its model yet")]
    NotYet,
    /// It hashes its model first.
    #[error("it is hashing its file, {percent} %")]
    Hashing {
        /// The hashed share of it.
        percent: u8,
    },
    /// It serves as many as it may.
    #[error("it serves as many machines at once as it may")]
    Busy,
    /// It has another model.
    #[error("it has another model, with fingerprint {found}")]
    OtherModel {
        /// That model's fingerprint.
        found: Fingerprint,
    },
    /// Its model has a form that is not served in parts.
    #[error("its model is no GGUF file: only those are fetched in parts")]
    Form,
    /// It has parts of the model, and these bytes are not among them.
    #[error("it has other parts of the model only")]
    Missing,
    /// It has no such bytes.
    #[error("its model has no such bytes")]
    Range,
    /// It cannot read its model.
    #[error("it cannot read its model: {0}")]
    Read(String),
}

/// Reads a head. `None` at the end of the stream.
pub(super) async fn read_head<T: for<'a> Deserialize<'a>>(
    stream: &mut (impl AsyncRead + Unpin),
) -> std::io::Result<Option<T>> {
    let length = match stream.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > HEAD_BYTES_MAX {
        let text = format!("a head of {length} bytes: expected at most {HEAD_BYTES_MAX}");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
    }
    let mut head = vec![0; length as usize];
    stream.read_exact(&mut head).await?;
    Ok(Some(serde_json::from_slice(&head)?))
}

/// Writes a head, and the bytes that follow it.
pub(super) async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    head: &impl Serialize,
    body: &[u8],
) -> std::io::Result<()> {
    let head = serde_json::to_vec(head)?;
    stream.write_u32(head.len() as u32).await?;
    stream.write_all(&head).await?;
    stream.write_all(body).await?;
    stream.flush().await
}
