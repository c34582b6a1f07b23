//! The load generator's bounds, each with its unit and its reason.

use std::time::Duration;

/// Timeout for a connection. An endpoint whose backlog is full for longer counts as unreachable.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of one event of a stream. An event carries one token, which takes a few kilobytes with log probabilities.
pub(super) const EVENT_BYTES_MAX: usize = 1 << 20;
/// Most events with text in one answer: more than any context has tokens.
pub(super) const EVENTS_MAX: usize = 1 << 21;
/// Most bytes of a response that is not a stream (a list of models, a refusal).
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;
/// Most characters of an endpoint's message that are repeated.
pub(super) const MESSAGE_CHARS_MAX: usize = 300;
/// Most tokens of one prompt or one answer: more than any context has.
pub(super) const TOKENS_MAX: u32 = 1 << 20;
/// Most requests at once. Each has a socket, and many systems give a process 1,024 descriptors.
pub const REQUESTS_AT_ONCE_MAX: u32 = 900;
/// Most arrivals per second. Above it, the load generator would measure itself.
pub(super) const RATE_MAX: f64 = 1000.0;
/// Most rounds into which a load point is split when two endpoints take turns: enough that a slow change of the
/// machine's speed affects both.
pub(super) const ROUNDS_MAX: u32 = 4;
/// Fewest requests of a round for each concurrent request. With fewer, the round would mostly measure the ramp-up and
/// the ramp-down.
pub(super) const ROUND_REQUESTS_MIN: u32 = 3;
