//! Decoder of the formats whose indices choose points of a grid. Each row of a tile is decoded by itself, in plain
//! code, and the integers are then transposed into lanes. So these formats are slower than the others.

use std::marker::PhantomData;

use super::Codec;
use crate::kernels::grid::GridFormat;
use crate::kernels::simd::{LANES_MAX, Simd, WeightLanes, WeightTile};

pub(in crate::kernels) struct Grid<F>(PhantomData<F>);

/// Bytes of a decoded row: 32 integers, then the scales of the halves.
const ROW_BYTES: usize = 40;

impl<F: GridFormat> Codec for Grid<F> {
    const BLOCKS: usize = 8;
    const BYTES: usize = F::BYTES;
    const BYTE_MAX: i32 = 127;
    const HALVES: bool = F::HALVES;
    const WIDE: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        let mut rows = [[0; ROW_BYTES]; LANES_MAX];
        let rows = &mut rows[..S::LANES];
        for (sub, out) in out.iter_mut().enumerate() {
            for (lane, row) in rows.iter_mut().enumerate() {
                *row = decode::<F>(&tile.row(lane)[at..at + F::BYTES], sub);
            }
            let decoded = WeightTile::from_rows(rows.as_flattened(), S::LANES, ROW_BYTES);
            for half in 0..2 {
                for (index, word) in s.words(decoded, 16 * half).into_iter().enumerate() {
                    out.words[4 * half + index] = s.wide(word);
                }
                out.scale[half] = s.as_float(s.word(decoded, 32 + 4 * half));
            }
        }
    }
}

/// A part of one row. A function of its own, so that each format has one copy of it instead of one in every kernel,
/// which would take minutes to compile.
#[inline(never)]
fn decode<F: GridFormat>(unit: &[u8], sub: usize) -> [u8; ROW_BYTES] {
    let block = F::decode(unit, sub);
    let mut row = [0; ROW_BYTES];
    row[..32].copy_from_slice(&block.integers.map(i8::cast_unsigned));
    row[32..36].copy_from_slice(&block.scale[0].to_le_bytes());
    row[36..].copy_from_slice(&block.scale[1].to_le_bytes());
    row
}
