//! A short convolution between two gates. The products of tokens with their first gate are kept like the values of a
//! layer with a window, in single precision: rows read those of the tokens before them from there, whether these are in
//! the same tile, were computed long ago or come from the prefix cache.

use super::arena::Arena;
use super::kv::KvCache;
use super::layer::Step;
use super::parallel;
use super::weights::ShortConv;
use crate::kernels::{MatmulJob, Split, matmul};
use crate::shard::{SliceBlocks, TOKENS};

// === impl Step ===

impl Step<'_> {
    /// `out` = the convolution of `input`, in layer number `index` of the shard.
    pub(super) fn short_conv(&mut self, weights: &ShortConv, kv: &mut KvCache, index: usize) {
        let (rows, spec) = (self.rows(), &weights.spec);
        let Arena { input, query, .. } = &mut *self.arena;
        let parts = &mut query[..rows * spec.parts()];
        matmul(self.pool, &mut [MatmulJob { weights: weights.input.matrix(), out: parts }], input);
        self.store_products(weights, kv, index);
        self.convolve(weights, kv, index);
        self.multiply_into_out(&weights.output);
    }

    /// Multiplies the first gate with the input of each row, and keeps the products.
    fn store_products(&mut self, weights: &ShortConv, kv: &mut KvCache, index: usize) {
        let (spec, isa) = (&weights.spec, self.isa);
        let (width, window) = (spec.width, spec.window());
        let Arena { query, key, tile, .. } = &mut *self.arena;
        let kv = kv.layer_mut(index);
        // One after the other: frames may wrongly give two rows the same slot.
        let all = query.chunks_exact(spec.parts()).zip(key.chunks_exact_mut(width)).zip(&tile.rows);
        for ((parts, products), row) in all {
            let (gate, input) = (&parts[..width], &parts[2 * width..]);
            for ((product, gate), input) in products.iter_mut().zip(gate).zip(input) {
                *product = gate * input;
            }
            // SAFETY: no other thread writes this layer.
            unsafe { kv.write(isa, row.slot_of(window), 0, &[], products) };
        }
    }

    /// Writes the gated sums of each row to `input`. A sum begins with the oldest token. Its additions and
    /// multiplications round one by one, so any width of vectors gives the same bits.
    fn convolve(&mut self, weights: &ShortConv, kv: &KvCache, index: usize) {
        let (rows, spec, slices) = (self.rows(), &weights.spec, self.slices);
        let (width, window) = (spec.width, spec.window());
        let Arena { input, query, tile, .. } = &mut *self.arena;
        let (kv, out) = (kv.layer(index), Split::new(input.prepare(rows, width)));
        parallel::rows(self.pool, rows, &|range| {
            for (index, row) in range.clone().zip(&tile.rows[range]) {
                // SAFETY: each row is in one range only.
                let out = unsafe { out.part(index * width..(index + 1) * width) };
                out.fill(0.0);
                let table = SliceBlocks::of(&slices[row.slice], window);
                let first = window.first(row.position);
                // Before the first token there are none, and the taps for them are left out.
                let left_out = spec.taps as usize - (row.position - first + 1) as usize;
                let taps = weights.taps.chunks_exact(width).skip(left_out);
                for (position, taps) in (first as usize..).zip(taps) {
                    let slot = table.blocks[position / TOKENS - table.first] as usize * TOKENS + position % TOKENS;
                    for ((sum, tap), product) in out.iter_mut().zip(taps).zip(kv.row(slot)) {
                        *sum += tap * product;
                    }
                }
                let gate = &query[index * spec.parts() + width..][..width];
                out.iter_mut().zip(gate).for_each(|(sum, gate)| *sum *= gate);
            }
        });
    }
}
