//! The one kernel for all products: a tile of outputs times all rows of activations, block after block. Decode, small
//! batches and prefill run the same code with fewer or more rows. So a row's result does not depend on the other rows
//! in the batch.

use std::hint::black_box;
use std::marker::PhantomData;
use std::ops::Range;

use super::Matrix;
use super::codec::{self, Codec, PackedFactors, UNIT_BLOCKS_MAX, WeightLayout};
use super::fp8::Fp8Weights;
use super::grid;
use super::product::Product;
use super::rows::{CHUNK_ROWS_MAX, MATRIX_ROWS, Quantised};
use super::scalar::{self, FLOAT_GROUP};
use super::simd::{LANES_MAX, MATRIX_BLOCKS, Matrices, MatrixScratch, Simd, WeightLanes, WeightTile, WithSimd};
use crate::format::Format;

/// A range of a product's outputs, for all rows.
pub(super) struct Outputs<'a> {
    pub(super) product: &'a Product<'a>,
    pub(super) range: Range<usize>,
}

/// Computes `outputs` by the instructions of `s`. Each format has a function of its own, and a single row another: in
/// one function for all of them, the compiler keeps fewer values in registers, and every call clears sums of many rows.
pub(super) fn multiply<S: Simd>(s: S, outputs: Outputs<'_>) {
    let Outputs { product, range } = &outputs;
    if product.weights.rows() < S::LANES {
        return scalar::multiply(product, range.clone());
    }
    match product.weights.format() {
        Format::Q4_0 => run::<S, QuantisedWeights<codec::Q4_0>>(s, outputs),
        Format::Q4_1 => run::<S, QuantisedWeights<codec::Q4_1>>(s, outputs),
        Format::Q5_0 => run::<S, QuantisedWeights<codec::Q5_0>>(s, outputs),
        Format::Q5_1 => run::<S, QuantisedWeights<codec::Q5_1>>(s, outputs),
        Format::Q8_0 => run::<S, QuantisedWeights<codec::Q8_0>>(s, outputs),
        Format::Q2K => run::<S, QuantisedWeights<codec::Q2K>>(s, outputs),
        Format::Q3K => run::<S, QuantisedWeights<codec::Q3K>>(s, outputs),
        Format::Q4K => run::<S, QuantisedWeights<codec::Q4K>>(s, outputs),
        Format::Q5K => run::<S, QuantisedWeights<codec::Q5K>>(s, outputs),
        Format::Q6K => run::<S, QuantisedWeights<codec::Q6K>>(s, outputs),
        Format::Iq4Nl => run::<S, QuantisedWeights<codec::Iq4Nl>>(s, outputs),
        Format::Iq4Xs => run::<S, QuantisedWeights<codec::Iq4Xs>>(s, outputs),
        Format::Mxfp4 => run::<S, QuantisedWeights<codec::Mxfp4>>(s, outputs),
        Format::Tq1_0 => run::<S, QuantisedWeights<codec::Tq1_0>>(s, outputs),
        Format::Tq2_0 => run::<S, QuantisedWeights<codec::Tq2_0>>(s, outputs),
        Format::Iq2Xxs => run::<S, QuantisedWeights<codec::Grid<grid::Iq2Xxs>>>(s, outputs),
        Format::Iq2Xs => run::<S, QuantisedWeights<codec::Grid<grid::Iq2Xs>>>(s, outputs),
        Format::Iq2S => run::<S, QuantisedWeights<codec::Grid<grid::Iq2S>>>(s, outputs),
        Format::Iq3Xxs => run::<S, QuantisedWeights<codec::Grid<grid::Iq3Xxs>>>(s, outputs),
        Format::Iq3S => run::<S, QuantisedWeights<codec::Grid<grid::Iq3S>>>(s, outputs),
        Format::Iq1S => run::<S, QuantisedWeights<codec::Grid<grid::Iq1S>>>(s, outputs),
        Format::Iq1M => run::<S, QuantisedWeights<codec::Grid<grid::Iq1M>>>(s, outputs),
        Format::Affine4G32 => run::<S, QuantisedWeights<codec::Affine4<1>>>(s, outputs),
        Format::Affine4G64 => run::<S, QuantisedWeights<codec::Affine4<2>>>(s, outputs),
        Format::Affine4G128 => run::<S, QuantisedWeights<codec::Affine4<4>>>(s, outputs),
        Format::Affine8G32 => run::<S, QuantisedWeights<codec::Affine8<1>>>(s, outputs),
        Format::Affine8G64 => run::<S, QuantisedWeights<codec::Affine8<2>>>(s, outputs),
        Format::F8E4M3 => run::<S, Fp8Weights>(s, outputs),
        Format::F32 => run::<S, FloatWeights<4>>(s, outputs),
        Format::F16 | Format::BF16 => run::<S, FloatWeights<2>>(s, outputs),
    }
}

