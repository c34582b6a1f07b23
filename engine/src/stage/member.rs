//! A stage as a member of its cluster: one entrance for everything that happens to it, which answers with orders. Pure: no
//! socket, no store, no clock and no arithmetic.
//!
//! It decides three things: which shard it holds (`assignment`), what it writes to the store next (`reconcile`), and what becomes
//! of a frame (`relay`).

mod assignment;
mod event;
mod reconcile;
mod relay;

use std::sync::Arc;
use std::time::{Duration, Instant};

use schema::record::{EvictionRecord, KvRoom, PinStatus, StageRecord};
use schema::{Key, Keyspace, LayerRange, StageName};
use tracing::{info, warn};

use self::assignment::Standby;
pub(crate) use self::event::{Event, Order, Purpose};
use self::reconcile::{Decided, Pace};
use self::relay::Relay;
use super::compute::Done;
use super::held::Held;
use super::stability::StabilityTracker;
use crate::decide::{Action, Waiting, alike};
use crate::limits::DRAIN_MAX;
use crate::link::{ClusterKey, Unreachable};
use crate::membership::{Evictions, Quarantine};
use crate::planner::Proposal;
use crate::route::RouteEvent;
use crate::store::LeaseId;
use crate::view::ClusterView;

/// The most memory that a shard with room for keys and values can take, in bytes, as the stage's loader computes it.
pub(crate) type MemoryBound = Box<dyn Fn(LayerRange, KvRoom) -> u64 + Send>;

/// What a member is made from.
pub(crate) struct Identity {
    pub(crate) keyspace: Keyspace,
    pub(crate) name: StageName,
    /// The cluster key.
    pub(crate) secret: Option<ClusterKey>,
    /// Says where the stage takes frames.
    pub(crate) record: StageRecord,
    pub(crate) memory_bound: MemoryBound,
}

/// A stage's part in its cluster.
pub(crate) struct Member {
    keyspace: Keyspace,
    name: StageName,
    secret: Option<ClusterKey>,
    record: StageRecord,
    memory_bound: MemoryBound,
    /// The lease under which its record is in the store.
    lease: Option<LeaseId>,
    view: Arc<ClusterView>,
    stability: StabilityTracker,

    held: Option<Held>,
    /// The shard it is to hold next, while an older generation still serves.
    coming: Option<Held>,
    /// Number of orders to load and to read ahead so far.
    orders: u64,
    /// What it has been ordered to read ahead without a claim.
    standby: Option<Standby>,

    relay: Relay,

    decided: Option<Decided>,
    /// The reason for waiting that was logged last.
    waiting: Option<Waiting>,
    /// True while a write is under way.
    writing: bool,
    pace: Pace,
    /// The next stage, if frames cannot be brought to it though the store still names it.
    deserted: Option<Unreachable>,
    evictions: Evictions,
    quarantine: Quarantine,
    /// The moment of the last report.
    settled: Instant,
    /// The moment by which it stops, if it is to stop.
    drained_by: Option<Instant>,
}

// === impl Member ===

impl Member {
    /// A stage that holds nothing yet.
    pub(crate) fn new(identity: Identity, view: Arc<ClusterView>, now: Instant) -> Self {
        let Identity { keyspace, name, secret, record, memory_bound } = identity;
        Self {
            keyspace,
            name,
            secret,
            record,
            memory_bound,
            lease: None,
            view,
            stability: StabilityTracker::new(now),
            held: None,
            coming: None,
            orders: 0,
            standby: None,
            relay: Relay::default(),
            decided: None,
            waiting: None,
            writing: false,
            pace: Pace::new(now),
            deserted: None,
            evictions: Evictions::default(),
            quarantine: Quarantine::default(),
            settled: now,
            drained_by: None,
        }
    }

