//! The gateway's metrics, for Prometheus. Names and buckets are defined here and nowhere else. Times are in seconds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use prometheus::{
    CounterVec, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};
use schema::frame::{Spent, Tokens};
use schema::record::KvBlocks;
use tracing::Span;

use super::fault::PipelineFault;
use super::scheduler::{Counts, Scheduler};
use super::sequence::StageLabel;
use crate::generate::{Finish, PipelineStatus, Rejection, TokenEvent};

/// A millisecond to two minutes.
const TIMES: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0,
    60.0, 120.0,
];
/// Ten microseconds to a second.
const HOPS: &[f64] = &[1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0];
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// All metrics.
pub(super) struct Meter {
    first_token: Histogram,
    between_tokens: Histogram,
    queued: Histogram,
    took: Histogram,
    batch_rows: Histogram,
    batch_sequences: Histogram,
    batch_took: Histogram,
    hop: Histogram,
    ended: IntCounterVec,
    rejections: Rejections,
    epochs: IntCounterVec,
    evictions: IntCounter,
    prompt_tokens: IntCounter,
    cached_tokens: IntCounter,
    generated_tokens: IntCounter,
    preempted: IntCounter,
    draft_tokens: IntCounter,
    accepted_tokens: IntCounter,
    lookahead_batches: IntCounter,
    lookahead_batches_used: IntCounter,
    running: IntGauge,
    waiting: IntGauge,
    in_flight: IntGauge,
    blocks: IntGauge,
    blocks_used: IntGauge,
    serving: IntGauge,
    store_reachable: IntGauge,
    tokens_per_second: Gauge,
    stage_rows: IntCounterVec,
    stage_batches: IntCounterVec,
    stage_compute: CounterVec,
    stage_queue: CounterVec,
    reported: Counts,
    /// For each micro-batch, the time at which it was sent, and its spans, which end when it comes back.
    flights: HashMap<u64, (Instant, Vec<Span>)>,
}

/// Times of the events that were delivered to one receiver.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventTimes {
    submitted: Instant,
    prompt_tokens: u32,
    last_token: Option<Instant>,
}

/// Counts rejected requests: those that the core rejects, and those that the HTTP server rejects by itself because
/// their prompts are too long.
#[derive(Debug, Clone)]
pub(super) struct Rejections(IntCounterVec);

// === impl EventTimes ===

impl EventTimes {
    /// The state of a sequence that was just accepted.
    pub(super) fn new(prompt_tokens: usize, now: Instant) -> Self {
        Self { submitted: now, prompt_tokens: prompt_tokens as u32, last_token: None }
    }
}

// === impl Rejections ===

impl Rejections {
    fn new(with: &MetricFactory<'_>) -> Self {
        Self(with.counters("sequences_rejected_total", "sequences that were not accepted", &["reason"]))
    }

    /// A sequence was not accepted.
    pub(super) fn count(&self, rejection: &Rejection) {
        let reason = match rejection {
            Rejection::NotServing { .. } => "not_serving",
            Rejection::Busy { .. } => "busy",
            Rejection::TooLong { .. } => "too_long",
            Rejection::EmbedsOnly => "embeds_only",
        };
        self.0.with_label_values(&[reason]).inc();
    }
}

// === impl Meter ===

