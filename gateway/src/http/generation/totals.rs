//! Usage and timings of a request together.

use super::timings::TimingsBody;
use super::usage::Usage;

/// The totals of a request whose choices have all ended.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) usage: Usage,
    pub(crate) timings: TimingsBody,
}
