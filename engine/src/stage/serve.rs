//! The stage's loop under one lease: it feeds events to the [`Member`] and executes its orders. Its only wait is the
//! `select!` in `next`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schema::frame::Frame;
use schema::record::{LinkReport, NetworkInterface, StageRecord};
use schema::{Keyspace, StageName};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::compute::Compute;
use super::done::Done;
use super::gateways::Gateways;
use super::member::{Event, Member, MemberSetup, Order, Purpose};
use super::memory_sampler::MemorySampler;
use super::watchdog::Watchdog;
use super::{Ending, StageError, StageSettings};
use crate::limits::{SETTLE_LEFT, STORE_LOOK_MAX};
use crate::link::{AdvertisedAddresses, Inbound, LinkError, Message, Refusals};
use crate::membership::{KeyMismatch, mark_to_write, read_view};
use crate::planner::Proposals;
use crate::route::{PeerAddresses, Route, RouteEvent};
use crate::runner::Loader;
use crate::store::{Committed, LeaseGrant, LeaseId, SharedStore, StoreError, Txn};
use crate::view::ClusterView;

/// A stage process: its member, and its sockets, threads and tasks.
pub(super) struct Stage {
    store: SharedStore,
    settings: StageSettings,
    views: watch::Receiver<Arc<ClusterView>>,
    inbound: Inbound,
    /// Frames that were refused.
    refusals: Refusals,
    addresses: AdvertisedAddresses,
    compute: Compute,
    done: mpsc::Receiver<Done>,
    watchdog: Watchdog,
    memory: MemorySampler,
    member: Member,
    downstream: Route,
    gateways: Gateways,
    /// The addresses of its peers as they were last reported.
    links: Vec<LinkReport>,
    write: Option<PendingWrite>,
    /// The write of its load, which nothing waits for.
    load_write: Option<JoinHandle<()>>,
    served: bool,
    stops: bool,
}

struct PendingWrite {
    purpose: Purpose,
    task: JoinHandle<Result<Committed, StoreError>>,
}

/// The reason for which the loop wakes up.
enum Wakeup {
    LeaseLost,
    Drain,
    Stop,
    Computed(Option<Done>),
    Arrived(Result<Message, LinkError>),
    Downstream(RouteEvent),
    Upstream(u32, RouteEvent),
    ViewChanged,
    Written(Purpose, Result<Committed, StoreError>),
    /// The addresses of this machine have changed.
    AddressesChanged,
    Tick,
}

// === impl Stage ===

impl Stage {
    pub(super) fn new(
        store: SharedStore,
        settings: StageSettings,
        views: watch::Receiver<Arc<ClusterView>>,
        inbound: Inbound,
        (interface, mut addresses): (Option<NetworkInterface>, AdvertisedAddresses),
        loader: Arc<dyn Loader>,
    ) -> Result<Self, StageError> {
        let (compute, done) = Compute::start(loader.clone()).map_err(StageError::Thread)?;
        let memory = MemorySampler::start(loader.clone()).map_err(StageError::Thread)?;
        let described = loader.describe();
        let endpoint = inbound.endpoint().to_owned();
        let record = StageRecord { endpoint, interface, addresses: addresses.newest(), ..described };
        let peers = PeerAddresses::new(views.clone());
        let view = views.borrow().clone();
        let setup = MemberSetup {
            keyspace: settings.keyspace.clone(),
            name: settings.name.clone(),
            secret: settings.key.clone(),
            record,
            memory_bound: Box::new(move |layers, room| loader.memory_bound(layers, room)),
            proposals: Proposals::default(),
        };
        Ok(Self {
            member: Member::new(setup, view, Instant::now()),
            downstream: Route::redialling(settings.key.clone(), peers.clone()),
            gateways: Gateways::new(settings.key.clone(), peers),
            store,
            settings,
            views,
            inbound,
            refusals: Refusals::of("frame"),
            addresses,
            compute,
            done,
            watchdog: Watchdog::new(Instant::now()),
            memory,
            links: Vec::new(),
            write: None,
            load_write: None,
            served: false,
            stops: false,
        })
    }

    pub(super) fn name(&self) -> &StageName {
        &self.settings.name
    }

    pub(super) fn keyspace(&self) -> &Keyspace {
        &self.settings.keyspace
    }

    pub(super) fn lease_ttl(&self) -> Duration {
        self.settings.lease_ttl
    }

    pub(super) fn endpoint(&self) -> &str {
        self.inbound.endpoint()
    }

    pub(super) fn has_served(&self) -> bool {
        self.served
    }

    /// True if it is draining.
    pub(super) fn is_draining(&self) -> bool {
        self.member.is_draining()
    }

    /// The write by which it joins under `lease`.
    pub(super) fn registration(&mut self, lease: LeaseId) -> Txn {
        self.follow_view();
        self.member.registration(lease)
    }

