//! Logging to stderr. Stdout has only the output of the verb.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::exit::CliError;

/// A layer that also receives the program's spans.
pub(super) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging. Verbs that run until they are stopped log at `info` by default, the others at `warn`. The filter
/// does not affect the spans that the layer `spans` receives.
pub(super) fn start(filter: Option<&str>, long_running: bool, spans: Option<SpanLayer>) -> Result<(), CliError> {
    let found = filter.unwrap_or(if long_running { "info" } else { "warn" });
    // ZeroMQ warns if a socket file that it removes is already gone. baton removes these files itself.
    let quiet = if found.contains("zeromq") { found.to_owned() } else { format!("{found},zeromq=error") };
    let filter = EnvFilter::try_new(quiet)
        .map_err(|error| CliError::Log { found: found.chars().take(200).collect(), reason: error.to_string() })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(filter);
    // Fails only if a test has already set a subscriber.
    let _ = tracing_subscriber::registry().with(spans).with(lines).try_init();
    Ok(())
}
