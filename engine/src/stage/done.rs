//! The outcomes of what the compute thread, and the reader of weights beside it, are ordered to do.

use std::time::Duration;

use schema::frame::Hop;
use schema::record::Speeds;

use crate::runner::{LoadError, Output, RunnerError};

/// The outcome of an order.
#[derive(Debug)]
pub(crate) enum Done {
    /// A shard was loaded, or could not be.
    Loaded { number: u64, shard: Result<Loaded, LoadError> },
    /// A micro-batch was computed, or could not be.
    Stepped(Box<Stepped>),
    /// Weights were read into memory by another thread.
    ReadAhead { number: u64 },
    /// The speed of the device was measured.
    Probed { speed: Speeds },
}

/// A shard that was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) weights_bytes: u64,
    pub(crate) copied_bytes: u64,
    pub(crate) kv_blocks: u32,
}

/// The outcome of a micro-batch.
#[derive(Debug)]
pub(crate) struct Stepped {
    pub(crate) hop: Hop,
    /// `None` for a micro-batch without rows, which no runner sees.
    pub(crate) output: Result<Option<Output>, RunnerError>,
    pub(crate) compute: Duration,
    pub(crate) queue: Duration,
}
