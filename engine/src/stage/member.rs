//! A stage as a member of its cluster: what it holds, what it writes to the store next, and what becomes of a frame.
//! Pure: no socket, no store, no clock and no arithmetic. It answers each thing that happens with orders for those who
//! have them (`serve`), to be carried out in their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schema::frame::{Chosen, Frame, Hop, Refusal, Spent, Tokens};
use schema::record::{EvictionRecord, KvRoom, KvType, MemoryUse, PinStatus, Speeds, StageRecord};
use schema::{Epoch, Generation, Key, Keyspace, LayerRange, StageName, Step};
use tracing::{debug, info, warn};

use super::compute::{Loaded, Stepped};
use super::frame_gate::{FrameGate, Verdict};
use super::held::{Held, Next, Phase};
use super::stability::StabilityTracker;
use super::usage::StageUsage;
use crate::decide::{Action, Stability, Waiting, alike, decide};
use crate::limits::{REPORT_EVERY, STORE_RETRY, UNHEARD_MAX};
use crate::link::{Absence, ClusterKey, Message, Unreachable, activations_to_bytes};
use crate::membership::{
    Evictions, Quarantine, claim, evict, leave_claims, mark_claim, mark_to_write, note, propose, put_back,
    register_stage, report_stage, sign_stage,
};
use crate::planner::{Proposal, standby_ranges};
use crate::runner::{LoadError, Output};
use crate::share::Pool;
use crate::store::{Committed, LeaseId, StoreError, Txn};
use crate::view::ClusterView;

/// Stale claims given up in one write: a stage has one or two; the next write takes what is left.
const CLAIMS_LEFT_MAX: usize = 64;

/// The most memory a shard with room for keys and values can take, in bytes; a loader knows.
pub(crate) type MemoryBound<'a> = &'a dyn Fn(LayerRange, KvRoom) -> u64;

/// What a member wants done.
#[derive(Debug)]
pub(crate) enum Order {
    /// Write this to the store, beside all else. There is never a second one before the first is [`Member::written`].
    Commit(Purpose, Txn),
    /// Load a shard in place of the one that is there; `number` comes back with it.
    Load { number: u64, layers: LayerRange, room: KvRoom, budget_bytes: u64 },
    /// Read the weights of these layers into memory, at most so many bytes, beside all else; `number` comes back with it.
    /// What was ordered before is of no interest any more.
    ReadAhead { number: u64, ranges: Vec<LayerRange>, bytes_max: u64 },
    /// Let go of the shard.
    Unload,
    /// Close the way to the next stage: what it still holds is of the past.
    Disconnect,
    /// Compute a micro-batch; see [`Member::overloaded`].
    Compute(Hop, Bytes),
    /// Send a micro-batch on to the next stage.
    Forward { endpoint: String, hop: Hop, activations: Bytes },
    /// Answer a gateway.
    Answer { gateway: u32, frame: Frame },
}

/// What a store write was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Registration,
    Proposal,
    Note,
    Claim(Generation, u32),
    Mark,
    Leave,
    Eviction,
    Report,
    Leaving,
    /// Something that the store has lost is written again.
    Heal,
}

/// What was decided about the view at hand; deciding anew for every frame would cost more than the frame.
struct Decided {
    stability: Stability,
    action: Action,
}

/// What a stage without layers reads into memory.
struct Standby {
    ranges: Vec<LayerRange>,
    since: (Instant, Instant),
}

/// When to look at the plan again after a write: when the view shows the store at `revision`, but by `deadline` at last.
struct Pace {
    revision: u64,
    deadline: Instant,
}

/// Which micro-batch, and for which stage.
#[derive(Clone, Copy)]
struct Passed {
    generation: Generation,
    epoch: Epoch,
    step: Step,
    slot: u32,
}

/// A micro-batch that could not be sent on, and whose it was.
#[derive(Clone, Copy)]
pub(crate) struct Unsent {
    gateway: u32,
    passed: Passed,
}

/// A stage's part in its cluster.
pub(crate) struct Member {
    keyspace: Keyspace,
    name: StageName,
    secret: Option<ClusterKey>,
    record: StageRecord,
    view: Arc<ClusterView>,
    held: Option<Held>,
    /// What it is to hold next, while an older generation still serves.
    coming: Option<Held>,
    /// Orders to load and to read ahead so far.
    orders: u64,
    /// What it has been ordered to read ahead without a claim, and since when the cluster is as it was then.
    standby: Option<Standby>,
    frame_gate: FrameGate,
    stability: StabilityTracker,
    decided: Option<Decided>,
    /// The reason for waiting that was logged last.
    waiting: Option<Waiting>,
    /// Whether a write is under way.
    writing: bool,
    pace: Pace,
    /// A stage to which frames cannot be brought though the store still names it.
    deserted: Option<Unreachable>,
    evictions: Evictions,
    quarantine: Quarantine,
    /// Gateways of which nothing is heard though the store knows them, and since when.
    unheard: BTreeMap<u32, Instant>,
    /// The newest micro-batch of each gateway that has left this stage.
    passed_on: BTreeMap<u32, Passed>,
    usage: StageUsage,
    /// When the usage was settled last.
    settled: Instant,
}

