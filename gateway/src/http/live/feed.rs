//! The producer of the events, and the state that it makes them from.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use engine::view::ClusterView;
use futures::FutureExt;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::error;

use super::decisions;
use super::event_ring::EventRing;
use super::log::{Line, Log, Sentence, Subject};
use super::sampler::Counters;
use super::series::Series;
use super::snapshot;
use crate::http::limits::{LIVE_POLL_INTERVAL, LIVE_SAMPLE_INTERVAL, LIVE_STATE_INTERVAL, LIVE_SUBSCRIBERS_MAX};
use crate::http::served_model::ServedModel;
use crate::merge_patch::difference;

/// The events of one server for all subscribers.
#[derive(Debug)]
pub struct LiveFeed {
    /// Distinguishes the ids of this process's events from those of others.
    run: u64,
    inner: Mutex<Inner>,
    newest: watch::Sender<Newest>,
    subscribers: Arc<Semaphore>,
}

/// The state that subscribers wait on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Newest {
    /// Number of the newest event.
    pub(super) event: u64,
    /// True once the server stops.
    pub(super) is_closed: bool,
}

/// The place of a subscriber in the stream of events.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reading {
    /// The events that it has not read, and the number of the last of them.
    Next(Vec<Bytes>, u64),
    /// Some of those were dropped.
    Behind,
}

#[derive(Debug, Default)]
struct Inner {
    run: u64,
    ring: EventRing,
    series: Series,
    log: Log,
    counters: Counters,
    sampled: Option<Instant>,
    /// The view that the log has been written for.
    view: Option<Arc<ClusterView>>,
    was_serving: Option<bool>,
    /// The snapshot that the newest patch leads to.
    snapshot: Value,
    snapshot_at: Option<Instant>,
}

// === impl LiveFeed ===

impl Default for LiveFeed {
    fn default() -> Self {
        let run = rand::random();
        Self {
            run,
            inner: Mutex::new(Inner { run, ..Inner::default() }),
            newest: watch::Sender::default(),
            subscribers: Arc::new(Semaphore::new(LIVE_SUBSCRIBERS_MAX)),
        }
    }
}

impl LiveFeed {
    /// Makes the events of `state` for ever. A mistake in it costs dashboards a second and requests nothing.
    pub(crate) async fn run(state: &ServedModel) {
        while AssertUnwindSafe(Self::produce(state)).catch_unwind().await.is_err() {
            error!("the producer of live events panicked");
            tokio::time::sleep(LIVE_STATE_INTERVAL).await;
        }
    }

    /// Makes the events of the first model, and of the one that takes its place. Ends with the registry of models.
    pub(crate) async fn run_first(mut firsts: watch::Receiver<Arc<ServedModel>>) {
        loop {
            let first = Arc::clone(&firsts.borrow_and_update());
            tokio::select! {
                () = Self::run(&first) => {}
                changed = firsts.changed() => if changed.is_err() { return },
            }
            first.live.close();
        }
    }

    async fn produce(state: &ServedModel) {
        let mut ticks = tokio::time::interval(LIVE_POLL_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut inner = state.live.lock();
            inner.observe(state, Instant::now());
            if state.live.has_subscribers() {
                inner.publish_changes(state, Instant::now());
            }
            state.live.announce(&inner);
        }
    }

    /// Ends all streams of events, because the server stops.
    pub(crate) fn close(&self) {
        self.newest.send_modify(|newest| newest.is_closed = true);
    }

