//! The load generator's bounds, each with its unit and its reason.

use std::time::Duration;

/// Longest wait for a connection: an endpoint whose backlog is full for longer counts as not there.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one event of a stream: an event carries one token, with log probabilities a few kilobytes.
pub(super) const EVENT_BYTES_MAX: usize = 1 << 20;
/// Events with text of one answer; more than any context has tokens.
pub(super) const EVENTS_MAX: usize = 1 << 21;
/// Bytes of an answer that is no stream (a list of models, a refusal).
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest part of an endpoint's words that is repeated, in characters.
pub(super) const SAID_CHARS_MAX: usize = 300;
/// Tokens of one prompt or one answer; more than any context has.
pub(super) const TOKENS_MAX: u32 = 1 << 20;
/// Requests at once; each has a socket, and 1,024 descriptors are what many systems give a process.
pub const REQUESTS_AT_ONCE_MAX: u32 = 900;
/// Arrivals a second; above it the generator itself would be what is measured.
pub(super) const RATE_MAX: f64 = 1000.0;
/// Rounds into which a load point is cut when two endpoints take turns: enough that a machine's slow drift meets both.
pub(super) const ROUNDS_MAX: u32 = 4;
/// Requests of a round for each one at once: with fewer, filling and emptying would be most of what is measured.
pub(super) const ROUND_REQUESTS_MIN: u32 = 3;