// === impl Member ===

impl Member {
    /// A stage that holds nothing yet; `record` says where it takes frames, and `secret` is the cluster key.
    pub(crate) fn new(
        keyspace: Keyspace,
        (name, secret): (StageName, Option<ClusterKey>),
        record: StageRecord,
        view: Arc<ClusterView>,
        now: Instant,
    ) -> Self {
        Self {
            keyspace,
            name,
            secret,
            record,
            view,
            held: None,
            coming: None,
            orders: 0,
            standby: None,
            frame_gate: FrameGate::default(),
            stability: StabilityTracker::new(now),
            decided: None,
            waiting: None,
            writing: false,
            pace: Pace { revision: 0, deadline: now },
            deserted: None,
            evictions: Evictions::default(),
            quarantine: Quarantine::default(),
            unheard: BTreeMap::new(),
            passed_on: BTreeMap::new(),
            usage: StageUsage::default(),
            settled: now,
        }
    }

    /// The write by which the stage joins under `lease`: from now on its record says so, and proves it.
    pub(crate) fn registration(&mut self, lease: LeaseId) -> Txn {
        let key = Key::Stage(self.name.clone());
        sign_stage(&mut self.record, self.secret.as_ref(), (&self.keyspace, &key), lease);
        register_stage(&self.keyspace, &self.name, &self.record, self.view.spoilt(&key), lease)
    }

    /// The stage's record as it is now.
    #[cfg(test)]
    pub(crate) fn record(&self) -> &StageRecord {
        &self.record
    }

    pub(crate) fn view(&self) -> &ClusterView {
        &self.view
    }

    /// What it holds, if it holds something.
    #[cfg(test)]
    pub(crate) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Takes the newest view in.
    pub(crate) fn see(&mut self, view: Arc<ClusterView>, now: Instant) {
        if !alike(&view, &self.view) {
            self.decided = None;
        }
        for (stage, status) in &view.pin_statuses {
            if self.view.pin_statuses.get(stage) != Some(status) {
                tell(stage, &status.value);
            }
        }
        let known = self.view.evictions.get(&self.name).map(|known| known.mod_revision);
        if let Some(eviction) = view.evictions.get(&self.name).filter(|new| Some(new.mod_revision) != known) {
            let EvictionRecord { by, endpoint, cause } = &eviction.value;
            warn!(by, endpoint, cause, "this stage was evicted: leaving the work to the others for a while");
            self.quarantine.evicted(now);
        }
        self.passed_on.retain(|gateway, _| view.gateways.contains_key(gateway));
        let lease = |view: &ClusterView, slot: &u32| view.gateways.get(slot).map(|known| known.value.lease.clone());
        self.unheard.retain(|slot, _| lease(&view, slot).is_some_and(|now| lease(&self.view, slot) == Some(now)));
        self.view = view;
        self.stability.follow(&self.view, now);
    }

    /// Whether this stage, which was struck off, leaves the work to the others for a while: if they can do without it.
    pub(crate) fn is_quarantined(&self, now: Instant) -> bool {
        let is_gone = !self.view.stages.contains_key(&self.name);
        let others_suffice = |model| is_gone && Proposal::new(&self.view, model, false).shards.is_ok();
        self.quarantine.left(now).is_some()
            && self.view.model.as_ref().is_some_and(|model| others_suffice(&model.value))
    }

