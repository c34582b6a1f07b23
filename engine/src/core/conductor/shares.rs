//! Changes of the gateway's share of the keys and values: it gives parts up, takes free ones, and uses those after a
//! while.

use std::time::Instant;

use schema::record::{GatewayRecord, KvBlocks, Share};
use tracing::info;

use super::Conductor;
use crate::core::event::{Order, Purpose};
use crate::epochs;
use crate::limits::{ROOM_NEED_LINGER, SHARE_SETTLE, STORE_RETRY, TROUBLE_REPORT_AFTER};
use crate::membership::write_gateway;
use crate::runner::KV_BLOCK_TOKENS;
use crate::share::{GatewayRegistration, Pool, ShareChange};
use crate::store::LeaseId;

impl Conductor {
    /// True if parts are given up and the store does not show that yet.
    pub(super) fn is_giving(&self) -> bool {
        !self.holdings.given.is_empty()
    }

    /// The next write of this gateway's record, if there is one. Parts that it gives up are written once no micro-batch
    /// in flight uses them any more. Parts that it takes belong to no gateway.
    pub(super) fn write_record(&mut self, now: Instant) -> Option<Order> {
        if self.is_writing_record {
            return None;
        }
        let wrote_lately =
            self.last_write.is_some_and(|(revision, at)| revision == self.view.revision && now < at + STORE_RETRY);
        if wrote_lately || !self.view.reachable || !self.view.recalled.is_empty() {
            return None;
        }
        let view = self.view.clone();
        let (GatewayRegistration { lease, slot, .. }, pool) = (self.registered?, self.pool()?);
        let own = self.own_record()?.clone();
        let trouble = self.lasting_trouble(now);
        let epoch = epochs::to_name(self.epochs, &own);
        let addresses = self.addresses.as_ref().filter(|addresses| **addresses != own.value.addresses).cloned();
        if trouble.is_some() != own.value.trouble.is_some() || epoch.is_some() || addresses.is_some() {
            self.last_write = Some((self.view.revision, now));
            let (epoch, addresses) = (epoch.or(own.value.epoch), addresses.unwrap_or(own.value.addresses));
            let record = GatewayRecord { trouble, epoch, addresses, ..own.value };
            return Some(self.commit_record(slot, &record, lease));
        }
        let kv_tokens_needed = self.kv_tokens_needed(&own.value, now);
        if kv_tokens_needed != own.value.kv_tokens_needed {
            info!(slot, kv_tokens_needed, "the accepted sequences need another room for keys and values");
            self.last_write = Some((self.view.revision, now));
            let record = GatewayRecord { kv_tokens_needed, ..own.value };
            return Some(self.commit_record(slot, &record, lease));
        }
        let mut share = own.value.share;
        if !self.is_giving() {
            match pool.decide(&view.gateway_shares(), slot) {
                ShareChange::Stay => return None,
                ShareChange::Give(count) => self.give(pool, share, count),
                ShareChange::Take(parts) => share = share.and(parts),
            }
        }
        if !self.scheduler.has_returned(self.holdings.given_before) {
            return None;
        }
        share = share.without(self.holdings.given);
        if share == own.value.share {
            return None;
        }
        info!(slot, share = %share, "another share of the keys and values");
        self.last_write = Some((self.view.revision, now));
        let record = GatewayRecord { share, ..own.value.clone() };
        Some(self.commit_record(slot, &record, lease))
    }

    fn commit_record(&mut self, slot: u32, record: &GatewayRecord, lease: LeaseId) -> Order {
        self.is_writing_record = true;
        let txn = write_gateway(&self.keyspace, slot, record, &self.view.gateway_revisions(), lease);
        Order::Commit(Purpose::Record, txn)
    }

