//! What the head counts, for Prometheus. Names and buckets stand here and nowhere else; times are in seconds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use prometheus::{
    CounterVec, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};
use schema::frame::{Spent, Tokens};
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

/// Everything that is counted.
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
    made_tokens: IntCounter,
    preempted: IntCounter,
    guessed: IntCounter,
    guessed_right: IntCounter,
    ahead: IntCounter,
    ahead_right: IntCounter,
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
    told: Counts,
    /// When each micro-batch was sent, and its spans, which end when it is back.
    flights: HashMap<u64, (Instant, Vec<Span>)>,
}

/// What a listener has heard so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    submitted: Instant,
    prompt_tokens: u32,
    last_token: Option<Instant>,
}

/// Counts what is not accepted: at the head, and at the doors, which see by themselves that some prompts are too long.
#[derive(Debug, Clone)]
pub(super) struct Rejections(IntCounterVec);

// === impl Heard ===

impl Heard {
    /// A sequence with so long a prompt was accepted.
    pub(super) fn new(prompt_tokens: usize, now: Instant) -> Self {
        Self { submitted: now, prompt_tokens: prompt_tokens as u32, last_token: None }
    }
}

// === impl Rejections ===

impl Rejections {
    fn new(with: &Registered<'_>) -> Self {
        Self(with.counters("sequences_rejected_total", "sequences that were not accepted", &["reason"]))
    }

    /// A sequence was not accepted.
    pub(super) fn count(&self, rejection: &Rejection) {
        let reason = match rejection {
            Rejection::NotServing { .. } => "not_serving",
            Rejection::Busy { .. } => "busy",
            Rejection::TooLong { .. } => "too_long",
        };
        self.0.with_label_values(&[reason]).inc();
    }
}

// === impl Meter ===