    /// Does what the plan wants next, unless a write is under way.
    pub(crate) fn follow_plan(&mut self, lease: LeaseId, memory_bound: MemoryBound<'_>, now: Instant) -> Vec<Order> {
        let caught_up = self.view.revision >= self.pace.revision || now >= self.pace.deadline;
        if self.writing || !self.view.reachable || !caught_up {
            return Vec::new();
        }
        if let Ok(Some(txn)) = mark_to_write(&self.keyspace, &self.view, self.secret.as_ref()) {
            return vec![self.commit(Purpose::Heal, txn)];
        }
        if !self.view.recalled.is_empty() {
            // What is decided waits until the store shows again what it is decided on.
            return self.heal(lease).into_iter().collect();
        }
        let deserted = self.deserted.take();
        let by = format!("stage {}", self.name);
        if let Some(found) = deserted
            && let Some(txn) = self.evictions.evict(&self.keyspace, &self.view, &found, (by, lease), now)
        {
            info!(endpoint = found.endpoint, cause = found.cause, "the next stage cannot be reached: evicting it");
            return vec![self.commit(Purpose::Eviction, txn)];
        }
        if let Some(txn) = self.evictions.forget(&self.keyspace, &self.view, now) {
            return vec![self.commit(Purpose::Note, txn)];
        }
        if let Some(txn) = self.evict_itself(lease, now) {
            return vec![self.commit(Purpose::Eviction, txn)];
        }
        if self.record.leaving && !self.leaves_visibly() || self.has_new_trouble() {
            let txn = report_stage(&self.keyspace, &self.name, &self.record, lease);
            return vec![self.commit(Purpose::Leaving, txn)];
        }
        match self.decision(self.stability.stability(now)) {
            Action::Propose { placement, replacing, notes } => {
                info!(generation = %placement.generation(), stages = placement.shards().len(), "proposing a placement");
                vec![self.commit(Purpose::Proposal, propose(&self.keyspace, &placement, replacing, &notes))]
            }
            Action::Note(notes) => {
                let mut orders = self.tend_claim(lease);
                if !self.writing {
                    orders.push(self.commit(Purpose::Note, note(&self.keyspace, &notes)));
                }
                orders
            }
            Action::Claim { generation, slot, shard } => {
                let mut orders = Vec::new();
                // Where somebody deleted the claim, what it stands for is still held.
                if !self.newest().is_some_and(|held| held.is(generation, slot) && held.shard == shard) {
                    self.record.standby = Vec::new();
                    self.standby = None;
                    let memory_bound_bytes = memory_bound(shard.layers, self.kv_room());
                    let claimed =
                        Held { generation, slot, shard, phase: Phase::Claiming, memory_bound_bytes, loads: 0 };
                    if self.serves_on() {
                        self.coming = Some(claimed);
                    } else {
                        self.coming = None;
                        orders.extend(self.drop_shard());
                        self.held = Some(claimed);
                    }
                }
                orders.extend(self.claim(lease));
                orders
            }
            Action::Wait(Waiting::Registration) if self.is_quarantined(now) => self.tend_claim(lease),
            Action::Wait(Waiting::Registration) => {
                let txn = self.registration(lease);
                vec![self.commit(Purpose::Registration, txn)]
            }
            Action::Rest | Action::Wait(_) => {
                let mut orders = self.tend_claim(lease);
                orders.extend(self.stand_by());
                orders
            }
        }
    }

    /// Writes again what the store has lost of what this stage knows: the model, the placement, and what is its own.
    fn heal(&mut self, lease: LeaseId) -> Option<Order> {
        let own_claim = self.held.as_ref().map(|held| Key::Claim(held.generation, held.slot));
        let own = [Key::Model, Key::Placement, Key::Stage(self.name.clone())].into_iter().chain(own_claim);
        let (key, instead) = own.filter_map(|key| self.view.recalled.get(&key).map(|at| (key, *at))).next()?;
        let txn = match &key {
            Key::Model => put_back(&self.keyspace, &key, &self.view.model.as_ref()?.value, instead, None),
            Key::Placement => put_back(&self.keyspace, &key, &self.view.placement.as_ref()?.value, instead, None),
            Key::Stage(_) => put_back(&self.keyspace, &key, &self.record, instead, Some(lease)),
            _ => {
                let record = self.held.as_ref()?.record(&self.name, &self.record.endpoint);
                put_back(&self.keyspace, &key, &record, instead, Some(lease))
            }
        };
        info!(%key, "the store has lost this: writing it again");
        Some(self.commit(Purpose::Heal, txn))
    }

    /// A last stage whose answers do not reach a gateway makes room for another one, if the others can do without it.
    fn evict_itself(&mut self, lease: LeaseId, now: Instant) -> Option<Txn> {
        let is_late = |since: &Instant| now.saturating_duration_since(*since) >= UNHEARD_MAX;
        let gateway = *self.unheard.iter().find(|(_, since)| is_late(since))?.0;
        self.unheard.clear();
        let held = self.held.as_ref().map(|held| (held.generation, held.slot))?;
        let claim = self.view.claims.get(&held).filter(|claim| claim.value.stage == self.name)?;
        let mut others = (*self.view).clone();
        others.stages.remove(&self.name);
        if Proposal::new(&others, &self.view.model.as_ref()?.value, false).shards.is_err() {
            warn!(gateway, "nothing is heard of the gateway, and the other stages do not suffice: going on");
            return None;
        }
        warn!(gateway, "nothing is heard of the gateway: making room for another last stage");
        let why = EvictionRecord {
            by: format!("stage {}", self.name),
            endpoint: self.record.endpoint.clone(),
            cause: format!("gateway {gateway} takes no answers of it, and the other stages can do without it"),
        };
        Some(evict(&self.keyspace, &self.name, (held, claim.mod_revision), &why, lease))
    }

