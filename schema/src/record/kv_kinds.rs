//! The kinds of layers by what their keys and values are kept for: all of a sequence, or a window of its last tokens.
//! Each kind has blocks of its own, with numbers of their own. Pure: this module counts blocks and owns none.

use std::ops::Range;

/// Tokens in one block of keys and values, on every stage alike.
pub const KV_BLOCK_TOKENS: u32 = 32;
/// Rows that a window's blocks hold beside the window: those of a micro-batch, as many as a gateway puts into one.
const BATCH_ROWS: u32 = 256;
/// Windows for which a pool beside one of full layers has room, at least: of a sequence that is computed, and of one
/// that is cached or computed next to it.
const WINDOWS_MIN: u32 = 2;
/// A pool of windows has a block for so many blocks of full layers, at least: histories are mostly longer than that
/// many windows where a pool is larger than a few windows.
const FULL_BLOCKS_A_WINDOW_BLOCK: u32 = 4;

/// A number of blocks of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KvBlocks {
    /// Blocks of layers without a window.
    pub full: u32,
    /// Blocks of layers with a window.
    pub window: u32,
}

/// The kinds of layers that a model has. Its window is the largest of its layers': one with a smaller window reads
/// fewer of the same blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KvKinds {
    /// No layer has a window.
    #[default]
    Full,
    /// Every layer has one, of at most so many tokens.
    Window(u32),
    /// Some have one, of at most so many tokens.
    Both(u32),
}

// === impl KvKinds ===

impl KvKinds {
    /// The kinds of layers with these windows in tokens. 0 stands for none.
    pub fn of(windows: impl IntoIterator<Item = u32>) -> Self {
        let (mut most, mut has_full) = (0, false);
        for window in windows {
            most = most.max(window);
            has_full |= window == 0;
        }
        match (most, has_full) {
            (0, _) => Self::Full,
            (window, false) => Self::Window(window),
            (window, true) => Self::Both(window),
        }
    }

    /// True if some layer has no window.
    pub fn has_full(self) -> bool {
        !matches!(self, Self::Window(_))
    }

    /// The window in tokens, a row's own included, if some layer has one.
    pub fn window(self) -> Option<u32> {
        match self {
            Self::Full => None,
            Self::Window(window) | Self::Both(window) => Some(window),
        }
    }

    /// Index in a sequence of the first block that layers with a window read for the row at `position` and those after
    /// it.
    pub fn first_block(self, position: u32) -> u32 {
        self.window().map_or(0, |window| position.saturating_sub(window.saturating_sub(1)) / KV_BLOCK_TOKENS)
    }

    /// The number of blocks of each kind in a room for `tokens` tokens. Layers without a window have a block for each
    /// [`KV_BLOCK_TOKENS`] of them, and so has a model whose layers all have one. Next to layers without one, those
    /// with one need fewer: a quarter of these blocks, or what two windows and their micro-batches take, whichever is
    /// more, and never more than the layers without.
    pub fn pool(self, tokens: u32) -> KvBlocks {
        let blocks = tokens.div_ceil(KV_BLOCK_TOKENS);
        match self {
            Self::Full => KvBlocks { full: blocks, window: 0 },
            Self::Window(_) => KvBlocks { full: 0, window: blocks },
            Self::Both(window) => {
                let one = window.saturating_add(BATCH_ROWS).div_ceil(KV_BLOCK_TOKENS) + 1;
                let least = blocks.div_ceil(FULL_BLOCKS_A_WINDOW_BLOCK).max(one.saturating_mul(WINDOWS_MIN));
                KvBlocks { full: blocks, window: least.min(blocks) }
            }
        }
    }

    /// The table of a window for the rows `rows` of a sequence that uses the same `blocks` in turn: the index in the
    /// sequence of its first block, and the blocks. For measurements, where nobody else gives out blocks.
    pub fn ring(self, rows: Range<u32>, blocks: Range<u32>) -> (u32, Vec<u32>) {
        let (first, count) = (self.first_block(rows.start), blocks.len().max(1) as u32);
        let table = (first..rows.end.div_ceil(KV_BLOCK_TOKENS)).map(|index| blocks.start + index % count);
        (first, if self.window().is_some() { table.collect() } else { Vec::new() })
    }