fn run<S: Simd, U: Units>(s: S, outputs: Outputs<'_>) {
    match outputs.product.x.rows() {
        1 => s.run(OneRow(outputs, PhantomData::<U>)),
        _ => s.run(AllRows(outputs, PhantomData::<U>)),
    }
}

/// Outputs for a single row: the decoding of one sequence.
struct OneRow<'a, U>(Outputs<'a>, PhantomData<U>);

/// Outputs for any number of rows.
struct AllRows<'a, U>(Outputs<'a>, PhantomData<U>);

/// Start of each tile of `range`, and the number of its first outputs that belong to the tile before. The last tile of
/// a matrix is moved back so that it is whole, and only its new outputs are written.
#[inline(always)]
fn tiles(outputs: usize, range: Range<usize>, lanes: usize) -> impl Iterator<Item = (usize, usize)> {
    range.step_by(lanes).map(move |first| {
        let start = first.min(outputs - lanes);
        (start, first - start)
    })
}

/// Multiplies the rows of a chunk with one tile of weights, some units of columns at a time.
pub(super) trait Units {
    /// Columns of a unit. Quantised activations of a unit lie together for all rows of a chunk.
    const COLS: usize;
    /// Bytes of activations that a row has for a unit.
    const ROW_BYTES: usize;

    /// Sum of the products of all units with the only row.
    #[inline(always)]
    fn one_row<S: Simd>(s: S, product: &Product<'_>, start: usize) -> S::Float {
        let mut sum = [s.splat_float(0.0)];
        let units = product.weights.cols().div_ceil(Self::COLS);
        Self::add(s, product, start, &(0..1), 0..units, &mut sum, None);
        sum[0]
    }

    /// Adds the products of the units of `panel` to the sums of the rows of `chunk`.
    fn add<S: Simd>(
        s: S,
        product: &Product<'_>,
        start: usize,
        chunk: &Range<usize>,
        panel: Range<usize>,
        sums: &mut [S::Float],
        scratch: Option<&mut MatrixScratch<S>>,
    );
}

impl<U: Units> WithSimd for OneRow<'_, U> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Outputs { product, range } = self.0;
        for (start, skip) in tiles(product.weights.rows(), range, S::LANES) {
            let sum = U::one_row(s, product, start);
            write(s, product, start, skip, 0..1, &[sum]);
        }
    }
}