    fn decision(&mut self, stability: Stability) -> Action {
        if let Some(decided) = self.decided.as_ref().filter(|decided| decided.stability == stability) {
            return decided.action.clone();
        }
        let action = decide(&self.view, &self.name, stability);
        self.log_waiting(&action);
        self.decided = Some(Decided { stability, action: action.clone() });
        action
    }

    /// Logs why there is nothing to do yet, once for each reason.
    fn log_waiting(&mut self, action: &Action) {
        let waiting = if let Action::Wait(waiting) = action { Some(waiting) } else { None };
        if waiting != self.waiting.as_ref() {
            self.waiting = waiting.cloned();
            if let Some(reason) = waiting.and_then(|waiting| waiting.reason(&self.view)) {
                info!(reason, "waiting: no placement can be made");
            }
        }
    }

    fn claim(&mut self, lease: LeaseId) -> Option<Order> {
        let (held, placement) = (self.newest()?, self.view.placement.as_ref()?);
        let record = held.record(&self.name, &self.record.endpoint);
        let id = (held.generation, held.slot);
        let spoilt = self.view.spoilt(&Key::Claim(id.0, id.1));
        let seen = (placement.mod_revision, spoilt);
        let txn = claim(&self.keyspace, id, &record, seen, &self.stale_claims(), lease);
        Some(self.commit(Purpose::Claim(id.0, id.1), txn))
    }

    /// What the newest claim is for.
    fn newest(&self) -> Option<&Held> {
        self.coming.as_ref().or(self.held.as_ref())
    }

    /// Whether what is held is still of use, though the newest placement is another: as long as that generation is whole and
    /// the newer one is not ready, requests go on by it.
    fn serves_on(&self) -> bool {
        let is_older = |held: &&Held| self.view.placed().is_some_and(|placed| placed > held.generation);
        let older = self.held.as_ref().filter(|held| held.is_ready()).filter(is_older);
        older.is_some_and(|held| self.view.cover(held.generation).is_some()) && !self.view.is_ready()
    }

    /// Without a part in a cluster that is whole: reads what it would be given if somebody were lost, once for each state of
    /// the cluster.
    fn stand_by(&mut self) -> Option<Order> {
        let since = self.stability.since();
        let known = self.standby.as_ref().is_some_and(|standby| standby.since == since);
        if known || self.newest().is_some() || self.record.leaving || !self.view.is_ready() {
            return None;
        }
        let ranges = standby_ranges(&self.view, &self.view.model.as_ref()?.value, &self.name);
        let read = self.standby.replace(Standby { ranges: ranges.clone(), since });
        if ranges.is_empty() || read.is_some_and(|read| read.ranges == ranges) {
            return None;
        }
        self.orders += 1;
        Some(Order::ReadAhead { number: self.orders, ranges, bytes_max: self.record.memory_budget_bytes })
    }

    /// Keeps the claims in the store true to what is held, and lets go of what the placement gives to others.
    fn tend_claim(&mut self, lease: LeaseId) -> Vec<Order> {
        let placed = self.view.placed();
        self.coming.take_if(|coming| placed.is_some_and(|placed| placed != coming.generation));
        let mut orders = Vec::new();
        let outdated = self.held.as_ref().is_some_and(|held| placed.is_some_and(|placed| placed != held.generation));
        if outdated && !self.serves_on() {
            orders.extend(self.move_on());
        }
        let Some(held) = self.newest() else {
            orders.extend(self.leave_stale_claims());
            return orders;
        };
        let id = (held.generation, held.slot);
        let record = held.record(&self.name, &self.record.endpoint);
        let claim = self.view.claims.get(&id).map(|claim| &claim.value);
        if held.phase == Phase::Claiming && claim == Some(&record) {
            // The store applied the claim, but its answer was lost.
            orders.extend(self.claimed(id.0, id.1));
        } else if claim.is_some_and(|claim| *claim != record && claim.stage == self.name) {
            let txn = mark_claim(&self.keyspace, id, &record, &self.stale_claims(), lease);
            orders.push(self.commit(Purpose::Mark, txn));
        } else {
            orders.extend(self.leave_stale_claims());
        }
        orders
    }

