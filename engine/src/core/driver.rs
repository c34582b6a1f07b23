//! The head's loop: the conductor's decisions, sent and received.
//!
//! It runs on a thread of its own with a runtime of its own, so that neither a slow client nor a long prompt being
//! tokenised holds up a micro-batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schema::frame::{Frame, Hop, Slice};
use schema::{Keyspace, SequenceId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{Span, debug, debug_span, warn};

use super::conductor::{Arrival, Conductor};
use super::fault::PipelineFault;
use super::meter::{Heard, Meter};
use super::scheduler::{Happened, Scheduler};
use crate::generate::{Failure, PipelineStatus, Rejection, Request, TokenEvent};
use crate::limits::{GATEWAY_TICK, REFUSAL_PAUSE};
use crate::link::{ClusterKey, Inbound, LinkError, Message, Unreachable};
use crate::route::Route;
use crate::share::Registered;
use crate::store::{Committed, SharedStore};
use crate::view::ClusterView;

/// A request on its way in.
pub(super) struct Submission {
    pub(super) request: Request,
    pub(super) events: mpsc::Sender<TokenEvent>,
    pub(super) answer: oneshot::Sender<Result<(), Rejection>>,
    /// From here to the last event.
    pub(super) span: Span,
}

/// What a driver is put together from.
pub(super) struct Parts {
    pub(super) store: SharedStore,
    pub(super) keyspace: Keyspace,
    pub(super) views: watch::Receiver<Arc<ClusterView>>,
    pub(super) inbound: Inbound,
    pub(super) submissions: mpsc::Receiver<Submission>,
    pub(super) status: watch::Sender<PipelineStatus>,
    pub(super) key: Option<ClusterKey>,
    pub(super) registrations: watch::Receiver<Option<Registered>>,
    pub(super) scheduler: Scheduler,
    pub(super) meter: Meter,
}

/// The conductor, and those who play and listen.
pub(super) struct Driver {
    store: SharedStore,
    keyspace: Keyspace,
    /// The write that evictions a stage off, perhaps done.
    strike: Option<JoinHandle<()>>,
    /// This gateway's registrations, one after the other.
    registrations: watch::Receiver<Option<Registered>>,
    /// The write of its share, perhaps done.
    sharing: Option<JoinHandle<()>>,
    conductor: Conductor,
    views: watch::Receiver<Arc<ClusterView>>,
    inbound: Inbound,
    submissions: mpsc::Receiver<Submission>,
    status: watch::Sender<PipelineStatus>,
    route: Route,
    listeners: HashMap<SequenceId, Listener>,
    rate: Rate,
    meter: Meter,
}

/// Who waits for a sequence.
struct Listener {
    events: mpsc::Sender<TokenEvent>,
    heard: Heard,
    span: Span,
}

/// Tokens made lately.
struct Rate {
    since: Instant,
    tokens: u64,
    per_second: f64,
}

/// Everything that can happen to the head.
enum Event {
    Submitted(Submission),
    /// The connection to the first stage, at this endpoint, has ended.
    LinkEnded(String),
    Arrived(Result<Message, LinkError>),
    ViewChanged,
    Tick,
    Stop,
}

// === impl Driver ===

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { store, keyspace, views, inbound, submissions, status, key, registrations, scheduler, meter } =
            parts;
        let view = views.borrow().clone();
        Self {
            store,
            keyspace,
            strike: None,
            registrations,
            sharing: None,
            conductor: Conductor::new(scheduler, view),
            views,
            inbound,
            submissions,
            status,
            route: Route::new(key),
            listeners: HashMap::new(),
            rate: Rate { since: Instant::now(), tokens: 0, per_second: 0.0 },
            meter,
        }
    }

    /// Runs until `stop` resolves or every handle is gone.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut tick = tokio::time::interval(GATEWAY_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.see();
        loop {
            self.send_batches().await;
            let event = tokio::select! {
                // Biased: what is done makes room for what is new.
                biased;
                () = &mut stop => Event::Stop,
                message = self.inbound.receive() => Event::Arrived(message),
                endpoint = self.route.ended() => Event::LinkEnded(endpoint),
                Ok(()) = self.views.changed() => Event::ViewChanged,
                Ok(()) = self.registrations.changed() => Event::ViewChanged,
                submission = self.submissions.recv() => submission.map_or(Event::Stop, Event::Submitted),
                _ = tick.tick() => Event::Tick,
            };
            match event {
                Event::Arrived(Ok(message)) => self.arrived(message).await,
                Event::Arrived(Err(error)) if error.is_about_one_message() => warn!(%error, "a frame was refused"),
                Event::Arrived(Err(error)) => break warn!(%error, "no more tokens can be taken: the gateway must go"),
                Event::LinkEnded(endpoint) => {
                    let outcome = self.route.knock(&endpoint).await.map(drop);
                    let is_gone = outcome.as_ref().err().and_then(LinkError::absence).is_some();
                    let fault = self.conductor.link_broke().filter(|_| !is_gone);
                    self.reached(&endpoint, outcome);
                    if let Some(fault) = fault {
                        self.recover(&fault);
                    }
                }
                Event::ViewChanged => self.see(),
                Event::Submitted(submission) => self.submit(submission),
                Event::Tick => self.tick(),
                Event::Stop => break,
            }
        }
        for listener in self.listeners.values() {
            let _ = listener.events.try_send(TokenEvent::Failed(Failure::Stopping));
        }
    }

    /// Takes the newest view in.
    fn see(&mut self) {
        let view = self.views.borrow_and_update().clone();
        if let Some(registered) = *self.registrations.borrow_and_update() {
            self.conductor.enroll(registered);
        }
        if self.conductor.see(view) {
            self.meter.began_anew(None);
            self.route.reset();
        }
        self.write_share();
        self.publish();
    }

    /// Writes what is to be written about this gateway's share; one write at a time.
    fn write_share(&mut self) {
        if self.sharing.as_ref().is_some_and(|sharing| !sharing.is_finished()) {
            return;
        }
        if let Some(txn) = self.conductor.next_write(&self.keyspace, Instant::now()) {
            let store = self.store.clone();
            self.sharing = Some(tokio::spawn(async move {
                if let Err(error) = store.commit(txn).await {
                    warn!(%error, "the share of keys and values cannot be written; tried again");
                }
            }));
        }
    }

    /// Begins a new epoch over the same pipeline.
    fn recover(&mut self, fault: &PipelineFault) {
        self.meter.began_anew(Some(fault));
        self.route.reset();
        self.conductor.recover(fault, Instant::now());
        self.publish();
    }

    async fn send_batches(&mut self) {
        while let Some((endpoint, hop)) = self.conductor.next_hop(Instant::now()) {
            if hop.rows > 0 {
                let spans = spans(&self.listeners, &hop);
                self.meter.sent(hop.step.0, hop.rows, hop.slices.len(), spans, Instant::now());
            }
            if let Err(error) = self.route.send(endpoint, &Frame::Hop(hop), Bytes::new()).await {
                // Not resent: its deadline, or the first stage's lease, begins a new epoch.
                warn!(%error, "cannot reach the first stage");
                let endpoint = endpoint.to_owned();
                self.reached(&endpoint, Err(error));
                return;
            }
            self.conductor.reached_first();
        }
    }

    /// Where nobody is, the first stage is gone; its lease would only say so later.
    fn reached(&mut self, endpoint: &str, outcome: Result<(), LinkError>) {
        let Some(error) = outcome.err() else { return };
        self.conductor.cannot_reach_first(endpoint, &error.in_words());
        let Some(found) = Unreachable::by(endpoint, &error) else { return };
        if self.strike.as_ref().is_some_and(|strike| !strike.is_finished()) {
            return;
        }
        if let Some(txn) = self.conductor.evict(&self.keyspace, &found, Instant::now()) {
            let (store, evictions) = (self.store.clone(), self.meter.evictions().clone());
            self.strike = Some(tokio::spawn(async move {
                match store.commit(txn).await {
                    Ok(Committed::Applied { .. }) => evictions.inc(),
                    Ok(Committed::Refused) => debug!("the first stage has moved on: not struck off"),
                    Err(error) => warn!(%error, "the first stage cannot be struck off; its lease will tell"),
                }
            }));
        }
    }

    async fn arrived(&mut self, message: Message) {
        let now = Instant::now();
        let Arrival { happened, fault, pause } = self.conductor.arrived(&message.frame, now);
        if fault.is_none() {
            // First of all: the stages wait for it, and for nothing that follows here.
            self.send_batches().await;
        }
        if let (Frame::Tokens(tokens), None) = (&message.frame, &fault) {
            let labels = self.conductor.scheduler().shape().map_or(&[][..], |shape| &shape.stages);
            self.meter.returned(tokens, labels, now);
        }
        self.tell(happened);
        if pause {
            tokio::time::sleep(REFUSAL_PAUSE).await;
        }
        if let Some(fault) = fault {
            self.recover(&fault);
        }
        if self.conductor.is_giving() {
            self.write_share();
        }
        if self.conductor.scheduler().is_proven() != self.status.borrow().serving {
            self.publish();
        }
    }

    /// Passes events on. Whoever does not listen any more is cancelled.
    fn tell(&mut self, happened: Happened) {
        let now = Instant::now();
        for (id, event) in happened {
            let last = matches!(event, TokenEvent::Finished { .. } | TokenEvent::Failed(_));
            self.rate.tokens += u64::from(matches!(event, TokenEvent::Token { .. }));
            let Some(listener) = self.listeners.get_mut(&id) else { continue };
            self.meter.told(&event, &mut listener.heard, now);
            if last {
                listener.span.in_scope(|| debug!(sequence = %id, ?event, "ended"));
            }
            // The channel has room for every event of the sequence, so only a closed one refuses.
            let gone = listener.events.try_send(event).is_err();
            if gone && !last {
                self.meter.left(&listener.heard, now);
                self.conductor.cancel(id);
            }
            if gone || last {
                self.listeners.remove(&id);
            }
        }
    }

    fn submit(&mut self, submission: Submission) {
        let Submission { request, events, answer, span } = submission;
        let verdict = self.conductor.judge(&request).inspect_err(|rejection| self.meter.rejections().count(rejection));
        let room = verdict.as_ref().ok().copied();
        if let (Ok(()), Some(room)) = (answer.send(verdict.map(drop)), room) {
            let now = Instant::now();
            let heard = Heard::new(request.prompt.len(), now);
            let id = self.conductor.admit(request, room, now);
            self.listeners.insert(id, Listener { events, heard, span });
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let gone = self.listeners.extract_if(|_, listener| listener.events.is_closed());
        for (id, listener) in gone {
            self.meter.left(&listener.heard, now);
            self.conductor.cancel(id);
        }
        let Arrival { happened, fault, .. } = self.conductor.tick(now);
        self.tell(happened);
        if let Some(fault) = fault {
            self.recover(&fault);
        }
        self.write_share();
        self.publish();
    }

    fn publish(&mut self) {
        let elapsed = self.rate.since.elapsed();
        if elapsed >= Duration::from_secs(1) {
            let per_second = self.rate.tokens as f64 / elapsed.as_secs_f64();
            self.rate = Rate { since: Instant::now(), tokens: 0, per_second };
        }
        let status = PipelineStatus { tokens_per_second: self.rate.per_second, ..self.conductor.status() };
        self.meter.look(self.conductor.scheduler(), &status);
        self.status.send_if_modified(|last| (*last != status).then(|| *last = status).is_some());
    }
}

/// What the micro-batch is in the trace of each of its sequences: one span under the sequence's own.
fn spans(listeners: &HashMap<SequenceId, Listener>, hop: &Hop) -> Vec<Span> {
    // Signed numbers: traces know no others.
    let (step, sequences, batch_rows) = (hop.step.0 as i64, hop.slices.len() as i64, i64::from(hop.rows));
    let span = |slice: &Slice| {
        let (above, rows) = (&listeners.get(&slice.sequence)?.span, i64::from(slice.count));
        Some(debug_span!(parent: above, "micro-batch", step, rows, batch_rows, sequences))
    };
    hop.slices.iter().filter_map(span).collect()
}
