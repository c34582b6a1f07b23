//! Writes of a stage to the store: one at a time, the most urgent first, until the store shows the stage's current
//! state.

use std::time::Instant;

use schema::record::{EvictionRecord, MemoryUse};
use schema::{ClaimId, Key};
use tracing::{debug, info, warn};

use super::Member;
use super::event::{Order, Purpose};
use crate::decide::{Action, Stability, Waiting, decide_by};
use crate::limits::{LOAD_REFRESH, REPORT_EVERY, STORE_RETRY};
use crate::link::UnreachableKind;
use crate::membership::{
    evict, load_interval, mark_to_write, propose, register_stage, report_load, report_stage, restore, sign_stage,
    write_pin_statuses,
};
use crate::planner::Proposal;
use crate::stage::held::{Held, Next};
use crate::store::{Committed, LeaseId, StoreError, Txn};

/// The decision about the current view. Deciding anew for every frame would cost more than the frame.
pub(super) struct Decided {
    stability: Stability,
    action: Action,
}

/// Condition for the next decision after a write: the view has reached `revision`, or `deadline` has passed.
pub(super) struct Pace {
    revision: u64,
    deadline: Instant,
}

impl Member {
    /// The write by which the stage joins under `lease`. From now on its record carries the proof for that lease.
    pub(crate) fn registration(&mut self, lease: LeaseId) -> Txn {
        let key = Key::Stage(self.name.clone());
        sign_stage(&mut self.record, self.secret.as_ref(), &self.keyspace.name(&key), lease);
        register_stage(&self.keyspace, &self.name, &self.record, self.view.unusable_revision(&key), lease)
    }

    /// Orders the next write that the placement and the store's state call for, unless a write is in progress.
    pub(super) fn follow_plan(&mut self, now: Instant) -> Vec<Order> {
        let Some(lease) = self.lease else { return Vec::new() };
        let caught_up = self.view.revision >= self.pace.revision || now >= self.pace.deadline;
        if self.writing || !self.view.reachable || !caught_up {
            return Vec::new();
        }
        if let Ok(Some(txn)) = mark_to_write(&self.keyspace, &self.view, self.secret.as_ref()) {
            return vec![self.commit(Purpose::Rewrite, txn)];
        }
        if !self.view.recalled.is_empty() {
            // A decision waits until the store again shows the records on which it would be based.
            return self.rewrite_lost(lease).into_iter().collect();
        }
        if let Some(order) = self.evict_others(lease, now).or_else(|| self.evict_itself(lease, now)) {
            return vec![order];
        }
        if self.record.leaving && !self.shows_leaving() || self.has_new_trouble() {
            let txn = report_stage(&self.keyspace, &self.name, &self.record, lease);
            return vec![self.commit(Purpose::UrgentReport, txn)];
        }
        match self.decision(self.stability.stability(now)) {
            Action::Propose { placement, replacing, status_writes } => {
                info!(generation = %placement.generation(), stages = placement.shards().len(), "proposing a placement");
                vec![self.commit(Purpose::Proposal, propose(&self.keyspace, &placement, replacing, &status_writes))]
            }
            Action::WritePinStatuses(status_writes) => {
                let mut orders = self.reconcile_claims(lease);
                if !self.writing {
                    orders.push(self.commit(Purpose::Bookkeeping, write_pin_statuses(&self.keyspace, &status_writes)));
                }
                orders
            }
            Action::Claim { id, shard } => self.take_shard(id, shard, lease),
            Action::Wait(Waiting::Registration) if self.is_quarantined(now) => self.reconcile_claims(lease),
            Action::Wait(Waiting::Registration) => {
                let txn = self.registration(lease);
                vec![self.commit(Purpose::Registration, txn)]
            }
            Action::Nothing | Action::Wait(_) => {
                let mut orders = self.reconcile_claims(lease);
                orders.extend(self.read_standby());
                orders
            }
        }
    }

