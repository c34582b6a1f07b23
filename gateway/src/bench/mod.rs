//! A load generator for OpenAI-compatible endpoints: it asks as many clients would and tells what they would have seen.
//!
//! What is asked ([`Workload`]), what an answer's events mean, the statistics, the [`Report`] and the plot are pure. The
//! edges are the client and the run. It knows endpoints only by their HTTP API, so it measures others' as it does ours.

mod answer;
mod client;
mod endpoint;
mod events;
mod failure;
mod limits;
mod load;
mod plan;
mod plot;
mod prepare;
mod report;
mod run;
mod spread;
mod statistics;
mod words;
mod workload;

pub use endpoint::Endpoint;
pub use failure::{BenchError, Failure};
pub use limits::REQUESTS_AT_ONCE_MAX;
pub use load::{Load, Rate};
pub use plan::{Api, Plan};
pub use plot::plot;
pub use report::{CountedBy, EndpointReport, Errors, PointReport, Ratio, Report, ResultReport};
pub use run::{Watcher, run};
pub use spread::Spread;
pub use statistics::Percentiles;
pub use workload::Workload;
