//! The stage's loop under one lease.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schema::frame::{Frame, Hop, Refusal, Spent, Tokens};
use schema::record::{KvRoom, KvType, PinStatus, StageRecord};
use schema::{Generation, Keyspace, StageName};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::account::Account;
use super::compute::{Compute, Done, Loaded, Stepped};
use super::gateways::Gateways;
use super::held::{Held, Next, Phase};
use super::intake::{Intake, Verdict};
use super::{Ending, StageError, StageSettings};
use crate::decide::{Action, Calm, Waiting, alike, decide};
use crate::limits::{REPORT_EVERY, SETTLE, SPEED_MOVE_EVERY, STORE_RETRY};
use crate::link::{Inbound, LinkError, Message, activations_to_bytes};
use crate::membership::{claim, leave_claim, mark_claim, note, propose, register_stage, report_stage};
use crate::route::Route;
use crate::runner::{LoadError, Loader, Output};
use crate::store::{Committed, LeaseGrant, SharedStore, StoreError, Txn};
use crate::view::ClusterView;

/// A stage process and what it holds.
pub(super) struct Stage {
    store: SharedStore,
    settings: StageSettings,
    views: watch::Receiver<Arc<ClusterView>>,
    view: Arc<ClusterView>,
    inbound: Inbound,
    loader: Arc<dyn Loader>,
    compute: Compute,
    done: mpsc::Receiver<Done>,
    held: Option<Held>,
    intake: Intake,
    downstream: Route,
    gateways: Gateways,
    live: Live,
    decided: Option<Decided>,
    write: Option<PendingWrite>,
    pace: Pace,
    record: StageRecord,
    account: Account,
    /// When the account was settled last.
    settled: Instant,
    served: bool,
}

/// The set of live stages and the placement, and since when each is so.
struct Live {
    names: BTreeSet<StageName>,
    since: Instant,
    placed: Option<u64>,
    placed_since: Instant,
}

/// What was decided about the view at hand; deciding anew for every frame would cost more than the frame.
struct Decided {
    calm: Calm,
    action: Action,
}

/// What a store write was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Registration,
    Proposal,
    Note,
    Claim(Generation, u32),
    Mark,
    Leave,
    Report,
}

struct PendingWrite {
    purpose: Purpose,
    task: JoinHandle<Result<Committed, StoreError>>,
}

/// When to look at the plan again after a write: when the view shows the store at `revision`, but by `deadline` at last.
struct Pace {
    revision: u64,
    deadline: Instant,
}

/// Everything that can happen to a stage.
enum Event {
    LeaseLost,
    Computed(Option<Done>),
    Arrived(Result<Message, LinkError>),
    ViewChanged,
    Written(Purpose, Result<Committed, StoreError>),
    Tick,
    Stop,
}

// === impl Live ===

impl Live {
    fn new() -> Self {
        Self { names: BTreeSet::new(), since: Instant::now(), placed: None, placed_since: Instant::now() }
    }

    /// Takes note of what has changed.
    fn follow(&mut self, view: &ClusterView) {
        let names: BTreeSet<_> = view.stages.keys().cloned().collect();
        if names != self.names {
            (self.names, self.since) = (names, Instant::now());
        }
        let placed = view.placement.as_ref().map(|placement| placement.mod_revision);
        if placed != self.placed {
            (self.placed, self.placed_since) = (placed, Instant::now());
        }
    }

