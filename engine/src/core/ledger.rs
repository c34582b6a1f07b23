//! The owners of the blocks of one kind, and the prefix cache over their contents. One ledger serves all stages: they
//! use the same block numbers, so a cached block is on all of them.
//!
//! A full block of known tokens is indexed by the [`PrefixHash`] of all tokens up to its end. It is never written
//! again. Sequences with the same prefix own it together. Without an owner it stays cached until its room is needed.
//! Eviction is least recently used first, and ends of prefixes go before their beginnings. The blocks before a cached
//! one may be cached or not: `kv_ledger` decides which of them a sequence needs.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::prefix_hash::PrefixHash;

#[derive(Debug, Default)]
struct Block {
    /// Number of sequences that own it.
    owners: u32,
    /// The prefix that ends with it, if it is cached.
    cached: Option<PrefixHash>,
    /// Its key in [`BlockLedger::idle`], if it is cached and has no owner.
    idle: Option<u64>,
}

/// One gateway's blocks of one kind: hands them out by number, counts their owners, and finds the cached ones.
#[derive(Debug)]
pub struct BlockLedger {
    /// Indexed by block number. Numbers of other gateways' blocks are among them. Those have no owner here and are
    /// never handed out.
    blocks: Vec<Block>,
    /// Number of this gateway's blocks.
    total: usize,
    /// Blocks without an owner and without cached tokens.
    uncached: Vec<u32>,
    /// Cached blocks without an owner, least recently used first. Each block that becomes idle gets the next key.
    idle: BTreeMap<u64, u32>,
    /// The cached blocks, by the prefixes that end with them.
    index: HashMap<PrefixHash, u32>,
    next_idle: u64,
}

// === impl BlockLedger ===

impl BlockLedger {
    /// A ledger in which all of `blocks` are free and none is cached.
    pub fn new(blocks: impl IntoIterator<Item = u32>) -> Self {
        let mut ledger = Self {
            blocks: Vec::new(),
            total: 0,
            uncached: Vec::new(),
            idle: BTreeMap::new(),
            index: HashMap::new(),
            next_idle: 0,
        };
        ledger.gain(blocks);
        ledger
    }

    /// Adds `blocks` to this gateway's. [`Self::allocate`] takes from the end of `uncached`, so they go to its start
    /// and are handed out after all other uncached ones: a stage may learn of the change later than this gateway.
    pub fn gain(&mut self, blocks: impl IntoIterator<Item = u32>) {
        let mut gained: Vec<u32> = blocks.into_iter().collect();
        let needed = gained.iter().max().map_or(0, |last| *last as usize + 1);
        self.blocks.resize_with(self.blocks.len().max(needed), Block::default);
        self.total += gained.len();
        gained.reverse();
        self.uncached.splice(..0, gained);
    }

    /// Removes `lost`, which have no owner, from this gateway's blocks and from the cache.
    pub fn lose(&mut self, lost: &BTreeSet<u32>) {
        let before = self.free();
        self.uncached.retain(|number| !lost.contains(number));
        let idle: Vec<_> =
            self.idle.iter().filter(|(_, number)| lost.contains(number)).map(|(place, _)| *place).collect();
        for place in idle {
            if let Some(number) = self.idle.remove(&place) {
                self.evict(number);
            }
        }
        self.total -= before - self.free();
    }

    /// Number of this gateway's blocks.
    pub fn total(&self) -> usize {
        self.total
    }

    /// True if block `number` has an owner.
    pub fn is_owned(&self, number: u32) -> bool {
        self.blocks.get(number as usize).is_some_and(|block| block.owners > 0)
    }

    /// Number of owners of block `number`.
    #[cfg(test)]
    pub(super) fn owners(&self, number: u32) -> u32 {
        self.blocks[number as usize].owners
    }

    /// Number of free blocks: those without an owner.
    pub fn free(&self) -> usize {
        self.uncached.len() + self.idle.len()
    }

    /// Number of blocks that would be free if the cached blocks `found` had an owner.
    pub fn free_excluding(&self, found: &[u32]) -> usize {
        let idle = found.iter().filter(|number| self.blocks[**number as usize].idle.is_some()).count();
        self.free() - idle
    }

    /// Adds `count` blocks to the end of `owner`: uncached ones, and if these do not suffice, idle ones, which leave
    /// the cache. Returns `false` and changes nothing if fewer are free.
    #[must_use]
    pub fn allocate(&mut self, count: usize, owner: &mut Vec<u32>) -> bool {
        if self.free() < count {
            return false;
        }
        for _ in 0..count {
            let Some(number) = self.uncached.pop().or_else(|| self.evict_oldest()) else { return false };
            self.blocks[number as usize].owners = 1;
            owner.push(number);
        }
        true
    }

