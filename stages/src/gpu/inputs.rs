//! A tile's inputs besides its rows: positions, slots, block tables and angles. Written once a tile, for all layers.

use schema::frame::Slice;

use super::device::{DeviceBuffer, Gpu, GpuError};
use super::limits::ROWS_MAX;
use crate::model::{Rope, Window};
use crate::shard::{RowTile, SliceBlocks, TOKENS};

/// The inputs on the device.
#[derive(Debug)]
pub(super) struct TileInputs<B> {
    /// Of layers without a window, and of those with one.
    kinds: [KindInputs<B>; 2],
    /// Of each rotary embedding: per row all cosines, then all sines.
    angles: Vec<B>,
    /// The numbers of the tile's rows.
    pub(super) all_rows: B,
    bytes: Vec<u8>,
}

/// The inputs that differ between layers with and without a window.
#[derive(Debug)]
pub(super) struct KindInputs<B> {
    /// Of each row: block times tokens in a block, plus the place in the block.
    pub(super) slots: B,
    /// Of each row: its position, the first block that the table has of its sequence, and the place of it there.
    pub(super) rows: B,
    /// The blocks of each slice.
    pub(super) table: B,
}

// === impl TileInputs ===

impl<B: DeviceBuffer> TileInputs<B> {
    /// Room for tiles of sequences up to `tokens_max` tokens.
    ///
    /// # Errors
    /// [`GpuError::Memory`] if the device has none.
    pub(super) fn new<G: Gpu<Buffer = B>>(ropes: &[Rope], tokens_max: u32, gpu: &mut G) -> Result<Self, GpuError> {
        Self::with_pairs(ropes.iter().map(Rope::pairs), tokens_max, gpu)
    }

    /// As [`Self::new`], for rotary embeddings of so many pairs each.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn with_pairs<G: Gpu<Buffer = B>>(
        pairs: impl Iterator<Item = usize>,
        tokens_max: u32,
        gpu: &mut G,
    ) -> Result<Self, GpuError> {
        // Every row may be of another slice.
        let table = ROWS_MAX * (tokens_max as usize).div_ceil(TOKENS).max(1);
        let mut kind = || {
            Ok::<_, GpuError>(KindInputs {
                slots: gpu.allocate(4 * ROWS_MAX)?,
                rows: gpu.allocate(4 * 3 * ROWS_MAX)?,
                table: gpu.allocate(4 * table)?,
            })
        };
        let kinds = [kind()?, kind()?];
        let angles = pairs.map(|pairs| gpu.allocate(4 * ROWS_MAX * 2 * pairs));
        let angles = angles.collect::<Result<_, _>>()?;
        let all_rows = gpu.allocate(4 * ROWS_MAX)?;
        write(&all_rows, &mut Vec::new(), 0..ROWS_MAX as u32);
        Ok(Self { kinds, angles, all_rows, bytes: Vec::new() })
    }

    /// Writes the inputs of `tile`.
    pub(super) fn set(&mut self, tile: &RowTile, slices: &[Slice], ropes: &[Rope]) {
        let Self { kinds, angles, bytes, .. } = self;
        // Any window stands for all of them: they share a table.
        for (kind, window) in kinds.iter().zip([Window::All, Window::Last(1)]) {
            write(&kind.slots, bytes, tile.rows.iter().map(|row| row.slot_of(window) as u32));
            let mut table = Vec::new();
            let mut rows = Vec::new();
            let mut before = None;
            for row in &tile.rows {
                let SliceBlocks { first, blocks } = SliceBlocks::of(&slices[row.slice], window);
                if before != Some(row.slice) {
                    before = Some(row.slice);
                    let needed = (slices[row.slice].position + slices[row.slice].count).div_ceil(TOKENS as u32);
                    rows.push((row.slice, table.len() as u32));
                    table.extend(blocks.iter().take((needed as usize).saturating_sub(first)));
                }
            }
            let start_of = |slice| rows.iter().find(|(of, _)| *of == slice).map_or(0, |(_, start)| *start);
            let places = tile.rows.iter().flat_map(|row| {
                let first = SliceBlocks::of(&slices[row.slice], window).first as u32;
                [row.position, first, start_of(row.slice)]
            });
            write(&kind.rows, bytes, places);
            write(&kind.table, bytes, table.iter().copied());
        }
        for (angles, rope) in angles.iter().zip(ropes) {
            let of_row = |position: u32, function: fn(f64) -> f64| {
                let value = move |frequency: &f64| function(f64::from(position) * frequency) * rope.magnitude();
                rope.frequencies().iter().map(move |frequency| (value(frequency) as f32).to_bits())
            };
            let both = |position| of_row(position, f64::cos).chain(of_row(position, f64::sin));
            write(angles, bytes, tile.rows.iter().flat_map(|row| both(row.position)));
        }
    }

    /// The inputs of layers with this window.
    pub(super) fn of(&self, window: Window) -> &KindInputs<B> {
        &self.kinds[usize::from(window != Window::All)]
    }

    /// The angles of a rotary embedding.
    pub(super) fn angles(&self, rope: usize) -> Option<&B> {
        self.angles.get(rope)
    }
}

/// Writes `numbers` to the start of `buffer`.
pub(super) fn write<B: DeviceBuffer>(buffer: &B, bytes: &mut Vec<u8>, numbers: impl Iterator<Item = u32>) {
    bytes.clear();
    numbers.for_each(|number| bytes.extend(number.to_le_bytes()));
    buffer.write(0, bytes);
}