impl Meter {
    /// Metrics at zero, registered in `registry`.
    pub(super) fn new(registry: &Registry) -> Self {
        let with = MetricFactory(registry);
        Self {
            first_token: with.histogram("first_token_seconds", "from acceptance to the first token", TIMES),
            between_tokens: with.histogram("inter_token_seconds", "between two tokens of a sequence", TIMES),
            queued: with.histogram("queue_seconds", "from acceptance to the first micro-batch", TIMES),
            took: with.histogram("sequence_seconds", "from acceptance to the end", TIMES),
            batch_rows: with.histogram("batch_rows", "token rows of a micro-batch", COUNTS),
            batch_sequences: with.histogram("batch_sequences", "sequences of a micro-batch", COUNTS),
            batch_took: with.histogram("batch_seconds", "a micro-batch's way through all stages and back", TIMES),
            hop: with.histogram(
                "hop_seconds",
                "what a micro-batch spent on one link, on average of its links: all but computing and waiting in \
                 stages",
                HOPS,
            ),
            ended: with.counters("sequences_ended_total", "sequences that ended", &["outcome"]),
            rejections: Rejections::new(&with),
            epochs: with.counters("epochs_total", "epochs that were begun", &["cause"]),
            evictions: with.counter("strikes_total", "first stages evicted because they could not be reached"),
            prompt_tokens: with.counter("prompt_tokens_total", "prompt tokens of sequences that began"),
            cached_tokens: with.counter("cached_tokens_total", "prompt tokens that needed no computing"),
            generated_tokens: with.counter("generated_tokens_total", "tokens that were generated"),
            preempted: with.counter("preemptions_total", "sequences that gave their blocks back to be computed again"),
            draft_tokens: with.counter("speculated_tokens_total", "draft tokens that were sent to be verified"),
            accepted_tokens: with.counter("speculated_tokens_accepted_total", "draft tokens that were accepted"),
            lookahead_batches: with.counter("speculated_batches_total", "lookahead micro-batches"),
            lookahead_batches_used: with.counter("speculated_batches_used_total", "lookahead micro-batches of use"),
            running: with.gauge("sequences_running", "sequences in work"),
            waiting: with.gauge("sequences_waiting", "sequences that wait for blocks"),
            in_flight: with.gauge("batches_in_flight", "micro-batches on their way"),
            blocks: with
                .gauge("kv_blocks", "blocks of keys and values of both kinds that are this gateway's, on every stage"),
            blocks_used: with.gauge("kv_blocks_used", "blocks that a sequence owns"),
            serving: with.gauge("serving", "1 when every layer is held exactly once"),
            store_reachable: with.gauge("store_reachable", "1 when the store answers"),
            tokens_per_second: with
                .register(Gauge::with_opts(opts("tokens_per_second", "generated tokens per second"))),
            stage_rows: with.counters("stage_rows_total", "token rows a stage computed", &["stage", "layers"]),
            stage_batches: with.counters("stage_batches_total", "micro-batches a stage computed", &["stage", "layers"]),
            stage_compute: with.sums("stage_compute_seconds_total", "time a stage computed", &["stage", "layers"]),
            stage_queue: with.sums(
                "stage_queue_seconds_total",
                "time micro-batches waited in a stage to be computed",
                &["stage", "layers"],
            ),
            reported: Counts::default(),
            flights: HashMap::new(),
        }
    }

    /// The counter of rejected sequences.
    pub(super) fn rejections(&self) -> &Rejections {
        &self.rejections
    }

    /// The counter of evicted stages.
    pub(super) fn evictions(&self) -> &IntCounter {
        &self.evictions
    }

    /// An event of a sequence was delivered.
    pub(super) fn event_sent(&self, event: &TokenEvent, times: &mut EventTimes, now: Instant) {
        let since = |then: Instant| now.saturating_duration_since(then).as_secs_f64();
        match event {
            TokenEvent::Started { cached_tokens } => {
                self.prompt_tokens.inc_by(times.prompt_tokens.into());
                self.cached_tokens.inc_by((*cached_tokens).into());
            }
            TokenEvent::Scored(_) => {}
            TokenEvent::Token(_) => {
                self.generated_tokens.inc();
                match times.last_token {
                    None => self.first_token.observe(since(times.submitted)),
                    Some(last) => self.between_tokens.observe(since(last)),
                }
                times.last_token = Some(now);
            }
            TokenEvent::Finished { finish, timings } => {
                self.queued.observe(timings.queued.as_secs_f64());
                let outcome = match finish {
                    Finish::Stop => "stop",
                    Finish::Length => "length",
                };
                self.ended(outcome, times, now);
            }
            TokenEvent::Embedded { timings, .. } => {
                self.queued.observe(timings.queued.as_secs_f64());
                self.ended("embedded", times, now);
            }
            TokenEvent::Failed(_) => self.ended("failed", times, now),
        }
    }

    /// A sequence ended without a last event: its client is gone, or needs no more tokens.
    pub(super) fn cancelled(&self, times: &EventTimes, now: Instant) {
        self.ended("cancelled", times, now);
    }

    fn ended(&self, outcome: &str, times: &EventTimes, now: Instant) {
        self.ended.with_label_values(&[outcome]).inc();
        self.took.observe(now.saturating_duration_since(times.submitted).as_secs_f64());
    }

