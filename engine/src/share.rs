//! Division of the blocks of keys and values among the gateways: the pool has parts, and each part is in at most one
//! gateway's record. Pure: shares are parameters, and the result is a gateway's next move. This module knows neither
//! the store nor the contents of blocks.

use std::collections::BTreeMap;
use std::ops::Range;

use schema::Key;
use schema::frame::Hop;
use schema::record::{GatewayRecord, ModelRecord, Share};

use crate::limits::GATEWAYS_MAX;
use crate::runner::KV_BLOCK_TOKENS;
use crate::store::LeaseId;
use crate::view::{ClusterView, Versioned};

/// The blocks that every stage has for the cluster's model, in parts of about equal size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    blocks: u32,
}

/// The next change of a gateway's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShareChange {
    /// None: it has its fair share, or must wait for others to give parts up.
    Stay,
    /// Give up this number of parts: it has too many.
    Give(u32),
    /// Take these free parts: it has too few.
    Take(Share),
}

// === impl Pool ===

impl Pool {
    /// The pool of a cluster that serves `model`: every stage that serves has room for its tokens.
    pub(crate) fn new(model: &ModelRecord) -> Self {
        Self { blocks: model.kv_tokens.div_ceil(KV_BLOCK_TOKENS) }
    }

    /// The number of its parts. Each part has at least one block.
    pub(crate) fn parts(self) -> u32 {
        self.blocks.min(Share::PARTS_MAX)
    }

    /// The share with all parts.
    pub(crate) fn whole(self) -> Share {
        Share::of(0..self.parts())
    }

    /// The blocks of a part.
    pub(crate) fn blocks_of(self, part: u32) -> Range<u32> {
        let start = |part: u32| (u64::from(part) * u64::from(self.blocks) / u64::from(self.parts().max(1))) as u32;
        start(part)..start(part + 1)
    }

    /// The blocks of a share in ascending order.
    pub(crate) fn blocks(self, share: Share) -> impl Iterator<Item = u32> {
        share.parts().filter(move |part| *part < self.parts()).flat_map(move |part| self.blocks_of(part))
    }

    /// The least number of blocks that any `parts` parts have together.
    pub(crate) fn blocks_at_least(self, parts: u32) -> u32 {
        parts * (self.blocks / self.parts().max(1))
    }

    fn part_of(self, block: u32) -> Option<u32> {
        let (block, blocks) = (u64::from(block), u64::from(self.blocks));
        (block < blocks).then(|| (((block + 1) * u64::from(self.parts()) - 1) / blocks) as u32)
    }

    /// A block that `hop` names and `share` does not have.
    pub(crate) fn foreign_block(self, hop: &Hop, share: Share) -> Option<u32> {
        let named = hop.slices.iter().flat_map(|slice| &slice.blocks);
        named.copied().find(|block| self.part_of(*block).is_none_or(|part| !share.has(part)))
    }

    /// The number of parts that the gateway in slot `me` should have next to the other gateways in `shares`.
    pub(crate) fn fair_parts(self, shares: &BTreeMap<u32, Share>, me: u32) -> u32 {
        let others = shares.keys().filter(|slot| **slot != me);
        let (count, before) = (others.clone().count() as u32 + 1, others.filter(|slot| **slot < me).count() as u32);
        self.parts() / count + u32::from(before < self.parts() % count)
    }

    /// The next move of the gateway in slot `me`, given the `shares` that the store shows. Once all gateways have made
    /// their moves until there is none left, every part has an owner, and no gateway has two parts more than another.
    pub(crate) fn decide(self, shares: &BTreeMap<u32, Share>, me: u32) -> ShareChange {
        let own = shares.get(&me).copied().unwrap_or_default();
        let fair = self.fair_parts(shares, me);
        let taken = shares.values().fold(Share::EMPTY, |taken, share| taken.and(*share));
        match own.count().checked_sub(fair) {
            Some(0) => ShareChange::Stay,
            Some(over) => ShareChange::Give(over),
            None => {
                let free = self.whole().without(taken).parts().take((fair - own.count()) as usize);
                let free = Share::of(free);
                if free.is_empty() { ShareChange::Stay } else { ShareChange::Take(free) }
            }
        }
    }
}

