//! Which rows of a micro-batch are computed together: tiles of bounded size, cut without regard for sequences, and in
//! each tile the stretches of consecutive positions that attend together. Reuses its memory from step to step.

use schema::frame::Slice;

use super::kv::TOKENS;

/// One row of a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// The slice it is from.
    pub(super) slice: usize,
    /// Its offset in that slice.
    pub(super) offset: usize,
    /// Its position in the sequence.
    pub(super) position: u32,
    /// Where its keys and values go: block times tokens in a block, plus the place in the block.
    pub(super) slot: usize,
}

/// Consecutive rows of one sequence in a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    /// The slice they are from.
    pub(super) slice: usize,
    /// The first, counted in the tile.
    pub(super) start: usize,
    /// How many.
    pub(super) rows: usize,
    /// The position of the first.
    pub(super) position: u32,
}

/// The rows of one tile.
#[derive(Debug)]
pub(super) struct RowTile {
    /// In the order of the micro-batch.
    pub(super) rows: Vec<Row>,
    /// Covering the rows, each at most as long as asked.
    pub(super) stretches: Vec<Stretch>,
}

// === impl RowTile ===

impl RowTile {
    /// Room for `rows` rows.
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self { rows: Vec::with_capacity(rows), stretches: Vec::with_capacity(rows) }
    }

    /// Fills the tile with up to `most` rows from the micro-batch's row `from` on, in stretches of at most `together`.
    pub(super) fn fill(&mut self, slices: &[Slice], from: usize, most: usize, together: usize) {
        self.rows.clear();
        self.stretches.clear();
        let mut before = 0;
        for (index, slice) in slices.iter().enumerate() {
            let count = slice.count as usize;
            let first = from.saturating_sub(before).min(count);
            let taken = (count - first).min(most - self.rows.len());
            before += count;
            self.push(index, slice, first, taken, together);
        }
    }

    fn push(&mut self, index: usize, slice: &Slice, first: usize, count: usize, together: usize) {
        for offset in first..first + count {
            let position = slice.position + offset as u32;
            let block = slice.blocks[position as usize / TOKENS] as usize;
            if (offset - first).is_multiple_of(together) {
                let rows = together.min(first + count - offset);
                self.stretches.push(Stretch { slice: index, start: self.rows.len(), rows, position });
            }
            let slot = block * TOKENS + position as usize % TOKENS;
            self.rows.push(Row { slice: index, offset, position, slot });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::frame::Sampling;
    use schema::{Attempt, SequenceId};

    fn slice(position: u32, count: u32, blocks: &[u32]) -> Slice {
        let sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, choice: 0 };
        Slice {
            sequence: SequenceId(1),
            attempt: Attempt(0),
            position,
            count,
            tokens: Vec::new(),
            blocks: blocks.to_vec(),
            logits: Vec::new(),
            sampling,
        }
    }

    #[test]
    fn tiles_cover_every_row_once_and_in_order() {
        let slices = [slice(30, 5, &[4, 9]), slice(0, 1, &[2]), slice(64, 6, &[0, 1, 7])];
        let mut tile = RowTile::with_capacity(4);
        let mut found = Vec::new();
        for from in (0..12).step_by(4) {
            tile.fill(&slices, from, 4, 3);
            assert_eq!(tile.rows.len(), 4);
            let covered: Vec<usize> = tile.stretches.iter().flat_map(|s| s.start..s.start + s.rows).collect();
            assert_eq!(covered, [0, 1, 2, 3]);
            for stretch in &tile.stretches {
                let row = tile.rows[stretch.start];
                assert_eq!((stretch.slice, stretch.position), (row.slice, row.position));
                assert!(stretch.rows <= 3);
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
