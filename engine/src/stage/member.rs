//! A stage as a member of its cluster: `handle` maps each event to orders. Pure: no socket, no store, no clock and no
//! arithmetic.
//!
//! It decides three things: the shard that the stage holds (`assignment`), the next write to the store (`reconcile`),
//! and the treatment of each frame (`relay`).

mod assignment;
mod event;
mod reconcile;
mod relay;
mod setup;

use std::sync::Arc;
use std::time::{Duration, Instant};

use schema::record::{EvictionRecord, LinkReport, LinkState, PinStatus, RefusedFrame, StageRecord};
use schema::{Key, Keyspace, StageName};
use tracing::{info, warn};

use self::assignment::Standby;
pub(crate) use self::event::{Event, Order, Purpose};
use self::reconcile::{Decided, Pace};
use self::relay::Relay;
pub(crate) use self::setup::{MemberSetup, MemoryBound};
use super::done::Done;
use super::held::{Held, Next};
use super::stability::StabilityTracker;
use crate::decide::{Action, Waiting, same_decision};
use crate::limits::DRAIN_MAX;
use crate::link::{ClusterKey, Unreachable};
use crate::membership::{Evictions, Quarantine};
use crate::planner::Proposals;
use crate::route::RouteEvent;
use crate::store::LeaseId;
use crate::view::ClusterView;

/// A stage's part in its cluster.
pub(crate) struct Member {
    keyspace: Keyspace,
    name: StageName,
    secret: Option<ClusterKey>,
    record: StageRecord,
    memory_bound: MemoryBound,
    proposals: Proposals,
    /// The lease under which its record is stored.
    lease: Option<LeaseId>,
    view: Arc<ClusterView>,
    stability: StabilityTracker,

    held: Option<Held>,
    /// The next shard, while an older generation still serves.
    next_held: Option<Held>,
    /// Number of orders to load and to read ahead so far.
    orders: u64,
    /// Layers that it was ordered to read ahead without a claim.
    standby: Option<Standby>,

    relay: Relay,

    decided: Option<Decided>,
    /// The reason for waiting that was logged last.
    waiting: Option<Waiting>,
    /// True while a write is under way.
    writing: bool,
    pace: Pace,
    /// The next stage, if frames cannot reach it though the store still names it.
    unreachable_next: Option<Unreachable>,
    evictions: Evictions,
    quarantine: Quarantine,
    /// The addresses of its peers, as it finds them.
    links: Vec<LinkReport>,
    /// Time at which it last looked whether the store has its record.
    recorded_at: Instant,
    /// Time at which it last counted its load.
    reported_at: Instant,
    /// Time at which it last wrote its load under its current lease.
    load_written_at: Option<Instant>,
    /// Time at which it stops at the latest, if it is to stop.
    drained_by: Option<Instant>,
}

/// True if what was measured is more than twice or less than half of what is known.
fn differs(measured: u32, known: u32) -> bool {
    measured / 2 > known || known / 2 > measured
}

// === impl Member ===

impl Member {
    /// A stage that holds nothing yet.
    pub(crate) fn new(setup: MemberSetup, view: Arc<ClusterView>, now: Instant) -> Self {
        let MemberSetup { keyspace, name, secret, record, memory_bound, proposals } = setup;
        Self {
            keyspace,
            name,
            secret,
            record,
            memory_bound,
            proposals,
            lease: None,
            view,
            stability: StabilityTracker::new(now),
            held: None,
            next_held: None,
            orders: 0,
            standby: None,
            relay: Relay::default(),
            decided: None,
            waiting: None,
            writing: false,
            pace: Pace::new(now),
            unreachable_next: None,
            evictions: Evictions::default(),
            quarantine: Quarantine::default(),
            links: Vec::new(),
            recorded_at: now,
            reported_at: now,
            load_written_at: None,
            drained_by: None,
        }
    }

    /// Handles one event. The caller executes the orders one after the other.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Order> {
        let mut orders: Vec<_> = match event {
            Event::Joined(lease) => {
                (self.lease, self.load_written_at) = (Some(lease), None);
                Vec::new()
            }
            Event::LeaseLost { is_forgotten } => return self.lease_lost(is_forgotten),
            Event::ViewChanged(view) => {
                self.follow(view, now);
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
            Event::Addresses(addresses) => {
                self.record.addresses = addresses;
                Vec::new()
            }
            Event::Links(links) => {
                self.links = links;
                self.record_throughput();
                Vec::new()
            }
            Event::Tick(memory) => self.report(memory, now),
            Event::Drain => {
                info!("draining: handing the layers over");
                self.record.leaving = true;
                self.drained_by = Some(now + DRAIN_MAX);
                Vec::new()
            }
        };
        orders.extend(self.follow_plan(now));
        if self.drained_by.is_some_and(|deadline| now >= deadline || self.may_stop(now)) {
            orders.push(Order::Stop);
        }
        orders
    }

    /// The newest view that it has seen.
    #[cfg(test)]
    pub(crate) fn view(&self) -> &ClusterView {
        &self.view
    }

    /// Frames that it refused so far.
    pub(crate) fn frames_refused(&self) -> u64 {
        self.record.load.frames_refused
    }

    /// Notes the sender of the frame that was refused last, and returns both.
    pub(crate) fn name_refused(&mut self, from: String) -> Option<&RefusedFrame> {
        let refused = self.record.load.frame_refused.as_mut()?;
        refused.from = from;
        Some(refused)
    }