/// A gateway's registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GatewayRegistration {
    /// Counts registrations. A registration that follows another one after the store has lost its data keeps the
    /// number: no other gateway can have used the blocks meanwhile.
    pub(crate) number: u64,
    pub(crate) slot: u32,
    pub(crate) lease: LeaseId,
    /// The previous lease of the same number.
    pub(crate) former: Option<LeaseId>,
}

// === impl GatewayRegistration ===

impl GatewayRegistration {
    /// The gateway's record in `view`.
    pub(crate) fn find<'a>(&self, view: &'a ClusterView) -> Option<&'a Versioned<GatewayRecord>> {
        let gateway = view.gateways.get(&self.slot)?;
        let is_own = |lease: LeaseId| gateway.value.lease == lease.to_string();
        (is_own(self.lease) || self.former.is_some_and(is_own)).then_some(gateway)
    }

    /// True if the store has lost the gateway's record. `view` is of a time after it was written.
    pub(crate) fn is_lost(&self, view: &ClusterView) -> bool {
        self.find(view).is_none() || view.recalled.contains_key(&Key::Gateway(self.slot))
    }

    /// The registration to write under `lease`, with its share. If the store has lost the record of `own`, it is the
    /// same slot. Otherwise it is the first free slot, with free parts. `None` if all slots are taken.
    pub(crate) fn next(view: &ClusterView, own: Option<Self>, lease: LeaseId) -> Option<(Self, Share)> {
        let number = own.map_or(1, |own| own.number + 1);
        if let Some(own) = own
            && view.recalled.contains_key(&Key::Gateway(own.slot))
            && let Some(record) = own.find(view)
        {
            let kept = Self { lease, former: Some(own.lease).filter(|former| *former != lease).or(own.former), ..own };
            // Parts that others have written again by now are theirs: the recalled record may be older than theirs.
            let stands = |slot: &u32| *slot != own.slot && !view.recalled.contains_key(&Key::Gateway(*slot));
            let others = view.gateways.iter().filter(|(slot, _)| stands(slot));
            let taken = others.fold(Share::EMPTY, |taken, (_, other)| taken.and(other.value.share));
            return Some((kept, record.value.share.without(taken)));
        }
        // This lease has a record already: it was written, and the answer was lost.
        let written = view.gateways.iter().find(|(_, gateway)| gateway.value.lease == lease.to_string());
        if let Some((slot, record)) = written {
            return Some((Self { number, slot: *slot, lease, former: None }, record.value.share));
        }
        let unusable = own.map(|own| own.slot).filter(|slot| view.unusable.contains_key(&Key::Gateway(*slot)));
        let slot = unusable.or_else(|| first_free(view))?;
        Some((Self { number, slot, lease, former: None }, initial_share(view, slot)))
    }
}

/// The first slot without a gateway. An empty slot goes before one whose value cannot be used.
fn first_free(view: &ClusterView) -> Option<u32> {
    let taken = view.gateway_revisions();
    let empty = (0..GATEWAYS_MAX).find(|slot| !taken.contains_key(slot));
    empty.or_else(|| (0..GATEWAYS_MAX).find(|slot| !view.gateways.contains_key(slot)))
}

