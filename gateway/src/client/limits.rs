//! The bounds of the program's own HTTP clients, each with its unit and its reason.

use std::time::Duration;

/// Timeout for a connection. An endpoint whose backlog is full for longer counts as unreachable.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of one event of a stream. An event carries one token, which takes a few kilobytes with log probabilities.
pub(crate) const EVENT_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a response that is not a stream (a list of models, a refusal).
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// Most characters of an endpoint's message that are repeated.
pub(crate) const MESSAGE_CHARS_MAX: usize = 300;