    /// Takes one event in; the orders are to be carried out in their order.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Order> {
        let mut orders: Vec<_> = match event {
            Event::Joined(lease) => {
                self.lease = Some(lease);
                Vec::new()
            }
            Event::LeaseLost { is_forgotten } => return self.leave(is_forgotten),
            Event::Viewed(view) => {
                self.see(view, now);
                Vec::new()
            }
            Event::Arrived(message) => {
                let load = &mut self.record.load;
                self.relay.arrived(message, self.held.as_ref(), &self.view, load).into_iter().collect()
            }
            Event::Unreadable(reason) => relay::drop_frame(&reason, &mut self.record.load).into_iter().collect(),
            Event::Done(done) => self.done(done),
            Event::Overloaded(hop) => relay::overloaded(&hop, &self.view).into_iter().collect(),
            Event::LoadRefused => {
                self.held = None;
                Vec::new()
            }
            Event::Written(purpose, outcome) => self.written(purpose, outcome, now),
            Event::Downstream(event) => self.downstream(event),
            Event::Upstream(gateway, event) => self.upstream(gateway, event, now),
            Event::Tick(memory) => self.report(memory, now).into_iter().collect(),
            Event::Drain => {
                info!("told to stop: handing over what is held");
                self.record.leaving = true;
                self.drained_by = Some(now + DRAIN_MAX);
                Vec::new()
            }
        };
        orders.extend(self.follow_plan(now));
        if self.drained_by.is_some_and(|deadline| now >= deadline || self.is_free(now)) {
            orders.push(Order::Stop);
        }
        orders
    }

    /// The newest view that it has seen.
    #[cfg(test)]
    pub(crate) fn view(&self) -> &ClusterView {
        &self.view
    }

    /// True if it has been told to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.drained_by.is_some()
    }

    /// The stage's record as it is now.
    #[cfg(test)]
    pub(crate) fn record(&self) -> &StageRecord {
        &self.record
    }

    /// The shard it holds, if it holds one.
    #[cfg(test)]
    pub(crate) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Takes the newest view in.
    fn see(&mut self, view: Arc<ClusterView>, now: Instant) {
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
        self.relay.follow(&view, &self.view);
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

    fn done(&mut self, done: Done) -> Vec<Order> {
        match done {
            Done::Loaded { number, shard } => self.loaded(number, shard),
            Done::ReadAhead { number } => {
                self.has_read(number);
                Vec::new()
            }
            Done::Stepped(stepped) => {
                let load = &mut self.record.load;
                self.relay.stepped(*stepped, self.held.as_ref(), &self.view, load).into_iter().collect()
            }
            Done::Probed { speed } => {
                self.record.speed = speed; // The next report takes it to the store.
                Vec::new()
            }
        }
    }

    fn downstream(&mut self, event: RouteEvent) -> Vec<Order> {
        let slot = self.held.as_ref().map_or(0, |held| held.slot);
        let orders = self.relay.downstream(&event, slot, &self.view);
        match event {
            RouteEvent::Sent { round_trip, .. } => {
                self.evictions.reached();
                self.linked(round_trip);
            }
            RouteEvent::Unsent { found: Some(found), .. } | RouteEvent::Gone(found) => self.deserted = Some(found),
            RouteEvent::Unsent { found: None, .. } | RouteEvent::Broke { .. } => {}
        }
        orders
    }

    fn upstream(&mut self, gateway: u32, event: RouteEvent, now: Instant) -> Vec<Order> {
        let upstream = self.relay.upstream(gateway, event, &self.view, now);
        self.linked(upstream.round_trip);
        if let Some(trouble) = upstream.trouble {
            self.record.trouble = trouble;
        }
        upstream.order.into_iter().collect()
    }

    /// A connection that was used to go on from here has such a round trip. The record follows only when it is another one by
    /// far: layers are not to move for what a busy machine adds.
    fn linked(&mut self, round_trip: Option<Duration>) {
        let Some(way) = round_trip.map(|there_and_back| there_and_back / 2) else { return };
        let (link_us, known) = (u32::try_from(way.as_micros()).unwrap_or(u32::MAX), self.record.link_us);
        if link_us / 2 > known || known / 2 > link_us {
            self.record.link_us = link_us;
        }
    }

    /// True if a stage that is about to stop may: nothing is left to hand over, or no other stage can take it.
    fn is_free(&mut self, now: Instant) -> bool {
        let Some(held) = self.held.as_ref().map(|held| held.generation) else { return true };
        if !self.view.reachable {
            return true; // Without the store no stage takes anything over.
        }
        if self.quarantine.left(now).is_some() && !self.view.stages.contains_key(&self.name) {
            return true; // The layers of an evicted stage are with others already.
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

    /// Lets go of what is held, unless the store has forgotten everything: then it is of use under the next lease.
    fn leave(&mut self, is_forgotten: bool) -> Vec<Order> {
        (self.writing, self.lease) = (false, None);
        if is_forgotten {
            return Vec::new();
        }
        self.coming = None;
        self.drop_shard()
    }
}

/// Says what became of a pin.
fn tell(stage: &StageName, status: &PinStatus) {
    match &status.reason {
        None => info!(%stage, "the stage's pin is honoured"),
        Some(reason) => warn!(%stage, reason, "the stage's pin cannot be honoured: it changes nothing"),
    }
}

#[cfg(test)]
mod tests;