impl<U: Units> WithSimd for AllRows<'_, U> {
    /// Long rows are processed in panels, so that the activations of many rows stay in the second-level cache while one
    /// tile after another is multiplied with them. Between two panels the sums are stored in the output buffer.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Outputs { product, range } = self.0;
        let mut sums = [s.splat_float(0.0); CHUNK_ROWS_MAX];
        let mut scratch = s.matrices().map(Matrices::take_scratch);
        let units = product.weights.cols().div_ceil(U::COLS);
        for chunk in product.x.chunks() {
            let panel = (PANEL_BYTES_MAX / (U::ROW_BYTES * chunk.len())).max(1);
            for first in (0..units).step_by(panel) {
                for (start, skip) in tiles(product.weights.rows(), range.clone(), S::LANES) {
                    let sums = &mut sums[..chunk.len()];
                    if first == 0 {
                        sums.fill(s.splat_float(0.0));
                    } else {
                        read(s, product, start, skip, chunk.clone(), sums);
                    }
                    U::add(s, product, start, &chunk, first..(first + panel).min(units), sums, scratch.as_deref_mut());
                    write(s, product, start, skip, chunk.clone(), sums);
                }
            }
        }
        if let (Some(matrices), Some(scratch)) = (s.matrices(), scratch) {
            matrices.return_scratch(scratch);
        }
    }
}

/// Bytes of activations in a panel: a quarter of the smallest second-level cache there is.
const PANEL_BYTES_MAX: usize = 128 * 1024;

// === quantised weights ===

/// Weights in the blocks of format `C`.
struct QuantisedWeights<C>(PhantomData<C>);

impl<C: Codec> Units for QuantisedWeights<C> {
    const COLS: usize = 32 * C::BLOCKS;
    const ROW_BYTES: usize = size_of::<Quantised>() * C::BLOCKS;

    #[inline(always)]
    fn add<S: Simd>(
        s: S,
        product: &Product<'_>,
        start: usize,
        chunk: &Range<usize>,
        panel: Range<usize>,
        sums: &mut [S::Float],
        scratch: Option<&mut MatrixScratch<S>>,
    ) {
        match (s.matrices(), scratch) {
            (Some(matrices), Some(scratch)) if !C::HALVES => {
                by_matrices::<S, C>((s, matrices), scratch, product, start, chunk, panel, sums);
            }
            _ => unpacked::<S, C>(s, product, start, chunk, panel, sums),
        }
    }

    #[inline(always)]
    fn one_row<S: Simd>(s: S, product: &Product<'_>, start: usize) -> S::Float {
        if let WeightLayout::Packed = C::LAYOUT {
            let mut sum = [s.splat_float(0.0)];
            unpacked::<S, C>(s, product, start, &(0..1), 0..product.weights.cols() / Self::COLS, &mut sum);
            return sum[0];
        }
        in_file_layout::<S, C>(s, product, start)
    }
}

/// Sum of one tile for a single row, from weights in their file layout.
#[inline(always)]
fn in_file_layout<S: Simd, C: Codec>(s: S, product: &Product<'_>, start: usize) -> S::Float {
    let weights = &product.weights;
    let tile = WeightTile::of(weights, start, S::LANES);
    let mut sum = s.splat_float(0.0);
    for (unit, x) in product.x.quantised(&(0..1)).chunks_exact(C::BLOCKS).enumerate() {
        let at = unit * C::BYTES;
        prefetch_next(s, weights, start, unit, C::BYTES * S::LANES);
        match C::LAYOUT {
            WeightLayout::Nibbles(weights_at) => {
                let (scale, min) = C::factors(s, tile, at);
                for (sub, x) in x.iter().enumerate() {
                    let at = at + weights_at + 16 * sub;
                    let integer = s.dot_nibbles(offset::<S, C>(s, x, 2), tile, at, &x.bytes);
                    sum = add_part::<S, C>(s, [scale, min], x, 2, s.to_float(integer), sum);
                }
            }
            WeightLayout::Bytes(weights_at) => {
                let (scale, min) = C::factors(s, tile, at);
                for (sub, x) in x.iter().enumerate() {
                    let at = at + weights_at + 32 * sub;
                    let integer = s.dot_bytes(offset::<S, C>(s, x, 2), tile, at, &x.bytes);
                    sum = add_part::<S, C>(s, [scale, min], x, 2, s.to_float(integer), sum);
                }
            }
            WeightLayout::Pairs(weights_at) => {
                let packed = PackedFactors::read(s, tile, at);
                for (pair, x) in x.as_chunks::<2>().0.iter().enumerate() {
                    let integers = s.dot_pairs(tile, at + weights_at + 32 * pair, [&x[0].bytes, &x[1].bytes]);
                    for half in 0..2 {
                        let (scale, min) = packed.of(s, 2 * pair + half);
                        sum = add_part::<S, C>(s, [scale, min], &x[half], 2, s.to_float(integers[half]), sum);
                    }
                }
            }
            WeightLayout::Packed => {}
        }
    }
    sum
}

