//! From placement to shard: the claims that the stage writes, the layers that it loads and reads ahead, and the moment
//! at which it drops a shard.

use std::time::Instant;

use schema::record::{KvRoom, KvType, Shard};
use schema::{ClaimId, Key};
use tracing::{info, warn};

use super::Member;
use super::event::{Order, Purpose};
use crate::membership::{ClaimSeen, claim, delete_claims, update_claim};
use crate::planner::Proposal;
use crate::runner::LoadError;
use crate::stage::done::Loaded;
use crate::stage::held::{Held, Phase};
use crate::store::LeaseId;

/// Stale claims that one write deletes: a stage has one or two, and the next write deletes the others.
const CLAIMS_LEFT_MAX: usize = 64;

/// The layers that a stage without a shard reads into memory.
pub(super) struct Standby {
    ranges: Vec<schema::LayerRange>,
    /// Times of the last changes of the stages and of the placement at that time.
    since: (Instant, Instant),
}

impl Member {
    /// True if this stage was evicted, is still in quarantine, and the other stages suffice without it.
    pub(crate) fn is_quarantined(&self, now: Instant) -> bool {
        let is_gone = !self.view.stages.contains_key(&self.name);
        let others_suffice = |model| is_gone && Proposal::new(&self.view, model, false).shards.is_ok();
        self.quarantine.left(now).is_some()
            && self.view.model.as_ref().is_some_and(|model| others_suffice(&model.value))
    }

    /// Claims a shard of the newest placement: next to the shard that still serves, or in its place.
    pub(super) fn take_shard(&mut self, id: ClaimId, shard: Shard, lease: LeaseId) -> Vec<Order> {
        let mut orders = Vec::new();
        // If an operator deleted the claim, the stage still holds its shard.
        if !self.newest().is_some_and(|held| held.id() == id && held.shard == shard) {
            self.record.standby = Vec::new();
            self.standby = None;
            let room = self.placed_room(shard.layers);
            let memory_bound_bytes = (self.memory_bound)(shard.layers, room);
            let ClaimId { generation, slot } = id;
            let claimed = Held { generation, slot, shard, phase: Phase::Claiming, memory_bound_bytes, room, loads: 0 };
            if self.still_serves() {
                self.next_held = Some(claimed);
            } else {
                self.next_held = None;
                orders.extend(self.drop_shard());
                self.held = Some(claimed);
            }
        }
        orders.extend(self.claim(lease));
        orders
    }

    pub(super) fn claim(&mut self, lease: LeaseId) -> Option<Order> {
        let (held, placement) = (self.newest()?, self.view.placement.as_ref()?);
        let record = held.record(&self.name, &self.record.endpoint);
        let id = held.id();
        let unusable_revision = self.view.unusable_revision(&Key::Claim(id));
        let seen = ClaimSeen { placement_revision: placement.mod_revision, unusable_revision };
        let txn = claim(&self.keyspace, id, &record, seen, &self.stale_claims(), lease);
        Some(self.commit(Purpose::Claim(id), txn))
    }

    /// The shard of the newest claim.
    pub(super) fn newest(&self) -> Option<&Held> {
        self.next_held.as_ref().or(self.held.as_ref())
    }

    /// True if the shard of an older generation still serves: as long as that generation holds every layer and the
    /// newer one is not ready, requests go on by the older one.
    pub(super) fn still_serves(&self) -> bool {
        let is_older = |held: &&Held| self.view.placed().is_some_and(|placed| placed > held.generation);
        let older = self.held.as_ref().filter(|held| held.is_ready()).filter(is_older);
        older.is_some_and(|held| self.view.cover(held.generation).is_some()) && !self.view.is_ready()
    }

