//! Counters of a stage's work, since the last report and since its start. This module knows neither the store nor the
//! clock.

use std::time::Duration;

use schema::record::StageLoad;

/// Counters since the last report.
#[derive(Debug, Default)]
pub(super) struct StageUsage {
    rows: u64,
    batches: u64,
    computing: Duration,
    queued: Duration,
    sending: Duration,
    sent_bytes: u64,
}

// === impl StageUsage ===

impl StageUsage {
    /// A micro-batch of `rows` rows waited for the compute thread and was computed.
    pub(super) fn computed(&mut self, rows: u32, queued: Duration, computing: Duration) {
        self.rows += u64::from(rows);
        self.batches += 1;
        self.queued += queued;
        self.computing += computing;
    }

    /// The link took the output, with `bytes` of activations, after `waiting`.
    pub(super) fn sent(&mut self, bytes: usize, waiting: Duration) {
        self.sent_bytes += bytes as u64;
        self.sending += waiting;
    }

    /// Adds the work of the `elapsed` time to `load`, and sets the counters to zero.
    pub(super) fn settle(&mut self, elapsed: Duration, load: &mut StageLoad) {
        let seconds = elapsed.as_secs_f64();
        let Self { rows, batches, computing, queued, sending, sent_bytes } = std::mem::take(self);
        load.tokens_total += rows;
        load.batches_total += batches;
        load.sent_bytes_total += sent_bytes;
        load.compute_s_total += computing.as_secs_f64();
        load.queue_s_total += queued.as_secs_f64();
        load.send_s_total += sending.as_secs_f64();
        load.tokens_per_second = rows as f64 / seconds;
        load.busy = (computing.as_secs_f64() / seconds).min(1.0);
        load.idle_output = (sending.as_secs_f64() / seconds).min(1.0 - load.busy);
        load.idle_input = 1.0 - load.busy - load.idle_output;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_divided_into_computing_and_two_kinds_of_waiting() {
        let mut usage = StageUsage::default();
        let ms = Duration::from_millis;
        usage.computed(3, ms(1), ms(400));
        usage.sent(100, ms(200));
        let mut load = StageLoad { tokens_total: 5, ..StageLoad::default() };
        usage.settle(ms(1000), &mut load);
        assert_eq!((load.tokens_total, load.batches_total, load.sent_bytes_total), (8, 1, 100));
        let shares = [load.busy, load.idle_output, load.idle_input].map(|share| (share * 10.0).round());
        assert_eq!(shares, [4.0, 2.0, 4.0]);
        usage.settle(ms(1000), &mut load);
        assert_eq!((load.busy, load.idle_input, load.tokens_total), (0.0, 1.0, 8));
    }

    #[test]
    fn a_stage_that_sends_while_it_computes_is_busy() {
        let mut usage = StageUsage::default();
        usage.computed(1, Duration::ZERO, Duration::from_millis(900));
        usage.sent(1, Duration::from_millis(900));
        let mut load = StageLoad::default();
        usage.settle(Duration::from_secs(1), &mut load);
        assert!((load.busy + load.idle_output + load.idle_input - 1.0).abs() < 1e-9 && load.idle_input.abs() < 1e-9);
    }
}