/// Prefetches the bytes that the next tiles need at block `index` of `bytes` bytes. The rows of a tile lie one behind
/// the other. While they are read side by side, the bytes after the tile are prefetched as one stream. The next tile
/// goes to the first-level cache, which can wait for few lines at a time. The tile after it goes to the second-level
/// cache, which can wait for many. From main memory both together bring a third more than either.
#[inline(always)]
pub(super) fn prefetch_next<S: Simd>(s: S, weights: &Matrix<'_>, start: usize, index: usize, bytes: usize) {
    let tile = S::LANES * weights.row_bytes();
    let next = start * weights.row_bytes() + tile + index * bytes;
    let start = weights.bytes().as_ptr();
    for line in 0..bytes.div_ceil(64) {
        s.prefetch(start.wrapping_add(next + 64 * line));
        s.prefetch_far(start.wrapping_add(next + tile + 64 * line));
    }
}

/// Adds the units of `panel` of one tile for the rows of `chunk`. Each unit is unpacked once and multiplied with every
/// row.
#[inline(always)]
fn unpacked<S: Simd, C: Codec>(
    s: S,
    product: &Product<'_>,
    start: usize,
    chunk: &Range<usize>,
    panel: Range<usize>,
    sums: &mut [S::Float],
) {
    let weights = &product.weights;
    let tile = WeightTile::of(weights, start, S::LANES);
    let x = product.x.quantised(chunk);
    let mut lanes = [WeightLanes::zero(s); UNIT_BLOCKS_MAX];
    for unit in panel {
        C::unpack(s, tile, unit * C::BYTES, &mut lanes[..C::BLOCKS]);
        for (sub, lanes) in lanes[..C::BLOCKS].iter().enumerate() {
            let index = unit * C::BLOCKS + sub;
            prefetch_next(s, weights, start, index, C::BYTES * S::LANES / C::BLOCKS);
            add_block::<S, C>(s, lanes, &x[index * chunk.len()..][..sums.len()], sums);
        }
    }
}

