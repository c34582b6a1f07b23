//! The stage's loop under one lease: what happens goes to the `Member`, what it orders is carried out here.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schema::frame::Frame;
use schema::record::StageRecord;
use schema::{Keyspace, StageName};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::compute::{Compute, Done};
use super::gateways::Gateways;
use super::member::{Member, Order, Purpose, Unsent};
use super::memory_sampler::MemorySampler;
use super::watchdog::Watchdog;
use super::{Ending, StageError, StageSettings};
use crate::limits::{DRAIN_MAX, SETTLE_LEFT, STORE_LOOK_MAX};
use crate::link::{Inbound, LinkError, Message, Unreachable};
use crate::membership::{KeyMismatch, mark_to_write, read_view};
use crate::route::Route;
use crate::runner::Loader;
use crate::store::{Committed, LeaseGrant, LeaseId, SharedStore, StoreError, Txn};
use crate::view::ClusterView;

/// A stage process: its part in the cluster, and all that it takes to play it.
pub(super) struct Stage {
    store: SharedStore,
    settings: StageSettings,
    views: watch::Receiver<Arc<ClusterView>>,
    inbound: Inbound,
    loader: Arc<dyn Loader>,
    compute: Compute,
    done: mpsc::Receiver<Done>,
    watchdog: Watchdog,
    memory_sampler: MemorySampler,
    member: Member,
    downstream: Route,
    gateways: Gateways,
    write: Option<PendingWrite>,
    served: bool,
    /// When it stops at last, if it has been told to.
    drained_by: Option<Instant>,
}

struct PendingWrite {
    purpose: Purpose,
    task: JoinHandle<Result<Committed, StoreError>>,
}

/// Everything that can happen to a stage.
enum Event {
    LeaseLost,
    Drain,
    Computed(Option<Done>),
    Arrived(Result<Message, LinkError>),
    /// The connection to the next stage, at this endpoint, has ended.
    LinkEnded(String),
    /// The connection to this gateway has ended.
    GatewayLinkEnded(u32),
    ViewChanged,
    Written(Purpose, Result<Committed, StoreError>),
    Tick,
    Stop,
}

// === impl Stage ===

