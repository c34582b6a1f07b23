//! Reads a request's body as it arrives, up to a size limit and within a timeout. It needs no declared length. Only a
//! few large bodies are held at a time. A body is refused as soon as its declared or its real length is over the limit.
//! `request_body` handles the unread rest.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::http::app_state::Settings;
use crate::http::error::ApiError;
use crate::http::limits::{LARGE_BODIES_MAX, LARGE_BODY_BYTES};

/// Permits for large bodies in this process.
static LARGE_BODY_PERMITS: Semaphore = Semaphore::const_new(LARGE_BODIES_MAX);

/// A large body with its permit. Dropping the body's last reference returns the permit.
struct Large {
    bytes: Bytes,
    _permit: SemaphorePermit<'static>,
}

// === impl Large ===

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the whole body.
///
/// # Errors
/// 413 if it is over the size limit, 408 if it is not complete in time, 400 if it breaks off.
pub(crate) async fn read<S, B, E>(settings: &Settings, headers: &HeaderMap, body: S) -> Result<Bytes, ApiError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
    E: std::fmt::Display,
{
    let bytes_max = settings.body_bytes_max;
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(ApiError::body_too_large(bytes_max));
    }
    match tokio::time::timeout(settings.body_time, collect(bytes_max, body)).await {
        Ok(body) => body,
        Err(_) => Err(ApiError::body_too_slow(settings.body_time.as_secs_f64())),
    }
}

/// Collects up to `bytes_max` bytes, and fails at the first one over.
async fn collect<S, B, E>(bytes_max: usize, body: S) -> Result<Bytes, ApiError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
    E: std::fmt::Display,
{
    let mut body = std::pin::pin!(body);
    let mut kept = BytesMut::new();
    let (mut read, mut permit) = (0usize, None);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| {
            ApiError::bad_request("invalid_body", format!("The body broke off after {read} bytes: {error}."))
        })?;
        read = read.saturating_add(piece.remaining());
        if read > LARGE_BODY_BYTES && permit.is_none() {
            // The semaphore is never closed, so this waits for a permit or until the body's timeout.
            permit = LARGE_BODY_PERMITS.acquire().await.ok();
        }
        if read > bytes_max {
            return Err(ApiError::body_too_large(bytes_max));
        }
        kept.put(piece);
    }
    match permit {
        Some(permit) => Ok(Bytes::from_owner(Large { bytes: kept.freeze(), _permit: permit })),
        None => Ok(kept.freeze()),
    }
}
