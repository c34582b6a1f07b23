//! A gateway's loop: it feeds what happens to the [`Conductor`] and carries out what that orders. Its only wait is the
//! `select!` in `next`.
//!
//! It runs on a thread of its own with a runtime of its own, so that neither a slow client nor a long prompt being
//! tokenised holds up a micro-batch.

use std::collections::{HashMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schema::frame::{Frame, Hop, Slice};
use schema::{Keyspace, SequenceId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Interval;
use tracing::{Span, debug, debug_span, warn};

use super::conductor::Conductor;
use super::event::{Event, Order, Purpose};
use super::meter::{Heard, Meter};
use super::scheduler::Scheduler;
use crate::generate::{Failure, PipelineStatus, Rejection, Request, TokenEvent};
use crate::limits::GATEWAY_TICK;
use crate::link::{ClusterKey, Inbound, LinkError, Message};
use crate::route::{Route, RouteEvent};
use crate::share::Registered;
use crate::store::{Committed, SharedStore, Txn};
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

/// The conductor, and the sockets, tasks and receivers around it.
pub(super) struct Driver {
    store: SharedStore,
    /// This gateway's registrations, one after the other.
    registrations: watch::Receiver<Option<Registered>>,
    conductor: Conductor,
    views: watch::Receiver<Arc<ClusterView>>,
    inbound: Inbound,
    submissions: mpsc::Receiver<Submission>,
    /// Submissions that wait for the conductor's answer, by ticket.
    asking: HashMap<u64, Asking>,
    tickets: u64,
    /// Writes under way.
    writes: JoinSet<Purpose>,
    status: watch::Sender<PipelineStatus>,
    route: Route,
    listeners: HashMap<SequenceId, Listener>,
    rate: Rate,
    meter: Meter,
}

/// A submission without its request.
struct Asking {
    prompt_tokens: usize,
    events: mpsc::Sender<TokenEvent>,
    answer: oneshot::Sender<Result<(), Rejection>>,
    span: Span,
}

/// The receiver of a sequence's tokens.
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

/// Everything that the loop waits for.
enum Wakeup {
    Stop,
    Arrived(Result<Message, LinkError>),
    Routed(RouteEvent),
    ViewChanged,
    Registered,
    Submitted(Submission),
    Written(Purpose),
    Tick,
    Wake,
}

// === impl Driver ===

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { store, keyspace, views, inbound, submissions, status, key, registrations, scheduler, meter } =
            parts;
        let view = views.borrow().clone();
        Self {
            store,
            registrations,
            conductor: Conductor::new(keyspace, scheduler, view),
            views,
            inbound,
            submissions,
            asking: HashMap::new(),
            tickets: 0,
            writes: JoinSet::new(),
            status,
            route: Route::redialling(key),
            listeners: HashMap::new(),
            rate: Rate { since: Instant::now(), tokens: 0, per_second: 0.0 },
            meter,
        }
    }

    /// Runs until `stop` resolves or every handle is gone.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut tick = tokio::time::interval(GATEWAY_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.register();
        self.see();
        loop {
            match self.next(&mut stop, &mut tick).await {
                Wakeup::Arrived(Ok(message)) => {
                    self.take(Event::Arrived(message.frame));
                    if self.conductor.scheduler().is_proven() != self.status.borrow().serving {
                        self.publish();
                    }
                }
                Wakeup::Arrived(Err(error)) if error.is_about_one_message() => warn!(%error, "a frame was refused"),
                Wakeup::Arrived(Err(error)) => break warn!(%error, "no more tokens can be taken: the gateway must go"),
                Wakeup::Routed(event) => self.take(Event::Route(event)),
                Wakeup::ViewChanged => self.see(),
                Wakeup::Registered => self.register(),
                Wakeup::Submitted(submission) => self.submit(submission),
                Wakeup::Written(purpose) => self.take(Event::Written(purpose)),
                Wakeup::Tick => self.tick(),
                Wakeup::Wake => self.take(Event::Wake),
                Wakeup::Stop => break,
            }
        }
        for listener in self.listeners.values() {
            let _ = listener.events.try_send(TokenEvent::Failed(Failure::Stopping));
        }
    }

    async fn next(&mut self, stop: &mut Pin<&mut impl Future<Output = ()>>, tick: &mut Interval) -> Wakeup {
        let wakes_at = self.conductor.wakes_at();
        tokio::select! {
            // Biased: what is done makes room for what is new.
            biased;
            () = stop => Wakeup::Stop,
            message = self.inbound.receive() => Wakeup::Arrived(message),
            event = self.route.next() => Wakeup::Routed(event),
            Ok(()) = self.views.changed() => Wakeup::ViewChanged,
            Ok(()) = self.registrations.changed() => Wakeup::Registered,
            () = sleep_until(wakes_at) => Wakeup::Wake,
            Some(written) = self.writes.join_next() => Wakeup::Written(written.unwrap_or(Purpose::Record)),
            submission = self.submissions.recv() => submission.map_or(Wakeup::Stop, Wakeup::Submitted),
            _ = tick.tick() => Wakeup::Tick,
        }
    }

    /// Feeds an event to the conductor and carries out its orders, and so on with what those bring about at once.
    fn take(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for order in self.conductor.handle(event, Instant::now()) {
                self.perform(order, &mut events);
            }
        }
    }

    fn perform(&mut self, order: Order, events: &mut VecDeque<Event>) {
        match order {
            Order::Send { endpoint, hop } => {
                if hop.rows > 0 {
                    let spans = spans(&self.listeners, &hop);
                    self.meter.sent(hop.step.0, hop.rows, hop.slices.len(), spans, Instant::now());
                }
                self.route.send(endpoint, Frame::Hop(hop), Bytes::new());
                events.extend(std::iter::from_fn(|| self.route.take_event()).map(Event::Route));
            }
            Order::BeginAnew(fault) => {
                self.meter.began_anew(fault.as_ref());
                self.route.reset();
                self.publish();
            }
            Order::Returned(tokens) => {
                let labels = self.conductor.scheduler().shape().map_or(&[][..], |shape| &shape.stages);
                self.meter.returned(&tokens, labels, Instant::now());
            }
            Order::Reply { ticket, answer } => self.reply(ticket, answer, events),
            Order::Tell(id, event) => self.tell(id, event, events),
            Order::Commit(purpose, txn) => self.commit(purpose, txn),
        }
    }

    fn commit(&mut self, purpose: Purpose, txn: Txn) {
        let (store, evictions) = (self.store.clone(), self.meter.evictions().clone());
        self.writes.spawn(async move {
            match (purpose, store.commit(txn).await) {
                (Purpose::Eviction, Ok(Committed::Applied { .. })) => evictions.inc(),
                (Purpose::Eviction, Ok(Committed::Refused)) => debug!("the first stage has moved on: not evicted"),
                (Purpose::Eviction, Err(error)) => {
                    warn!(%error, "the first stage cannot be evicted; its lease will end")
                }
                (Purpose::Record, Err(error)) => warn!(%error, "the gateway's record cannot be written; tried again"),
                (Purpose::Record, Ok(_)) => {}
            }
            purpose
        });
    }

    fn see(&mut self) {
        let view = self.views.borrow_and_update().clone();
        self.take(Event::Viewed(view));
        self.publish();
    }

    fn register(&mut self) {
        let registered = *self.registrations.borrow_and_update();
        if let Some(registered) = registered {
            self.take(Event::Registered(registered));
            self.publish();
        }
    }

    fn submit(&mut self, submission: Submission) {
        let Submission { request, events, answer, span } = submission;
        self.tickets += 1;
        self.asking.insert(self.tickets, Asking { prompt_tokens: request.prompt.len(), events, answer, span });
        self.take(Event::Submitted { ticket: self.tickets, request });
    }

    fn reply(&mut self, ticket: u64, answer: Result<SequenceId, Rejection>, events: &mut VecDeque<Event>) {
        let Some(asking) = self.asking.remove(&ticket) else { return };
        let answer = answer.inspect_err(|rejection| self.meter.rejections().count(rejection));
        let admitted = answer.as_ref().ok().copied();
        let is_gone = asking.answer.send(answer.map(drop)).is_err();
        match admitted {
            None => {}
            Some(id) if is_gone => events.push_back(Event::Left(id)),
            Some(id) => {
                let heard = Heard::new(asking.prompt_tokens, Instant::now());
                self.listeners.insert(id, Listener { events: asking.events, heard, span: asking.span });
            }
        }
    }

    /// Passes an event on. A sequence whose receiver is gone is cancelled.
    fn tell(&mut self, id: SequenceId, event: TokenEvent, events: &mut VecDeque<Event>) {
        let now = Instant::now();
        let last = matches!(event, TokenEvent::Finished { .. } | TokenEvent::Failed(_));
        self.rate.tokens += u64::from(matches!(event, TokenEvent::Token { .. }));
        let Some(listener) = self.listeners.get_mut(&id) else { return };
        self.meter.told(&event, &mut listener.heard, now);
        if last {
            listener.span.in_scope(|| debug!(sequence = %id, ?event, "ended"));
        }
        // The channel has room for every event of the sequence, so only a closed one refuses.
        let gone = listener.events.try_send(event).is_err();
        if gone && !last {
            self.meter.left(&listener.heard, now);
            events.push_back(Event::Left(id));
        }
        if gone || last {
            self.listeners.remove(&id);
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let gone: Vec<_> = self.listeners.extract_if(|_, listener| listener.events.is_closed()).collect();
        for (id, listener) in gone {
            self.meter.left(&listener.heard, now);
            self.take(Event::Left(id));
        }
        self.take(Event::Tick);
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

/// Waits until `at`; for ever, if there is no such moment.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
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