impl Stage {
    pub(super) fn new(
        store: SharedStore,
        settings: StageSettings,
        views: watch::Receiver<Arc<ClusterView>>,
        inbound: Inbound,
        loader: Arc<dyn Loader>,
    ) -> Result<Self, StageError> {
        let (compute, done) = Compute::start(loader.clone()).map_err(StageError::Thread)?;
        let memory_sampler = MemorySampler::start(loader.clone()).map_err(StageError::Thread)?;
        let record = StageRecord { endpoint: inbound.endpoint().to_owned(), ..loader.describe() };
        let view = views.borrow().clone();
        let member = Member::new(
            settings.keyspace.clone(),
            (settings.name.clone(), settings.key.clone()),
            record,
            view,
            Instant::now(),
        );
        Ok(Self {
            downstream: Route::new(settings.key.clone()),
            gateways: Gateways::new(settings.key.clone()),
            store,
            settings,
            views,
            inbound,
            loader,
            compute,
            done,
            watchdog: Watchdog::new(Instant::now()),
            memory_sampler,
            member,
            write: None,
            served: false,
            drained_by: None,
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

    /// Whether it has been told to stop.
    pub(super) fn is_draining(&self) -> bool {
        self.drained_by.is_some()
    }

    /// The write by which it joins under `lease`.
    pub(super) fn registration(&mut self, lease: LeaseId) -> Txn {
        self.see();
        self.member.registration(lease)
    }

    /// Who has the stage's name in the store.
    pub(super) fn holder_of_name(&self) -> Option<String> {
        let view = self.views.borrow();
        let record = &view.stages.get(self.name())?.value;
        Some(format!("process {} on {}", record.pid, record.host))
    }

    /// Serves until the lease goes or `stop` resolves; after `drain` until others have taken over.
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
        self.see();
        let ending = loop {
            let loader = &self.loader;
            let memory_bound = |layers, room| loader.memory_bound(layers, room);
            let orders = self.member.follow_plan(lease.id(), &memory_bound, Instant::now());
            self.carry_out(orders).await;
            if self.has_drained() {
                break Ok(Ending::Stopped);
            }
            let orders = match self.next(&lease, drain, stop, &mut tick).await {
                Event::LeaseLost => break Ok(self.ending_of_lease().await),
                Event::Stop => break Ok(Ending::Stopped),
                Event::Drain => {
                    info!("told to stop: handing over what is held");
                    self.drained_by = Some(Instant::now() + DRAIN_MAX);
                    self.member.drain();
                    Vec::new()
                }
                Event::Computed(None) => break Err(StageError::ComputeEnded),
                Event::Computed(Some(Done::Loaded { number, shard })) => self.member.loaded(number, shard),
                Event::Computed(Some(Done::ReadAhead { number })) => {
                    self.member.has_read(number);
                    Vec::new()
                }
                Event::Computed(Some(Done::Stepped(stepped))) => {
                    self.watchdog.stepped((stepped.hop.rows > 0).then_some(stepped.compute));
                    self.member.stepped(*stepped)
                }
                Event::Computed(Some(Done::Probed { speed })) => {
                    self.member.probed(speed);
                    Vec::new()
                }
                Event::Arrived(Ok(message)) => self.member.arrived(message),
                Event::Arrived(Err(error)) if error.is_about_one_message() => {
                    self.member.drop_frame(&error.to_string())
                }
                Event::Arrived(Err(error)) => break Err(error.into()),
                Event::LinkEnded(endpoint) => {
                    let answer = self.downstream.knock(&endpoint).await;
                    match answer.as_ref().err().and_then(|error| Unreachable::by(&endpoint, error)) {
                        Some(found) => {
                            self.member.found_deserted(found);
                            Vec::new()
                        }
                        None => self.member.link_broke(),
                    }
                }
                Event::GatewayLinkEnded(gateway) => self.member.gateway_link_broke(gateway).into_iter().collect(),
                Event::ViewChanged => {
                    self.see();
                    if let Err(error) = self.check_model().and_then(|()| self.check_key()) {
                        break Err(error);
                    }
                    Vec::new()
                }
                // A write shows it before the next renewal does.
                Event::Written(_, Err(StoreError::LeaseGone { .. })) => break Ok(self.ending_of_lease().await),
                Event::Written(purpose, outcome) => self.member.written(purpose, outcome, Instant::now()),
                Event::Tick => {
                    if let Some(for_so_long) = self.watchdog.hangs(Instant::now()) {
                        break Err(StageError::ComputeHangs(for_so_long));
                    }
                    self.member.report(lease.id(), self.memory_sampler.memory(), Instant::now()).into_iter().collect()
                }
            };
            self.carry_out(orders).await;
        };
        self.write = None;
        if matches!(ending, Ok(Ending::Forgotten)) {
            self.member.rejoin();
            return ending;
        }
        let orders = self.member.leave();
        self.carry_out(orders).await;
        // Whatever the reason: who is gone is not to be waited for.
        lease.revoke().await;
        ending
    }

    /// Asks the store why the lease is gone: it was ended, or went with the store's data.
    async fn ending_of_lease(&self) -> Ending {
        let (store, secret) = (&self.store, self.settings.key.as_ref());
        let raw = tokio::time::timeout(STORE_LOOK_MAX, read_view(store, &self.settings.keyspace, secret)).await;
        match raw {
            Ok(Ok(raw)) if self.member.outlives(&raw) => Ending::Forgotten,
            _ => Ending::Evicted,
        }
    }

    /// Whether it has been told to stop, and may.
    fn has_drained(&mut self) -> bool {
        let now = Instant::now();
        self.drained_by.is_some_and(|deadline| now >= deadline || self.member.is_free(now))
    }

    async fn next<D, S>(
        &mut self,
        lease: &LeaseGrant,
        drain: &mut Pin<&mut D>,
        stop: &mut Pin<&mut S>,
        tick: &mut tokio::time::Interval,
    ) -> Event
    where
        D: Future<Output = ()>,
        S: Future<Output = ()>,
    {
        tokio::select! {
            // Biased: a stage that lost its lease forwards nothing more, and what is computed leaves before more comes.
            biased;
            // By the store's word, not by a clock: while the store is away serving goes on, and generations fence.
            () = lease.lost() => Event::LeaseLost,
            () = stop => Event::Stop,
            () = drain, if self.drained_by.is_none() => Event::Drain,
            done = self.done.recv() => Event::Computed(done),
            (purpose, outcome) = written(&mut self.write) => Event::Written(purpose, outcome),
            Ok(()) = self.views.changed() => Event::ViewChanged,
            message = self.inbound.receive() => Event::Arrived(message),
            endpoint = self.downstream.ended() => Event::LinkEnded(endpoint),
            gateway = self.gateways.ended() => Event::GatewayLinkEnded(gateway),
            _ = tick.tick() => Event::Tick,
        }
    }

    /// Takes the newest view in.
    fn see(&mut self) {
        let view = self.views.borrow_and_update().clone();
        self.gateways.follow(&view);
        self.member.see(view, Instant::now());
    }

    /// A cluster that serves another file by now is none for this process: ranges of one are not ranges of the other.
    fn check_model(&self) -> Result<(), StageError> {
        let model = self.member.view().model.as_ref().map(|model| &model.value);
        match model.filter(|model| model.fingerprint != self.settings.fingerprint) {
            None => Ok(()),
            Some(model) => Err(StageError::ModelChanged { found: model.name.clone() }),
        }
    }

    /// A cluster with another key is none for this process, unless it serves already: then the mark is the intruder.
    fn check_key(&self) -> Result<(), StageError> {
        let view = self.member.view();
        match mark_to_write(&self.settings.keyspace, view, self.settings.key.as_ref()) {
            Err(mismatch @ (KeyMismatch::Other { .. } | KeyMismatch::Missing { .. })) if view.serving().is_err() => {
                Err(StageError::Key(mismatch))
            }
            _ => Ok(()),
        }
    }

    async fn carry_out(&mut self, orders: Vec<Order>) {
        for order in orders {
            self.perform(order).await;
        }
    }

    async fn perform(&mut self, order: Order) {
        match order {
            Order::Commit(purpose, txn) => self.commit(purpose, txn),
            Order::Load { number, layers, room, budget_bytes } => {
                if !self.compute.load(number, layers, room, budget_bytes) {
                    warn!("the compute thread takes no orders");
                    self.member.not_loading();
                }
            }
            Order::ReadAhead { number, ranges, bytes_max } => self.compute.read_ahead(number, ranges, bytes_max),
            Order::Unload => drop(self.compute.unload()),
            Order::Disconnect => self.downstream.reset(),
            Order::Compute(hop, activations) => match self.compute.step(hop, activations) {
                Ok(()) => self.watchdog.stepping(),
                Err(hop) => {
                    if let Order::Answer { gateway, frame } = Member::overloaded(&hop) {
                        self.answer(gateway, &frame).await;
                    }
                }
            },
            Order::Answer { gateway, frame } => self.answer(gateway, &frame).await,
            Order::Forward { endpoint, hop, activations } => {
                let (bytes, computed) = (activations.len(), Instant::now());
                let unsent = Unsent::of(&hop);
                match self.downstream.send(&endpoint, &Frame::Hop(hop), activations).await {
                    Ok(()) => {
                        self.member.reached_next();
                        self.member.linked(self.downstream.round_trip());
                    }
                    Err(error) => {
                        let cause = error.in_words();
                        warn!(endpoint, cause, "cannot reach the next stage");
                        let answer = self.member.unreachable(&unsent, &endpoint, &cause);
                        if let Some(found) = Unreachable::by(&endpoint, &error) {
                            self.member.found_deserted(found);
                        }
                        if let Order::Answer { gateway, frame } = answer {
                            self.answer(gateway, &frame).await;
                        }
                    }
                }
                self.member.sent(bytes, computed.elapsed());
            }
        }
    }

    async fn answer(&mut self, gateway: u32, frame: &Frame) {
        let computed = Instant::now();
        let unreachable = self.gateways.answer(self.member.view(), gateway, frame).await;
        self.member.answered(gateway, unreachable, Instant::now());
        if matches!(frame, Frame::Tokens(_)) {
            self.member.linked(self.gateways.round_trip(gateway));
            self.member.sent(0, computed.elapsed());
        }
    }

    fn commit(&mut self, purpose: Purpose, txn: Txn) {
        let store = self.store.clone();
        self.write = Some(PendingWrite { purpose, task: tokio::spawn(async move { store.commit(txn).await }) });
    }
}

/// The outcome of the write under way; never, if there is none.
async fn written(write: &mut Option<PendingWrite>) -> (Purpose, Result<Committed, StoreError>) {
    let Some(pending) = write else { return std::future::pending().await };
    let outcome = (&mut pending.task).await;
    let purpose = pending.purpose;
    *write = None;
    (purpose, outcome.unwrap_or(Ok(Committed::Refused)))
}