    /// Lets go of what is held, in favour of what comes next, if anything does.
    fn move_on(&mut self) -> Vec<Order> {
        let coming = self.coming.take();
        if let Some(held) = &self.held {
            info!(generation = %held.generation, layers = %held.shard.layers, "the placement moved on: letting go");
        }
        let mut orders = self.drop_shard();
        self.held = coming;
        if self.held.as_ref().is_some_and(|held| held.phase != Phase::Claiming) {
            orders.extend(self.load());
        }
        orders
    }

    /// Claims in the store under this stage's name that stand for nothing it holds: an earlier process's, or one that a
    /// refused claim was to replace.
    fn stale_claims(&self) -> Vec<(Generation, u32)> {
        let held = [&self.held, &self.coming].map(|held| held.as_ref().map(|held| (held.generation, held.slot)));
        let own = self.view.claims.iter().filter(|(_, claim)| claim.value.stage == self.name);
        own.map(|(id, _)| *id).filter(|id| !held.contains(&Some(*id))).take(CLAIMS_LEFT_MAX).collect()
    }

    fn leave_stale_claims(&mut self) -> Option<Order> {
        let stale = self.stale_claims();
        (!stale.is_empty()).then(|| self.commit(Purpose::Leave, leave_claims(&self.keyspace, &stale)))
    }

    fn commit(&mut self, purpose: Purpose, txn: Txn) -> Order {
        self.writing = true;
        Order::Commit(purpose, txn)
    }

    /// A write came to its end.
    pub(crate) fn written(
        &mut self,
        purpose: Purpose,
        outcome: Result<Committed, StoreError>,
        now: Instant,
    ) -> Vec<Order> {
        self.writing = false;
        let revision = match &outcome {
            Ok(Committed::Applied { revision }) => revision.0,
            // Somebody was faster: what they wrote is on its way.
            Ok(Committed::Refused) => self.view.revision + 1,
            Err(_) => u64::MAX,
        };
        self.pace = Pace { revision, deadline: now + STORE_RETRY };
        match (purpose, outcome) {
            (_, Err(error)) => {
                // Tried again at a later tick: level-triggered, nothing is remembered.
                debug!(?purpose, %error, "a store write failed");
                Vec::new()
            }
            (Purpose::Claim(generation, slot), Ok(Committed::Applied { .. })) => {
                self.claimed(generation, slot).into_iter().collect()
            }
            (Purpose::Claim(generation, slot), Ok(Committed::Refused)) => {
                info!(%generation, slot, "the claim was refused: the cluster has moved on");
                if self.coming.take().is_none() { self.drop_shard() } else { Vec::new() }
            }
            (Purpose::Eviction, Ok(Committed::Applied { .. })) => {
                self.record.load.strikes_total += 1;
                Vec::new()
            }
            (
                Purpose::Registration
                | Purpose::Proposal
                | Purpose::Note
                | Purpose::Mark
                | Purpose::Leave
                | Purpose::Eviction
                | Purpose::Report
                | Purpose::Leaving
                | Purpose::Heal,
                Ok(_),
            ) => Vec::new(),
        }
    }

    /// The claim is in the store: its shard is loaded, or, where an older one is served, read into memory first.
    fn claimed(&mut self, generation: Generation, slot: u32) -> Option<Order> {
        let waiting = |held: &Held| held.is(generation, slot) && held.phase == Phase::Claiming;
        if self.held.as_ref().is_some_and(waiting) {
            return self.load();
        }
        let served_bytes = self.held.as_ref().map_or(0, |held| held.memory_bound_bytes);
        let coming = self.coming.as_mut().filter(|coming| waiting(coming))?;
        coming.phase = Phase::ReadingAhead;
        let (layers, bytes_max) = (coming.shard.layers, self.record.memory_budget_bytes.saturating_sub(served_bytes));
        info!(%generation, slot, %layers, "claimed; reading ahead while the generation before is served");
        self.orders += 1;
        Some(Order::ReadAhead { number: self.orders, ranges: vec![layers], bytes_max })
    }

    fn load(&mut self) -> Option<Order> {
        let (room, budget_bytes) = (self.kv_room(), self.record.memory_budget_bytes);
        let held = self.held.as_mut()?;
        info!(generation = %held.generation, slot = held.slot, layers = %held.shard.layers, "loading");
        held.phase = Phase::Loading;
        self.orders += 1;
        held.loads = self.orders;
        Some(Order::Load { number: self.orders, layers: held.shard.layers, room, budget_bytes })
    }

    /// Weights were read into memory, by the `number`th order.
    pub(crate) fn has_read(&mut self, number: u64) {
        let waited_for = self.orders == number;
        if let Some(standby) = self.standby.as_ref().filter(|_| waited_for) {
            self.record.standby.clone_from(&standby.ranges);
        }
        if let Some(coming) = self.coming.as_mut().filter(|coming| waited_for && coming.phase == Phase::ReadingAhead) {
            coming.phase = Phase::Read;
        }
    }

