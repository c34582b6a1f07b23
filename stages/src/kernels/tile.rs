//! The one kernel: a tile of outputs times all rows of activations, block after block. Decode, small batches and prefill
//! are the same code with more or fewer rows, which is why a row cannot feel its company.

use std::ops::Range;

use super::Format;
use super::codec::{self, Codec, Lanes, UNIT_BLOCKS_MAX};
use super::dispatch::Product;
use super::rows::{CHUNK_ROWS_MAX, Quantised};
use super::scalar::{self, FLOAT_GROUP};
use super::simd::{Simd, Tile, Work};

/// A range of a product's outputs, for all rows.
pub(super) struct Outputs<'a> {
    pub(super) product: &'a Product<'a>,
    pub(super) range: Range<usize>,
}

impl Work for Outputs<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { product, range } = self;
        if product.weights.rows() < S::LANES {
            return scalar::multiply(product, range);
        }
        match product.weights.format() {
            Format::Q4_0 => quantised::<S, codec::Q4_0>(s, product, range),
            Format::Q4_1 => quantised::<S, codec::Q4_1>(s, product, range),
            Format::Q5_0 => quantised::<S, codec::Q5_0>(s, product, range),
            Format::Q5_1 => quantised::<S, codec::Q5_1>(s, product, range),
            Format::Q8_0 => quantised::<S, codec::Q8_0>(s, product, range),
            Format::Q2K => quantised::<S, codec::Q2K>(s, product, range),
            Format::Q3K => quantised::<S, codec::Q3K>(s, product, range),
            Format::Q4K => quantised::<S, codec::Q4K>(s, product, range),
            Format::Q5K => quantised::<S, codec::Q5K>(s, product, range),
            Format::Q6K => quantised::<S, codec::Q6K>(s, product, range),
            Format::F32 => floats::<S, 4>(s, product, range),
            Format::F16 | Format::BF16 => floats::<S, 2>(s, product, range),
        }
    }
}

/// Where each tile of `range` starts, and how many of its first outputs belong to the tile before: the last tile of a
/// matrix is moved back to be whole, and only its new outputs are written.
#[inline(always)]
fn tiles(outputs: usize, range: Range<usize>, lanes: usize) -> impl Iterator<Item = (usize, usize)> {
    range.step_by(lanes).map(move |first| {
        let start = first.min(outputs - lanes);
        (start, first - start)
    })
}

// === quantised weights ===

#[inline(always)]
fn quantised<S: Simd, C: Codec>(s: S, product: &Product<'_>, range: Range<usize>) {
    let mut sums = [s.splat_float(0.0); CHUNK_ROWS_MAX];
    for chunk in product.x.chunks() {
        for (start, skip) in tiles(product.weights.rows(), range.clone(), S::LANES) {
            let sums = &mut sums[..chunk.len()];
            sums.fill(s.splat_float(0.0));
            quantised_tile::<S, C>(s, product, start, &chunk, sums);
            write(s, product, start, skip, chunk.clone(), sums);
        }
    }
}

/// The sums of one tile for the rows of `chunk`.
#[inline(always)]
fn quantised_tile<S: Simd, C: Codec>(
    s: S,
    product: &Product<'_>,
    start: usize,
    chunk: &Range<usize>,
    sums: &mut [S::Float],
) {
    let weights = &product.weights;
    let tile = Tile::of(weights, start, S::LANES);
    let x = product.x.quantised(chunk);
    let zero = Lanes { words: [s.splat(0); 8], scale: [s.splat_float(0.0); 2], min: [s.splat_float(0.0); 2] };
    let mut lanes = [zero; UNIT_BLOCKS_MAX];
    for unit in 0..weights.cols() / (32 * C::BLOCKS) {
        C::unpack(s, tile, unit * C::BYTES, &mut lanes);
        for (sub, lanes) in lanes[..C::BLOCKS].iter().enumerate() {
            let index = unit * C::BLOCKS + sub;
            // The rows of a tile lie one behind the other: while they are walked through side by side, the next tile is
            // asked for in one stream.
            let bytes = C::BYTES * S::LANES / C::BLOCKS;
            let next = (start + S::LANES) * weights.row_bytes() + index * bytes;
            for line in 0..bytes.div_ceil(64) {
                s.prefetch(weights.bytes(), next + 64 * line);
            }
            add_block::<S, C>(s, lanes, &x[index * chunk.len()..][..sums.len()], sums);
        }
    }
}