    fn calm(&self) -> Calm {
        match (self.since.elapsed() >= SETTLE, self.placed_since.elapsed() >= SPEED_MOVE_EVERY) {
            (false, _) => Calm::Restless,
            (true, false) => Calm::Settled,
            (true, true) => Calm::Standing,
        }
    }
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
        let record = StageRecord { endpoint: inbound.endpoint().to_owned(), ..loader.describe() };
        let view = views.borrow().clone();
        Ok(Self {
            downstream: Route::new(settings.key.clone()),
            gateways: Gateways::new(settings.key.clone()),
            store,
            settings,
            views,
            view,
            inbound,
            loader,
            compute,
            done,
            held: None,
            intake: Intake::default(),
            live: Live::new(),
            decided: None,
            write: None,
            pace: Pace { revision: 0, deadline: Instant::now() },
            record,
            account: Account::default(),
            settled: Instant::now(),
            served: false,
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

    /// The stage's record as it is now.
    pub(super) fn record(&self) -> StageRecord {
        self.record.clone()
    }

    /// Who has the stage's name in the store.
    pub(super) fn holder_of_name(&self) -> Option<String> {
        let view = self.views.borrow();
        let record = &view.stages.get(self.name())?.value;
        Some(format!("process {} on {}", record.pid, record.host))
    }

    /// Serves until the lease goes or `stop` resolves.
    pub(super) async fn serve<S>(&mut self, lease: LeaseGrant, stop: &mut Pin<&mut S>) -> Result<Ending, StageError>
    where
        S: Future<Output = ()>,
    {
        self.served = true;
        let mut tick = tokio::time::interval(SETTLE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.see();
        let ending = loop {
            self.follow_plan(&lease);
            match self.next(&lease, stop, &mut tick).await {
                Event::LeaseLost => break Ending::Evicted,
                Event::Computed(None) => return Err(StageError::ComputeEnded),
                Event::Computed(Some(Done::Loaded { generation, shard })) => self.loaded(generation, shard),
                Event::Computed(Some(Done::Stepped(stepped))) => self.forward(*stepped).await,
                Event::Computed(Some(Done::Probed { speed, weights_resident_bytes })) => {
                    // The next report takes both to the store.
                    self.record.speed = speed;
                    self.account.weights_resident_bytes = weights_resident_bytes;
                }
                Event::Arrived(Ok(message)) => self.arrived(message).await,
                Event::Arrived(Err(error)) if error.is_about_one_message() => self.refuse_frame(&error.to_string()),
                Event::Arrived(Err(error)) => return Err(error.into()),
                Event::ViewChanged => {
                    self.see();
                    self.check_model()?;
                }
                Event::Written(purpose, outcome) => self.written(purpose, outcome),
                Event::Tick => self.report(&lease),
                Event::Stop => break Ending::Stopped,
            }
        };
        self.drop_shard();
        self.write = None;
        lease.revoke().await;
        Ok(ending)
    }

    async fn next<S>(&mut self, lease: &LeaseGrant, stop: &mut Pin<&mut S>, tick: &mut tokio::time::Interval) -> Event
    where
        S: Future<Output = ()>,
    {
        tokio::select! {
            // Biased: a stage that lost its lease forwards nothing more, and what is computed leaves before more comes.
            biased;
            // While the store is away nobody can take the layers over, so serving goes on; generations fence, not clocks.
            () = lease.lost(), if self.view.reachable => Event::LeaseLost,
            () = stop => Event::Stop,
            done = self.done.recv() => Event::Computed(done),
            (purpose, outcome) = written(&mut self.write) => Event::Written(purpose, outcome),
            Ok(()) = self.views.changed() => Event::ViewChanged,
            message = self.inbound.receive() => Event::Arrived(message),
            _ = tick.tick() => Event::Tick,
        }
    }

    /// Takes the newest view in.
    fn see(&mut self) {
        let seen = self.views.borrow_and_update().clone();
        if !alike(&seen, &self.view) {
            self.decided = None;
        }
        for (stage, status) in &seen.pin_statuses {
            if self.view.pin_statuses.get(stage) != Some(status) {
                tell(stage, &status.value);
            }
        }
        self.view = seen;
        self.live.follow(&self.view);
        self.gateways.follow(&self.view);
    }

    /// A cluster that serves another file by now is none for this process: ranges of one are not ranges of the other.
    fn check_model(&self) -> Result<(), StageError> {
        let model = self.view.model.as_ref().map(|model| &model.value);
        match model.filter(|model| model.fingerprint != self.settings.fingerprint) {
            None => Ok(()),
            Some(model) => Err(StageError::ModelChanged { found: model.name.clone() }),
        }
    }

    /// Does what the plan wants next, unless a write is under way.
    fn follow_plan(&mut self, lease: &LeaseGrant) {
        let caught_up = self.view.revision >= self.pace.revision || Instant::now() >= self.pace.deadline;
        if self.write.is_some() || !self.view.reachable || !caught_up {
            return;
        }
        let placed = self.view.placement.as_ref().map(|placement| placement.value.generation());
        match self.decision(self.live.calm()) {
            Action::Propose { placement, replacing, notes } => {
                info!(generation = %placement.generation(), stages = placement.shards().len(), "proposing a placement");
                self.commit(Purpose::Proposal, propose(&self.settings.keyspace, &placement, replacing, &notes));
            }
            Action::Note(notes) => {
                self.tend_claim(placed, lease);
                if self.write.is_none() {
                    self.commit(Purpose::Note, note(&self.settings.keyspace, &notes));
                }
            }
            Action::Claim { generation, slot, shard } => {
                if !self.held.as_ref().is_some_and(|held| held.is(generation, slot) && held.shard == shard) {
                    let older = self.held.as_ref().map(|held| (held.generation, held.slot));
                    self.drop_shard();
                    let memory_bound_bytes = self.loader.memory_bound(shard.layers, self.kv_room());
                    self.held = Some(Held { generation, slot, shard, phase: Phase::Claiming, memory_bound_bytes });
                    self.claim(older, lease);
                } else {
                    self.claim(None, lease); // Somebody deleted the claim; what it stands for is still held.
                }
            }
            Action::Wait(Waiting::Registration) => {
                let txn = register_stage(&self.settings.keyspace, &self.settings.name, &self.record, lease.id());
                self.commit(Purpose::Registration, txn);
            }
            Action::Rest | Action::Wait(_) => self.tend_claim(placed, lease),
        }
    }

    fn decision(&mut self, calm: Calm) -> Action {
        if let Some(decided) = self.decided.as_ref().filter(|decided| decided.calm == calm) {
            return decided.action.clone();
        }
        let action = decide(&self.view, &self.settings.name, calm);
        self.decided = Some(Decided { calm, action: action.clone() });
        action
    }

    fn claim(&mut self, older: Option<(Generation, u32)>, lease: &LeaseGrant) {
        let (Some(held), Some(placement)) = (&self.held, &self.view.placement) else { return };
        let record = held.record(&self.settings.name, self.inbound.endpoint());
        let id = (held.generation, held.slot);
        let txn = claim(&self.settings.keyspace, id, &record, placement.mod_revision, older, lease.id());
        self.commit(Purpose::Claim(held.generation, held.slot), txn);
    }

    /// Keeps the claim in the store true to what is held, and lets go of what the placement gives to others.
    fn tend_claim(&mut self, placed: Option<Generation>, lease: &LeaseGrant) {
        let Some(held) = &self.held else { return };
        let id = (held.generation, held.slot);
        if placed.is_some_and(|placed| placed != held.generation) {
            info!(generation = %held.generation, layers = %held.shard.layers, "the placement moved on without this stage");
            self.drop_shard();
            self.commit(Purpose::Leave, leave_claim(&self.settings.keyspace, id));
            return;
        }
        let record = held.record(&self.settings.name, self.inbound.endpoint());
        let claim = self.view.claims.get(&id).map(|claim| &claim.value);
        if held.phase == Phase::Claiming && claim == Some(&record) {
            // The store applied the claim, but its answer was lost.
            return self.load(id.0, id.1);
        }
        if claim.is_some_and(|claim| *claim != record && claim.stage == self.settings.name) {
            self.commit(Purpose::Mark, mark_claim(&self.settings.keyspace, id, &record, lease.id()));
        }
    }

    fn commit(&mut self, purpose: Purpose, txn: Txn) {
        let store = self.store.clone();
        self.write = Some(PendingWrite { purpose, task: tokio::spawn(async move { store.commit(txn).await }) });
    }

    fn written(&mut self, purpose: Purpose, outcome: Result<Committed, StoreError>) {
        let revision = match &outcome {
            Ok(Committed::Applied { revision }) => revision.0,
            // Somebody was faster: what they wrote is on its way.
            Ok(Committed::Refused) => self.view.revision + 1,
            Err(_) => u64::MAX,
        };
        self.pace = Pace { revision, deadline: Instant::now() + STORE_RETRY };
        match (purpose, outcome) {
            (_, Err(error)) => {
                // Tried again at a later tick: level-triggered, nothing is remembered.
                debug!(?purpose, %error, "a store write failed");
            }
            (Purpose::Claim(generation, slot), Ok(Committed::Applied { .. })) => self.load(generation, slot),
            (Purpose::Claim(generation, slot), Ok(Committed::Refused)) => {
                info!(%generation, slot, "the claim was refused: the cluster has moved on");
                self.drop_shard();
            }
            (
                Purpose::Registration
                | Purpose::Proposal
                | Purpose::Note
                | Purpose::Mark
                | Purpose::Leave
                | Purpose::Report,
                Ok(_),
            ) => {}
        }
    }

    fn load(&mut self, generation: Generation, slot: u32) {
        let room = self.kv_room();
        let Some(held) = self.held.as_mut().filter(|held| held.is(generation, slot)) else { return };
        if held.phase != Phase::Claiming {
            return;
        }
        info!(%generation, slot, layers = %held.shard.layers, "claimed; loading");
        held.phase = Phase::Loading;
        let layers = held.shard.layers;
        if !self.compute.load(generation, layers, room, self.record.memory_budget_bytes) {
            warn!("the compute thread takes no orders");
            self.held = None;
        }
    }

    fn loaded(&mut self, generation: Generation, shard: Result<Loaded, LoadError>) {
        // Only what is waited for: a load that was ordered under a lost lease was followed by the order to unload.
        let waited_for = |held: &&mut Held| held.generation == generation && held.phase == Phase::Loading;
        let Some(held) = self.held.as_mut().filter(waited_for) else { return };
        let shard = shard.map_err(|error| error.to_string());
        match &shard {
            Ok(loaded) => {
                info!(%generation, layers = %held.shard.layers, weights_bytes = loaded.weights_bytes, "serving");
            }
            Err(reason) => warn!(%generation, layers = %held.shard.layers, reason, "cannot load"),
        }
        held.loaded(shard);
        self.intake.reset();
        self.downstream.reset();
    }

    fn drop_shard(&mut self) {
        if self.held.take().is_some() {
            self.compute.unload();
            self.intake.reset();
            self.downstream.reset();
        }
    }

    fn kv_room(&self) -> KvRoom {
        let nothing = KvRoom { tokens: 0, kv_type: KvType::F16 };
        self.view.model.as_ref().map_or(nothing, |model| model.value.kv_room())
    }

    async fn arrived(&mut self, message: Message) {
        let Frame::Hop(hop) = message.frame else {
            return self.refuse_frame("only hops come to a stage");
        };
        let Some(held) = self.held.as_ref().filter(|held| held.is_ready()) else {
            return self.refuse_frame("nothing is served here");
        };
        let model_hidden = self.view.model.as_ref().map_or(0, |model| model.value.hidden);
        let hidden = if held.slot == 0 { 0 } else { model_hidden };
        match self.intake.judge(&hop, held.generation, held.slot, hidden) {
            Verdict::Drop(reason) => self.refuse_frame(reason),
            Verdict::Refuse(reason) => self.answer_refusal(&hop, reason, true).await,
            Verdict::Take => {
                if hop.step.0 == 0 {
                    self.downstream.reset(); // A new epoch: nothing of the old one may arrive after it.
                }
                let refusal = Refusal {
                    generation: hop.generation,
                    epoch: hop.epoch,
                    step: hop.step,
                    slot: hop.slot,
                    reason: "the queue of the compute thread is full".to_owned(),
                    passing: true,
                };
                let gateway = hop.gateway;
                if !self.compute.step(hop, message.activations) {
                    self.gateways.answer(&self.view, gateway, &Frame::Refusal(refusal)).await;
                }
            }
        }
    }

    fn refuse_frame(&mut self, reason: &str) {
        self.record.load.frames_refused += 1;
        debug!(reason, "a frame was refused");
    }

    /// Tells the gateway that a micro-batch is not computed; `passing` when it is not for the work's own sake.
    async fn answer_refusal(&mut self, hop: &Hop, reason: String, passing: bool) {
        warn!(step = %hop.step, epoch = %hop.epoch, reason, "refusing a micro-batch");
        self.record.load.frames_refused += 1;
        let Hop { generation, epoch, step, slot, gateway, .. } = *hop;
        let refusal = Frame::Refusal(Refusal { generation, epoch, step, slot, reason, passing });
        self.gateways.answer(&self.view, gateway, &refusal).await;
    }

    /// Sends what was computed on its way.
    async fn forward(&mut self, stepped: Stepped) {
        let Stepped { mut hop, output, compute, queue, weights_resident_bytes } = stepped;
        self.account.computed(hop.rows, queue, compute);
        self.account.weights_resident_bytes = weights_resident_bytes.unwrap_or(self.account.weights_resident_bytes);
        let Some(held) = self.held.as_ref().filter(|held| held.generation == hop.generation) else { return };
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        hop.spent.push(Spent { slot: hop.slot, rows: hop.rows, compute_us: micros(compute), queue_us: micros(queue) });
        match (output, held.next(&self.view)) {
            (Err(error), _) => self.answer_refusal(&hop, error.to_string(), false).await,
            (Ok(Output::Tokens(chosen)), Next::Gateway) => {
                let Hop { generation, epoch, step, spent, gateway, .. } = hop;
                let tokens = Frame::Tokens(Tokens { generation, epoch, step, chosen, spent });
                let computed = Instant::now();
                self.gateways.answer(&self.view, gateway, &tokens).await;
                self.account.sent(0, computed.elapsed());
            }
            (Ok(Output::Activations(rows)), Next::Stage { slot, endpoint }) => {
                hop.slot = slot;
                hop.hidden = self.view.model.as_ref().map_or(0, |model| model.value.hidden);
                hop.slices.iter_mut().for_each(|slice| slice.tokens = Vec::new());
                let activations: Bytes = activations_to_bytes(&rows);
                let (bytes, computed) = (activations.len(), Instant::now());
                if let Err(error) = self.downstream.send(&endpoint, &Frame::Hop(hop), activations).await {
                    warn!(%error, "cannot reach the next stage");
                }
                self.account.sent(bytes, computed.elapsed());
            }
            (Ok(_), next) => {
                let reason = format!("no way on from here: {next:?}");
                self.answer_refusal(&hop, reason, true).await;
            }
        }
    }

    /// Says in the store, now and then, what was done and used.
    fn report(&mut self, lease: &LeaseGrant) {
        let elapsed = self.settled.elapsed();
        if elapsed < REPORT_EVERY || self.write.is_some() || !self.view.reachable {
            return;
        }
        self.settled = Instant::now();
        self.record.load.memory = self.loader.memory();
        self.account.settle(elapsed, &mut self.record.load);
        let unchanged = self.view.stages.get(&self.settings.name).is_some_and(|stage| stage.value == self.record);
        if !unchanged {
            let txn = report_stage(&self.settings.keyspace, &self.settings.name, &self.record, lease.id());
            self.commit(Purpose::Report, txn);
        }
    }
}

/// Says what became of a pin.
fn tell(stage: &StageName, status: &PinStatus) {
    match &status.reason {
        None => info!(%stage, "the stage's pin is honoured"),
        Some(reason) => warn!(%stage, reason, "the stage's pin cannot be honoured: it changes nothing"),
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
