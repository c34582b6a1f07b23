//! Progress of a run, on stderr if that is a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::bench::{Load, ProgressObserver};

/// A progress bar for each load point.
#[derive(Debug, Default)]
pub(super) struct Bar {
    bar: Option<ProgressBar>,
}

// === impl Bar ===

impl ProgressObserver for Bar {
    fn begin_point(&mut self, load: Load, requests: u64) {
        if std::io::stderr().is_terminal() {
            let template = "{msg} {wide_bar} {pos}/{len} {eta}";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(requests).with_style(style).with_message(load.to_string());
            bar.tick();
            self.bar = Some(bar);
        }
    }

    fn request_ended(&mut self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    fn end_point(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
