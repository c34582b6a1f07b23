//! Logging to stderr, as text or as JSON, and of members also to a file. Stdout has only the output of the verb.

use std::io::IsTerminal;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::exit::CliError;
use crate::logs::LogFile;
use crate::settings::LogFormat;

/// A layer that also receives the program's spans.
pub(super) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Everything that a verb's logging depends on.
#[derive(Default)]
pub(super) struct Logging<'a> {
    /// The filter that was given.
    pub(super) filter: Option<&'a str>,
    /// The form of the lines on stderr.
    pub(super) format: LogFormat,
    /// True if colours may be used where stderr is a terminal.
    pub(super) colours: bool,
    /// True for a verb that runs until it is stopped and does not print its progress itself.
    pub(super) long_running: bool,
    /// The file that lines go to as well.
    pub(super) file: Option<LogFile>,
    /// The layer for spans, which the filter does not affect.
    pub(super) spans: Option<SpanLayer>,
}

/// Starts logging. Verbs that run until they are stopped log at `info` by default, the others at `warn`. A file gets
/// `info`, or more if the filter lets more through.
pub(super) fn start(logging: Logging<'_>) -> Result<(), CliError> {
    let found = logging.filter.unwrap_or(if logging.long_running { "info" } else { "warn" });
    let filter = filter(found)?;
    let is_detailed = filter.max_level_hint().is_some_and(|level| level > LevelFilter::INFO);
    let file_filter = self::filter(if is_detailed { found } else { "info" })?;
    let colours = logging.colours && std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines: SpanLayer = match logging.format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().with_filter(filter).boxed(),
    };
    let file = logging.file.map(|file| {
        let lines = tracing_subscriber::fmt::layer().json().with_writer(Mutex::new(file)).with_ansi(false);
        lines.with_filter(file_filter).boxed()
    });
    let layers: Vec<SpanLayer> = logging.spans.into_iter().chain([lines]).chain(file).collect();
    // Fails only if a test has already set a subscriber.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    Ok(())
}

fn filter(found: &str) -> Result<EnvFilter, CliError> {
    // ZeroMQ warns if a socket file that it removes is already gone. baton removes these files itself.
    let quiet = if found.contains("zeromq") { found.to_owned() } else { format!("{found},zeromq=error") };
    EnvFilter::try_new(quiet)
        .map_err(|error| CliError::Log { found: found.chars().take(200).collect(), reason: error.to_string() })
}
