//! The log of a seed, which shows why it failed.

use std::collections::VecDeque;

use super::time::{Moment, SECOND};

/// The newest lines kept: enough to see what led to the end, few enough to read.
const LINES_MAX: usize = 2000;

/// Collects lines, if they are wanted.
#[derive(Debug, Default)]
pub(super) struct Trace {
    wanted: bool,
    lines: VecDeque<String>,
    skipped: usize,
}

// === impl Trace ===

impl Trace {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, ..Self::default() }
    }

    pub(super) fn note(&mut self, now: Moment, text: impl FnOnce() -> String) {
        if !self.wanted {
            return;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.skipped += 1;
        }
        self.lines.push_back(format!("{:3}.{:06} {}", now / SECOND, now % SECOND, text()));
    }

    /// The whole text.
    pub(super) fn text(&self) -> String {
        let lines: Vec<_> = self.lines.iter().map(String::as_str).collect();
        format!("({} lines before)\n{}", self.skipped, lines.join("\n"))
    }
}
