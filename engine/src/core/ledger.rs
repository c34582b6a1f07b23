//! Who owns which block of keys and values, and what the blocks hold. One ledger serves all stages: each keeps the same
//! block numbers, so what is found here is there on all of them.
//!
//! A block that is full of known tokens is remembered by its [`PrefixId`]: its tokens and the prefix of those before it. It
//! is never written again. Sequences with the same beginning own it together, and when nobody does, it is kept until its
//! room is needed: what was used longest ago goes first, ends of prefixes before their beginnings.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::runner::KV_BLOCK_TOKENS;

/// Tokens of one block.
type BlockTokens = [u32; KV_BLOCK_TOKENS as usize];

/// A beginning of a sequence, whole blocks long: equal prefixes hold equal tokens. Numbers are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrefixId(u64);

// === impl PrefixId ===

impl PrefixId {
    /// The beginning without any block.
    pub const EMPTY: Self = Self(0);
}

/// A block that holds known tokens.
#[derive(Debug)]
struct Known {
    parent: PrefixId,
    tokens: BlockTokens,
    prefix: PrefixId,
}

#[derive(Debug, Default)]
struct Block {
    owners: u32,
    known: Option<Box<Known>>,
    /// Its place among the idle ones, when it is known and has no owner.
    idle: Option<u64>,
}

/// Hands out the numbers of the blocks that are this gateway's.
#[derive(Debug)]
pub struct BlockLedger {
    /// By number; others' are among them, without owner here.
    blocks: Vec<Block>,
    /// How many are this gateway's.
    total: usize,
    /// Blocks without owner that hold nothing known.
    blank: Vec<u32>,
    /// Blocks without owner that hold known tokens, least recently used first.
    idle: BTreeMap<u64, u32>,
    index: HashMap<(PrefixId, BlockTokens), (u32, PrefixId)>,
    next_prefix: PrefixId,
    next_idle: u64,
}

// === impl BlockLedger ===

impl BlockLedger {
    /// All of `blocks` are free, and nothing is known.
    pub fn new(blocks: impl IntoIterator<Item = u32>) -> Self {
        let mut ledger = Self {
            blocks: Vec::new(),
            total: 0,
            blank: Vec::new(),
            idle: BTreeMap::new(),
            index: HashMap::new(),
            next_prefix: PrefixId(1),
            next_idle: 0,
        };
        ledger.gain(blocks);
        ledger
    }

    /// `blocks`, which were not this gateway's, are now. They are given out after all others that hold nothing known: a
    /// stage may hear of it later than this gateway.
    pub fn gain(&mut self, blocks: impl IntoIterator<Item = u32>) {
        let mut gained: Vec<u32> = blocks.into_iter().collect();
        let needed = gained.iter().max().map_or(0, |last| *last as usize + 1);
        self.blocks.resize_with(self.blocks.len().max(needed), Block::default);
        self.total += gained.len();
        gained.reverse();
        self.blank.splice(..0, gained);
    }

    /// `lost`, which nobody owns, are this gateway's no more, and nothing is known of what they hold.
    pub fn lose(&mut self, lost: &BTreeSet<u32>) {
        let before = self.free();
        self.blank.retain(|number| !lost.contains(number));
        let idle: Vec<_> =
            self.idle.iter().filter(|(_, number)| lost.contains(number)).map(|(place, _)| *place).collect();
        for place in idle {
            if let Some(number) = self.idle.remove(&place) {
                self.forget(number);
            }
        }
        self.total -= before - self.free();
    }

    /// How many blocks there are.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Whether `number` has an owner.
    pub fn is_owned(&self, number: u32) -> bool {
        self.blocks.get(number as usize).is_some_and(|block| block.owners > 0)
    }

    /// How many own block `number`.
    #[cfg(test)]
    pub(super) fn owners(&self, number: u32) -> u32 {
        self.blocks[number as usize].owners
    }

    /// How many can be taken: those without an owner.
    pub fn free(&self) -> usize {
        self.blank.len() + self.idle.len()
    }

    /// How many can be taken when someone owns the known blocks `found`.
    pub fn free_beside(&self, found: &[u32]) -> usize {
        let idle = found.iter().filter(|number| self.blocks[**number as usize].idle.is_some()).count();
        self.free() - idle
    }

    /// Adds `count` blocks to the end of `owner`, of unknown content; `false`, and nothing moved, when fewer are free.
    #[must_use]
    pub fn take(&mut self, count: usize, owner: &mut Vec<u32>) -> bool {
        if self.free() < count {
            return false;
        }
        for _ in 0..count {
            let Some(number) = self.blank.pop().or_else(|| self.forget_oldest()) else { return false };
            self.blocks[number as usize].owners = 1;
            owner.push(number);
        }
        true
    }