    /// The order to load could not be given.
    pub(crate) fn not_loading(&mut self) {
        self.held = None;
    }

    /// A shard was loaded, or not, by the `number`th order.
    pub(crate) fn loaded(&mut self, number: u64, shard: Result<Loaded, LoadError>) -> Vec<Order> {
        // Only what is waited for: a load that was ordered under a lost lease was followed by the order to unload, and
        // perhaps by another one for the same generation.
        let waited_for = |held: &&mut Held| self.orders == number && held.phase == Phase::Loading;
        let Some(held) = self.held.as_mut().filter(waited_for) else { return Vec::new() };
        let generation = held.generation;
        let shard = shard.map_err(|error| error.to_string());
        match &shard {
            Ok(loaded) => {
                info!(%generation, layers = %held.shard.layers, weights_bytes = loaded.weights_bytes, "serving");
            }
            Err(reason) => warn!(%generation, layers = %held.shard.layers, reason, "cannot load"),
        }
        held.loaded(shard);
        self.frame_gate.reset();
        vec![Order::Disconnect]
    }

    /// The device was measured; the next report takes that to the store.
    pub(crate) fn probed(&mut self, speed: Speeds) {
        self.record.speed = speed;
    }

    /// The process is to stop: others are to take over what it holds, before it lets go.
    pub(crate) fn drain(&mut self) {
        self.record.leaving = true;
    }

    /// True if the store shows another trouble of this stage than it has.
    fn has_new_trouble(&self) -> bool {
        self.view.stages.get(&self.name).is_some_and(|stage| stage.value.trouble != self.record.trouble)
    }

    /// Whether the store shows that this stage is about to stop.
    fn leaves_visibly(&self) -> bool {
        self.view.stages.get(&self.name).is_some_and(|stage| stage.value.leaving)
    }

    /// Whether a stage that is about to stop may: nothing is left to hand over, or nobody to take it.
    pub(crate) fn is_free(&mut self, now: Instant) -> bool {
        if !self.record.leaving {
            return false;
        }
        let Some(held) = self.held.as_ref().map(|held| held.generation) else { return true };
        if !self.view.reachable {
            return true; // Without the store nobody takes anything over.
        }
        if self.quarantine.left(now).is_some() && !self.view.stages.contains_key(&self.name) {
            return true; // Who was struck off is not waited for, nor has anything that others miss.
        }
        let stays = self.view.placed().is_none_or(|placed| placed == held) && self.leaves_visibly();
        stays && matches!(self.decision(self.stability.stability(now)), Action::Wait(Waiting::Memory(_)))
    }

    /// True if the store has lost its data, as `raw` shows it, rather than ended this stage's lease: then nobody else can have
    /// been given what is held here, and it stays of use.
    pub(crate) fn outlives(&self, raw: &ClusterView) -> bool {
        let Some(held) = &self.held else { return false };
        let has_lost = raw.revision < self.view.revision
            || raw.placement.is_none() && raw.stages.is_empty()
            || self.view.recalled.contains_key(&Key::Stage(self.name.clone()));
        let is_newest = raw.placed().is_none_or(|placed| placed <= held.generation);
        let is_free = raw.claims.get(&(held.generation, held.slot)).is_none_or(|claim| claim.value.stage == self.name);
        has_lost && is_newest && is_free
    }

    /// The store has lost the lease with all else: no write is waited for, and what is held is kept for the next lease.
    pub(crate) fn rejoin(&mut self) {
        self.writing = false;
    }

    /// The lease is lost, or the process stops: nothing is held any more, and no write is waited for.
    pub(crate) fn leave(&mut self) -> Vec<Order> {
        self.writing = false;
        self.coming = None;
        self.drop_shard()
    }

    fn drop_shard(&mut self) -> Vec<Order> {
        if self.held.take().is_none() {
            return Vec::new();
        }
        self.frame_gate.reset();
        self.passed_on.clear();
        vec![Order::Unload, Order::Disconnect]
    }

    fn kv_room(&self) -> KvRoom {
        let nothing = KvRoom { tokens: 0, kv_type: KvType::F16 };
        self.view.model.as_ref().map_or(nothing, |model| model.value.kv_room())
    }