    /// The process that has the stage's name in the store.
    pub(super) fn holder_of_name(&self) -> Option<String> {
        let view = self.views.borrow();
        let record = &view.stages.get(self.name())?.value;
        Some(format!("process {} on {}", record.pid, record.host))
    }

    /// Serves until the lease is lost or `stop` resolves, or after `drain` until others have taken over.
    pub(super) async fn serve<D, S>(
        &mut self,
        lease: LeaseGrant,
        drain: &mut Pin<&mut D>,
        stop: &mut Pin<&mut S>,
    ) -> Result<Ending, StageError>
    where
        D: Future<Output = ()>,
        S: Future<Output = ()>,
    {
        self.served = true;
        let mut tick = tokio::time::interval(SETTLE_LEFT);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.follow_view();
        self.dispatch(Event::Joined(lease.id()));
        let ended = loop {
            if self.stops {
                break Ok(false);
            }
            match self.next(&lease, drain, stop, &mut tick).await {
                Wakeup::LeaseLost => break Ok(true),
                Wakeup::Stop => break Ok(false),
                Wakeup::Drain => self.dispatch(Event::Drain),
                Wakeup::Computed(None) => break Err(StageError::ComputeEnded),
                Wakeup::Computed(Some(done)) => {
                    if let Done::Stepped(stepped) = &done {
                        self.watchdog.stepped((stepped.hop.rows > 0).then_some(stepped.compute));
                    }
                    self.dispatch(Event::Done(done));
                }
                Wakeup::Arrived(Ok(message)) => self.receive(Event::Arrived(message)),
                Wakeup::Arrived(Err(error)) if error.is_about_one_message() => {
                    self.receive(Event::Unreadable(error.to_string()));
                }
                Wakeup::Arrived(Err(error)) => break Err(error.into()),
                Wakeup::Downstream(event) => self.dispatch(Event::Downstream(event)),
                Wakeup::Upstream(slot, event) => self.dispatch(Event::Upstream(slot, event)),
                Wakeup::ViewChanged => match self.check_view() {
                    Ok(()) => self.follow_view(),
                    Err(error) => break Err(error),
                },
                // A write shows it before the next renewal does.
                Wakeup::Written(_, Err(StoreError::LeaseGone { .. })) => break Ok(true),
                Wakeup::Written(purpose, outcome) => self.dispatch(Event::Written(purpose, outcome)),
                Wakeup::AddressesChanged => {
                    let addresses = self.addresses.newest();
                    self.dispatch(Event::Addresses(addresses));
                }
                Wakeup::Tick => {
                    if let Some(lasted) = self.watchdog.hangs(Instant::now()) {
                        break Err(StageError::ComputeHangs(lasted));
                    }
                    self.report_links();
                    self.dispatch(Event::Tick(self.memory.memory()));
                }
            }
        };
        self.write = None;
        let ending = match ended {
            Ok(true) => Ok(self.ending_of_lease().await),
            Ok(false) => Ok(Ending::Stopped),
            Err(error) => Err(error),
        };
        if matches!(ending, Ok(Ending::Forgotten)) {
            self.dispatch(Event::LeaseLost { is_forgotten: true });
            return ending;
        }
        self.dispatch(Event::LeaseLost { is_forgotten: false });
        // Whatever the reason, the others must not wait for this stage.
        lease.revoke().await;
        ending
    }

    /// Asks the store why the lease is lost: it ended, or the store has lost its data.
    async fn ending_of_lease(&mut self) -> Ending {
        let (store, secret) = (&self.store, self.settings.key.as_ref());
        let raw = tokio::time::timeout(STORE_LOOK_MAX, read_view(store, &self.settings.keyspace, secret)).await;
        match raw {
            Ok(Ok(raw)) if self.member.keeps_shard(&raw) => Ending::Forgotten,
            _ => Ending::Evicted,
        }
    }

    async fn next<D, S>(
        &mut self,
        lease: &LeaseGrant,
        drain: &mut Pin<&mut D>,
        stop: &mut Pin<&mut S>,
        tick: &mut tokio::time::Interval,
    ) -> Wakeup
    where
        D: Future<Output = ()>,
        S: Future<Output = ()>,
    {
        tokio::select! {
            // Biased: a stage that lost its lease forwards nothing more, and results leave before more work comes in.
            biased;
            // Only the store ends a lease, not a clock: while the store is away serving goes on, and generations fence
            // off older stages.
            () = lease.lost() => Wakeup::LeaseLost,
            () = stop => Wakeup::Stop,
            () = drain, if !self.member.is_draining() => Wakeup::Drain,
            done = self.done.recv() => Wakeup::Computed(done),
            (purpose, outcome) = written(&mut self.write) => Wakeup::Written(purpose, outcome),
            Ok(()) = self.views.changed() => Wakeup::ViewChanged,
            event = self.downstream.next() => Wakeup::Downstream(event),
            (slot, event) = self.gateways.next() => Wakeup::Upstream(slot, event),
            message = self.inbound.receive() => Wakeup::Arrived(message),
            () = self.addresses.changed() => Wakeup::AddressesChanged,
            _ = tick.tick() => Wakeup::Tick,
        }
    }