    /// Evicts the next stage if it cannot be reached, or a stage that leaves its slot unclaimed, and removes old
    /// evictions from the store.
    fn evict_others(&mut self, lease: LeaseId, now: Instant) -> Option<Order> {
        let by = format!("stage {}", self.name);
        if let Some(found) = self.unreachable_next.take()
            && (found.kind != UnreachableKind::Silence || self.forwards_to(&found.endpoint))
            && let Some(txn) = self.evictions.evict(&self.keyspace, &self.view, &found, by.clone(), lease, now)
        {
            info!(endpoint = found.endpoint, cause = found.cause, "the next stage cannot be reached: evicting it");
            return Some(self.commit(Purpose::Eviction, txn));
        }
        if let Some(txn) = self.evictions.evict_unclaimed(&self.keyspace, &self.view, &self.name, lease, now) {
            info!("a stage leaves its slot unclaimed: evicting it");
            return Some(self.commit(Purpose::Eviction, txn));
        }
        let txn = self.evictions.forget(&self.keyspace, &self.view, &by, now)?;
        Some(self.commit(Purpose::Bookkeeping, txn))
    }

    /// True if the next stage listens at `endpoint`.
    fn forwards_to(&self, endpoint: &str) -> bool {
        let next = self.held.as_ref().map(|held| held.next(&self.view));
        matches!(next, Some(Next::Stage { endpoint: next, .. }) if next == endpoint)
    }

    /// A last stage whose answers do not reach a gateway evicts itself, if the other stages suffice.
    fn evict_itself(&mut self, lease: LeaseId, now: Instant) -> Option<Order> {
        let gateway = self.relay.take_silent_gateway(now)?;
        let id = self.held.as_ref().map(Held::id)?;
        let claim = self.view.claims.get(&id).filter(|claim| claim.value.stage == self.name)?;
        let mut others = (*self.view).clone();
        others.stages.remove(&self.name);
        if Proposal::new(&others, &self.view.model.as_ref()?.value, false).shards.is_err() {
            warn!(gateway, "the gateway takes no answers, and the other stages do not suffice: going on");
            return None;
        }
        warn!(gateway, "the gateway takes no answers: evicting this stage so that another one is the last");
        let why = EvictionRecord {
            by: format!("stage {}", self.name),
            endpoint: self.record.endpoint.clone(),
            cause: format!("gateway {gateway} takes no answers of it, and the other stages suffice"),
        };
        let txn = evict(&self.keyspace, &self.name, id, claim.mod_revision, &why, lease);
        Some(self.commit(Purpose::Eviction, txn))
    }

    /// Writes records again that the store has lost: the model, the placement, and this stage's own.
    fn rewrite_lost(&mut self, lease: LeaseId) -> Option<Order> {
        let own_claim = self.held.as_ref().map(|held| Key::Claim(held.id()));
        let own = [Key::Model, Key::Placement, Key::Stage(self.name.clone())].into_iter().chain(own_claim);
        let (key, instead) = own.filter_map(|key| self.view.recalled.get(&key).map(|at| (key, *at))).next()?;
        let txn = match &key {
            Key::Model => restore(&self.keyspace, &key, &self.view.model.as_ref()?.value, instead, None),
            Key::Placement => restore(&self.keyspace, &key, &self.view.placement.as_ref()?.value, instead, None),
            Key::Stage(_) => restore(&self.keyspace, &key, &self.record, instead, Some(lease)),
            _ => {
                let record = self.held.as_ref()?.record(&self.name, &self.record.endpoint);
                restore(&self.keyspace, &key, &record, instead, Some(lease))
            }
        };
        info!(%key, "the store has lost this record: writing it again");
        Some(self.commit(Purpose::Rewrite, txn))
    }

    pub(super) fn decision(&mut self, stability: Stability) -> Action {
        if let Some(decided) = self.decided.as_ref().filter(|decided| decided.stability == stability) {
            return decided.action.clone();
        }
        let proposals = &self.proposals;
        let action = decide_by(&self.view, &self.name, stability, |model, speed_moves| {
            proposals.of(&self.view, model, speed_moves)
        });
        self.log_waiting(&action);
        self.decided = Some(Decided { stability, action: action.clone() });
        action
    }

    /// Logs the reason for which the stage waits, once for each reason.
    fn log_waiting(&mut self, action: &Action) {
        let waiting = if let Action::Wait(waiting) = action { Some(waiting) } else { None };
        if waiting != self.waiting.as_ref() {
            self.waiting = waiting.cloned();
            if let Some(reason) = waiting.and_then(|waiting| waiting.reason(&self.view)) {
                info!(reason, "waiting: no placement can be made");
            }
        }
    }