    /// The fewest blocks of each kind with which a sequence of `tokens` tokens can be computed, however few rows at a
    /// time.
    pub fn blocks_needed(self, tokens: u32) -> KvBlocks {
        let all = tokens.div_ceil(KV_BLOCK_TOKENS);
        KvBlocks {
            full: if self.has_full() { all } else { 0 },
            window: self.window().map_or(0, |window| all.min(blocks_of_window(window))),
        }
    }

    /// The longest sequence that `blocks` can hold, in tokens. [`u32::MAX`] if there is no limit: a window moves on.
    pub fn sequence_tokens_max(self, blocks: KvBlocks) -> u32 {
        let all = |blocks: u32| blocks.saturating_mul(KV_BLOCK_TOKENS);
        let full = if self.has_full() { all(blocks.full) } else { u32::MAX };
        let in_window = match self.window() {
            Some(window) if blocks.window < blocks_of_window(window) => all(blocks.window),
            _ => u32::MAX,
        };
        full.min(in_window)
    }
}

/// The fewest blocks with which a window of `window` tokens can move on: in the worst case its first token is the last
/// of a block, and the row that is computed is its last.
fn blocks_of_window(window: u32) -> u32 {
    window.saturating_add(KV_BLOCK_TOKENS - 1).div_ceil(KV_BLOCK_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_follow_from_the_windows() {
        assert_eq!(KvKinds::of([]), KvKinds::Full);
        assert_eq!(KvKinds::of([0, 0]), KvKinds::Full);
        assert_eq!(KvKinds::of([7, 9, 7]), KvKinds::Window(9));
        assert_eq!(KvKinds::of([7, 0]), KvKinds::Both(7));
    }

    #[test]
    fn a_row_reads_no_block_before_the_first() {
        for window in 1..100 {
            let kinds = KvKinds::Window(window);
            for position in 0_u32..300 {
                let visible = (position + 1).saturating_sub(window);
                assert_eq!(kinds.first_block(position), visible / KV_BLOCK_TOKENS, "{window} at {position}");
            }
        }
    }

    #[test]
    fn the_fewest_blocks_hold_every_row_and_what_it_reads() {
        for window in 1..100 {
            let kinds = KvKinds::Window(window);
            let most = (0_u32..300).map(|at| at / KV_BLOCK_TOKENS + 1 - kinds.first_block(at)).max().unwrap();
            let needed = kinds.blocks_needed(300);
            assert_eq!(needed, KvBlocks { full: 0, window: most }, "{window}");
            assert_eq!(kinds.sequence_tokens_max(needed), u32::MAX);
            let fewer = KvBlocks { window: most - 1, ..needed };
            assert_eq!(kinds.sequence_tokens_max(fewer), (most - 1) * KV_BLOCK_TOKENS);
        }
    }

    #[test]
    fn a_pool_of_windows_is_the_smaller_the_longer_the_room() {
        let pool = |kinds: KvKinds, tokens| {
            let KvBlocks { full, window } = kinds.pool(tokens);
            (full, window)
        };
        assert_eq!(pool(KvKinds::Full, 8192), (256, 0));
        assert_eq!(pool(KvKinds::Window(4096), 8192), (0, 256));
        assert_eq!(pool(KvKinds::Both(1024), 8192), (256, 2 * 41));
        assert_eq!(pool(KvKinds::Both(1024), 131_072), (4096, 1024));
        assert_eq!(pool(KvKinds::Both(4096), 8192), (256, 256));
        assert_eq!(pool(KvKinds::Both(u32::MAX), 33), (2, 2));
    }

    #[test]
    fn a_ring_uses_its_blocks_in_turn() {
        assert_eq!(KvKinds::Window(40).ring(0..70, 10..13), (0, vec![10, 11, 12]));
        assert_eq!(KvKinds::Window(40).ring(135..136, 10..13), (3, vec![10, 11]));
        assert_eq!(KvKinds::Full.ring(135..136, 10..13), (0, vec![]));
    }

    #[test]
    fn the_shorter_kind_bounds_a_sequence() {
        let both = KvKinds::Both(64);
        assert_eq!(both.sequence_tokens_max(KvBlocks { full: 9, window: 3 }), 9 * 32);
        assert_eq!(both.sequence_tokens_max(KvBlocks { full: 9, window: 2 }), 2 * 32);
        assert_eq!(KvKinds::Full.sequence_tokens_max(KvBlocks { full: 9, window: 0 }), 9 * 32);
        assert_eq!(both.blocks_needed(40), KvBlocks { full: 2, window: 2 });
        assert_eq!(both.blocks_needed(400), KvBlocks { full: 13, window: 3 });
    }
}