    /// Passes on what the last message was, and names its sender if it was refused.
    fn receive(&mut self, event: Event) {
        let refused = self.member.frames_refused();
        self.dispatch(event);
        if self.member.frames_refused() > refused {
            let sender = self.inbound.sender();
            if let Some(frame) = self.member.name_refused(sender.to_string()) {
                self.refusals.record(&sender, &frame.reason);
            }
        }
    }

    /// Passes what it knows of the addresses of its peers to the member, if that has changed.
    fn report_links(&mut self) {
        let links: Vec<_> = self.downstream.links().into_iter().chain(self.gateways.links()).collect();
        if links != self.links {
            self.links.clone_from(&links);
            self.dispatch(Event::Links(links));
        }
    }

    /// Follows the newest view.
    fn follow_view(&mut self) {
        let view = self.views.borrow_and_update().clone();
        self.gateways.follow(&view);
        self.dispatch(Event::ViewChanged(view));
    }

    /// Checks that the newest view is of a cluster that this process can be in.
    ///
    /// # Errors
    /// An error if the cluster serves another file by now: ranges of one are not ranges of the other. Also if it has
    /// another key, unless it serves already: then the process that wrote the mark is the intruder.
    fn check_view(&self) -> Result<(), StageError> {
        let view = self.views.borrow();
        let model = view.model.as_ref().map(|model| &model.value);
        if let Some(model) = model.filter(|model| model.fingerprint != self.settings.fingerprint) {
            return Err(StageError::ModelChanged { found: model.name.clone() });
        }
        match mark_to_write(&self.settings.keyspace, &view, self.settings.key.as_ref()) {
            Err(mismatch @ (KeyMismatch::Other { .. } | KeyMismatch::Missing { .. })) if view.serving().is_err() => {
                Err(StageError::Key(mismatch))
            }
            _ => Ok(()),
        }
    }

    /// Feeds an event to the member and executes its orders, and does the same with events that those cause at once.
    fn dispatch(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for order in self.member.handle(event, Instant::now()) {
                self.perform(order, &mut events);
            }
        }
    }

    fn perform(&mut self, order: Order, events: &mut VecDeque<Event>) {
        match order {
            Order::Commit(purpose, txn) => self.commit(purpose, txn),
            Order::ReportLoad(txn) => self.report_load(txn),
            Order::Load { number, layers, room, budget_bytes } => {
                if !self.compute.load(number, layers, room, budget_bytes) {
                    warn!("the compute thread takes no orders");
                    events.push_back(Event::LoadRefused);
                }
            }
            Order::ReadAhead { number, ranges, bytes_max, claimed } => {
                self.compute.read_ahead(number, ranges, bytes_max, claimed);
            }
            Order::Unload => drop(self.compute.unload()),
            Order::Disconnect => self.downstream.reset(),
            Order::Compute(hop, activations) => match self.compute.step(hop, activations) {
                Ok(()) => self.watchdog.stepping(),
                Err(hop) => events.push_back(Event::Overloaded(hop)),
            },
            Order::Forward { endpoint, hop, activations } => {
                self.downstream.send(endpoint, Frame::Hop(hop), activations);
                events.extend(std::iter::from_fn(|| self.downstream.take_event()).map(Event::Downstream));
            }
            Order::Answer { gateway, endpoint, frame } => {
                self.gateways.send(gateway, endpoint, frame);
                let events_now = std::iter::from_fn(|| self.gateways.take_event(gateway));
                events.extend(events_now.map(|event| Event::Upstream(gateway, event)));
            }
            Order::Stop => self.stops = true,
        }
    }

    /// Writes the load in a task, one at a time: a store that does not answer must not gather them.
    fn report_load(&mut self, txn: Txn) {
        let store = self.store.clone();
        let write = async move {
            if let Err(error) = store.commit(txn).await {
                debug!(%error, "the load of this stage was not written");
            }
        };
        if let Some(earlier) = self.load_write.replace(tokio::spawn(write)) {
            earlier.abort();
        }
    }

    fn commit(&mut self, purpose: Purpose, txn: Txn) {
        let store = self.store.clone();
        self.write = Some(PendingWrite { purpose, task: tokio::spawn(async move { store.commit(txn).await }) });
    }
}

/// Waits for the outcome of the pending write, for ever if there is none.
async fn written(write: &mut Option<PendingWrite>) -> (Purpose, Result<Committed, StoreError>) {
    let Some(pending) = write else { return std::future::pending().await };
    let outcome = (&mut pending.task).await;
    let purpose = pending.purpose;
    *write = None;
    (purpose, outcome.unwrap_or(Ok(Committed::Refused)))
}