/// As `unpacked`, with matrix registers: a few blocks are unpacked, then multiplied with 16 rows at a time, then their
/// integer sums are scaled. Each step reads data from memory that the step before wrote. Loads into matrix registers
/// wait for stores, so each step is long enough for the stores to complete. Meanwhile the next blocks are unpacked.
#[inline(always)]
fn by_matrices<S: Simd, C: Codec>(
    (s, matrices): (S, S::Matrices),
    scratch: &mut MatrixScratch<S>,
    product: &Product<'_>,
    start: usize,
    chunk: &Range<usize>,
    panel: Range<usize>,
    sums: &mut [S::Float],
) {
    let weights = &product.weights;
    let (x, rows) = (product.x.quantised_padded(chunk), chunk.len());
    let MatrixScratch { integers, lanes, next_lanes } = scratch;
    let (mut lanes, mut next_lanes) = (lanes, next_lanes);
    let step = MATRIX_BLOCKS / C::BLOCKS;
    for (unit, lanes) in panel.clone().zip(lanes.chunks_exact_mut(C::BLOCKS)) {
        unpack_signed::<S, C>(s, matrices, weights, start, unit, lanes);
    }
    for first in panel.clone().step_by(step) {
        let units = first..(first + step).min(panel.end);
        let mut following = (first + step..panel.end).zip(next_lanes.chunks_exact_mut(C::BLOCKS));
        let x = &x[first * C::BLOCKS * rows..];
        for (group, sums) in sums.chunks_mut(MATRIX_ROWS).enumerate() {
            let x = &x[group * MATRIX_ROWS..];
            let blocks = lanes.chunks_exact(C::BLOCKS).zip(integers.chunks_exact_mut(C::BLOCKS)).enumerate();
            for (unit, (lanes, integers)) in blocks.take(units.len()) {
                for (block, (lanes, integers)) in lanes.iter().zip(integers).enumerate() {
                    let x = x[(unit * C::BLOCKS + block) * rows..].first_chunk().expect(PADDED);
                    matrices.dot_block(&lanes.words, x, integers);
                }
                if let Some((unit, next_lanes)) = following.next() {
                    unpack_signed::<S, C>(s, matrices, weights, start, unit, next_lanes);
                }
            }
            let lanes = &lanes[..units.len() * C::BLOCKS];
            if let Ok(sums) = <&mut [S::Float; MATRIX_ROWS]>::try_from(&mut *sums) {
                add_integers::<S, C, MATRIX_ROWS>(s, lanes, integers, x, rows, sums);
                continue;
            }
            let mut padded = [s.splat_float(0.0); MATRIX_ROWS];
            for (padded, sum) in padded.iter_mut().zip(&*sums) {
                *padded = *sum;
            }
            if sums.len() <= MATRIX_ROWS / 2 {
                let padded = padded.first_chunk_mut().expect("half is less than all");
                add_integers::<S, C, { MATRIX_ROWS / 2 }>(s, lanes, integers, x, rows, padded);
            } else {
                add_integers::<S, C, MATRIX_ROWS>(s, lanes, integers, x, rows, &mut padded);
            }
            for (padded, sum) in padded.iter().zip(sums) {
                *sum = *padded;
            }
        }
        (lanes, next_lanes) = (next_lanes, lanes);
    }
}

// `by_matrices` unpacks whole blocks of the format, so the largest one must fit.
const _: () = assert!(MATRIX_BLOCKS >= UNIT_BLOCKS_MAX);

/// Unpacks a unit of the tile at `start` into signed bytes for matrix registers.
#[inline(always)]
fn unpack_signed<S: Simd, C: Codec>(
    s: S,
    matrices: S::Matrices,
    weights: &Matrix<'_>,
    start: usize,
    unit: usize,
    lanes: &mut [WeightLanes<S>],
) {
    prefetch_next(s, weights, start, unit, C::BYTES * S::LANES);
    C::unpack(s, WeightTile::of(weights, start, S::LANES), unit * C::BYTES, lanes);
    let above = if C::WIDE { S::WIDE_OFFSET } else { C::OFFSET }.map_or(0, |power| 1 << power);
    for lanes in lanes {
        matrices.sign(&mut lanes.words, above);
    }
}

/// Panic message if the blocks that `Rows::quantised_padded` guarantees are missing.
const PADDED: &str = "padding blocks after the last";

/// Scales the integer sums of some blocks and adds them to the sums of `ROWS` rows, which stay in registers meanwhile.
/// In `x`, a row's next block lies `stride` blocks later.
#[inline(always)]
fn add_integers<S: Simd, C: Codec, const ROWS: usize>(
    s: S,
    lanes: &[WeightLanes<S>],
    integers: &[[S::Int; MATRIX_ROWS]; MATRIX_BLOCKS],
    x: &[Quantised],
    stride: usize,
    sums: &mut [S::Float; ROWS],
) {
    let mut registers = *sums;
    for (block, (lanes, integers)) in lanes.iter().zip(integers).enumerate() {
        let x: &[Quantised; ROWS] = x[block * stride..].first_chunk().expect(PADDED);
        let factors = [lanes.scale[0], lanes.min[0]];
        for row in 0..ROWS {
            let integer = raised::<S, C>(s, integers[row], &x[row], 2);
            registers[row] = add_part::<S, C>(s, factors, &x[row], 2, s.to_float(integer), registers[row]);
        }
    }
    *sums = registers;
}

