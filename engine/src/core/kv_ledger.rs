//! The blocks of both kinds of layers: each sequence's tables of them, and what it can take over from the prefix cache.
//!
//! Layers without a window need every block of a sequence, those with one the blocks from the window on. A block before
//! it is released as soon as the micro-batch that last reads it is sent: steps are computed in order, so whatever later
//! step writes it comes after. A cached prefix is of use if each kind has its blocks of it: all, and those that the row
//! after the prefix reads.

use std::collections::BTreeSet;

use schema::record::{KvBlocks, KvKinds};

use super::ledger::BlockLedger;
use super::prefix_hash::PrefixHash;
use crate::runner::KV_BLOCK_TOKENS;
use crate::share::BlockSet;

/// The blocks that a sequence owns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BlockTable {
    /// Those of layers without a window: block `i` holds its tokens from `i * KV_BLOCK_TOKENS` on.
    pub(crate) full: Vec<u32>,
    /// Index in the sequence of the first block in `window`.
    pub(crate) window_first: u32,
    /// Those of layers with a window.
    pub(crate) window: Vec<u32>,
}

/// The cached blocks of a prefix that a sequence can begin with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CachedPrefix {
    /// Length of the prefix in blocks.
    pub(crate) len: usize,
    table: BlockTable,
}

/// The blocks of one gateway, of both kinds.
#[derive(Debug)]
pub(crate) struct KvLedger {
    kinds: KvKinds,
    pub(super) full: BlockLedger,
    pub(super) window: BlockLedger,
}

// === impl BlockTable ===

impl BlockTable {
    /// True if it has a block of `blocks`.
    pub(crate) fn has_any(&self, blocks: &BlockSet) -> bool {
        let has = |own: &[u32], blocks: &BTreeSet<u32>| own.iter().any(|block| blocks.contains(block));
        has(&self.full, &blocks.full) || has(&self.window, &blocks.window)
    }

    fn window_end(&self) -> usize {
        self.window_first as usize + self.window.len()
    }
}

// === impl KvLedger ===

impl KvLedger {
    /// A ledger of a model with layers of `kinds`, in which all of `full` and `window` are free and none is cached.
    pub(crate) fn new(
        kinds: KvKinds,
        full: impl IntoIterator<Item = u32>,
        window: impl IntoIterator<Item = u32>,
    ) -> Self {
        Self { kinds, full: BlockLedger::new(full), window: BlockLedger::new(window) }
    }

    /// Adds blocks to this gateway's.
    pub(crate) fn gain(&mut self, full: impl IntoIterator<Item = u32>, window: impl IntoIterator<Item = u32>) {
        self.full.gain(full);
        self.window.gain(window);
    }

    /// Removes `lost`, which have no owner, from this gateway's blocks and from the cache.
    pub(crate) fn lose(&mut self, lost: &BlockSet) {
        self.full.lose(&lost.full);
        self.window.lose(&lost.window);
    }

    /// Number of this gateway's blocks.
    pub(crate) fn total(&self) -> KvBlocks {
        KvBlocks { full: self.full.total() as u32, window: self.window.total() as u32 }
    }

    /// Number of blocks without an owner.
    pub(crate) fn free(&self) -> KvBlocks {
        KvBlocks { full: self.full.free() as u32, window: self.window.free() as u32 }
    }

    /// The blocks of each kind that a sequence of which `sent` tokens are computed, and which has `table`, lacks to
    /// compute those up to `end`.
    fn missing(&self, table: &BlockTable, sent: u32, end: u32) -> [usize; 2] {
        let wanted = end.div_ceil(KV_BLOCK_TOKENS) as usize;
        let full = if self.kinds.has_full() { wanted.saturating_sub(table.full.len()) } else { 0 };
        let has = table.window_end().max(self.kinds.first_block(sent) as usize);
        let window = self.kinds.window().map_or(0, |_| wanted.saturating_sub(has));
        [full, window]
    }

    /// Adds to `table`, of a sequence of which `sent` tokens are computed, the blocks that those up to `end` need.
    /// Returns `false` and changes nothing if fewer are free.
    #[must_use]
    pub(crate) fn allocate(&mut self, table: &mut BlockTable, sent: u32, end: u32) -> bool {
        let [full, window] = self.missing(table, sent, end);
        if self.full.free() < full || self.window.free() < window {
            return false;
        }
        if table.window.is_empty() && window > 0 {
            table.window_first = self.kinds.first_block(sent);
        }
        self.full.allocate(full, &mut table.full) && self.window.allocate(window, &mut table.window)
    }