    /// The known blocks that `tokens` begin with, in order.
    pub fn find(&self, tokens: &[u32]) -> Vec<u32> {
        let mut prefix = PrefixId::EMPTY;
        let mut found = Vec::new();
        for tokens in tokens.as_chunks().0 {
            let Some((number, next)) = self.index.get(&(prefix, *tokens)) else { break };
            found.push(*number);
            prefix = *next;
        }
        found
    }

    /// Makes `owner`, which has none yet, an owner of known blocks; returns their prefix.
    pub fn share(&mut self, found: &[u32], owner: &mut Vec<u32>) -> PrefixId {
        debug_assert!(owner.is_empty(), "known blocks are a sequence's first");
        let mut prefix = PrefixId::EMPTY;
        for number in found {
            let block = &mut self.blocks[*number as usize];
            if let Some(place) = block.idle.take() {
                self.idle.remove(&place);
            }
            block.owners += 1;
            prefix = block.known.as_ref().map_or(prefix, |known| known.prefix);
            owner.push(*number);
        }
        prefix
    }

    /// Notes that `number` holds `tokens` after `parent`, on all stages, for whoever is computed from now on; returns the
    /// prefix that ends with it. When another block is known for the same, that one stays the known one.
    pub fn insert(&mut self, number: u32, parent: PrefixId, tokens: &BlockTokens) -> PrefixId {
        if let Some((_, prefix)) = self.index.get(&(parent, *tokens)) {
            return *prefix;
        }
        let prefix = self.next_prefix;
        self.next_prefix = PrefixId(prefix.0 + 1);
        self.index.insert((parent, *tokens), (number, prefix));
        self.blocks[number as usize].known = Some(Box::new(Known { parent, tokens: *tokens, prefix }));
        prefix
    }

    /// Ends `owner`'s part in all of its blocks.
    pub fn give_back(&mut self, owner: &mut Vec<u32>) {
        // From the end: the longer a prefix, the fewer can use it.
        for number in owner.drain(..).rev() {
            let block = &mut self.blocks[number as usize];
            debug_assert!(block.owners > 0, "a block was given back twice");
            block.owners = block.owners.saturating_sub(1);
            if block.owners > 0 {
                continue;
            }
            if block.known.is_some() {
                block.idle = Some(self.next_idle);
                self.idle.insert(self.next_idle, number);
                self.next_idle += 1;
            } else {
                self.blank.push(number);
            }
        }
    }

    /// Frees the idle block that was used longest ago of what it holds.
    fn forget_oldest(&mut self) -> Option<u32> {
        let (_, number) = self.idle.pop_first()?;
        self.forget(number);
        Some(number)
    }