/// The first share of the gateway that registers in `slot`.
fn initial_share(view: &ClusterView, slot: u32) -> Share {
    let Some(model) = &view.model else { return Share::EMPTY };
    match Pool::new(&model.value).decide(&view.gateway_shares(), slot) {
        ShareChange::Take(parts) => parts,
        ShareChange::Stay | ShareChange::Give(_) => Share::EMPTY,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(blocks: u32) -> Pool {
        Pool { blocks }
    }

    #[test]
    fn every_block_is_in_one_part() {
        for blocks in [1, 5, 63, 64, 65, 100, 256, 1000] {
            let pool = pool(blocks);
            assert!(pool.blocks(pool.whole()).eq(0..blocks), "{blocks}");
            for part in 0..pool.parts() {
                assert!(!pool.blocks_of(part).is_empty());
                assert!(pool.blocks_of(part).all(|block| pool.part_of(block) == Some(part)), "{part} of {blocks}");
            }
            assert_eq!(pool.part_of(blocks), None);
        }
    }

    #[test]
    fn a_new_gateway_gets_the_parts_that_the_first_gives_up() {
        let pool = pool(256);
        let mut shares = BTreeMap::new();
        assert_eq!(pool.decide(&shares, 0), ShareChange::Take(pool.whole()));
        shares.insert(0, pool.whole());
        assert_eq!(pool.decide(&shares, 1), ShareChange::Stay);
        shares.insert(1, Share::EMPTY);
        assert_eq!(pool.decide(&shares, 0), ShareChange::Give(32));
        shares.insert(0, Share::of(0..32));
        assert_eq!(pool.decide(&shares, 1), ShareChange::Take(Share::of(32..64)));
        shares.remove(&0);
        assert_eq!(pool.decide(&shares, 1), ShareChange::Take(pool.whole()));
    }

    #[derive(Debug, Clone)]
    enum GatewayEvent {
        Joins(u32),
        Dies(u32),
        /// The gateway acts on the shares that it sees, though it may keep some of the parts that it should give up.
        Acts(u32, u32),
    }

    fn gateway_event() -> impl Strategy<Value = GatewayEvent> {
        prop_oneof![
            (0_u32..8).prop_map(GatewayEvent::Joins),
            (0_u32..8).prop_map(GatewayEvent::Dies),
            (0_u32..8, 0_u32..9).prop_map(|(slot, keeps)| GatewayEvent::Acts(slot, keeps)),
            (0_u32..8, 0_u32..1).prop_map(|(slot, keeps)| GatewayEvent::Acts(slot, keeps)),
        ]
    }

    /// Acts on the newest shares, as compare-and-set requires.
    fn act(pool: Pool, shares: &mut BTreeMap<u32, Share>, slot: u32, keeps: u32) -> bool {
        let Some(own) = shares.get(&slot).copied() else { return false };
        let new = match pool.decide(shares, slot) {
            ShareChange::Stay => own,
            ShareChange::Give(count) => {
                own.without(Share::of(own.parts().rev().take(count.saturating_sub(keeps) as usize)))
            }
            ShareChange::Take(parts) => own.and(parts),
        };
        shares.insert(slot, new);
        new != own
    }

    proptest! {
        #[test]
        fn no_part_has_two_owners_and_all_shares_become_equal(
            blocks in 1_u32..200, events in prop::collection::vec(gateway_event(), 0..60)
        ) {
            let pool = pool(blocks);
            let mut shares = BTreeMap::new();
            for event in events {
                match event {
                    GatewayEvent::Joins(slot) => drop(shares.entry(slot).or_insert(Share::EMPTY)),
                    GatewayEvent::Dies(slot) => drop(shares.remove(&slot)),
                    GatewayEvent::Acts(slot, keeps) => drop(act(pool, &mut shares, slot, keeps)),
                }
                let parts: u32 = shares.values().map(|share| share.count()).sum();
                let all = shares.values().fold(Share::EMPTY, |all, share| all.and(*share));
                prop_assert_eq!(parts, all.count(), "a part has two owners: {:?}", shares);
            }
            let slots: Vec<u32> = shares.keys().copied().collect();
            let mut rounds = 0;
            while slots.iter().filter(|slot| act(pool, &mut shares, **slot, 0)).count() > 0 {
                rounds += 1;
                prop_assert!(rounds <= 3, "it does not come to rest: {shares:?}");
            }
            let counts: Vec<u32> = shares.values().map(|share| share.count()).collect();
            prop_assert_eq!(counts.iter().sum::<u32>(), if slots.is_empty() { 0 } else { pool.parts() });
            prop_assert!(counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0) <= 1);
        }
    }
}
