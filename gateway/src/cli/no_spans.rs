//! Replaces `spans.rs` in a build without the feature `otlp`: no spans are sent, and a configured collector is an
//! error.

use super::exit::CliError;
use super::logging::SpanLayer;
use crate::settings::OtlpEndpoint;

/// The exporter, of which this build has no value.
pub(super) enum Exporter {}

// === impl Exporter ===

impl Exporter {
    /// Fails, because this build cannot send spans.
    pub(super) fn start(endpoint: &OtlpEndpoint) -> Result<Self, CliError> {
        Err(CliError::NoSpans { to: endpoint.traces() })
    }

    /// Cannot be called, because there is no exporter.
    pub(super) fn layer(&self) -> SpanLayer {
        match *self {}
    }
}