/// Adds the products of 32 weights of each output with the same 32 activations of each row. Rows go by twos, since some
/// machines multiply two at once; integer sums are exact, so a row cannot tell.
#[inline(always)]
fn add_block<S: Simd, C: Codec>(s: S, weights: &Lanes<S>, x: &[Quantised], sums: &mut [S::Float]) {
    let weights = *weights;
    let paired = s.paired(weights.words);
    let ((pairs, single), (pair_sums, single_sum)) = (x.as_chunks::<2>(), sums.as_chunks_mut::<2>());
    for (x, sums) in pairs.iter().zip(pair_sums) {
        let [first, second] = if C::HALVES {
            [dot_pair::<S, C>(s, &paired, x, 0, 0..4), dot_pair::<S, C>(s, &paired, x, 1, 4..8)]
        } else {
            [dot_pair::<S, C>(s, &paired, x, 2, 0..8); 2]
        };
        for row in 0..2 {
            sums[row] = add_integers::<S, C>(s, &weights, &x[row], [first[row], second[row]], sums[row]);
        }
    }
    for (x, sum) in single.iter().zip(single_sum) {
        let integers = if C::HALVES {
            [dot::<S, C>(s, &weights, x, 0, 0..4), dot::<S, C>(s, &weights, x, 1, 4..8)]
        } else {
            [dot::<S, C>(s, &weights, x, 2, 0..8); 2]
        };
        *sum = add_integers::<S, C>(s, &weights, x, integers, *sum);
    }
}

/// The integer products of some words, summed; `part` says which of the row's sums belongs to them.
#[inline(always)]
fn dot<S: Simd, C: Codec>(s: S, weights: &Lanes<S>, x: &Quantised, part: usize, words: Range<usize>) -> S::Int {
    let mut sum = offset::<S, C>(s, x, part);
    for word in words {
        sum = if C::WIDE {
            s.dot_wide(sum, weights.words[word], x.word(word))
        } else {
            s.dot(sum, weights.words[word], x.word(word))
        };
    }
    sum
}

/// As `dot`, for two rows and words that were made ready for that.
#[inline(always)]
fn dot_pair<S: Simd, C: Codec>(
    s: S,
    paired: &[S::Int; 8],
    x: &[Quantised; 2],
    part: usize,
    words: Range<usize>,
) -> [S::Int; 2] {
    let sums = [offset::<S, C>(s, &x[0], part), offset::<S, C>(s, &x[1], part)];
    let bytes = [&x[0].bytes[4 * words.start..4 * words.end], &x[1].bytes[4 * words.start..4 * words.end]];
    if C::WIDE {
        s.dot_pair::<true>(sums, &paired[words], bytes)
    } else {
        s.dot_pair::<false>(sums, &paired[words], bytes)
    }
}

/// What makes up for the offset of the weights.
#[inline(always)]
fn offset<S: Simd, C: Codec>(s: S, x: &Quantised, part: usize) -> S::Int {
    match if C::WIDE { S::WIDE_OFFSET } else { C::OFFSET } {
        Some(power) => s.shl(s.splat(x.neg[part]), power),
        None => s.splat(0),
    }
}

/// Adds a row's integer sums: those of the halves, or the whole's, which then comes first.
#[inline(always)]
fn add_integers<S: Simd, C: Codec>(
    s: S,
    weights: &Lanes<S>,
    x: &Quantised,
    integers: [S::Int; 2],
    sum: S::Float,
) -> S::Float {
    let [first, second] = integers;
    if C::HALVES {
        add_part::<S, C>(s, weights, x, 1, second, add_part::<S, C>(s, weights, x, 0, first, sum))
    } else {
        add_part::<S, C>(s, weights, x, 2, first, sum)
    }
}

/// Scales an integer sum and adds it.
#[inline(always)]
fn add_part<S: Simd, C: Codec>(
    s: S,
    weights: &Lanes<S>,
    x: &Quantised,
    part: usize,
    integer: S::Int,
    sum: S::Float,
) -> S::Float {
    let scale = s.mul(weights.scale[part % 2], s.splat_float(x.scale));
    let sum = s.fma(s.to_float(integer), scale, sum);
    if C::MINS { s.fma(weights.min[part % 2], s.splat_float(x.sum[part]), sum) } else { sum }
}

