//! Progress display of a fetch, and the way to stop it.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Shortest interval between lines if stderr is not a terminal, so that a log does not fill.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// Receives the progress of a fetch.
pub trait Progress {
    /// A step of `total_bytes` begins.
    fn begin(&mut self, what: &str, total_bytes: u64);
    /// `bytes` of the step are done.
    fn at(&mut self, bytes: u64);
    /// The step ended, with or without success.
    fn end(&mut self);
    /// A message between steps or within one.
    fn message(&mut self, text: &str);
    /// True if the fetch is to stop. It is called several times per second.
    fn cancelled(&self) -> bool {
        false
    }
}

/// A progress display that shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

/// A progress bar on stderr, or plain lines if stderr is not a terminal.
#[derive(Debug)]
pub struct Console {
    bar: Option<ProgressBar>,
    terminal: bool,
    line: Option<Line>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Line {
    what: String,
    total_bytes: u64,
    bytes: u64,
    printed: Instant,
}

// === impl Silent ===

impl Progress for Silent {
    fn begin(&mut self, _what: &str, _total_bytes: u64) {}
    fn at(&mut self, _bytes: u64) {}
    fn end(&mut self) {}
    fn message(&mut self, _text: &str) {}
}

/// Stops every fetch at once, for tests.
#[cfg(test)]
pub(super) struct CancelAtOnce;

#[cfg(test)]
impl Progress for CancelAtOnce {
    fn begin(&mut self, _: &str, _: u64) {}
    fn at(&mut self, _: u64) {}
    fn end(&mut self) {}
    fn message(&mut self, _: &str) {}
    fn cancelled(&self) -> bool {
        true
    }
}

// === impl Console ===

impl Console {
    /// A progress display that never stops a fetch.
    pub fn new() -> Self {
        Self::stoppable(Arc::default())
    }

    /// A progress display that stops the fetch when `stop` is set.
    pub fn stoppable(stop: Arc<AtomicBool>) -> Self {
        Self { bar: None, terminal: std::io::stderr().is_terminal(), line: None, stop }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Console {
    fn begin(&mut self, what: &str, total_bytes: u64) {
        self.end();
        if self.terminal {
            let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total_bytes).with_style(style).with_message(what.to_owned());
            bar.tick();
            self.bar = Some(bar);
        } else {
            eprintln!("{what}: {}", HumanBytes(total_bytes));
            self.line = Some(Line { what: what.to_owned(), total_bytes, bytes: 0, printed: Instant::now() });
        }
    }

    fn at(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
        if let Some(line) = &mut self.line {
            line.bytes = bytes;
            if line.printed.elapsed() >= LINE_PERIOD {
                line.printed = Instant::now();
                eprintln!("{line}");
            }
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
        if let Some(line) = self.line.take() {
            eprintln!("{line}");
        }
    }

    fn message(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

// === impl Line ===

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = self.bytes.min(self.total_bytes) * 100 / self.total_bytes.max(1);
        write!(f, "{}: {} of {} ({percent} %)", self.what, HumanBytes(self.bytes), HumanBytes(self.total_bytes))
    }
}
