//! A load generator for OpenAI-compatible endpoints. It sends requests as many clients would and reports the latency
//! and throughput that they see.
//!
//! The requests ([`Workload`]), the parsing of an answer's events, the statistics, the [`Report`] and the plot are
//! pure. I/O is in the client and the run. Endpoints are reached only through their HTTP API, so that other servers are
//! measured in the same way as baton.

mod answer;
mod client;
mod error;
mod length_distribution;
mod limits;
mod load;
mod plan;
mod plot;
mod prepare;
mod report;
mod run;
mod statistics;
mod words;
mod workload;

pub use error::BenchError;
pub use length_distribution::LengthDistribution;
pub use limits::REQUESTS_AT_ONCE_MAX;
pub use load::{Load, Rate};
pub use plan::{Api, Plan};
pub use plot::plot;
pub use report::{CountedBy, EndpointReport, Errors, PointReport, Ratio, Report, ResultReport};
pub use run::{ProgressObserver, run};
pub use statistics::Percentiles;
pub use workload::Workload;