    /// What becomes of a message.
    pub(crate) fn arrived(&mut self, message: Message) -> Vec<Order> {
        let Message { frame: Frame::Hop(hop), activations } = message else {
            return self.drop_frame("only hops come to a stage");
        };
        let Some(held) = self.held.as_ref().filter(|held| held.is_ready()) else {
            return self.drop_frame("nothing is served here");
        };
        let model_hidden = self.view.model.as_ref().map_or(0, |model| model.value.hidden);
        let hidden = if held.slot == 0 { 0 } else { model_hidden };
        let pool = self.view.model.as_ref().map_or(Pool::default(), |model| Pool::new(&model.value));
        let share = self.view.gateways.get(&hop.gateway).map(|gateway| gateway.value.share);
        match self.frame_gate.judge(&hop, (held.generation, held.slot, hidden), (pool, share)) {
            Verdict::Drop(reason) => self.drop_frame(reason),
            Verdict::Refuse(reason) => vec![self.refuse(&hop, reason, true)],
            Verdict::Behind(known) => {
                self.record.load.frames_refused += 1;
                let reason = format!("epoch {} came: expected {known} or a later one", hop.epoch);
                vec![refusal(hop.gateway, Passed::of(&hop), reason, (true, known))]
            }
            // A new epoch goes over the same link: what is on its way there may be another gateway's.
            Verdict::Take => vec![Order::Compute(hop, activations)],
        }
    }

    /// Counts a frame that is not used; nobody waits for it.
    pub(crate) fn drop_frame(&mut self, reason: &str) -> Vec<Order> {
        self.record.load.frames_refused += 1;
        debug!(reason, "a frame was refused");
        Vec::new()
    }

    /// Tells the gateway that a micro-batch is not computed; `passing` when it is not for the work's own sake.
    fn refuse(&mut self, hop: &Hop, reason: String, passing: bool) -> Order {
        warn!(step = %hop.step, epoch = %hop.epoch, reason, "refusing a micro-batch");
        self.record.load.frames_refused += 1;
        refusal(hop.gateway, Passed::of(hop), reason, (passing, Epoch(0)))
    }

    /// The answer when the compute thread has no room for `hop`.
    pub(crate) fn overloaded(hop: &Hop) -> Order {
        refusal(hop.gateway, Passed::of(hop), "the queue of the compute thread is full".to_owned(), (true, Epoch(0)))
    }

    /// The answer when a micro-batch could not be sent on to `endpoint`: the gateway is not to wait for it, and is told why.
    pub(crate) fn unreachable(&self, unsent: &Unsent, endpoint: &str, cause: &str) -> Order {
        let next = self.view.claims.values().rev().find(|claim| claim.value.endpoint == endpoint);
        let next = next.map_or("the next stage".to_owned(), |next| format!("stage {}", next.value.stage));
        let reason = format!("it cannot reach {next} at {endpoint}: {cause}");
        refusal(unsent.gateway, unsent.passed, reason, (true, Epoch(0)))
    }

    /// A micro-batch was computed, or not: sends it on its way.
    pub(crate) fn stepped(&mut self, stepped: Stepped) -> Vec<Order> {
        let Stepped { mut hop, output, compute, queue } = stepped;
        if hop.rows > 0 {
            self.usage.computed(hop.rows, queue, compute);
        }
        let Some(held) = self.held.as_ref().filter(|held| held.generation == hop.generation) else {
            return Vec::new();
        };
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let passed = Passed::of(&hop);
        hop.spent.push(Spent { slot: hop.slot, rows: hop.rows, compute_us: micros(compute), queue_us: micros(queue) });
        let order = match (output, held.next(&self.view)) {
            (Ok(None), Next::Gateway) => self.answer_with(hop, passed, Vec::new()),
            (Ok(None), Next::Stage { slot, endpoint }) => self.forward(hop, passed, (slot, endpoint), Bytes::new()),
            (Err(error), _) => self.refuse(&hop, error.to_string(), false),
            (Ok(Some(Output::Tokens(chosen))), Next::Gateway) => self.answer_with(hop, passed, chosen),
            (Ok(Some(Output::Activations(rows))), Next::Stage { slot, endpoint }) => {
                self.forward(hop, passed, (slot, endpoint), activations_to_bytes(&rows))
            }
            (Ok(_), next) => self.refuse(&hop, format!("no way on from here: {next:?}"), true),
        };
        vec![order]
    }

    /// The last stage's answer to a micro-batch.
    fn answer_with(&mut self, hop: Hop, passed: Passed, chosen: Vec<Chosen>) -> Order {
        let Hop { generation, epoch, step, spent, gateway, .. } = hop;
        self.passed_on.insert(gateway, passed);
        Order::Answer { gateway, frame: Frame::Tokens(Tokens { generation, epoch, step, chosen, spent }) }
    }