    /// True if a sequence that begins with `found` can have the blocks that its tokens up to `end` need.
    pub(crate) fn has_room(&self, found: &CachedPrefix, end: u32) -> bool {
        let [full, window] = self.missing(&found.table, found.tokens(), end);
        full <= self.full.free_excluding(&found.table.full) && window <= self.window.free_excluding(&found.table.window)
    }

    /// Most tokens of a sequence of which `sent` are computed that can follow in one micro-batch, if it had all blocks
    /// of its layers with a window.
    pub(crate) fn rows_max(&self, sent: u32) -> u32 {
        if self.kinds.window().is_none() {
            return u32::MAX;
        }
        let end = self.kinds.first_block(sent).saturating_add(self.total().window).saturating_mul(KV_BLOCK_TOKENS);
        end.saturating_sub(sent)
    }

    /// The longest prefix of the sequence whose prefixes are `prefixes` that it can begin with. If blocks of a window
    /// are not cached any more, that is a shorter one whose window ends before them.
    pub(crate) fn lookup(&self, prefixes: &[PrefixHash]) -> CachedPrefix {
        let full: Vec<u32> = if self.kinds.has_full() {
            prefixes.iter().map_while(|prefix| self.full.find(prefix)).collect()
        } else {
            Vec::new()
        };
        let mut len = if self.kinds.has_full() { full.len() } else { prefixes.len() };
        if self.kinds.window().is_none() {
            return CachedPrefix { len, table: BlockTable { full, ..BlockTable::default() } };
        }
        // The window's blocks from its end on, while they are there.
        let (mut window, mut index) = (Vec::new(), len);
        while index > self.kinds.first_block(len as u32 * KV_BLOCK_TOKENS) as usize {
            index -= 1;
            match self.window.find(&prefixes[index]) {
                Some(number) => window.push(number),
                None => (window, len) = (Vec::new(), index),
            }
        }
        window.reverse();
        let window_first = (len - window.len()) as u32;
        CachedPrefix { len, table: BlockTable { full: full[..len.min(full.len())].to_vec(), window_first, window } }
    }

    /// Makes `table`, which is empty, an owner of the blocks `found`.
    pub(crate) fn share(&mut self, found: &CachedPrefix, table: &mut BlockTable) {
        debug_assert!(table.full.is_empty() && table.window.is_empty(), "cached blocks are a sequence's first");
        table.window_first = found.table.window_first;
        self.full.share(&found.table.full, &mut table.full);
        self.window.share(&found.table.window, &mut table.window);
    }

    /// Caches the blocks of `table` with index `index`: they hold the last tokens of `prefix`.
    pub(crate) fn insert(&mut self, table: &BlockTable, index: usize, prefix: PrefixHash) {
        if let Some(number) = table.full.get(index) {
            self.full.insert(*number, prefix);
        }
        let in_window = index.checked_sub(table.window_first as usize);
        if let Some(number) = in_window.and_then(|index| table.window.get(index)) {
            self.window.insert(*number, prefix);
        }
    }

    /// Ends the ownership of the blocks of `table` that no row at `sent` or after it reads. Returns their number.
    pub(crate) fn release_before(&mut self, sent: u32, table: &mut BlockTable) -> u64 {
        let past = self.kinds.first_block(sent).saturating_sub(table.window_first).min(table.window.len() as u32);
        self.window.release_first(past as usize, &mut table.window);
        table.window_first += past;
        past.into()
    }

    /// Ends the ownership of all blocks of `table`.
    pub(crate) fn release(&mut self, table: &mut BlockTable) {
        self.full.release(&mut table.full);
        self.window.release(&mut table.window);
        table.window_first = 0;
    }

    /// Number of `blocks` that have an owner.
    pub(crate) fn owned_among(&self, blocks: &BlockSet) -> usize {
        let full = blocks.full.iter().filter(|block| self.full.is_owned(**block)).count();
        full + blocks.window.iter().filter(|block| self.window.is_owned(**block)).count()
    }

    /// The kinds of the model's layers.
    pub(crate) fn kinds(&self) -> KvKinds {
        self.kinds
    }
}

// === impl CachedPrefix ===

impl CachedPrefix {
    /// Length of the prefix in tokens.
    pub(crate) fn tokens(&self) -> u32 {
        self.len as u32 * KV_BLOCK_TOKENS
    }
}
