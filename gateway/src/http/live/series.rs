//! The series of the last 15 minutes: one row of figures per interval, in a bounded ring. Pure.

use std::collections::VecDeque;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::http::limits::{LIVE_SAMPLE_INTERVAL, LIVE_SAMPLES_MAX};

/// The names of a row's figures, in their order.
const COLUMNS: [&str; 10] = [
    "t",
    "tokens_per_second",
    "first_token_ms",
    "waiting",
    "running",
    "batch_rows",
    "batch_sequences",
    "busy",
    "idle_input",
    "idle_output",
];

/// The figures of one interval. Those of something that did not happen in it are `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sample {
    /// End of the interval, in milliseconds since 1970.
    pub(super) t: u64,
    /// Tokens generated per second.
    pub(super) tokens_per_second: f64,
    /// Mean time from acceptance to the first token, in milliseconds.
    pub(super) first_token_ms: Option<f64>,
    /// Requests that wait, at the end.
    pub(super) waiting: usize,
    /// Requests in work, at the end.
    pub(super) running: usize,
    /// Mean token rows of a micro-batch.
    pub(super) batch_rows: Option<f64>,
    /// Mean sequences of a micro-batch.
    pub(super) batch_sequences: Option<f64>,
    /// Mean share of time that stages with layers computed, as they last reported it, 0 to 1.
    pub(super) busy: Option<f64>,
    /// Mean share in which they had nothing to compute.
    pub(super) idle_input: Option<f64>,
    /// Mean share in which they waited for the link.
    pub(super) idle_output: Option<f64>,
}

/// The newest samples.
#[derive(Debug, Default)]
pub(super) struct Series(VecDeque<Sample>);

// === impl Sample ===

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let short = |figure: f64| (figure * 1000.0).round() / 1000.0;
        let row = (
            self.t,
            short(self.tokens_per_second),
            self.first_token_ms.map(short),
            self.waiting,
            self.running,
            self.batch_rows.map(short),
            self.batch_sequences.map(short),
            self.busy.map(short),
            self.idle_input.map(short),
            self.idle_output.map(short),
        );
        row.serialize(serializer)
    }
}

// === impl Series ===

impl Series {
    /// Appends a sample. The oldest one goes first.
    pub(super) fn push(&mut self, sample: Sample) {
        self.0.push_back(sample);
        let excess = self.0.len().saturating_sub(LIVE_SAMPLES_MAX);
        self.0.drain(..excess);
    }

    /// The series as it stands in the state.
    pub(super) fn value(&self) -> Value {
        json!({"columns": COLUMNS, "interval_ms": LIVE_SAMPLE_INTERVAL.as_millis() as u64, "rows": self.0})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_figure_for_each_column_and_the_oldest_rows_go_first() {
        let mut series = Series::default();
        for t in 0..LIVE_SAMPLES_MAX as u64 + 1 {
            series.push(Sample { t, tokens_per_second: 1.23456, busy: Some(0.5), ..Sample::default() });
        }
        let value = series.value();
        let rows = value["rows"].as_array().unwrap();
        assert_eq!(rows.len(), LIVE_SAMPLES_MAX);
        assert_eq!(rows[0], json!([1, 1.235, null, 0, 0, null, null, 0.5, null, null]));
        assert_eq!(value["columns"].as_array().unwrap().len(), rows[0].as_array().unwrap().len());
    }
}