    /// A micro-batch on its way to the next stage.
    fn forward(&mut self, mut hop: Hop, passed: Passed, (slot, endpoint): (u32, String), activations: Bytes) -> Order {
        self.passed_on.insert(hop.gateway, passed);
        hop.slot = slot;
        hop.hidden = self.view.model.as_ref().map_or(0, |model| model.value.hidden);
        hop.slices.iter_mut().for_each(|slice| slice.tokens = Vec::new());
        Order::Forward { endpoint, hop, activations }
    }

    /// Frames cannot be brought to where they were to go.
    pub(crate) fn found_deserted(&mut self, found: Unreachable) {
        self.deserted = Some(found);
    }

    /// The next stage took a connection or a frame.
    pub(crate) fn reached_next(&mut self) {
        self.evictions.reached();
    }

    /// A connection that was used to go on from here has such a round trip. The record follows only when it is another one by
    /// far: layers are not to move for what a busy machine adds.
    pub(crate) fn linked(&mut self, round_trip: Option<Duration>) {
        let Some(way) = round_trip.map(|there_and_back| there_and_back / 2) else { return };
        let (link_us, known) = (u32::try_from(way.as_micros()).unwrap_or(u32::MAX), self.record.link_us);
        if link_us / 2 > known || known / 2 > link_us {
            self.record.link_us = link_us;
        }
    }

    /// The link that micro-batches went over has ended, and perhaps with it what was on its way: whose they were must know.
    pub(crate) fn link_broke(&mut self) -> Vec<Order> {
        let passed_on = std::mem::take(&mut self.passed_on);
        passed_on.iter().map(|(gateway, passed)| lost(*gateway, *passed)).collect()
    }

    /// The link to one gateway has ended, and perhaps with it an answer.
    pub(crate) fn gateway_link_broke(&mut self, gateway: u32) -> Option<Order> {
        self.passed_on.remove(&gateway).map(|passed| lost(gateway, passed))
    }

    /// A gateway was answered, or was not there.
    pub(crate) fn answered(&mut self, gateway: u32, unreachable: Option<Unreachable>, now: Instant) {
        match &unreachable {
            Some(Unreachable { absence: Absence::Silence | Absence::Barred, .. }) => {
                self.unheard.entry(gateway).or_insert(now);
            }
            _ => drop(self.unheard.remove(&gateway)),
        }
        self.record.trouble = unreachable.map(|Unreachable { endpoint, cause, .. }| {
            format!("it cannot bring answers to gateway {gateway} at {endpoint}: {cause}")
        });
    }

    /// What came out, with `bytes` of activations, was taken by the link after `waiting`.
    pub(crate) fn sent(&mut self, bytes: usize, waiting: Duration) {
        self.usage.sent(bytes, waiting);
    }

    /// Says in the store, now and then, what was done and used.
    pub(crate) fn report(&mut self, lease: LeaseId, memory: MemoryUse, now: Instant) -> Option<Order> {
        let elapsed = now.saturating_duration_since(self.settled);
        if elapsed < REPORT_EVERY || self.writing || !self.view.reachable {
            return None;
        }
        self.settled = now;
        self.record.load.memory = memory;
        self.usage.settle(elapsed, &mut self.record.load);
        let unchanged = self.view.stages.get(&self.name).is_some_and(|stage| stage.value == self.record);
        if unchanged {
            return None;
        }
        let txn = report_stage(&self.keyspace, &self.name, &self.record, lease);
        Some(self.commit(Purpose::Report, txn))
    }
}

/// Says what became of a pin.
fn tell(stage: &StageName, status: &PinStatus) {
    match &status.reason {
        None => info!(%stage, "the stage's pin is honoured"),
        Some(reason) => warn!(%stage, reason, "the stage's pin cannot be honoured: it changes nothing"),
    }
}

/// Tells a gateway that a micro-batch, and what went before it, may not arrive.
fn lost(gateway: u32, passed: Passed) -> Order {
    refusal(gateway, passed, "the link it went over broke".to_owned(), (true, Epoch(0)))
}

fn refusal(gateway: u32, passed: Passed, reason: String, (passing, epoch_known): (bool, Epoch)) -> Order {
    let Passed { generation, epoch, step, slot } = passed;
    let refusal = Refusal { generation, epoch, step, slot, reason, passing, epoch_known };
    Order::Answer { gateway, frame: Frame::Refusal(refusal) }
}

// === impl Unsent ===

impl Unsent {
    pub(crate) fn of(hop: &Hop) -> Self {
        Self { gateway: hop.gateway, passed: Passed::of(hop) }
    }
}

// === impl Passed ===

impl Passed {
    fn of(hop: &Hop) -> Self {
        Self { generation: hop.generation, epoch: hop.epoch, step: hop.step, slot: hop.slot }
    }
}

#[cfg(test)]
mod tests;
