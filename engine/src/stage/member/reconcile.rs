//! Between the stage and the store: one write at a time, the most urgent first, until the store shows what the stage knows.

use std::time::Instant;

use schema::Key;
use schema::record::{EvictionRecord, MemoryUse};
use tracing::{debug, info, warn};

use super::Member;
use super::event::{Order, Purpose};
use crate::decide::{Action, Stability, Waiting, decide};
use crate::limits::{REPORT_EVERY, STORE_RETRY};
use crate::membership::{evict, mark_to_write, note, propose, put_back, register_stage, report_stage, sign_stage};
use crate::planner::Proposal;
use crate::store::{Committed, LeaseId, StoreError, Txn};

/// What was decided about the view at hand; deciding anew for every frame would cost more than the frame.
pub(super) struct Decided {
    stability: Stability,
    action: Action,
}

/// When to look at the plan again after a write: when the view shows the store at `revision`, but by `deadline` at last.
pub(super) struct Pace {
    revision: u64,
    deadline: Instant,
}

impl Member {
    /// The write by which the stage joins under `lease`: from now on its record says so, and proves it.
    pub(crate) fn registration(&mut self, lease: LeaseId) -> Txn {
        let key = Key::Stage(self.name.clone());
        sign_stage(&mut self.record, self.secret.as_ref(), (&self.keyspace, &key), lease);
        register_stage(&self.keyspace, &self.name, &self.record, self.view.spoilt(&key), lease)
    }

    /// Orders what the placement and the store's state call for, unless a write is under way.
    pub(super) fn follow_plan(&mut self, now: Instant) -> Vec<Order> {
        let Some(lease) = self.lease else { return Vec::new() };
        let caught_up = self.view.revision >= self.pace.revision || now >= self.pace.deadline;
        if self.writing || !self.view.reachable || !caught_up {
            return Vec::new();
        }
        if let Ok(Some(txn)) = mark_to_write(&self.keyspace, &self.view, self.secret.as_ref()) {
            return vec![self.commit(Purpose::Heal, txn)];
        }
        if !self.view.recalled.is_empty() {
            // A decision waits until the store shows again what it would be based on.
            return self.heal(lease).into_iter().collect();
        }
        if let Some(order) = self.evict_others(lease, now).or_else(|| self.evict_itself(lease, now)) {
            return vec![order];
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
            Action::Claim { generation, slot, shard } => self.take_shard(generation, slot, shard, lease),
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

    /// Evicts the next stage if it cannot be reached, and removes old evictions from the store.
    fn evict_others(&mut self, lease: LeaseId, now: Instant) -> Option<Order> {
        let by = format!("stage {}", self.name);
        if let Some(found) = self.deserted.take()
            && let Some(txn) = self.evictions.evict(&self.keyspace, &self.view, &found, (by, lease), now)
        {
            info!(endpoint = found.endpoint, cause = found.cause, "the next stage cannot be reached: evicting it");
            return Some(self.commit(Purpose::Eviction, txn));
        }
        let txn = self.evictions.forget(&self.keyspace, &self.view, now)?;
        Some(self.commit(Purpose::Note, txn))
    }

    /// A last stage whose answers do not reach a gateway makes room for another one, if the others can do without it.
    fn evict_itself(&mut self, lease: LeaseId, now: Instant) -> Option<Order> {
        let gateway = self.relay.take_unheard(now)?;
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
        let txn = evict(&self.keyspace, &self.name, (held, claim.mod_revision), &why, lease);
        Some(self.commit(Purpose::Eviction, txn))
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

    pub(super) fn decision(&mut self, stability: Stability) -> Action {
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

    pub(super) fn commit(&mut self, purpose: Purpose, txn: Txn) -> Order {
        self.writing = true;
        Order::Commit(purpose, txn)
    }

    /// A write came to its end.
    pub(super) fn written(
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

    /// Says in the store, now and then, what was done and used.
    pub(super) fn report(&mut self, memory: MemoryUse, now: Instant) -> Option<Order> {
        let lease = self.lease?;
        let elapsed = now.saturating_duration_since(self.settled);
        if elapsed < REPORT_EVERY || self.writing || !self.view.reachable {
            return None;
        }
        self.settled = now;
        self.record.load.memory = memory;
        self.relay.settle(elapsed, &mut self.record.load);
        let unchanged = self.view.stages.get(&self.name).is_some_and(|stage| stage.value == self.record);
        if unchanged {
            return None;
        }
        let txn = report_stage(&self.keyspace, &self.name, &self.record, lease);
        Some(self.commit(Purpose::Report, txn))
    }
    /// True if the store shows another trouble of this stage than it has.
    fn has_new_trouble(&self) -> bool {
        self.view.stages.get(&self.name).is_some_and(|stage| stage.value.trouble != self.record.trouble)
    }

    /// Whether the store shows that this stage is about to stop.
    pub(super) fn leaves_visibly(&self) -> bool {
        self.view.stages.get(&self.name).is_some_and(|stage| stage.value.leaving)
    }
}

// === impl Pace ===

impl Pace {
    /// Nothing was written yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { revision: 0, deadline: now }
    }
}
