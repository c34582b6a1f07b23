//! The load generator's bounds, each with its unit and its reason.

/// Most events with text in one answer: more than any context has tokens.
pub(super) const EVENTS_MAX: usize = 1 << 21;
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