    /// A micro-batch was sent. `spans` are its spans in the traces of its sequences.
    pub(super) fn sent(&mut self, step: u64, rows: u32, sequences: usize, spans: Vec<Span>, now: Instant) {
        self.batch_rows.observe(rows.into());
        self.batch_sequences.observe(sequences as f64);
        self.flights.insert(step, (now, spans));
    }

    /// A micro-batch came back.
    pub(super) fn returned(&mut self, tokens: &Tokens, labels: &[StageLabel], now: Instant) {
        let inside: Duration = tokens.spent.iter().map(within).sum();
        if let Some((sent, _spans)) = self.flights.remove(&tokens.step.0) {
            let took = now.saturating_duration_since(sent);
            self.batch_took.observe(took.as_secs_f64());
            let links = tokens.spent.len() as f64 + 1.0;
            self.hop.observe(took.saturating_sub(inside).as_secs_f64() / links);
        }
        for spent in &tokens.spent {
            let Some(label) = labels.get(spent.slot as usize) else { continue };
            let layers = format!("{}..{}", label.layers[0], label.layers[1]);
            let label = [label.stage.as_str(), layers.as_str()];
            self.stage_rows.with_label_values(&label).inc_by(spent.rows.into());
            self.stage_batches.with_label_values(&label).inc();
            self.stage_compute.with_label_values(&label).inc_by(f64::from(spent.compute_us) / 1e6);
            self.stage_queue.with_label_values(&label).inc_by(f64::from(spent.queue_us) / 1e6);
        }
    }

    /// A new epoch begins, because of a fault or because the cluster has changed.
    pub(super) fn epoch_begun(&mut self, fault: Option<&PipelineFault>) {
        let cause = match fault {
            None => "cluster_changed",
            Some(PipelineFault::Gap { .. }) => "gap",
            Some(PipelineFault::Mismatch(_)) => "mismatch",
            Some(PipelineFault::Overdue(_)) => "overdue",
            Some(PipelineFault::Broken(_)) => "broken",
            Some(PipelineFault::Refused { .. }) => "refused",
        };
        self.epochs.with_label_values(&[cause]).inc();
        self.flights.clear();
    }

    /// Sets the gauges.
    pub(super) fn sample(&mut self, scheduler: &Scheduler, status: &PipelineStatus) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let both = |blocks: KvBlocks| gauge((blocks.full + blocks.window) as usize);
        let (blocks, free) = (both(scheduler.total_blocks()), both(scheduler.free_blocks()));
        self.running.set(gauge(status.running));
        self.waiting.set(gauge(status.waiting));
        self.in_flight.set(gauge(scheduler.in_flight()));
        self.blocks.set(blocks);
        self.blocks_used.set(blocks.saturating_sub(free));
        self.serving.set(status.serving.into());
        self.store_reachable.set(status.store_reachable.into());
        self.tokens_per_second.set(status.tokens_per_second);
        let counts = scheduler.counts();
        self.preempted.inc_by(counts.preempted - self.reported.preempted);
        self.draft_tokens.inc_by(counts.draft_tokens - self.reported.draft_tokens);
        self.accepted_tokens.inc_by(counts.accepted_tokens - self.reported.accepted_tokens);
        self.lookahead_batches.inc_by(counts.lookahead_batches - self.reported.lookahead_batches);
        self.lookahead_batches_used.inc_by(counts.lookahead_batches_used - self.reported.lookahead_batches_used);
        self.reported = counts;
    }
}

fn within(spent: &Spent) -> Duration {
    Duration::from_micros(u64::from(spent.compute_us) + u64::from(spent.queue_us))
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("baton_{name}"), help)
}

/// Makes metrics and registers them. All names are constants, and each is used once.
struct MetricFactory<'a>(&'a Registry);

// === impl MetricFactory ===

impl MetricFactory<'_> {
    fn register<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a legal metric");
        self.0.register(Box::new(metric.clone())).expect("a name that is used once");
        metric
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts { common_opts: opts(name, help), buckets: buckets.to_vec() };
        self.register(Histogram::with_opts(opts))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(opts(name, help), labels))
    }

    fn sums(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.register(CounterVec::new(opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(opts(name, help)))
    }
}
