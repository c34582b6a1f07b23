//! From placement to shard: which claim the stage writes, what it loads and reads ahead, and when it lets go.

use schema::record::{KvRoom, KvType, Shard};
use schema::{Generation, Key};
use tracing::{info, warn};

use super::Member;
use super::event::{Order, Purpose};
use crate::membership::{claim, leave_claims, mark_claim};
use crate::planner::standby_ranges;
use crate::runner::LoadError;
use crate::stage::compute::Loaded;
use crate::stage::held::{Held, Phase};
use crate::store::LeaseId;

/// Stale claims that one write gives up: a stage has one or two, and the next write takes what is left.
const CLAIMS_LEFT_MAX: usize = 64;

/// The layers that a stage without a shard reads into memory.
pub(super) struct Standby {
    ranges: Vec<schema::LayerRange>,
    /// The moments since which stages and placement were as they were then.
    since: (std::time::Instant, std::time::Instant),
}

impl Member {
    /// Takes a shard of the newest placement: beside the one that still serves, or in its place.
    pub(super) fn take_shard(&mut self, generation: Generation, slot: u32, shard: Shard, lease: LeaseId) -> Vec<Order> {
        let mut orders = Vec::new();
        // Where an operator deleted the claim, its shard is still held.
        if !self.newest().is_some_and(|held| held.is(generation, slot) && held.shard == shard) {
            self.record.standby = Vec::new();
            self.standby = None;
            let memory_bound_bytes = (self.memory_bound)(shard.layers, self.kv_room());
            let claimed = Held { generation, slot, shard, phase: Phase::Claiming, memory_bound_bytes, loads: 0 };
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

    pub(super) fn claim(&mut self, lease: LeaseId) -> Option<Order> {
        let (held, placement) = (self.newest()?, self.view.placement.as_ref()?);
        let record = held.record(&self.name, &self.record.endpoint);
        let id = (held.generation, held.slot);
        let spoilt = self.view.spoilt(&Key::Claim(id.0, id.1));
        let seen = (placement.mod_revision, spoilt);
        let txn = claim(&self.keyspace, id, &record, seen, &self.stale_claims(), lease);
        Some(self.commit(Purpose::Claim(id.0, id.1), txn))
    }

    /// What the newest claim is for.
    pub(super) fn newest(&self) -> Option<&Held> {
        self.coming.as_ref().or(self.held.as_ref())
    }

    /// Whether what is held is still of use, though the newest placement is another: as long as that generation is whole and
    /// the newer one is not ready, requests go on by it.
    pub(super) fn serves_on(&self) -> bool {
        let is_older = |held: &&Held| self.view.placed().is_some_and(|placed| placed > held.generation);
        let older = self.held.as_ref().filter(|held| held.is_ready()).filter(is_older);
        older.is_some_and(|held| self.view.cover(held.generation).is_some()) && !self.view.is_ready()
    }

    /// Without a part in a cluster that is whole: reads what it would be given if somebody were lost, once for each state of
    /// the cluster.
    pub(super) fn stand_by(&mut self) -> Option<Order> {
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
    pub(super) fn tend_claim(&mut self, lease: LeaseId) -> Vec<Order> {
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
    pub(super) fn move_on(&mut self) -> Vec<Order> {
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
    pub(super) fn stale_claims(&self) -> Vec<(Generation, u32)> {
        let held = [&self.held, &self.coming].map(|held| held.as_ref().map(|held| (held.generation, held.slot)));
        let own = self.view.claims.iter().filter(|(_, claim)| claim.value.stage == self.name);
        own.map(|(id, _)| *id).filter(|id| !held.contains(&Some(*id))).take(CLAIMS_LEFT_MAX).collect()
    }

    pub(super) fn leave_stale_claims(&mut self) -> Option<Order> {
        let stale = self.stale_claims();
        (!stale.is_empty()).then(|| self.commit(Purpose::Leave, leave_claims(&self.keyspace, &stale)))
    }

    /// The claim is in the store: its shard is loaded, or, where an older one is served, read into memory first.
    pub(super) fn claimed(&mut self, generation: Generation, slot: u32) -> Option<Order> {
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

    pub(super) fn load(&mut self) -> Option<Order> {
        let (room, budget_bytes) = (self.kv_room(), self.record.memory_budget_bytes);
        let held = self.held.as_mut()?;
        info!(generation = %held.generation, slot = held.slot, layers = %held.shard.layers, "loading");
        held.phase = Phase::Loading;
        self.orders += 1;
        held.loads = self.orders;
        Some(Order::Load { number: self.orders, layers: held.shard.layers, room, budget_bytes })
    }

    /// Weights were read into memory, by the `number`th order.
    pub(super) fn has_read(&mut self, number: u64) {
        let waited_for = self.orders == number;
        if let Some(standby) = self.standby.as_ref().filter(|_| waited_for) {
            self.record.standby.clone_from(&standby.ranges);
        }
        if let Some(coming) = self.coming.as_mut().filter(|coming| waited_for && coming.phase == Phase::ReadingAhead) {
            coming.phase = Phase::Read;
        }
    }

    /// A shard was loaded, or not, by the `number`th order.
    pub(super) fn loaded(&mut self, number: u64, shard: Result<Loaded, LoadError>) -> Vec<Order> {
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

    pub(super) fn kv_room(&self) -> KvRoom {
        let nothing = KvRoom { tokens: 0, kv_type: KvType::F16 };
        self.view.model.as_ref().map_or(nothing, |model| model.value.kv_room())
    }
}