    /// The room for keys and values that this gateway's record should name: the least of a few sizes with which its
    /// longest sequence fits its share, and 0 for the least of all. One that it no longer needs stays for a while.
    fn kv_tokens_needed(&mut self, own: &GatewayRecord, now: Instant) -> u32 {
        let Some(model) = self.view.model.as_ref().map(|model| &model.value) else { return own.kv_tokens_needed };
        let fair = self
            .pool()
            .zip(self.registered)
            .map(|(pool, registered)| pool.fair_parts(&self.view.gateway_shares(), registered.slot));
        if own.share.count() < fair.unwrap_or(u32::MAX) {
            return own.kv_tokens_needed; // Until it has the share that it is to judge by.
        }
        let needed = self.scheduler.blocks_needed_by(model.kv_kinds());
        let holds = |tokens: &u32| {
            let kept = Pool::new(model, tokens.div_ceil(KV_BLOCK_TOKENS)).blocks(own.share).counts();
            kept.full >= needed.full && kept.window >= needed.window
        };
        // Twice as large each time, so that the record changes seldom.
        let twice = |tokens: &u32| (*tokens < model.kv_tokens_max()).then(|| tokens.saturating_mul(2));
        let sizes = std::iter::successors(Some(model.kv_tokens.max(1)), twice);
        let tokens = sizes.map(|tokens| tokens.min(model.kv_tokens_max())).find(holds);
        let tokens = tokens.unwrap_or(model.kv_tokens_max());
        let tokens = if tokens > model.kv_tokens { tokens } else { 0 };
        if tokens >= own.kv_tokens_needed {
            self.needs_less_since = None;
            return tokens;
        }
        let since = *self.needs_less_since.get_or_insert(now);
        if now < since + ROOM_NEED_LINGER { own.kv_tokens_needed } else { tokens }
    }

    /// The reason for which nothing comes through a pipeline that the store shows as complete, once that has lasted for
    /// a while.
    fn lasting_trouble(&mut self, now: Instant) -> Option<String> {
        if self.identity.is_none() || self.scheduler.is_proven() {
            self.unproven_since = None;
            return None;
        }
        let since = *self.unproven_since.get_or_insert(now);
        (now >= since + TROUBLE_REPORT_AFTER).then(|| self.why_unproven())
    }

    /// Gives up `count` parts of `share`, those of which sequences own the fewest blocks first. It gives up fewer if
    /// the rest would be too small for the longest sequence, which must be able to end.
    fn give(&mut self, pool: Pool, share: Share, count: u32) {
        let needed = self.scheduler.blocks_needed();
        let mut left = pool.blocks(share).counts();
        let mut parts: Vec<u32> = share.parts().rev().collect();
        parts.sort_by_cached_key(|part| self.scheduler.owned_among(&pool.blocks(Share::of([*part]))));
        let affordable = |part: &u32| {
            let own = pool.blocks(Share::of([*part])).counts();
            left = KvBlocks { full: left.full - own.full, window: left.window - own.window };
            left.full >= needed.full && left.window >= needed.window
        };
        let given = Share::of(parts.into_iter().take(count as usize).take_while(affordable));
        self.scheduler.lose(&pool.blocks(given));
        self.holdings.used = self.holdings.used.without(given);
        self.holdings.given = given;
        self.holdings.given_before = self.scheduler.next_step();
    }

    /// Uses the parts that this gateway has gained, once the stages have had time to learn of them.
    pub(super) fn use_gains(&mut self, now: Instant) {
        let Some(pool) = self.pool().filter(|_| self.identity.is_some()) else { return };
        let gained = self.holdings.usable().without(self.holdings.used);
        if gained.is_empty() {
            self.holdings.gains_from = None;
        } else if *self.holdings.gains_from.get_or_insert(now + SHARE_SETTLE) <= now {
            self.scheduler.gain(pool.blocks(gained).below(self.blocks_max));
            self.holdings.used = self.holdings.used.and(gained);
        }
    }

    /// The longest sequence that this gateway accepts, in tokens: one that fits the model's context and the blocks of
    /// one sequence.
    pub(super) fn context_tokens(&self) -> u32 {
        let context_tokens = self.view.model.as_ref().map_or(0, |model| model.value.context_tokens_max());
        context_tokens.min(self.kv_kinds().sequence_tokens_max(self.blocks_for_one()))
    }

    /// Most blocks of one sequence: no more than this gateway keeps when the other gateways have their shares.
    fn blocks_for_one(&self) -> KvBlocks {
        let total = self.scheduler.total_blocks();
        let own = self.registered.zip(self.own_record());
        let Some((pool, (registered, own))) = self.pool().zip(own) else { return total };
        let fair = pool.fair_parts(&self.view.gateway_shares(), registered.slot);
        if own.value.share.count() <= fair {
            return total;
        }
        let kept = pool.blocks_at_least(fair);
        KvBlocks { full: total.full.min(kept.full), window: total.window.min(kept.window) }
    }
}