    pub(super) fn commit(&mut self, purpose: Purpose, txn: Txn) -> Order {
        self.writing = true;
        Order::Commit(purpose, txn)
    }

    /// A write has ended.
    pub(super) fn written(
        &mut self,
        purpose: Purpose,
        outcome: Result<Committed, StoreError>,
        now: Instant,
    ) -> Vec<Order> {
        self.writing = false;
        let revision = match &outcome {
            Ok(Committed::Applied { revision }) => revision.0,
            // Another process was faster: the view with its write will come.
            Ok(Committed::Refused) => self.view.revision + 1,
            Err(_) => u64::MAX,
        };
        self.pace = Pace { revision, deadline: now + STORE_RETRY };
        match (purpose, outcome) {
            (_, Err(error)) => {
                // Tried again at a later tick. Decisions are level-triggered, so there is no state to keep.
                debug!(?purpose, %error, "a store write failed");
                Vec::new()
            }
            (Purpose::Claim(id), Ok(Committed::Applied { .. })) => self.claimed(id).into_iter().collect(),
            (Purpose::Claim(ClaimId { generation, slot }), Ok(Committed::Refused)) => {
                info!(%generation, slot, "the claim was refused: the cluster has moved on");
                if self.next_held.take().is_none() { self.drop_shard() } else { Vec::new() }
            }
            (Purpose::Eviction, Ok(Committed::Applied { .. })) => {
                self.record.load.strikes_total += 1;
                Vec::new()
            }
            (
                Purpose::Registration
                | Purpose::Proposal
                | Purpose::Bookkeeping
                | Purpose::ClaimUpdate
                | Purpose::StaleClaims
                | Purpose::Eviction
                | Purpose::Report
                | Purpose::UrgentReport
                | Purpose::Rewrite,
                Ok(_),
            ) => Vec::new(),
        }
    }

    /// Writes the stage's record to the store if it has changed, and its load and memory at intervals that grow with
    /// the number of stages.
    pub(super) fn report(&mut self, memory: MemoryUse, now: Instant) -> Vec<Order> {
        let Some(lease) = self.lease.filter(|_| self.view.reachable) else { return Vec::new() };
        let record = self.report_record(lease, now);
        let load = self.report_load(memory, lease, now);
        record.into_iter().chain(load).collect()
    }

    fn report_record(&mut self, lease: LeaseId, now: Instant) -> Option<Order> {
        if now.saturating_duration_since(self.recorded_at) < REPORT_EVERY || self.writing {
            return None;
        }
        self.recorded_at = now;
        let stored = self.view.stages.get(&self.name);
        if stored.is_some_and(|stage| stage.value.is_stored_like(&self.record)) {
            return None;
        }
        let txn = report_stage(&self.keyspace, &self.name, &self.record, lease);
        Some(self.commit(Purpose::Report, txn))
    }

    fn report_load(&mut self, memory: MemoryUse, lease: LeaseId, now: Instant) -> Option<Order> {
        let elapsed = now.saturating_duration_since(self.reported_at);
        if elapsed < load_interval(self.view.stages.len()) {
            return None;
        }
        self.reported_at = now;
        let before = self.record.load.clone();
        self.record.load.memory = memory;
        self.record.load.links.clone_from(&self.links);
        self.relay.settle(elapsed, &mut self.record.load);
        let is_fresh = self.load_written_at.is_some_and(|at| now.saturating_duration_since(at) < LOAD_REFRESH);
        if is_fresh && self.record.load == before {
            return None;
        }
        self.load_written_at = Some(now);
        Some(Order::ReportLoad(report_load(&self.keyspace, &self.name, &self.record.load, lease)))
    }
    /// True if the store shows another trouble than the stage's current one.
    fn has_new_trouble(&self) -> bool {
        self.view.stages.get(&self.name).is_some_and(|stage| stage.value.trouble != self.record.trouble)
    }

    /// True if the store shows that this stage is about to stop.
    pub(super) fn shows_leaving(&self) -> bool {
        self.view.stages.get(&self.name).is_some_and(|stage| stage.value.leaving)
    }
}

// === impl Pace ===

impl Pace {
    /// The state before the first write.
    pub(super) fn new(now: Instant) -> Self {
        Self { revision: 0, deadline: now }
    }
}