/// Fewer rows than this are multiplied one by one. Matrix registers take as long for one row as for all they hold,
/// which is slower for fewer rows than this.
pub(super) const MATRIX_ROWS_MIN: usize = 12;

/// Adds the products of 32 weights of each output with the same 32 activations of each row.
#[inline(always)]
fn add_block<S: Simd, C: Codec>(s: S, weights: &WeightLanes<S>, x: &[Quantised], sums: &mut [S::Float]) {
    let weights = *weights;
    let done = if S::PAIRS {
        add_pairs::<S, C>(s, &weights, x, sums)
    } else if S::FOURS {
        add_fours::<S, C>(s, &weights, x, sums)
    } else {
        0
    };
    for (x, sum) in x[done..].iter().zip(&mut sums[done..]) {
        // `black_box` stops LLVM from deriving the address of `x` from that of `sums`. An address of two registers and
        // a broadcast make an instruction of two micro-operations, which costs a tenth per row.
        *sum = add_row::<S, C>(s, &weights, black_box(x), *sum);
    }
}

/// As `add_block`, for one row.
#[inline(always)]
fn add_row<S: Simd, C: Codec>(s: S, weights: &WeightLanes<S>, x: &Quantised, sum: S::Float) -> S::Float {
    let factors = [0, 1].map(|half| [weights.scale[half], weights.min[half]]);
    if C::HALVES {
        let (low, high) = (dot::<S, C>(s, weights, x, 0, 0..4), dot::<S, C>(s, weights, x, 1, 4..8));
        add_part::<S, C>(s, factors[1], x, 1, high, add_part::<S, C>(s, factors[0], x, 0, low, sum))
    } else {
        add_part::<S, C>(s, factors[0], x, 2, dot::<S, C>(s, weights, x, 2, 0..8), sum)
    }
}

/// As `add_block`, four rows after each other without a branch between them. Returns the number of rows done.
#[inline(always)]
fn add_fours<S: Simd, C: Codec>(s: S, weights: &WeightLanes<S>, x: &[Quantised], sums: &mut [S::Float]) -> usize {
    for (x, sums) in x.as_chunks::<4>().0.iter().zip(sums.as_chunks_mut::<4>().0) {
        for row in 0..4 {
            sums[row] = add_row::<S, C>(s, weights, &x[row], sums[row]);
        }
    }
    x.len() / 4 * 4
}

/// As `add_block`, two rows at once. Returns the number of rows done. Integer sums are exact, so a row's result does
/// not depend on this.
#[inline(always)]
fn add_pairs<S: Simd, C: Codec>(s: S, weights: &WeightLanes<S>, x: &[Quantised], sums: &mut [S::Float]) -> usize {
    let paired = s.paired(weights.words);
    for (x, sums) in x.as_chunks::<2>().0.iter().zip(sums.as_chunks_mut::<2>().0) {
        for half in 0..if C::HALVES { 2 } else { 1 } {
            let (part, words) = if C::HALVES { (half, 4 * half..4 * half + 4) } else { (2, 0..8) };
            let bytes = 4 * words.start..4 * words.end;
            let bytes = [&x[0].bytes[bytes.clone()], &x[1].bytes[bytes]];
            let start = [offset::<S, C>(s, &x[0], part), offset::<S, C>(s, &x[1], part)];
            let integers = if C::WIDE {
                s.dot_pair::<true>(start, &paired[words], bytes)
            } else {
                s.dot_pair::<false>(start, &paired[words], bytes)
            };
            let factors = [weights.scale[half], weights.min[half]];
            for row in 0..2 {
                sums[row] = add_part::<S, C>(s, factors, &x[row], part, s.to_float(integers[row]), sums[row]);
            }
        }
    }
    x.len() / 2 * 2
}

