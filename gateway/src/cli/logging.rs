//! Logs go to stderr, so that stdout stays what was asked for.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::exit::CliError;

/// Starts logging. Verbs that stay tell what they do; the others only what is wrong.
pub(super) fn start(filter: Option<&str>, stays: bool) -> Result<(), CliError> {
    let found = filter.unwrap_or(if stays { "info" } else { "warn" });
    // ZeroMQ warns of socket files that are gone already when it comes to remove them: we removed them.
    let quiet = if found.contains("zeromq") { found.to_owned() } else { format!("{found},zeromq=error") };
    let filter = EnvFilter::try_new(quiet)
        .map_err(|error| CliError::Log { found: found.chars().take(200).collect(), reason: error.to_string() })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Fails only where a test has set one already.
    let _ = subscriber.try_init();
    Ok(())
}
