//! Stands in for `spans.rs` in a build without the feature `otlp`: spans go nowhere, and who asks for more is told.

use super::exit::CliError;
use super::logging::SpanLayer;
use crate::settings::OtlpEndpoint;

/// Cannot be made.
pub(super) enum Exporter {}

// === impl Exporter ===

impl Exporter {
    /// Refuses.
    pub(super) fn start(endpoint: &OtlpEndpoint) -> Result<Self, CliError> {
        Err(CliError::NoSpans { to: endpoint.traces() })
    }

    /// There is none.
    pub(super) fn layer(&self) -> SpanLayer {
        match *self {}
    }
}