    fn forget(&mut self, number: u32) {
        let block = &mut self.blocks[number as usize];
        block.idle = None;
        if let Some(known) = block.known.take() {
            self.index.remove(&(known.parent, known.tokens));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKENS: usize = KV_BLOCK_TOKENS as usize;

    /// Makes known what `owner` holds, as if all of `tokens` had been computed.
    fn learn(ledger: &mut BlockLedger, owner: &[u32], tokens: &[u32]) {
        let mut prefix = PrefixId::EMPTY;
        for (number, tokens) in owner.iter().zip(tokens.as_chunks().0) {
            prefix = ledger.insert(*number, prefix, tokens);
        }
    }

    #[test]
    fn more_than_is_free_is_not_given_in_part() {
        let mut ledger = BlockLedger::new(0..4);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!(ledger.take(3, &mut a));
        assert!(!ledger.take(2, &mut b));
        assert!(b.is_empty());
        assert_eq!(ledger.free(), 1);
    }

    #[test]
    fn a_beginning_is_found_as_far_as_it_is_the_same() {
        let mut ledger = BlockLedger::new(0..8);
        let first: Vec<u32> = (0..3 * TOKENS as u32).collect();
        let mut a = Vec::new();
        assert!(ledger.take(3, &mut a));
        learn(&mut ledger, &a, &first);
        assert_eq!(ledger.find(&first), a);
        assert_eq!(ledger.find(&first[..2 * TOKENS + 5]), a[..2], "half a block was found");
        let mut second = first.clone();
        second[TOKENS] += 1;
        assert_eq!(ledger.find(&second), a[..1], "what follows another block was found");
        assert!(ledger.find(&second[TOKENS..]).is_empty(), "a block was found at another place");
    }

    #[test]
    fn what_nobody_owns_is_kept_until_its_room_is_needed_ends_first() {
        let mut ledger = BlockLedger::new(0..3);
        let tokens: Vec<u32> = (0..3 * TOKENS as u32).collect();
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        assert!(ledger.take(3, &mut a));
        learn(&mut ledger, &a, &tokens);
        let blocks = a.clone();
        ledger.give_back(&mut a);
        assert_eq!((ledger.free(), ledger.find(&tokens)), (3, blocks.clone()));
        assert!(ledger.take(1, &mut b));
        assert_eq!(ledger.find(&tokens), blocks[..2]);
        let found = ledger.find(&tokens);
        ledger.share(&found, &mut c);
        assert!(!ledger.take(1, &mut b), "a block with an owner was taken");
        ledger.give_back(&mut b);
        assert_eq!(ledger.free(), 1);
    }

    #[test]
    fn of_two_blocks_that_hold_the_same_the_first_stays_known() {
        let mut ledger = BlockLedger::new(0..4);
        let tokens = [7; TOKENS];
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!(ledger.take(1, &mut a) && ledger.take(1, &mut b));
        let prefix = ledger.insert(a[0], PrefixId::EMPTY, &tokens);
        assert_eq!(ledger.insert(b[0], PrefixId::EMPTY, &tokens), prefix);
        assert_eq!(ledger.find(&tokens), a);
        ledger.give_back(&mut b);
        assert_eq!(ledger.blank.len(), 3, "the second was kept for nothing");
    }

    #[test]
    fn what_is_lost_is_not_known_any_more_and_what_is_gained_comes_last() {
        let mut ledger = BlockLedger::new([2, 3, 7]);
        let tokens: Vec<u32> = (0..2 * TOKENS as u32).collect();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!(ledger.take(2, &mut a));
        learn(&mut ledger, &a, &tokens);
        assert_eq!(a, [2, 3]);
        ledger.give_back(&mut a);
        ledger.lose(&[3, 7].into());
        assert_eq!((ledger.total(), ledger.free(), ledger.find(&tokens)), (1, 1, vec![2]));
        ledger.gain([0, 9, 3]);
        assert!(ledger.take(4, &mut b));
        assert_eq!((ledger.total(), ledger.find(&tokens).len()), (4, 0));
        b.sort_unstable();
        assert_eq!(b, [0, 2, 3, 9]);
    }

    #[derive(Debug, Clone)]
    enum Deed {
        /// Owner, blocks.
        Take(usize, usize),
        GiveBack(usize),
        /// Owner, which of a few texts it is computing.
        Learn(usize, u32),
        /// Owner, which text it begins with.
        Share(usize, u32),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            (0_usize..4, 0_usize..6).prop_map(|(owner, count)| Deed::Take(owner, count)),
            (0_usize..4).prop_map(Deed::GiveBack),
            (0_usize..4, 0_u32..3).prop_map(|(owner, text)| Deed::Learn(owner, text)),
            (0_usize..4, 0_u32..3).prop_map(|(owner, text)| Deed::Share(owner, text)),
        ]
    }

    /// Texts that share beginnings of different lengths.
    fn text(which: u32) -> Vec<u32> {
        (0..5 * TOKENS as u32).map(|at| if at / TOKENS as u32 > which { 100 + which } else { at % 7 }).collect()
    }

    proptest! {
        #[test]
        fn no_block_is_lost_and_only_known_ones_have_two_owners(deeds in prop::collection::vec(deed(), 0..80)) {
            let mut ledger = BlockLedger::new(0..16);
            let mut owners = vec![Vec::new(); 4];
            for deed in deeds {
                match deed {
                    Deed::Take(owner, count) => {
                        let _ = ledger.take(count, &mut owners[owner]);
                    }
                    Deed::GiveBack(owner) => ledger.give_back(&mut owners[owner]),
                    Deed::Learn(owner, which) => {
                        // Only what is not known yet is computed.
                        let blank = owners[owner].iter().all(|number| ledger.blocks[*number as usize].known.is_none());
                        if blank {
                            learn(&mut ledger, &owners[owner], &text(which));
                        }
                    }
                    Deed::Share(owner, which) if owners[owner].is_empty() => {
                        let found = ledger.find(&text(which));
                        ledger.share(&found, &mut owners[owner]);
                    }
                    Deed::Share(..) => {}
                }
                for (number, block) in (0_u32..).zip(&ledger.blocks) {
                    let owned = owners.iter().flatten().filter(|owned| **owned == number).count();
                    prop_assert_eq!(owned, block.owners as usize);
                    prop_assert!(owned < 2 || block.known.is_some());
                    let free = ledger.blank.contains(&number) as usize + ledger.idle.values().filter(|idle| **idle == number).count();
                    prop_assert_eq!(free, usize::from(owned == 0));
                }
                let known = ledger.blocks.iter().filter(|block| block.known.is_some()).count();
                prop_assert_eq!(known, ledger.index.len());
            }
        }
    }
}
