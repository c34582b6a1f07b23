//! A gateway's loop: it receives events, feeds them to the [`Conductor`], which decides what to do, and executes the
//! orders that the conductor returns. It waits only in the `select!` of `Driver::next`.
//!
//! It runs on a thread of its own with a runtime of its own, so that neither a slow client nor a long prompt being
//! tokenised holds up a micro-batch.

use std::collections::{HashMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schema::frame::{Frame, Hop, Slice};
use schema::record::{GatewayLoad, LinkReport};
use schema::{Keyspace, SequenceId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Interval;
use tracing::{Span, debug, debug_span, warn};

use super::conductor::Conductor;
use super::event::{Event, Order, Purpose};
use super::meter::{EventTimes, Meter};
use super::scheduler::Scheduler;
use crate::generate::{Failure, PipelineStatus, Rejection, Request, SequenceReport, TokenEvent};
use crate::limits::{GATEWAY_TICK, REPORT_EVERY};
use crate::link::{AdvertisedAddresses, ClusterKey, Inbound, LinkError, Message, Refusals};
use crate::membership::report_gateway_load;
use crate::route::{PeerAddresses, Route, RouteEvent};
use crate::share::GatewayRegistration;
use crate::store::{Committed, LeaseId, SharedStore, Txn};
use crate::view::ClusterView;

/// A submitted request.
pub(super) struct Submission {
    pub(super) request: Request,
    pub(super) events: mpsc::Sender<TokenEvent>,
    pub(super) answer: oneshot::Sender<Result<SequenceId, Rejection>>,
    /// The span from submission to the last event.
    pub(super) span: Span,
}

/// The parts of a new driver.
pub(super) struct Parts {
    pub(super) store: SharedStore,
    pub(super) keyspace: Keyspace,
    pub(super) views: watch::Receiver<Arc<ClusterView>>,
    pub(super) inbound: Inbound,
    pub(super) addresses: AdvertisedAddresses,
    pub(super) submissions: mpsc::Receiver<Submission>,
    pub(super) status: watch::Sender<PipelineStatus>,
    pub(super) sequences: watch::Sender<Arc<[SequenceReport]>>,
    pub(super) key: Option<ClusterKey>,
    pub(super) registrations: watch::Receiver<Option<GatewayRegistration>>,
    pub(super) scheduler: Scheduler,
    pub(super) meter: Meter,
}

/// The conductor, and the sockets, tasks and receivers around it.
pub(super) struct Driver {
    store: SharedStore,
    keyspace: Keyspace,
    /// This gateway's newest registration.
    registrations: watch::Receiver<Option<GatewayRegistration>>,
    conductor: Conductor,
    views: watch::Receiver<Arc<ClusterView>>,
    inbound: Inbound,
    addresses: AdvertisedAddresses,
    /// Frames that were refused.
    refusals: Refusals,
    submissions: mpsc::Receiver<Submission>,
    /// Submissions that wait for the conductor's reply, by ticket.
    pending: HashMap<u64, PendingSubmission>,
    /// The newest ticket: a number that connects a submission with the conductor's reply to it.
    tickets: u64,
    /// Pending writes to the store.
    writes: JoinSet<Purpose>,
    status: watch::Sender<PipelineStatus>,
    /// The reports on the sequences as of the last tick.
    sequences: watch::Sender<Arc<[SequenceReport]>>,
    /// The connection to the first stage.
    route: Route,
    links: LinksReport,
    /// The write of them, which nothing waits for.
    link_write: Option<JoinHandle<()>>,
    receivers: HashMap<SequenceId, TokenReceiver>,
    rate: Rate,
    meter: Meter,
}

/// A submission without its request, which the conductor has.
struct PendingSubmission {
    prompt_tokens: usize,
    events: mpsc::Sender<TokenEvent>,
    answer: oneshot::Sender<Result<SequenceId, Rejection>>,
    span: Span,
}

/// The receiver of a sequence's tokens.
struct TokenReceiver {
    events: mpsc::Sender<TokenEvent>,
    times: EventTimes,
    span: Span,
}

/// The addresses of the first stage as they were last written.
#[derive(Default)]
struct LinksReport {
    /// The lease under which.
    of: Option<LeaseId>,
    links: Vec<LinkReport>,
    at: Option<Instant>,
}

/// The rate of generated tokens, measured over periods of at least a second.
struct Rate {
    /// Start of the current period.
    since: Instant,
    /// Tokens in the current period.
    tokens: u64,
    /// Tokens per second in the period before it.
    per_second: f64,
}

/// The reason for which the loop wakes up.
enum Wakeup {
    Stop,
    /// The inbound socket received a message from a stage, refused one, or failed.
    Arrived(Result<Message, LinkError>),
    /// Something happened to the connection to the first stage.
    Routed(RouteEvent),
    /// The publisher has a newer view of the cluster.
    ViewChanged,
    /// This gateway has a new registration.
    Registered,
    /// The addresses of this machine have changed.
    AddressesChanged,
    Submitted(Submission),
    /// A write to the store ended, successfully or not.
    Written(Purpose),
    /// The task of a write panicked. Its purpose is unknown, because only a task that ends returns it.
    WriteFailed,
    Tick,
    /// The time of [`Conductor::wakes_at`] has come.
    Wake,
}

// === impl Driver ===

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            store,
            keyspace,
            views,
            inbound,
            addresses,
            submissions,
            status,
            sequences,
            key,
            registrations,
            scheduler,
            meter,
        } = parts;
        let view = views.borrow().clone();
        let peers = PeerAddresses::new(views.clone());
        Self {
            store,
            registrations,
            keyspace: keyspace.clone(),
            conductor: Conductor::new(keyspace, scheduler, view),
            views,
            inbound,
            addresses,
            refusals: Refusals::of("frame"),
            submissions,
            pending: HashMap::new(),
            tickets: 0,
            writes: JoinSet::new(),
            status,
            sequences,
            route: Route::redialling(key, peers),
            links: LinksReport::default(),
            link_write: None,
            receivers: HashMap::new(),
            rate: Rate { since: Instant::now(), tokens: 0, per_second: 0.0 },
            meter,
        }
    }

    /// Runs until `stop` resolves, the sender of submissions is dropped, or the inbound socket fails.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut tick = tokio::time::interval(GATEWAY_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.register();
        self.follow_view();
        loop {
            match self.next(&mut stop, &mut tick).await {
                Wakeup::Arrived(Ok(message)) => {
                    if matches!(message.frame, Frame::Hop(_)) {
                        self.refusals.record(&self.inbound.sender(), &"a hop came: expected answers of stages");
                    }
                    self.dispatch(Event::Arrived(message.frame));
                    // The first micro-batch of an epoch that comes back makes the pipeline serve. Clients need not wait
                    // for the next tick to learn that.
                    if self.conductor.scheduler().is_proven() != self.status.borrow().serving {
                        self.publish();
                    }
                }
                Wakeup::Arrived(Err(error)) if error.is_about_one_message() => {
                    self.refusals.record(&self.inbound.sender(), &error);
                }
                Wakeup::Arrived(Err(error)) => break warn!(%error, "cannot receive any more: the gateway's loop ends"),
                Wakeup::Routed(event) => self.dispatch(Event::Route(event)),
                Wakeup::ViewChanged => self.follow_view(),
                Wakeup::Registered => self.register(),
                Wakeup::AddressesChanged => {
                    let addresses = self.addresses.newest();
                    self.dispatch(Event::AddressesChanged(addresses));
                }
                Wakeup::Submitted(submission) => self.submit(submission),
                Wakeup::Written(purpose) => self.dispatch(Event::Written(purpose)),
                // Reports the end of both purposes, because the conductor would wait for ever for the one that
                // panicked. So it may order a second write of the other while the first is pending. That does no harm:
                // each write compares revisions, so the store applies only one of two that expect the same one.
                Wakeup::WriteFailed => [Purpose::Record, Purpose::Eviction]
                    .into_iter()
                    .for_each(|purpose| self.dispatch(Event::Written(purpose))),
                Wakeup::Tick => self.tick(),
                Wakeup::Wake => self.dispatch(Event::Wake),
                Wakeup::Stop => break,
            }
        }
        for receiver in self.receivers.values() {
            let _ = receiver.events.try_send(TokenEvent::Failed(Failure::Stopping));
        }
    }

    async fn next(&mut self, stop: &mut Pin<&mut impl Future<Output = ()>>, tick: &mut Interval) -> Wakeup {
        let wakes_at = self.conductor.wakes_at();
        tokio::select! {
            // Biased: of several reasons the first in this order counts. Completed work makes room for new work, so it
            // comes first.
            biased;
            () = stop => Wakeup::Stop,
            message = self.inbound.receive() => Wakeup::Arrived(message),
            event = self.route.next() => Wakeup::Routed(event),
            Ok(()) = self.views.changed() => Wakeup::ViewChanged,
            Ok(()) = self.registrations.changed() => Wakeup::Registered,
            () = self.addresses.changed() => Wakeup::AddressesChanged,
            () = sleep_until(wakes_at) => Wakeup::Wake,
            Some(written) = self.writes.join_next() => written.map_or(Wakeup::WriteFailed, Wakeup::Written),
            submission = self.submissions.recv() => submission.map_or(Wakeup::Stop, Wakeup::Submitted),
            _ = tick.tick() => Wakeup::Tick,
        }
    }

    /// Feeds an event to the conductor and executes its orders. If an order causes events at once, feeds those as well.
    fn dispatch(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for order in self.conductor.handle(event, Instant::now()) {
                self.perform(order, &mut events);
            }
        }
    }

    /// Executes an order. `events` collects the events that it causes at once.
    fn perform(&mut self, order: Order, events: &mut VecDeque<Event>) {
        match order {
            Order::Send { endpoint, hop } => {
                // A hop without rows only proves that the pipeline works: it computes nothing to measure.
                if hop.rows > 0 {
                    let spans = spans(&self.receivers, &hop);
                    self.meter.sent(hop.step.0, hop.rows, hop.slices.len(), spans, Instant::now());
                }
                self.route.send(endpoint, Frame::Hop(hop), Bytes::new());
                events.extend(std::iter::from_fn(|| self.route.take_event()).map(Event::Route));
            }
            Order::NewEpoch(fault) => {
                self.meter.epoch_begun(fault.as_ref());
                self.route.reset();
                self.publish();
            }
            Order::Returned(tokens) => {
                let labels = self.conductor.scheduler().shape().map_or(&[][..], |shape| &shape.stages);
                self.meter.returned(&tokens, labels, Instant::now());
            }
            Order::Reply { ticket, answer } => self.reply(ticket, answer, events),
            Order::Deliver(id, event) => self.deliver(id, event, events),
            Order::Commit(purpose, txn) => self.commit(purpose, txn),
        }
    }

    /// Writes to the store in a task of its own. [`Wakeup::Written`] reports the end.
    fn commit(&mut self, purpose: Purpose, txn: Txn) {
        let (store, evictions) = (self.store.clone(), self.meter.evictions().clone());
        self.writes.spawn(async move {
            match (purpose, store.commit(txn).await) {
                (Purpose::Eviction, Ok(Committed::Applied { .. })) => evictions.inc(),
                (Purpose::Eviction, Ok(Committed::Refused)) => debug!("the first stage has moved on: not evicted"),
                (Purpose::Eviction, Err(error)) => {
                    warn!(%error, "the first stage cannot be evicted; its lease will end");
                }
                (Purpose::Record, Err(error)) => warn!(%error, "the gateway's record cannot be written; tried again"),
                (Purpose::Bookkeeping, Err(error)) => debug!(%error, "old eviction records cannot be deleted"),
                (Purpose::Record | Purpose::Bookkeeping, Ok(_)) => {}
            }
            purpose
        });
    }

    fn follow_view(&mut self) {
        let view = self.views.borrow_and_update().clone();
        self.dispatch(Event::ViewChanged(view));
        self.publish();
    }

    fn register(&mut self) {
        let registered = *self.registrations.borrow_and_update();
        if let Some(registered) = registered {
            self.dispatch(Event::Registered(registered));
            self.publish();
        }
    }

    fn submit(&mut self, submission: Submission) {
        let Submission { request, events, answer, span } = submission;
        self.tickets += 1;
        self.pending
            .insert(self.tickets, PendingSubmission { prompt_tokens: request.prompt.len(), events, answer, span });
        self.dispatch(Event::Submitted { ticket: self.tickets, request });
    }

    /// Passes the conductor's reply to the submission of `ticket`. If nobody waits for it any more, cancels the
    /// sequence.
    fn reply(&mut self, ticket: u64, answer: Result<SequenceId, Rejection>, events: &mut VecDeque<Event>) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        let answer = answer.inspect_err(|rejection| self.meter.rejections().count(rejection));
        let admitted = answer.as_ref().ok().copied();
        let is_gone = pending.answer.send(answer).is_err();
        match admitted {
            None => {}
            Some(id) if is_gone => events.push_back(Event::Cancelled(id)),
            Some(id) => {
                let times = EventTimes::new(pending.prompt_tokens, Instant::now());
                self.receivers.insert(id, TokenReceiver { events: pending.events, times, span: pending.span });
            }
        }
    }

    /// Delivers an event to its receiver. If the receiver is gone, cancels the sequence.
    fn deliver(&mut self, id: SequenceId, event: TokenEvent, events: &mut VecDeque<Event>) {
        let now = Instant::now();
        let is_last = event.is_last();
        self.rate.tokens += u64::from(matches!(event, TokenEvent::Token(_)));
        let Some(receiver) = self.receivers.get_mut(&id) else { return };
        self.meter.event_sent(&event, &mut receiver.times, now);
        if is_last {
            receiver.span.in_scope(|| debug!(sequence = %id, ?event, "ended"));
        }
        // The channel has room for every event of the sequence, so only a closed one refuses.
        let is_gone = receiver.events.try_send(event).is_err();
        if is_gone && !is_last {
            self.meter.cancelled(&receiver.times, now);
            events.push_back(Event::Cancelled(id));
        }
        if is_gone || is_last {
            self.receivers.remove(&id);
        }
    }

    /// Cancels the sequences whose receivers are gone, and lets the conductor look for deadlines that have passed.
    fn tick(&mut self) {
        let now = Instant::now();
        let gone: Vec<_> = self.receivers.extract_if(|_, receiver| receiver.events.is_closed()).collect();
        for (id, receiver) in gone {
            self.meter.cancelled(&receiver.times, now);
            self.dispatch(Event::Cancelled(id));
        }
        self.report_links(now);
        self.dispatch(Event::Tick);
        self.sequences.send_replace(self.conductor.scheduler().reports(now).into());
        self.publish();
    }

    /// Writes what it finds of the first stage's addresses to the store, if that has changed, without waiting for it.
    fn report_links(&mut self, now: Instant) {
        let Some(own) = *self.registrations.borrow() else { return };
        let links = self.route.links();
        let known = LinksReport { of: Some(own.lease), links, at: Some(now) };
        let is_early = self.links.at.is_some_and(|at| now.saturating_duration_since(at) < REPORT_EVERY);
        if is_early || (known.of == self.links.of && known.links == self.links.links) {
            return;
        }
        let load = GatewayLoad { links: known.links.clone() };
        self.links = known;
        let (store, txn) = (self.store.clone(), report_gateway_load(&self.keyspace, own.slot, &load, own.lease));
        let write = async move {
            if let Err(error) = store.commit(txn).await {
                debug!(%error, "the links of this gateway were not written");
            }
        };
        if let Some(earlier) = self.link_write.replace(tokio::spawn(write)) {
            earlier.abort();
        }
    }

    /// Sends the pipeline's status to the HTTP server if it has changed, and updates the metrics.
    fn publish(&mut self) {
        let elapsed = self.rate.since.elapsed();
        if elapsed >= Duration::from_secs(1) {
            let per_second = self.rate.tokens as f64 / elapsed.as_secs_f64();
            self.rate = Rate { since: Instant::now(), tokens: 0, per_second };
        }
        let status = PipelineStatus { tokens_per_second: self.rate.per_second, ..self.conductor.status() };
        self.meter.sample(self.conductor.scheduler(), &status);
        self.status.send_if_modified(|last| (*last != status).then(|| *last = status).is_some());
    }
}

/// Waits until `at`, for ever if it is `None`.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The spans of a micro-batch, one under the span of each of its sequences.
fn spans(receivers: &HashMap<SequenceId, TokenReceiver>, hop: &Hop) -> Vec<Span> {
    // Signed numbers: attributes of OpenTelemetry spans have no unsigned ones.
    let (step, sequences, batch_rows) = (hop.step.0 as i64, hop.slices.len() as i64, i64::from(hop.rows));
    let span = |slice: &Slice| {
        let (sequence_span, rows) = (&receivers.get(&slice.sequence)?.span, i64::from(slice.count));
        Some(debug_span!(parent: sequence_span, "micro-batch", step, rows, batch_rows, sequences))
    };
    hop.slices.iter().filter_map(span).collect()
}
