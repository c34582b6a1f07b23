//! Division of the blocks of keys and values among the gateways: the pool has parts, and each part is in at most one
//! gateway's record. Pure: shares are parameters, and the result is a gateway's next move. This module knows neither
//! the store nor the contents of blocks.

use std::collections::{BTreeMap, BTreeSet};

use schema::Key;
use schema::frame::Hop;
use schema::record::{GatewayRecord, KvBlocks, ModelRecord, Share};

use crate::limits::GATEWAYS_MAX;
use crate::runner::KV_BLOCK_TOKENS;
use crate::store::LeaseId;
use crate::view::{ClusterView, Versioned};

/// The blocks that every stage has for the cluster's model, in parts of about equal size. Each part has blocks of each
/// kind that the model's layers need.
///
/// The blocks of the least room are divided first, then those that the stages have beyond it. So a part keeps its
/// blocks of the least room whatever the room becomes, and a member that knows of no other names no foreign block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    least: KvBlocks,
    blocks: KvBlocks,
}

/// The blocks of one kind in a pool.
#[derive(Debug, Clone, Copy)]
struct KindBlocks {
    /// Those of the least room.
    least: u32,
    all: u32,
}

/// A set of blocks of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BlockSet {
    /// Blocks of layers without a window.
    pub(crate) full: BTreeSet<u32>,
    /// Blocks of layers with a window.
    pub(crate) window: BTreeSet<u32>,
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
    /// The pool of a cluster that serves `model`, whose stages have `kv_blocks` blocks. No less than the room in its
    /// record, for which every stage that serves has memory.
    pub(crate) fn new(model: &ModelRecord, kv_blocks: u32) -> Self {
        let least = model.kv_pool();
        let all = model.kv_kinds().pool(kv_blocks.saturating_mul(KV_BLOCK_TOKENS));
        let blocks = KvBlocks { full: all.full.max(least.full), window: all.window.max(least.window) };
        Self { least, blocks }
    }

    fn full(self) -> KindBlocks {
        KindBlocks { least: self.least.full, all: self.blocks.full }
    }

    fn window(self) -> KindBlocks {
        KindBlocks { least: self.least.window, all: self.blocks.window }
    }

    /// The number of its parts. Each part has at least one block of each kind that there is.
    pub(crate) fn parts(self) -> u32 {
        let counts = [self.least.full, self.least.window].into_iter().filter(|count| *count > 0);
        counts.min().unwrap_or(0).min(Share::PARTS_MAX)
    }

    /// The share with all parts.
    pub(crate) fn whole(self) -> Share {
        Share::of(0..self.parts())
    }

    /// The blocks of a part, of one kind.
    fn blocks_of(self, part: u32, blocks: KindBlocks) -> impl Iterator<Item = u32> {
        let part_in = |start: u32, end: u32| {
            let count = u64::from(end.saturating_sub(start));
            let at = |part: u32| start + (u64::from(part) * count / u64::from(self.parts().max(1))) as u32;
            at(part)..at(part + 1)
        };
        part_in(0, blocks.least).chain(part_in(blocks.least, blocks.all))
    }

    /// The blocks of a share.
    pub(crate) fn blocks(self, share: Share) -> BlockSet {
        let of = |blocks| {
            let parts = share.parts().filter(move |part| *part < self.parts());
            parts.flat_map(move |part| self.blocks_of(part, blocks)).collect()
        };
        BlockSet { full: of(self.full()), window: of(self.window()) }
    }

    /// The least number of blocks of each kind that any `parts` parts have together.
    pub(crate) fn blocks_at_least(self, parts: u32) -> KvBlocks {
        let each = |blocks: u32| blocks / self.parts().max(1);
        let of = |KindBlocks { least, all }| parts * (each(least) + each(all - least));
        KvBlocks { full: of(self.full()), window: of(self.window()) }
    }

    /// The part of block `block`, of one kind.
    fn part_of(self, block: u32, KindBlocks { least, all }: KindBlocks) -> Option<u32> {
        let (block, count) = if block < least { (block, least) } else { (block - least, all - least) };
        let (block, count) = (u64::from(block), u64::from(count));
        (block < count).then(|| (((block + 1) * u64::from(self.parts()) - 1) / count) as u32)
    }

    /// A block that `hop` names and `share` does not have.
    pub(crate) fn foreign_block(self, hop: &Hop, share: Share) -> Option<u32> {
        let is_foreign = |block: u32, blocks| self.part_of(block, blocks).is_none_or(|part| !share.has(part));
        let full = hop.slices.iter().flat_map(|slice| &slice.blocks).map(|block| (*block, self.full()));
        let window = hop.slices.iter().flat_map(|slice| &slice.window_blocks).map(|block| (*block, self.window()));
        full.chain(window).find(|(block, blocks)| is_foreign(*block, *blocks)).map(|(block, _)| block)
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

// === impl BlockSet ===

impl BlockSet {
    /// Its blocks with lower numbers than these counts.
    pub(crate) fn below(mut self, counts: KvBlocks) -> Self {
        self.full.split_off(&counts.full);
        self.window.split_off(&counts.window);
        self
    }

    /// Number of its blocks of each kind.
    pub(crate) fn counts(&self) -> KvBlocks {
        KvBlocks { full: self.full.len() as u32, window: self.window.len() as u32 }
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
    match Pool::new(&model.value, 0).decide(&view.gateway_shares(), slot) {
        ShareChange::Take(parts) => parts,
        ShareChange::Stay | ShareChange::Give(_) => Share::EMPTY,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::frame::Slice;
    use schema::{Epoch, Generation, SequenceId, Step};

    use super::*;

    fn pool(blocks: u32) -> Pool {
        of(KvBlocks { full: blocks, window: 0 })
    }

    /// A pool that has the least room.
    fn of(blocks: KvBlocks) -> Pool {
        Pool { least: blocks, blocks }
    }

    #[test]
    fn every_block_is_in_one_part() {
        let counts = [1, 5, 63, 64, 65, 100, 256, 1000];
        for (full, window) in counts.iter().flat_map(|full| [0, 1, 7, 64, 250].map(|window| (*full, window))) {
            for beyond in [0, 1, 63, 700] {
                let least = KvBlocks { full, window };
                check_pool(Pool {
                    least,
                    blocks: KvBlocks { full: full + beyond, window: window + if window > 0 { beyond / 4 } else { 0 } },
                });
            }
        }
    }

    /// Checks that each block of the pool is in one part, which has some of each kind.
    fn check_pool(pool: Pool) {
        let KvBlocks { full, window } = pool.blocks;
        let all = pool.blocks(pool.whole());
        assert_eq!(all.counts(), pool.blocks, "{pool:?}");
        assert!(all.full.into_iter().eq(0..full) && all.window.into_iter().eq(0..window), "{pool:?}");
        let kinds = [pool.full(), pool.window()];
        for (part, blocks) in (0..pool.parts()).flat_map(|part| kinds.map(|blocks| (part, blocks))) {
            assert_eq!(pool.blocks_of(part, blocks).next().is_none(), blocks.all == 0);
            let is_own = |block| pool.part_of(block, blocks) == Some(part);
            assert!(pool.blocks_of(part, blocks).all(is_own), "{part} of {pool:?}");
            // A member that knows of the least room alone has the same.
            let known = pool.blocks_of(part, blocks).filter(|block| *block < blocks.least);
            assert!(known.eq(of(pool.least).blocks_of(part, KindBlocks { all: blocks.least, ..blocks })));
        }
        for parts in 0..=pool.parts() {
            let (least, own) = (pool.blocks_at_least(parts), pool.blocks(Share::of(0..parts)).counts());
            assert!(least.full <= own.full && least.window <= own.window, "{parts} of {pool:?}");
        }
        assert_eq!((pool.part_of(full, pool.full()), pool.part_of(window, pool.window())), (None, None));
    }

    #[test]
    fn blocks_of_each_kind_are_in_the_share_or_foreign() {
        let pool = of(KvBlocks { full: 64, window: 32 });
        let share = Share::of(0..16);
        let foreign = |blocks: Vec<u32>, window_blocks: Vec<u32>| {
            let slice = Slice { blocks, window_blocks, ..Slice::empty(SequenceId(1)) };
            let hop = Hop {
                generation: Generation(1),
                gateway: 0,
                epoch: Epoch(1),
                step: Step(0),
                slot: 0,
                rows: 1,
                hidden: 0,
                slices: vec![slice],
                spent: Vec::new(),
            };
            pool.foreign_block(&hop, share)
        };
        assert_eq!(foreign(vec![0, 31], vec![0, 15]), None);
        assert_eq!(foreign(vec![0, 32], vec![15]), Some(32));
        assert_eq!(foreign(vec![31], vec![16]), Some(16));
        assert_eq!(foreign(vec![31], vec![99]), Some(99));
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