    /// On a standby stage of a cluster whose layers are all in memory: reads the layers that it would get if a stage
    /// were lost, once for each state of the cluster.
    pub(super) fn read_standby(&mut self) -> Option<Order> {
        let since = self.stability.since();
        let known = self.standby.as_ref().is_some_and(|standby| standby.since == since);
        if known || self.newest().is_some() || self.record.leaving || !self.view.is_ready() {
            return None;
        }
        let ranges = self.proposals.standby_ranges(&self.view, &self.view.model.as_ref()?.value, &self.name);
        let read = self.standby.replace(Standby { ranges: ranges.clone(), since });
        if ranges.is_empty() || read.is_some_and(|read| read.ranges == ranges) {
            return None;
        }
        self.orders += 1;
        let bytes_max = self.record.memory_budget_bytes;
        Some(Order::ReadAhead { number: self.orders, ranges, bytes_max, claimed: false })
    }

    /// Makes the claims in the store match the shards that the stage holds, and drops a shard that the placement gives
    /// to others.
    pub(super) fn reconcile_claims(&mut self, lease: LeaseId) -> Vec<Order> {
        let placed = self.view.placed();
        self.next_held.take_if(|next_held| placed.is_some_and(|placed| placed != next_held.generation));
        let mut orders = Vec::new();
        let outdated = self.held.as_ref().is_some_and(|held| placed.is_some_and(|placed| placed != held.generation));
        if outdated && !self.still_serves() {
            orders.extend(self.switch_shard());
        }
        let Some(held) = self.newest() else {
            orders.extend(self.delete_stale_claims());
            return orders;
        };
        let id = held.id();
        let record = held.record(&self.name, &self.record.endpoint);
        let claim = self.view.claims.get(&id).map(|claim| &claim.value);
        if held.phase == Phase::Claiming && claim == Some(&record) {
            // The store applied the claim, but its answer was lost.
            orders.extend(self.claimed(id));
        } else if claim.is_some_and(|claim| *claim != record && claim.stage == self.name) {
            let txn = update_claim(&self.keyspace, id, &record, &self.stale_claims(), lease);
            orders.push(self.commit(Purpose::ClaimUpdate, txn));
        } else {
            orders.extend(self.delete_stale_claims());
        }
        orders
    }

    /// Drops the shard in favour of the next one, if there is one.
    pub(super) fn switch_shard(&mut self) -> Vec<Order> {
        let next_held = self.next_held.take();
        if let Some(held) = &self.held {
            info!(generation = %held.generation, layers = %held.shard.layers, "the placement moved on: letting go");
        }
        let mut orders = self.drop_shard();
        self.held = next_held;
        if self.held.as_ref().is_some_and(|held| held.phase != Phase::Claiming) {
            orders.extend(self.load());
        }
        orders
    }

    /// Claims in the store under this stage's name that match no shard it holds: those of an earlier process, or one
    /// that a refused claim was to replace.
    pub(super) fn stale_claims(&self) -> Vec<ClaimId> {
        let held = [&self.held, &self.next_held].map(|held| held.as_ref().map(Held::id));
        let own = self.view.claims.iter().filter(|(_, claim)| claim.value.stage == self.name);
        own.map(|(id, _)| *id).filter(|id| !held.contains(&Some(*id))).take(CLAIMS_LEFT_MAX).collect()
    }

    pub(super) fn delete_stale_claims(&mut self) -> Option<Order> {
        let stale = self.stale_claims();
        (!stale.is_empty()).then(|| self.commit(Purpose::StaleClaims, delete_claims(&self.keyspace, &stale)))
    }

    /// The claim is in the store: loads its shard or, while an older one serves, reads it into memory first.
    pub(super) fn claimed(&mut self, id: ClaimId) -> Option<Order> {
        let waiting = |held: &Held| held.id() == id && held.phase == Phase::Claiming;
        if self.held.as_ref().is_some_and(waiting) {
            return self.load();
        }
        let served_bytes = self.held.as_ref().map_or(0, |held| self.taken_bytes(held));
        let next_held = self.next_held.as_mut().filter(|next_held| waiting(next_held))?;
        next_held.phase = Phase::ReadingAhead;
        let (layers, bytes_max) =
            (next_held.shard.layers, self.record.memory_budget_bytes.saturating_sub(served_bytes));
        let ClaimId { generation, slot } = id;
        info!(%generation, slot, %layers, "claimed; reading ahead while the generation before is served");
        self.orders += 1;
        Some(Order::ReadAhead { number: self.orders, ranges: vec![layers], bytes_max, claimed: true })
    }

