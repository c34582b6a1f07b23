//! The rows of a micro-batch that are computed together: tiles of bounded size, cut without regard to sequence
//! boundaries. Each tile has runs of consecutive positions, whose attention is computed together. Pure. A tile
//! reuses its memory from step to step.

use std::ops::Range;

use engine::runner::KV_BLOCK_TOKENS;
use schema::frame::Slice;

use crate::model::Window;

/// Tokens in a block of keys and values.
pub(crate) const TOKENS: usize = KV_BLOCK_TOKENS as usize;

/// One row of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TileRow {
    /// Index of its slice.
    pub(crate) slice: usize,
    /// Its offset in that slice.
    pub(crate) offset: usize,
    /// Its position in the sequence.
    pub(crate) position: u32,
    /// The place of its keys and values in layers without a window: block times tokens in a block, plus the place in
    /// the block. 0 if the slice has no such block, because the model has no such layers.
    pub(crate) slot: usize,
    /// The same in layers with a window.
    pub(crate) window_slot: usize,
}

/// Consecutive rows of one sequence in a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowRun {
    /// Index of their slice.
    pub(crate) slice: usize,
    /// Index of the first row in the tile.
    pub(crate) start: usize,
    /// Number of rows.
    pub(crate) rows: usize,
    /// Position of the first row in the sequence.
    pub(crate) position: u32,
}

/// The rows of one tile.
#[derive(Debug)]
pub(crate) struct RowTile {
    /// The rows, in the order of the micro-batch.
    pub(crate) rows: Vec<TileRow>,
    /// The runs, which cover the rows in order. Each is at most as long as the caller of `fill` allows.
    pub(crate) runs: Vec<RowRun>,
}

// === impl RowTile ===

impl RowTile {
    /// An empty tile with room for `rows` rows.
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self { rows: Vec::with_capacity(rows), runs: Vec::with_capacity(rows) }
    }

    /// Fills the tile with up to `most` rows, from the micro-batch's row `from` on. `rows_at_once(position, rows)`
    /// returns the maximum length of a run that starts at `position`, with `rows` rows left. It is at least one.
    pub(crate) fn fill(
        &mut self,
        slices: &[Slice],
        from: usize,
        most: usize,
        rows_at_once: impl Fn(u32, usize) -> usize,
    ) {
        self.rows.clear();
        self.runs.clear();
        let mut before = 0;
        for (index, slice) in slices.iter().enumerate() {
            let count = slice.count as usize;
            let first = from.saturating_sub(before).min(count);
            let taken = (count - first).min(most - self.rows.len());
            before += count;
            self.push(index, slice, first..first + taken, &rows_at_once);
        }
    }

    fn push(
        &mut self,
        index: usize,
        slice: &Slice,
        mut offsets: Range<usize>,
        rows_at_once: impl Fn(u32, usize) -> usize,
    ) {
        while !offsets.is_empty() {
            let position = slice.position + offsets.start as u32;
            let rows = rows_at_once(position, offsets.len()).clamp(1, offsets.len());
            self.runs.push(RowRun { slice: index, start: self.rows.len(), rows, position });
            self.rows.extend(offsets.by_ref().take(rows).map(|offset| TileRow::new(index, slice, offset)));
        }
    }
}

// === impl TileRow ===

impl TileRow {
    fn new(index: usize, slice: &Slice, offset: usize) -> Self {
        let position = slice.position + offset as u32;
        let (block, place) = (position as usize / TOKENS, position as usize % TOKENS);
        let slot = |block: Option<&u32>| block.map_or(0, |block| *block as usize * TOKENS + place);
        let in_window = block.checked_sub(slice.window_first as usize);
        Self {
            slice: index,
            offset,
            position,
            slot: slot(slice.blocks.get(block)),
            window_slot: slot(in_window.and_then(|block| slice.window_blocks.get(block))),
        }
    }

    /// The place of its keys and values in a layer with this window.
    pub(crate) fn slot_of(&self, window: Window) -> usize {
        if matches!(window, Window::All | Window::Text) { self.slot } else { self.window_slot }
    }

    /// True if a token, or its logits, is requested after this row.
    pub(crate) fn needs_logits(&self, slices: &[Slice]) -> bool {
        slices[self.slice].logits.binary_search(&(self.offset as u32)).is_ok()
    }

    /// True if its hidden state is requested.
    pub(crate) fn needs_hidden_state(&self, slices: &[Slice]) -> bool {
        slices[self.slice].hidden_states.binary_search(&(self.offset as u32)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::SequenceId;

    fn slice(position: u32, count: u32, blocks: &[u32]) -> Slice {
        Slice { position, count, blocks: blocks.to_vec(), ..Slice::empty(SequenceId(1)) }
    }

    #[test]
    fn tiles_cover_every_row_once_and_in_order() {
        let slices = [slice(30, 5, &[4, 9]), slice(0, 1, &[2]), slice(64, 6, &[0, 1, 7])];
        let mut tile = RowTile::with_capacity(4);
        let mut found = Vec::new();
        for from in (0..12).step_by(4) {
            tile.fill(&slices, from, 4, |_, _| 3);
            assert_eq!(tile.rows.len(), 4);
            let covered: Vec<usize> = tile.runs.iter().flat_map(|s| s.start..s.start + s.rows).collect();
            assert_eq!(covered, [0, 1, 2, 3]);
            for run in &tile.runs {
                let row = tile.rows[run.start];
                assert_eq!((run.slice, run.position), (row.slice, row.position));
                assert!(run.rows <= 3);
            }
            found.extend(tile.rows.iter().map(|row| (row.slice, row.offset, row.position, row.slot)));
        }
        let expected = [
            (0, 0, 30, 4 * 32 + 30),
            (0, 1, 31, 4 * 32 + 31),
            (0, 2, 32, 9 * 32),
            (0, 3, 33, 9 * 32 + 1),
            (0, 4, 34, 9 * 32 + 2),
            (1, 0, 0, 2 * 32),
            (2, 0, 64, 7 * 32),
            (2, 1, 65, 7 * 32 + 1),
            (2, 2, 66, 7 * 32 + 2),
            (2, 3, 67, 7 * 32 + 3),
            (2, 4, 68, 7 * 32 + 4),
            (2, 5, 69, 7 * 32 + 5),
        ];
        assert_eq!(found, expected);
    }
}