// === float weights ===

/// As `quantised`, for weights of `BYTES` bytes each.
#[inline(always)]
fn floats<S: Simd, const BYTES: usize>(s: S, product: &Product<'_>, range: Range<usize>) {
    let mut sums = [s.splat_float(0.0); CHUNK_ROWS_MAX];
    for chunk in product.x.chunks() {
        for (start, skip) in tiles(product.weights.rows(), range.clone(), S::LANES) {
            let sums = &mut sums[..chunk.len()];
            sums.fill(s.splat_float(0.0));
            float_tile::<S, BYTES>(s, product, start, &chunk, sums);
            write(s, product, start, skip, chunk.clone(), sums);
        }
    }
}

#[inline(always)]
fn float_tile<S: Simd, const BYTES: usize>(
    s: S,
    product: &Product<'_>,
    start: usize,
    chunk: &Range<usize>,
    sums: &mut [S::Float],
) {
    let (weights, cols) = (&product.weights, product.x.cols());
    let tile = Tile::of(weights, start, S::LANES);
    let x = &product.x.values()[chunk.start * cols..chunk.end * cols];
    let whole = cols / FLOAT_GROUP;
    for group in 0..whole {
        let next = (start + S::LANES) * weights.row_bytes() + group * FLOAT_GROUP * BYTES * S::LANES;
        for line in 0..(FLOAT_GROUP * BYTES * S::LANES).div_ceil(64) {
            s.prefetch(weights.bytes(), next + 64 * line);
        }
        let columns = columns::<S, BYTES>(s, weights.format(), tile, group * FLOAT_GROUP * BYTES);
        for (x, sum) in x.chunks_exact(cols).zip(&mut *sums) {
            let x = &x[group * FLOAT_GROUP..][..FLOAT_GROUP];
            *sum = s.add(*sum, group_sum(s, &columns, x.try_into().expect("a group")));
        }
    }
    let (done, rest) = (whole * FLOAT_GROUP, cols % FLOAT_GROUP);
    if rest > 0 {
        let mut bytes = [0; FLOAT_GROUP * 4 * LANES_MAX];
        let padded = &mut bytes[..FLOAT_GROUP * BYTES * S::LANES];
        for (lane, padded) in padded.chunks_exact_mut(FLOAT_GROUP * BYTES).enumerate() {
            padded[..rest * BYTES].copy_from_slice(&weights.row(start + lane)[done * BYTES..]);
        }
        let tile = Tile::from_rows(padded, S::LANES, FLOAT_GROUP * BYTES);
        let columns = columns::<S, BYTES>(s, weights.format(), tile, 0);
        for (x, sum) in x.chunks_exact(cols).zip(sums) {
            let mut padded = [0.0; FLOAT_GROUP];
            padded[..rest].copy_from_slice(&x[done..]);
            *sum = s.add(*sum, group_sum(s, &columns, &padded));
        }
    }
}

/// The widest instruction set's lanes.
const LANES_MAX: usize = 16;

/// The products of one group of columns, summed from zero.
#[inline(always)]
fn group_sum<S: Simd>(s: S, columns: &[S::Float; FLOAT_GROUP], x: &[f32; FLOAT_GROUP]) -> S::Float {
    let mut sum = s.splat_float(0.0);
    for (column, x) in columns.iter().zip(x) {
        sum = s.fma(*column, s.splat_float(*x), sum);
    }
    sum
}

/// One group of columns of a tile as floats, `at` bytes into the rows.
#[inline(always)]
fn columns<S: Simd, const BYTES: usize>(s: S, format: Format, tile: Tile<'_>, at: usize) -> [S::Float; FLOAT_GROUP] {
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

/// Writes a tile's sums, but for the first `skip` lanes.
#[inline(always)]
fn write<S: Simd>(s: S, product: &Product<'_>, start: usize, skip: usize, chunk: Range<usize>, sums: &[S::Float]) {
    for (row, sum) in chunk.zip(sums) {
        // SAFETY: a tile's new outputs are within the range of this call, which no other call has.
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