/// Sum of the integer products of some words. `part` is the index of the row's sum for these words.
#[inline(always)]
fn dot<S: Simd, C: Codec>(s: S, weights: &WeightLanes<S>, x: &Quantised, part: usize, words: Range<usize>) -> S::Float {
    let sum = offset::<S, C>(s, x, part);
    let (bytes, words) = (&x.bytes[4 * words.start..4 * words.end], &weights.words[words]);
    if C::WIDE {
        return s.to_float(s.dot_wide_all(sum, words, bytes));
    }
    // A trait's constant cannot be a const argument here, so its range selects one.
    s.to_float(match C::BYTE_MAX {
        0..=15 => s.dot_all::<15>(sum, words, bytes),
        16..=31 => s.dot_all::<31>(sum, words, bytes),
        32..=63 => s.dot_all::<63>(sum, words, bytes),
        _ => s.dot_all::<127>(sum, words, bytes),
    })
}

/// Start value of an integer sum that cancels the offset of the weights.
#[inline(always)]
fn offset<S: Simd, C: Codec>(s: S, x: &Quantised, part: usize) -> S::Int {
    let start = match if C::WIDE { S::WIDE_OFFSET } else { C::OFFSET } {
        Some(power) => s.shl(s.splat(x.neg[part]), power),
        None => s.splat(0),
    };
    raised::<S, C>(s, start, x, part)
}

/// An integer sum with the 128 that each weight is more than its byte, if the format has such weights.
#[inline(always)]
fn raised<S: Simd, C: Codec>(s: S, sum: S::Int, x: &Quantised, part: usize) -> S::Int {
    if C::UNSIGNED { s.sub(sum, s.shl(s.splat(x.neg[part]), 7)) } else { sum }
}

/// Scales an integer sum and adds it to `sum`, together with the minimums if the format has them.
#[inline(always)]
fn add_part<S: Simd, C: Codec>(
    s: S,
    [scale, min]: [S::Float; 2],
    x: &Quantised,
    part: usize,
    integer: S::Float,
    sum: S::Float,
) -> S::Float {
    let scale = s.mul(scale, s.splat_float(x.scale));
    let sum = s.fma(integer, scale, sum);
    if C::MINS { s.fma(min, s.splat_float(x.sum[part]), sum) } else { sum }
}

// === float weights ===

/// Weights that are floats of `BYTES` bytes each.
struct FloatWeights<const BYTES: usize>;

impl<const BYTES: usize> Units for FloatWeights<BYTES> {
    const COLS: usize = FLOAT_GROUP;
    const ROW_BYTES: usize = FLOAT_GROUP * size_of::<f32>();

    #[inline(always)]
    fn add<S: Simd>(
        s: S,
        product: &Product<'_>,
        start: usize,
        chunk: &Range<usize>,
        panel: Range<usize>,
        sums: &mut [S::Float],
        _: Option<&mut MatrixScratch<S>>,
    ) {
        let (weights, cols) = (&product.weights, product.x.cols());
        let tile = WeightTile::of(weights, start, S::LANES);
        let x = &product.x.values()[chunk.start * cols..chunk.end * cols];
        let whole = cols / FLOAT_GROUP;
        for group in panel.start..panel.end.min(whole) {
            prefetch_next(s, weights, start, group, FLOAT_GROUP * BYTES * S::LANES);
            let columns = columns::<S, BYTES>(s, weights.format(), tile, group * FLOAT_GROUP * BYTES);
            for (x, sum) in x.chunks_exact(cols).zip(&mut *sums) {
                let x = &x[group * FLOAT_GROUP..][..FLOAT_GROUP];
                *sum = s.add(*sum, group_sum(s, &columns, x.try_into().expect("a group")));
            }
        }
        let (done, rest) = (whole * FLOAT_GROUP, cols % FLOAT_GROUP);
        if panel.end > whole {
            let mut bytes = [0; FLOAT_GROUP * 4 * LANES_MAX];
            let padded = &mut bytes[..FLOAT_GROUP * BYTES * S::LANES];
            for (lane, padded) in padded.chunks_exact_mut(FLOAT_GROUP * BYTES).enumerate() {
                padded[..rest * BYTES].copy_from_slice(&weights.row(start + lane)[done * BYTES..]);
            }
            let tile = WeightTile::from_rows(padded, S::LANES, FLOAT_GROUP * BYTES);
            let columns = columns::<S, BYTES>(s, weights.format(), tile, 0);
            for (x, sum) in x.chunks_exact(cols).zip(sums) {
                let mut padded = [0.0; FLOAT_GROUP];
                padded[..rest].copy_from_slice(&x[done..]);
                *sum = s.add(*sum, group_sum(s, &columns, &padded));
            }
        }
    }
}

