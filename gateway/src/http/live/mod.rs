//! The live picture of the cluster for dashboards: `GET /distributed/events` sends the whole state first and then only
//! changes, as server-sent events.
//!
//! One producer ([`LiveFeed::run`]) looks at the pipeline and makes the events, once for all subscribers. They lie in a
//! bounded ring, from which each subscriber reads at its own pace. A subscriber that comes back with the id of its last
//! event goes on behind it if the ring still has the next one, and else begins with the whole state again.
//!
//! | event | data |
//! |---|---|
//! | `state` | everything: the cluster, the running requests, the series and the log |
//! | `patch` | a JSON merge patch (RFC 7396) for all of the state but the series and the log |
//! | `sample` | the next row of the series |
//! | `log` | the next lines of the log |
//! | `behind` | the subscriber has read too slowly; the stream ends |
//!
//! No event has a client's text.

mod decisions;
mod event_ring;
mod event_stream;
mod feed;
mod log;
mod sampler;
mod series;
mod snapshot;

pub use feed::LiveFeed;

pub(crate) use event_stream::filter;
