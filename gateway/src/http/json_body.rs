//! The body of a request that is one JSON object.

use std::ops::Deref;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::params::parse_object;

/// A parsed body. It keeps the bytes, too: those of a large body hold one of the permits that bound how many large
/// bodies, and what is parsed of them, are in memory at once.
#[derive(Debug)]
pub(crate) struct JsonBody {
    map: Map<String, Value>,
    _bytes: Bytes,
}

// === impl JsonBody ===

impl JsonBody {
    /// Parses `bytes`.
    ///
    /// # Errors
    /// As [`parse_object`].
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, ApiError> {
        Ok(Self { map: parse_object(&bytes)?, _bytes: bytes })
    }
}

impl Deref for JsonBody {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Map<String, Value> {
        &self.map
    }
}