/// Sum of the products of one group of columns, starting at zero.
#[inline(always)]
pub(super) fn group_sum<S: Simd>(s: S, columns: &[S::Float; FLOAT_GROUP], x: &[f32; FLOAT_GROUP]) -> S::Float {
    let mut sum = s.splat_float(0.0);
    for (column, x) in columns.iter().zip(x) {
        sum = s.fma(*column, s.splat_float(*x), sum);
    }
    sum
}

/// One group of columns of a tile as floats, `at` bytes into the rows.
#[inline(always)]
fn columns<S: Simd, const BYTES: usize>(
    s: S,
    format: Format,
    tile: WeightTile<'_>,
    at: usize,
) -> [S::Float; FLOAT_GROUP] {
    let mut columns = [s.splat_float(0.0); FLOAT_GROUP];
    let per_piece = 16 / BYTES;
    for piece in 0..FLOAT_GROUP / per_piece {
        let words = s.words(tile, at + 16 * piece);
        for index in 0..per_piece {
            let column = &mut columns[piece * per_piece + index];
            let word = words[index * BYTES / 4];
            *column = match (format, index % 2) {
                (Format::F32, _) => s.as_float(word),
                (Format::F16, 0) => s.half_to_float(s.and(word, s.splat(0xffff))),
                (Format::F16, _) => s.half_to_float(s.shr(word, 16)),
                (_, 0) => s.as_float(s.shl(word, 16)),
                (_, _) => s.as_float(s.and(word, s.splat(0xffff_0000_u32 as i32))),
            };
        }
    }
    columns
}

// === both ===

/// Loads a tile's sums from the outputs, where `write` stored them. The first `skip` lanes are unused.
#[inline(always)]
fn read<S: Simd>(s: S, product: &Product<'_>, start: usize, skip: usize, chunk: Range<usize>, sums: &mut [S::Float]) {
    for (row, sum) in chunk.zip(sums) {
        // SAFETY: as in `write`.
        let out = unsafe { product.out(row, start + skip..start + S::LANES) };
        *sum = if skip == 0 {
            s.load(out)
        } else {
            let mut lanes = [0.0; LANES_MAX];
            lanes[skip..S::LANES].copy_from_slice(out);
            s.load(&lanes[..S::LANES])
        };
    }
}

/// Stores a tile's sums to the outputs, except for the first `skip` lanes.
#[inline(always)]
fn write<S: Simd>(s: S, product: &Product<'_>, start: usize, skip: usize, chunk: Range<usize>, sums: &[S::Float]) {
    for (row, sum) in chunk.zip(sums) {
        // SAFETY: a tile's new outputs are within the range of this call, and ranges of calls do not overlap.
        let out = unsafe { product.out(row, start + skip..start + S::LANES) };
        if skip == 0 {
            s.store(*sum, out);
        } else {
            let mut lanes = [0.0; LANES_MAX];
            s.store(*sum, &mut lanes[..S::LANES]);
            out.copy_from_slice(&lanes[skip..S::LANES]);
        }
    }
}