    /// A place among the subscribers, unless all are taken.
    pub(super) fn subscribe(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.subscribers).try_acquire_owned().ok()
    }

    /// The number of the newest event, as it changes.
    pub(super) fn newest(&self) -> watch::Receiver<Newest> {
        self.newest.subscribe()
    }

    /// The event with the whole state, as it is now, and its number.
    pub(super) fn whole_state(&self, state: &ServedModel) -> (Bytes, u64) {
        let mut inner = self.lock();
        inner.observe(state, Instant::now());
        inner.snapshot_at = None;
        inner.publish_changes(state, Instant::now());
        self.announce(&inner);
        let id = inner.ring.newest();
        let mut whole = inner.snapshot.clone();
        whole["series"] = inner.series.value();
        whole["log"] = json!(inner.log.lines());
        (written(self.run, "state", id, &whole), id)
    }

    /// The events after number `seen`.
    pub(super) fn after(&self, seen: u64) -> Reading {
        let inner = self.lock();
        match inner.ring.after(seen) {
            Some(events) => Reading::Next(events.cloned().collect(), inner.ring.newest()),
            None => Reading::Behind,
        }
    }

    /// The number of the event with this id. `None` if this process has made no such id.
    pub(super) fn number(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&format!("{:x}-", self.run))?.parse().ok()
    }

    fn has_subscribers(&self) -> bool {
        self.subscribers.available_permits() < LIVE_SUBSCRIBERS_MAX
    }

    fn announce(&self, inner: &Inner) {
        let event = inner.ring.newest();
        self.newest.send_if_modified(|newest| std::mem::replace(&mut newest.event, event) != event);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The event of this number, made in `run`.
fn written(run: u64, name: &str, id: u64, data: &Value) -> Bytes {
    Bytes::from(format!("id: {run:x}-{id}\nevent: {name}\ndata: {data}\n\n"))
}

// === impl Inner ===

impl Inner {
    /// Takes notice of what has happened: lines of the log, and a sample if one is due.
    fn observe(&mut self, state: &ServedModel, now: Instant) {
        let run = self.run;
        let (view, status) = (state.pipeline.view(), state.pipeline.status());
        let mut sentences = Vec::new();
        let before = self.view.replace(Arc::clone(&view));
        if before.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &view)) {
            sentences = match before {
                Some(before) => decisions::between(&before, &view),
                None => vec![decisions::beginning(&view)],
            };
        }
        if self.was_serving.replace(status.serving).is_some_and(|before| before != status.serving) {
            let text = match status.serving {
                true => "The pipeline serves: a micro-batch has come through every stage.".to_owned(),
                false => format!("The pipeline does not serve: {}.", status.reason),
            };
            sentences.push(Sentence::new(Subject::Serving, text));
        }
        if self.sampled.is_none_or(|at| now.saturating_duration_since(at) >= LIVE_SAMPLE_INTERVAL) {
            let counters = Counters::read(&state.pipeline.metrics().gather());
            if let Some(at) = self.sampled {
                let elapsed = now.saturating_duration_since(at);
                let sample = counters.sample(&self.counters, elapsed, &status, &view, now_ms());
                sentences.extend(counters.refusals(&self.counters));
                self.series.push(sample);
                self.ring.push(|id| written(run, "sample", id, &json!(sample)));
            }
            (self.counters, self.sampled) = (counters, Some(now));
        }
        if !sentences.is_empty() {
            let t = now_ms();
            let lines: Vec<_> = sentences.iter().map(|sentence| Line::new(sentence, t)).collect();
            self.log.extend(&lines);
            self.ring.push(|id| written(run, "log", id, &json!(lines)));
            // A change that is worth a sentence is shown at once.
            self.snapshot_at = None;
        }
    }

    /// Makes a patch of what has changed, if that is due.
    fn publish_changes(&mut self, state: &ServedModel, now: Instant) {
        if self.snapshot_at.is_some_and(|at| now.saturating_duration_since(at) < LIVE_STATE_INTERVAL) {
            return;
        }
        let snapshot = snapshot::take(state);
        let run = self.run;
        if let Some(patch) = difference(&self.snapshot, &snapshot) {
            self.ring.push(|id| written(run, "patch", id, &patch));
        }
        (self.snapshot, self.snapshot_at) = (snapshot, Some(now));
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
