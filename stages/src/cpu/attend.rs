//! Divides the attention of a tile among threads: by runs of rows, by heads, and by chunks of long histories where
//! there are few of both. Knows neither where queries come from nor where results go.

use std::ops::Range;

use schema::frame::Slice;

use super::arena::UNITS_PER_THREAD;
use super::attention::{AttentionShape, Scratch, Span, Sums, attend, attend_single_chunk, merge};
use super::kv::KvLayer;
use super::parallel;
use crate::kernels::{Isa, Split, ThreadPool};
use crate::shard::{RowRun, RowTile, SliceBlocks};

/// The query heads that attend together.
pub(super) trait QueryHeads: Sync {
    /// Writes the queries of `unit`, scaled, to `scratch`.
    fn load_queries(&self, unit: Unit, scratch: &mut Scratch);
    /// Takes the unit's result. Called once for each unit.
    fn store_result(&self, unit: Unit, found: &Sums);
}

/// A unit of work for one thread: a run of rows and some heads that share keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    /// The rows.
    pub(super) run: RowRun,
    /// Number of these heads among the layer's: `part * shape.heads` is the first.
    pub(super) part: usize,
}

/// A tile's attention.
#[derive(Clone, Copy)]
pub(super) struct TileAttention<'a> {
    pub(super) pool: &'a ThreadPool,
    pub(super) isa: Isa,
    pub(super) slices: &'a [Slice],
    pub(super) tile: &'a RowTile,
    pub(super) kv: KvLayer<'a>,
    pub(super) shape: AttentionShape,
    /// Number of units that each run is divided into.
    pub(super) parts: usize,
}

// === impl TileAttention ===

impl<'a> TileAttention<'a> {
    /// Computes all units. `chunks` is room for the results of chunks.
    pub(super) fn attend(self, heads: &impl QueryHeads, scratch: &mut [Scratch], chunks: &mut [Sums]) {
        let Self { pool, isa, kv, shape, .. } = self;
        let units = self.tile.runs.len() * self.parts;
        let scratch = Split::new(scratch);
        let pieces: usize = (0..units).map(|index| self.chunks(index).len()).sum();
        let few = units < pool.threads() * UNITS_PER_THREAD && pieces > units;
        if !few || pieces > chunks.len() || self.tile.runs.iter().any(|run| run.rows > 1) {
            return parallel::parts(pool, units, &|slot, index| {
                // SAFETY: one call at a time has this slot.
                let scratch = unsafe { &mut scratch.part(slot..slot + 1)[0] };
                let unit = self.unit(index);
                heads.load_queries(unit, scratch);
                attend(isa, shape, self.span(unit), kv, scratch);
                heads.store_result(unit, &scratch.total);
            });
        }
        // Few rows with long histories: chunks are computed separately and then merged.
        let sums = Split::new(&mut chunks[..pieces]);
        parallel::parts(pool, pieces, &|slot, piece| {
            let (index, chunk) = self.locate(piece, units);
            let unit = self.unit(index);
            // SAFETY: one call at a time has this slot, and each piece has its own sums.
            let (scratch, sums) =
                unsafe { (&mut scratch.part(slot..slot + 1)[0], &mut sums.part(piece..piece + 1)[0]) };
            heads.load_queries(unit, scratch);
            attend_single_chunk(isa, shape, self.span(unit), chunk, kv, scratch);
            sums.copy(&scratch.chunk, shape.heads, shape.value_padded);
        });
        let mut from = 0;
        for index in 0..units {
            let count = self.chunks(index).len();
            // SAFETY: no other thread runs a part now.
            let (scratch, sums) = unsafe { (&mut scratch.part(0..1)[0], sums.part(from..from + count)) };
            merge(isa, shape, shape.heads, sums, &mut scratch.total);
            heads.store_result(self.unit(index), &scratch.total);
            from += count;
        }
    }

    fn unit(&self, index: usize) -> Unit {
        // Long histories come first, because they take longest.
        let run = self.tile.runs[self.tile.runs.len() - 1 - index / self.parts];
        Unit { run, part: index % self.parts }
    }

    fn span(&self, Unit { run, part }: Unit) -> Span<'a> {
        let kv_head = part * self.kv.heads() / self.parts;
        let slice = &self.slices[run.slice];
        let SliceBlocks { first, blocks } = SliceBlocks::of(slice, self.shape.window);
        let text = (slice.position + slice.count) as usize;
        Span { position: run.position, rows: run.rows, text, first_block: first, blocks, kv_head }
    }

    fn chunks(&self, index: usize) -> Range<usize> {
        self.span(self.unit(index)).chunks(self.shape.window)
    }

    /// Index of the unit of piece number `piece`, and the piece's chunk.
    fn locate(&self, piece: usize, units: usize) -> (usize, usize) {
        let mut from = 0;
        for index in 0..units {
            let chunks = self.chunks(index);
            if piece < from + chunks.len() {
                return (index, chunks.start + piece - from);
            }
            from += chunks.len();
        }
        unreachable!("pieces are counted by the same units")
    }
}