    pub(super) fn load(&mut self) -> Option<Order> {
        let budget_bytes = self.record.memory_budget_bytes;
        let held = self.held.as_mut()?;
        let room = held.room;
        info!(generation = %held.generation, slot = held.slot, layers = %held.shard.layers, "loading");
        held.phase = Phase::Loading;
        self.orders += 1;
        held.loads = self.orders;
        Some(Order::Load { number: self.orders, layers: held.shard.layers, room, budget_bytes })
    }

    /// Weights were read into memory by order `number`.
    pub(super) fn has_read(&mut self, number: u64) {
        let waited_for = self.orders == number;
        if let Some(standby) = self.standby.as_ref().filter(|_| waited_for) {
            self.record.standby.clone_from(&standby.ranges);
        }
        if let Some(next_held) =
            self.next_held.as_mut().filter(|next_held| waited_for && next_held.phase == Phase::ReadingAhead)
        {
            next_held.phase = Phase::Read;
        }
    }

    /// A shard was loaded, or could not be, by order `number`.
    pub(super) fn loaded(&mut self, number: u64, shard: Result<Loaded, LoadError>) -> Vec<Order> {
        // Ignores loads that nothing waits for: a load that was ordered under a lost lease was followed by the order to
        // unload, and perhaps by another load for the same generation.
        let waited_for = |held: &&mut Held| self.orders == number && held.phase == Phase::Loading;
        let Some(held) = self.held.as_mut().filter(waited_for) else { return Vec::new() };
        let generation = held.generation;
        let shard = shard.map_err(|error| error.to_string());
        let least = self.view.model.as_ref().map_or(0, |model| model.value.kv_tokens);
        if let Err(reason) = &shard
            && held.room.tokens > least
        {
            let (layers, tokens) = (held.shard.layers, held.room.tokens);
            warn!(%generation, %layers, reason, tokens, "no memory for this room: loading with the least");
            held.room.tokens = least;
            held.memory_bound_bytes = (self.memory_bound)(layers, held.room);
            return self.load().into_iter().collect();
        }
        match &shard {
            Ok(loaded) => {
                info!(%generation, layers = %held.shard.layers, weights_bytes = loaded.weights_bytes, "serving");
            }
            Err(reason) => warn!(%generation, layers = %held.shard.layers, reason, "cannot load"),
        }
        held.loaded(shard);
        self.relay.reset();
        vec![Order::Disconnect]
    }

    pub(super) fn drop_shard(&mut self) -> Vec<Order> {
        if self.held.take().is_none() {
            return Vec::new();
        }
        self.relay.clear();
        vec![Order::Unload, Order::Disconnect]
    }

    /// The room that the placement gives every stage. The least room if this stage's own bound, which knows its threads
    /// and its device, is above its budget otherwise: gateways use no more blocks than every stage has.
    fn placed_room(&self, layers: schema::LayerRange) -> KvRoom {
        let least = self.kv_room();
        let placed = self.view.placement.as_ref().and_then(|placement| placement.value.kv_tokens());
        let room = KvRoom { tokens: placed.unwrap_or(0).max(least.tokens), ..least };
        if (self.memory_bound)(layers, room) <= self.record.memory_budget_bytes { room } else { least }
    }

    /// The memory that a shard takes now, at most: blocks of keys and values that were never used take none.
    fn taken_bytes(&self, held: &Held) -> u64 {
        let Phase::Ready(loaded) = &held.phase else { return held.memory_bound_bytes };
        let anonymous = Some(self.record.load.memory.pss_anonymous_bytes).filter(|bytes| *bytes > 0);
        let taken = anonymous.map_or(u64::MAX, |anonymous| anonymous.saturating_add(loaded.weights_bytes));
        held.memory_bound_bytes.min(taken)
    }

    /// The least room of the model.
    pub(super) fn kv_room(&self) -> KvRoom {
        let nothing = KvRoom { tokens: 0, kv_type: KvType::F16 };
        self.view.model.as_ref().map_or(nothing, |model| model.value.kv_room())
    }
}