impl Meter {
    /// All at zero, registered in `registry`.
    pub(super) fn new(registry: &Registry) -> Self {
        let with = Registered(registry);
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
                "what a micro-batch spent on one link, on average of its links: all but computing and waiting in stages",
                HOPS,
            ),
            ended: with.counters("sequences_ended_total", "sequences that ended", &["outcome"]),
            rejections: Rejections::new(&with),
            epochs: with.counters("epochs_total", "times the pipeline began anew", &["cause"]),
            evictions: with.counter("strikes_total", "first stages struck off for not answering"),
            prompt_tokens: with.counter("prompt_tokens_total", "prompt tokens of sequences that began"),
            cached_tokens: with.counter("cached_tokens_total", "prompt tokens that needed no computing"),
            made_tokens: with.counter("generated_tokens_total", "tokens that were made"),
            preempted: with.counter("preemptions_total", "sequences that gave their blocks back to be computed again"),
            guessed: with.counter("speculated_tokens_total", "guessed tokens that were sent to be verified"),
            guessed_right: with.counter("speculated_tokens_accepted_total", "guessed tokens that came true"),
            ahead: with.counter("speculated_batches_total", "micro-batches that went on from guesses on their way"),
            ahead_right: with.counter("speculated_batches_used_total", "those whose guesses had come true"),
            running: with.gauge("sequences_running", "sequences in work"),
            waiting: with.gauge("sequences_waiting", "sequences that wait for blocks"),
            in_flight: with.gauge("batches_in_flight", "micro-batches on their way"),
            blocks: with.gauge("kv_blocks", "blocks of keys and values that are this gateway's, on every stage"),
            blocks_used: with.gauge("kv_blocks_used", "blocks that a sequence owns"),
            serving: with.gauge("serving", "1 when every layer is held exactly once"),
            store_reachable: with.gauge("store_reachable", "1 when the store answers"),
            tokens_per_second: with.register(Gauge::with_opts(opts("tokens_per_second", "tokens made a second, lately"))),
            stage_rows: with.counters("stage_rows_total", "token rows a stage computed", &["stage", "layers"]),
            stage_batches: with.counters("stage_batches_total", "micro-batches a stage computed", &["stage", "layers"]),
            stage_compute: with.sums("stage_compute_seconds_total", "time a stage computed", &["stage", "layers"]),
            stage_queue: with.sums(
                "stage_queue_seconds_total",
                "time micro-batches waited in a stage to be computed",
                &["stage", "layers"],
            ),
            told: Counts::default(),
            flights: HashMap::new(),
        }
    }

    /// Where sequences that are not accepted are counted.
    pub(super) fn rejections(&self) -> &Rejections {
        &self.rejections
    }

    /// Where stages that were struck off are counted.
    pub(super) fn evictions(&self) -> &IntCounter {
        &self.evictions
    }

    /// An event of a sequence went out.
    pub(super) fn told(&self, event: &TokenEvent, heard: &mut Heard, now: Instant) {
        let since = |then: Instant| now.saturating_duration_since(then).as_secs_f64();
        match event {
            TokenEvent::Began { cached_tokens } => {
                self.prompt_tokens.inc_by(heard.prompt_tokens.into());
                self.cached_tokens.inc_by((*cached_tokens).into());
            }
            TokenEvent::Token { .. } => {
                self.made_tokens.inc();
                match heard.last_token {
                    None => self.first_token.observe(since(heard.submitted)),
                    Some(last) => self.between_tokens.observe(since(last)),
                }
                heard.last_token = Some(now);
            }
            TokenEvent::Finished { finish, timings } => {
                self.queued.observe(timings.queued.as_secs_f64());
                let outcome = match finish {
                    Finish::Stop => "stop",
                    Finish::Length => "length",
                };
                self.ended(outcome, heard, now);
            }
            TokenEvent::Failed(_) => self.ended("failed", heard, now),
        }
    }

    /// A sequence ended without a last event: its client is gone, or has what it wanted.
    pub(super) fn left(&self, heard: &Heard, now: Instant) {
        self.ended("cancelled", heard, now);
    }

    fn ended(&self, outcome: &str, heard: &Heard, now: Instant) {
        self.ended.with_label_values(&[outcome]).inc();
        self.took.observe(now.saturating_duration_since(heard.submitted).as_secs_f64());
    }

    /// A micro-batch was sent. `spans` are what it is in the traces of its sequences.
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

    /// The pipeline begins anew, for a fault or because the cluster has changed.
    pub(super) fn began_anew(&mut self, fault: Option<&PipelineFault>) {
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

    /// Takes down how things are.
    pub(super) fn look(&mut self, scheduler: &Scheduler, status: &PipelineStatus) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let blocks = scheduler.total_blocks();
        self.running.set(gauge(status.running));
        self.waiting.set(gauge(status.waiting));
        self.in_flight.set(gauge(scheduler.in_flight()));
        self.blocks.set(gauge(blocks));
        self.blocks_used.set(gauge(blocks.saturating_sub(scheduler.free_blocks())));
        self.serving.set(status.serving.into());
        self.store_reachable.set(status.store_reachable.into());
        self.tokens_per_second.set(status.tokens_per_second);
        let counts = scheduler.counts();
        self.preempted.inc_by(counts.preempted - self.told.preempted);
        self.guessed.inc_by(counts.guessed - self.told.guessed);
        self.guessed_right.inc_by(counts.guessed_right - self.told.guessed_right);
        self.ahead.inc_by(counts.ahead - self.told.ahead);
        self.ahead_right.inc_by(counts.ahead_right - self.told.ahead_right);
        self.told = counts;
    }
}

fn within(spent: &Spent) -> Duration {
    Duration::from_micros(u64::from(spent.compute_us) + u64::from(spent.queue_us))
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("baton_{name}"), help)
}

/// Makes metrics and registers them. All names are constants, and each is used once.
struct Registered<'a>(&'a Registry);

// === impl Registered ===

impl Registered<'_> {
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
