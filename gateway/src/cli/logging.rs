//! Logs go to stderr, so that stdout stays what was asked for.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::exit::CliError;

/// Who else takes the program's spans.
pub(super) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging. Verbs that stay tell what they do; the others only what is wrong. What `spans` takes does not depend on
/// the filter.
pub(super) fn start(filter: Option<&str>, stays: bool, spans: Option<SpanLayer>) -> Result<(), CliError> {
    let found = filter.unwrap_or(if stays { "info" } else { "warn" });
    // ZeroMQ warns of socket files that are gone already when it comes to remove them: we removed them.
    let quiet = if found.contains("zeromq") { found.to_owned() } else { format!("{found},zeromq=error") };
    let filter = EnvFilter::try_new(quiet)
        .map_err(|error| CliError::Log { found: found.chars().take(200).collect(), reason: error.to_string() })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(filter);
    // Fails only where a test has set one already.
    let _ = tracing_subscriber::registry().with(spans).with(lines).try_init();
    Ok(())
}
