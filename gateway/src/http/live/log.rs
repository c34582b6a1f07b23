//! The log of what the cluster decided: the newest sentences with their times. Pure.

use std::collections::VecDeque;

use serde::Serialize;

use crate::http::limits::{LIVE_LOG_CHARS_MAX, LIVE_LOG_LINES_MAX};

/// The subject of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Subject {
    /// The placement of layers.
    Placement,
    /// Members that come, go, load or fail.
    Member,
    /// A stage that was evicted or refused.
    Eviction,
    /// An operator's pin.
    Pin,
    /// The pipeline begins or ceases to serve.
    Serving,
    /// Requests that were refused.
    Refusal,
    /// The store.
    Store,
}

/// A sentence before it has its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sentence {
    pub(super) subject: Subject,
    pub(super) text: String,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Line {
    /// Milliseconds since 1970.
    t: u64,
    subject: Subject,
    text: String,
}

/// The newest lines.
#[derive(Debug, Default)]
pub(super) struct Log(VecDeque<Line>);

// === impl Sentence ===

impl Sentence {
    pub(super) fn new(subject: Subject, text: impl Into<String>) -> Self {
        Self { subject, text: text.into() }
    }
}

// === impl Line ===

impl Line {
    /// The line of a sentence that became true at `now_ms`, without control characters and cut to its bound.
    pub(super) fn new(sentence: &Sentence, now_ms: u64) -> Self {
        let legal = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
        let mut text: String = sentence.text.chars().take(LIVE_LOG_CHARS_MAX).map(legal).collect();
        if sentence.text.chars().nth(LIVE_LOG_CHARS_MAX).is_some() {
            text.push('…');
        }
        Self { t: now_ms, subject: sentence.subject, text }
    }
}

// === impl Log ===

impl Log {
    /// Appends lines. The oldest ones go first.
    pub(super) fn extend(&mut self, lines: &[Line]) {
        self.0.extend(lines.iter().cloned());
        let excess = self.0.len().saturating_sub(LIVE_LOG_LINES_MAX);
        self.0.drain(..excess);
    }

    /// The lines, the oldest first.
    pub(super) fn lines(&self) -> &VecDeque<Line> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_go_first_and_long_ones_are_cut() {
        let line = |text: String, t| Line::new(&Sentence::new(Subject::Store, text), t);
        let mut log = Log::default();
        for t in 0..LIVE_LOG_LINES_MAX as u64 + 3 {
            log.extend(&[line("full".to_owned(), t)]);
        }
        assert_eq!((log.lines().len(), log.lines()[0].t), (LIVE_LOG_LINES_MAX, 3));
        assert_eq!(line("é\u{1b}[2J".to_owned(), 0).text, "é\u{fffd}[2J");
        let long = line("é".repeat(LIVE_LOG_CHARS_MAX + 1), 0);
        assert_eq!(long.text.chars().count(), LIVE_LOG_CHARS_MAX + 1);
        assert!(long.text.ends_with('…'));
    }
}