    /// The cached block that ends with `prefix`.
    pub fn find(&self, prefix: &PrefixHash) -> Option<u32> {
        self.index.get(prefix).copied()
    }

    /// Adds an owner to each of the cached blocks `found`, and these to the end of `owner`.
    pub fn share(&mut self, found: &[u32], owner: &mut Vec<u32>) {
        for number in found {
            let block = &mut self.blocks[*number as usize];
            if let Some(place) = block.idle.take() {
                self.idle.remove(&place);
            }
            block.owners += 1;
            owner.push(*number);
        }
    }

    /// Caches block `number`: it holds the last tokens of `prefix`, on all stages, for every micro-batch that is sent
    /// from now on. If another block is cached for the same prefix, that one stays.
    pub fn insert(&mut self, number: u32, prefix: PrefixHash) {
        if let Entry::Vacant(vacant) = self.index.entry(prefix) {
            vacant.insert(number);
            self.blocks[number as usize].cached = Some(prefix);
        }
    }

    /// Ends the ownership of the first `count` blocks of `owner`, or of all that there are.
    pub fn release_first(&mut self, count: usize, owner: &mut Vec<u32>) {
        // From the end, so that the last blocks become idle and are evicted first: the longer a prefix, the fewer
        // sequences can use it.
        for number in owner.drain(..count.min(owner.len())).rev() {
            let block = &mut self.blocks[number as usize];
            debug_assert!(block.owners > 0, "a block was released twice");
            block.owners = block.owners.saturating_sub(1);
            if block.owners > 0 {
                continue;
            }
            if block.cached.is_some() {
                block.idle = Some(self.next_idle);
                self.idle.insert(self.next_idle, number);
                self.next_idle += 1;
            } else {
                self.uncached.push(number);
            }
        }
    }

    /// Ends the ownership of all blocks of `owner`.
    pub fn release(&mut self, owner: &mut Vec<u32>) {
        self.release_first(owner.len(), owner);
    }

    /// Evicts the idle block that was used longest ago from the cache.
    fn evict_oldest(&mut self) -> Option<u32> {
        let (_, number) = self.idle.pop_first()?;
        self.evict(number);
        Some(number)
    }