    /// True if it is draining.
    pub(crate) fn is_draining(&self) -> bool {
        self.drained_by.is_some()
    }

    /// The stage's record as it is now.
    #[cfg(test)]
    pub(crate) fn record(&self) -> &StageRecord {
        &self.record
    }

    /// The shard that it holds.
    #[cfg(test)]
    pub(crate) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Follows the newest view.
    fn follow(&mut self, view: Arc<ClusterView>, now: Instant) {
        if !same_decision(&view, &self.view) {
            self.decided = None;
        }
        for (stage, status) in &view.pin_statuses {
            if self.view.pin_statuses.get(stage) != Some(status) {
                log_pin_status(stage, &status.value);
            }
        }
        let known = self.view.evictions.get(&self.name).map(|known| known.mod_revision);
        if let Some(eviction) = view.evictions.get(&self.name).filter(|new| Some(new.mod_revision) != known) {
            let EvictionRecord { by, endpoint, cause } = &eviction.value;
            warn!(by, endpoint, cause, "this stage was evicted: it stays in quarantine if the others suffice");
            self.quarantine.evicted(now);
        }
        if !view.reachable || !view.stages.contains_key(&self.name) {
            // This stage was cut off itself, so it is no witness of the silence of others.
            self.unreachable_next = None;
            self.relay.forget_silent_gateways();
        }
        self.relay.follow(&view, &self.view);
        self.view = view;
        self.stability.follow(&self.view, now);
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
                self.record.speed = speed; // The next report writes it to the store.
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
                self.record_link(round_trip);
            }
            RouteEvent::Unsent { found: Some(found), .. } | RouteEvent::Gone(found) => {
                self.unreachable_next = Some(found);
            }
            RouteEvent::Unsent { found: None, .. } | RouteEvent::Broke { .. } => {}
        }
        orders
    }

    fn upstream(&mut self, gateway: u32, event: RouteEvent, now: Instant) -> Vec<Order> {
        let upstream = self.relay.upstream(gateway, event, &self.view, now);
        self.record_link(upstream.round_trip);
        if let Some(trouble) = upstream.trouble {
            self.record.trouble = trouble;
        }
        upstream.order.into_iter().collect()
    }

    /// Records half the round trip to the next stage. The record changes only if the new value is more than twice or
    /// less than half the old one: layers must not move because of the time that a busy machine adds.
    fn record_link(&mut self, round_trip: Option<Duration>) {
        let Some(one_way) = round_trip.map(|round_trip| round_trip / 2) else { return };
        let (link_us, known) = (u32::try_from(one_way.as_micros()).unwrap_or(u32::MAX), self.record.link_us);
        if differs(link_us, known) {
            self.record.link_us = link_us;
        }
    }

    /// Records the measured throughput of the address in use of the next stage, by the same rule.
    fn record_throughput(&mut self) {
        let Some(Next::Stage { endpoint, .. }) = self.held.as_ref().map(|held| held.next(&self.view)) else { return };
        let is_used = |link: &&LinkReport| link.to == endpoint && link.state == LinkState::Used;
        let Some(megabits) = self.links.iter().find(is_used).and_then(|link| link.megabits_per_second) else { return };
        if self.record.link_megabits_per_second.is_none_or(|known| differs(megabits, known)) {
            self.record.link_megabits_per_second = Some(megabits);
        }
    }

    /// True if a draining stage may stop: nothing is left to hand over, or no other stage can take it.
    fn may_stop(&mut self, now: Instant) -> bool {
        let Some(held) = self.held.as_ref().map(|held| held.generation) else { return true };
        if !self.view.reachable {
            return true; // Without the store no stage takes layers over.
        }
        if self.quarantine.left(now).is_some() && !self.view.stages.contains_key(&self.name) {
            return true; // Other stages have the layers of an evicted stage already.
        }
        let is_recorded = self.view.placed().is_none_or(|placed| placed == held) && self.shows_leaving();
        is_recorded && matches!(self.decision(self.stability.stability(now)), Action::Wait(Waiting::Memory(_)))
    }

    /// True if `raw` shows that the store has lost its data, rather than ended this stage's lease alone. Then no other
    /// stage can have been given this stage's layers, and its shard stays of use.
    pub(crate) fn keeps_shard(&self, raw: &ClusterView) -> bool {
        let Some(held) = &self.held else { return false };
        let has_lost = raw.revision < self.view.revision
            || raw.placement.is_none() && raw.stages.is_empty()
            || self.view.recalled.contains_key(&Key::Stage(self.name.clone()));
        let is_newest = raw.placed().is_none_or(|placed| placed <= held.generation);
        let is_unclaimed = raw.claims.get(&held.id()).is_none_or(|claim| claim.value.stage == self.name);
        has_lost && is_newest && is_unclaimed
    }

    /// Drops the shard, unless the store has lost all its data: then the shard is of use under the next lease.
    fn lease_lost(&mut self, is_forgotten: bool) -> Vec<Order> {
        (self.writing, self.lease) = (false, None);
        if is_forgotten {
            return Vec::new();
        }
        self.next_held = None;
        self.drop_shard()
    }
}

/// Logs the new status of a pin.
fn log_pin_status(stage: &StageName, status: &PinStatus) {
    match &status.reason {
        None => info!(%stage, "the stage's pin is honoured"),
        Some(reason) => warn!(%stage, reason, "the stage's pin cannot be honoured: it changes nothing"),
    }
}

#[cfg(test)]
mod tests;