    fn evict(&mut self, number: u32) {
        let block = &mut self.blocks[number as usize];
        block.idle = None;
        if let Some(prefix) = block.cached.take() {
            self.index.remove(&prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runner::KV_BLOCK_TOKENS;

    const TOKENS: usize = KV_BLOCK_TOKENS as usize;

    /// Caches the blocks of `owner`, as if all of `tokens` had been computed.
    fn insert_all(ledger: &mut BlockLedger, owner: &[u32], tokens: &[u32]) {
        for (number, prefix) in owner.iter().zip(PrefixHash::chain(tokens)) {
            ledger.insert(*number, prefix);
        }
    }

    /// The cached blocks of the longest cached prefix of `tokens`.
    fn lookup(ledger: &BlockLedger, tokens: &[u32]) -> Vec<u32> {
        PrefixHash::chain(tokens).iter().map_while(|prefix| ledger.find(prefix)).collect()
    }

    #[test]
    fn an_allocation_that_does_not_fit_changes_nothing() {
        let mut ledger = BlockLedger::new(0..4);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!(ledger.allocate(3, &mut a));
        assert!(!ledger.allocate(2, &mut b));
        assert!(b.is_empty());
        assert_eq!(ledger.free(), 1);
    }

    #[test]
    fn lookup_finds_the_longest_cached_prefix() {
        let mut ledger = BlockLedger::new(0..8);
        let first: Vec<u32> = (0..3 * TOKENS as u32).collect();
        let mut a = Vec::new();
        assert!(ledger.allocate(3, &mut a));
        insert_all(&mut ledger, &a, &first);
        assert_eq!(lookup(&ledger, &first), a);
        assert_eq!(lookup(&ledger, &first[..2 * TOKENS + 5]), a[..2], "half a block was found");
        let mut second = first.clone();
        second[TOKENS] += 1;
        assert_eq!(lookup(&ledger, &second), a[..1], "what follows another block was found");
        assert!(lookup(&ledger, &second[TOKENS..]).is_empty(), "a block was found at another place");
    }

    #[test]
    fn blocks_without_an_owner_stay_cached_and_are_evicted_ends_first() {
        let mut ledger = BlockLedger::new(0..3);
        let tokens: Vec<u32> = (0..3 * TOKENS as u32).collect();
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        assert!(ledger.allocate(3, &mut a));
        insert_all(&mut ledger, &a, &tokens);
        let blocks = a.clone();
        ledger.release(&mut a);
        assert_eq!((ledger.free(), lookup(&ledger, &tokens)), (3, blocks.clone()));
        assert!(ledger.allocate(1, &mut b));
        assert_eq!(lookup(&ledger, &tokens), blocks[..2]);
        let found = lookup(&ledger, &tokens);
        ledger.share(&found, &mut c);
        assert!(!ledger.allocate(1, &mut b), "a block with an owner was taken");
        ledger.release(&mut b);
        assert_eq!(ledger.free(), 1);
    }

    #[test]
    fn of_two_blocks_with_the_same_tokens_the_first_stays_cached() {
        let mut ledger = BlockLedger::new(0..4);
        let tokens = [7; TOKENS];
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!(ledger.allocate(1, &mut a) && ledger.allocate(1, &mut b));
        insert_all(&mut ledger, &a, &tokens);
        insert_all(&mut ledger, &b, &tokens);
        assert_eq!(lookup(&ledger, &tokens), a);
        ledger.release(&mut b);
        assert_eq!(ledger.uncached.len(), 3, "the second was kept for nothing");
    }

    #[test]
    fn lost_blocks_leave_the_cache_and_gained_ones_are_allocated_last() {
        let mut ledger = BlockLedger::new([2, 3, 7]);
        let tokens: Vec<u32> = (0..2 * TOKENS as u32).collect();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!(ledger.allocate(2, &mut a));
        insert_all(&mut ledger, &a, &tokens);
        assert_eq!(a, [2, 3]);
        ledger.release(&mut a);
        ledger.lose(&[3, 7].into());
        assert_eq!((ledger.total(), ledger.free(), lookup(&ledger, &tokens)), (1, 1, vec![2]));
        ledger.gain([0, 9, 3]);
        assert!(ledger.allocate(4, &mut b));
        assert_eq!((ledger.total(), lookup(&ledger, &tokens).len()), (4, 0));
        b.sort_unstable();
        assert_eq!(b, [0, 2, 3, 9]);
    }

    #[derive(Debug, Clone)]
    enum LedgerOperation {
        /// Owner, blocks.
        Allocate(usize, usize),
        Release(usize),
        /// Owner, and the number of the text that it is computing.
        InsertAll(usize, u32),
        /// Owner, and the number of the text that it begins with.
        Share(usize, u32),
    }

    fn operation() -> impl Strategy<Value = LedgerOperation> {
        prop_oneof![
            (0_usize..4, 0_usize..6).prop_map(|(owner, count)| LedgerOperation::Allocate(owner, count)),
            (0_usize..4).prop_map(LedgerOperation::Release),
            (0_usize..4, 0_u32..3).prop_map(|(owner, text)| LedgerOperation::InsertAll(owner, text)),
            (0_usize..4, 0_u32..3).prop_map(|(owner, text)| LedgerOperation::Share(owner, text)),
        ]
    }

    /// Texts that share beginnings of different lengths.
    fn text(which: u32) -> Vec<u32> {
        (0..5 * TOKENS as u32).map(|at| if at / TOKENS as u32 > which { 100 + which } else { at % 7 }).collect()
    }

    proptest! {
        #[test]
        fn no_block_is_lost_and_only_cached_ones_have_two_owners(
            operations in prop::collection::vec(operation(), 0..80)
        ) {
            let mut ledger = BlockLedger::new(0..16);
            let mut owners = vec![Vec::new(); 4];
            for operation in operations {
                match operation {
                    LedgerOperation::Allocate(owner, count) => {
                        let _ = ledger.allocate(count, &mut owners[owner]);
                    }
                    LedgerOperation::Release(owner) => ledger.release(&mut owners[owner]),
                    LedgerOperation::InsertAll(owner, which) => {
                        // Only uncached blocks are computed.
                        let is_cached = |number: &u32| ledger.blocks[*number as usize].cached.is_some();
                        let is_uncached = !owners[owner].iter().any(is_cached);
                        if is_uncached {
                            insert_all(&mut ledger, &owners[owner], &text(which));
                        }
                    }
                    LedgerOperation::Share(owner, which) if owners[owner].is_empty() => {
                        let found = lookup(&ledger, &text(which));
                        ledger.share(&found, &mut owners[owner]);
                    }
                    LedgerOperation::Share(..) => {}
                }
                for (number, block) in (0_u32..).zip(&ledger.blocks) {
                    let owned = owners.iter().flatten().filter(|owned| **owned == number).count();
                    prop_assert_eq!(owned, block.owners as usize);
                    prop_assert!(owned < 2 || block.cached.is_some());
                    let idle = ledger.idle.values().filter(|idle| **idle == number).count();
                    let free = ledger.uncached.contains(&number) as usize + idle;
                    prop_assert_eq!(free, usize::from(owned == 0));
                }
                let cached = ledger.blocks.iter().filter(|block| block.cached.is_some()).count();
                prop_assert_eq!(cached, ledger.index.len());
            }
        }
    }
}
