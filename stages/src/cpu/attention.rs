//! Attention of one run of rows over the blocks of their sequence, with an online softmax.
//!
//! A row attends to its sequence's tiles of 32 tokens in order of position, eight tiles to a chunk. Chunks are computed
//! separately and merged in order, so that several threads can share one row's long history. Every sum has one order: a
//! score runs over the dimensions from the first to the last, a value over the tokens of a chunk likewise, and a
//! softmax's sum over lanes. So a row's bits depend on its query and on the tokens it attends to, never on which rows,
//! heads or threads share the work.

use std::marker::PhantomData;
use std::ops::Range;

use super::kv::{ByteTile, FloatTile, HalfTile, KvLayer, KvNumber, KvTile, TileOf, TileReader};
use super::lanes::{Kernel, Lanes, WIDTH};
use super::latent_kv::{ByteRows, FloatRows, HalfRows, LatentTile};
use super::math::{bend, exp2, padded};
use super::quantised::BLOCK;
use crate::kernels::Isa;
use crate::model::Window;
use crate::shard::TOKENS;

/// Queries (rows times heads) processed between two tiles: enough that one read of a tile from memory serves many
/// queries, few enough that queries, scores and sums stay in the second-level cache (48 * 4 * 128 * 4 bytes = 96 KiB).
pub(super) const QUERIES_MAX: usize = 48;

/// Tokens in a chunk. Merging a chunk costs about as much as one of its tokens.
pub(super) const CHUNK_TOKENS: usize = 8 * TOKENS;

/// Sizes that attention needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttentionShape {
    /// Query heads that share a key-value head.
    pub(super) heads: usize,
    /// Dimensions of a key.
    pub(super) key: usize,
    /// Dimensions of a value, padded to whole lanes.
    pub(super) value_padded: usize,
    /// The tokens that a row attends to.
    pub(super) window: Window,
    /// Bound that scores are bent to.
    pub(super) softcap: Option<f32>,
}

/// Rows of a sequence, and the blocks that they attend to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span<'a> {
    /// Position of the first row.
    pub(super) position: u32,
    /// Number of rows, which have consecutive positions.
    pub(super) rows: usize,
    /// Length of the text, in layers whose rows attend to all of it.
    pub(super) text: usize,
    /// Index in the sequence of the first of `blocks`.
    pub(super) first_block: usize,
    /// The sequence's blocks from there on. Those before it are not kept.
    pub(super) blocks: &'a [u32],
    /// The key-value head.
    pub(super) kv_head: usize,
}

/// Working memory of one thread.
#[derive(Debug)]
pub(super) struct Scratch {
    /// `[query][dimension]`: rows outermost, then heads. Scaled by `log2(e) / sqrt(dimensions)`.
    pub(super) queries: Vec<f32>,
    /// Result of the current chunk.
    pub(super) chunk: Sums,
    /// Result of all chunks so far.
    pub(super) total: Sums,
    scores: Vec<[f32; TOKENS]>,
}

/// Weighted sums of values, for some queries.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    /// `[query][padded dimension]`.
    pub(super) values: Vec<f32>,
    softmax: Vec<Softmax>,
}

/// State of an online softmax.
#[derive(Debug, Clone, Copy)]
struct Softmax {
    largest: f32,
    sum: f32,
    /// Factor for the sums of values, to be applied before the next tile is added.
    factor: f32,
}

// === impl Softmax ===

impl Softmax {
    const EMPTY: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0, factor: 0.0 };
}

// === impl Sums ===

impl Sums {
    /// Allocates sums for `queries` queries.
    pub(super) fn new(value_padded: usize, queries: usize) -> Self {
        Self { values: vec![0.0; queries * value_padded], softmax: vec![Softmax::EMPTY; queries] }
    }

    /// Bytes that such sums take.
    pub(super) fn bytes(value_padded: usize, queries: usize) -> u64 {
        (queries * (value_padded * size_of::<f32>() + size_of::<Softmax>())) as u64
    }

    /// Copies the first `queries` queries of `other`.
    pub(super) fn copy(&mut self, other: &Self, queries: usize, value_padded: usize) {
        let values = queries * value_padded;
        self.values[..values].copy_from_slice(&other.values[..values]);
        self.softmax[..queries].copy_from_slice(&other.softmax[..queries]);
    }

    /// The part of the weights of query `query` that is left to its tokens beside a sink with this score, a logarithm
    /// to base 2.
    pub(super) fn part_beside(&self, isa: Isa, query: usize, sink: f32) -> f32 {
        let Softmax { largest, sum, .. } = self.softmax[query];
        // Whatever the sink, it takes nothing or all beyond these powers.
        1.0 / (1.0 + isa.run(Power((sink - largest).min(POWER_MAX))) / sum)
    }

    fn clear(&mut self, queries: usize, value_padded: usize) {
        self.values[..queries * value_padded].fill(0.0);
        self.softmax[..queries].fill(Softmax::EMPTY);
    }
}

// === impl Scratch ===

impl Scratch {
    /// Allocates working memory for `queries` queries.
    pub(super) fn new(key: usize, value_padded: usize, queries: usize) -> Self {
        Self {
            queries: vec![0.0; queries * key],
            chunk: Sums::new(value_padded, queries),
            total: Sums::new(value_padded, queries),
            scores: vec![[0.0; TOKENS]; queries],
        }
    }

    /// Bytes that such working memory takes.
    pub(super) fn bytes(key: usize, value_padded: usize, queries: usize) -> u64 {
        let one = key * size_of::<f32>() + size_of::<[f32; TOKENS]>();
        (queries * one) as u64 + 2 * Sums::bytes(value_padded, queries)
    }
}

// === impl Span ===

impl Span<'_> {
    fn last(&self) -> usize {
        self.position as usize + self.rows - 1
    }

    /// One past the last position that a row at `position` attends to.
    #[inline(always)]
    fn visible_end(&self, position: usize, window: Window) -> usize {
        if window == Window::Text { self.text } else { position + 1 }
    }

    /// One past the last position that any row attends to.
    #[inline(always)]
    fn end(&self, window: Window) -> usize {
        self.visible_end(self.last(), window)
    }

    /// Chunks that the rows attend to.
    pub(super) fn chunks(&self, window: Window) -> Range<usize> {
        first_visible(self.position as usize, window) / CHUNK_TOKENS..(self.end(window) - 1) / CHUNK_TOKENS + 1
    }

    /// Block `index` of the sequence.
    #[inline(always)]
    fn block(&self, index: usize) -> u32 {
        self.blocks[index - self.first_block]
    }

    /// Tile `index`. An index past the last tile continues with the tiles of the next head, if there is one.
    #[inline(always)]
    fn tile<'k>(&self, index: usize, window: Window, kv: KvLayer<'k>) -> KvTile<'k> {
        let (first, last) = (first_visible(self.position as usize, window) / TOKENS, (self.end(window) - 1) / TOKENS);
        let Some(past) = index.checked_sub(last + 1) else { return kv.tile(self.block(index), self.kv_head) };
        kv.tile(self.block((first + past).min(last)), (self.kv_head + 1).min(kv.heads() - 1))
    }
}

/// First position that a row at `position` attends to.
#[inline(always)]
fn first_visible(position: usize, window: Window) -> usize {
    window.first(position as u32) as usize
}

/// Attends with the queries in `scratch`. Leaves the result in the values of its `total`.
pub(super) fn attend(isa: Isa, shape: AttentionShape, span: Span<'_>, kv: KvLayer<'_>, scratch: &mut Scratch) {
    let (queries, padded) = (span.rows * shape.heads, shape.value_padded);
    scratch.total.clear(queries, padded);
    for chunk in span.chunks(shape.window) {
        attend_single_chunk(isa, shape, span, chunk, kv, scratch);
        isa.run(AddChunk { padded, queries, chunk: &scratch.chunk, total: &mut scratch.total });
    }
    isa.run(Finish { padded, queries, total: &mut scratch.total });
}

/// Attends to one chunk with the queries in `scratch`. Leaves the result in its `chunk`.
pub(super) fn attend_single_chunk(
    isa: Isa,
    shape: AttentionShape,
    span: Span<'_>,
    chunk: usize,
    kv: KvLayer<'_>,
    scratch: &mut Scratch,
) {
    // A function for each kind of tile: compiled as one, they take minutes.
    let attend = match (kv.is_latent(), kv.number()) {
        (false, KvNumber::Half) => attend_chunk_of::<HalfTile<'_>>,
        (false, KvNumber::Byte) => attend_chunk_of::<ByteTile<'_>>,
        (false, KvNumber::Float) => attend_chunk_of::<FloatTile<'_>>,
        (true, KvNumber::Half) => attend_chunk_of::<LatentTile<HalfRows<'_>>>,
        (true, KvNumber::Byte) => attend_chunk_of::<LatentTile<ByteRows<'_>>>,
        (true, KvNumber::Float) => attend_chunk_of::<LatentTile<FloatRows<'_>>>,
    };
    attend(isa, shape, span, chunk, kv, scratch);
}

fn attend_chunk_of<'k, T: TileOf<'k>>(
    isa: Isa,
    shape: AttentionShape,
    span: Span<'_>,
    chunk: usize,
    kv: KvLayer<'k>,
    scratch: &mut Scratch,
) {
    isa.run(AttendChunk { shape, span, chunk, kv, scratch, tile: PhantomData::<T> });
}

/// Merges the results of the chunks of `queries` queries, in order. Leaves the result in the values of `total`.
pub(super) fn merge(isa: Isa, shape: AttentionShape, queries: usize, chunks: &[Sums], total: &mut Sums) {
    let padded = shape.value_padded;
    total.clear(queries, padded);
    for chunk in chunks {
        isa.run(AddChunk { padded, queries, chunk, total });
    }
    isa.run(Finish { padded, queries, total });
}

/// Largest power of two that is computed.
const POWER_MAX: f32 = 126.0;

/// `2^x` of one number.
struct Power(f32);

impl Kernel for Power {
    type Output = f32;
    #[inline(always)]
    fn run<L: Lanes>(self) -> f32 {
        let mut lanes = [0.0; WIDTH];
        exp2(L::splat(self.0)).store(&mut lanes);
        lanes[0]
    }
}

struct AttendChunk<'a, 'k, T> {
    shape: AttentionShape,
    span: Span<'a>,
    chunk: usize,
    kv: KvLayer<'k>,
    scratch: &'a mut Scratch,
    /// The kind of the layer's tiles.
    tile: PhantomData<T>,
}

struct AddChunk<'a> {
    padded: usize,
    queries: usize,
    chunk: &'a Sums,
    total: &'a mut Sums,
}

struct Finish<'a> {
    padded: usize,
    queries: usize,
    total: &'a mut Sums,
}

impl<'k, T: TileOf<'k>> Kernel for AttendChunk<'_, 'k, T> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        attend_chunk::<L, T>(self.shape, self.span, self.chunk, self.kv, self.scratch);
    }
}

impl Kernel for AddChunk<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        add::<L>(self.total, self.chunk, self.queries, self.padded);
    }
}

impl Kernel for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        finish::<L>(self.total, self.queries, self.padded);
    }
}

/// `total += chunk`, both relative to their largest scores.
#[inline(always)]
fn add<L: Lanes>(total: &mut Sums, chunk: &Sums, queries: usize, padded: usize) {
    for query in 0..queries {
        let (sum, add) = (&mut total.softmax[query], chunk.softmax[query]);
        if add.sum == 0.0 {
            // This row attends to no token of the chunk.
            continue;
        }
        let largest = if add.largest > sum.largest { add.largest } else { sum.largest };
        let mut factors = [0.0; WIDTH];
        (factors[0], factors[1]) = (sum.largest - largest, add.largest - largest);
        exp2(L::load(&factors)).store(&mut factors);
        sum.sum = sum.sum * factors[0] + add.sum * factors[1];
        sum.largest = largest;
        let (old, new) = (L::splat(factors[0]), L::splat(factors[1]));
        let values = total.values[query * padded..][..padded].as_chunks_mut::<WIDTH>().0;
        let added = chunk.values[query * padded..][..padded].as_chunks::<WIDTH>().0;
        for (value, added) in values.iter_mut().zip(added) {
            L::load(added).fma(new, L::load(value).mul(old)).store(value);
        }
    }
}

/// Divides the values by the softmax's sums.
#[inline(always)]
fn finish<L: Lanes>(total: &mut Sums, queries: usize, padded: usize) {
    for query in 0..queries {
        let scale = L::splat(1.0 / total.softmax[query].sum);
        for value in total.values[query * padded..][..padded].as_chunks_mut::<WIDTH>().0 {
            L::load(value).mul(scale).store(value);
        }
    }
}

/// Computes all rows of the span over the tiles of one chunk.
#[inline(always)]
fn attend_chunk<'k, L: Lanes, T: TileOf<'k>>(
    shape: AttentionShape,
    span: Span<'_>,
    chunk: usize,
    kv: KvLayer<'k>,
    scratch: &mut Scratch,
) {
    let queries = span.rows * shape.heads;
    scratch.chunk.clear(queries, shape.value_padded);
    let (first, last) = (span.position as usize, span.last());
    let begin = first_visible(first, shape.window).max(chunk * CHUNK_TOKENS) / TOKENS;
    let end = span.end(shape.window).div_ceil(TOKENS).min((chunk + 1) * CHUNK_TOKENS / TOKENS);
    for index in begin..end {
        let tiles = [index, index + 1, index + 2].map(|index| T::of(span.tile(index, shape.window, kv)));
        let start = index * TOKENS;
        let all_see = span.visible_end(first, shape.window).min(start + TOKENS);
        if first_visible(last, shape.window) <= start && (all_see == start + TOKENS || shape.window == Window::Text) {
            attend_tile::<L, T>(shape, scratch, 0..queries, tiles, 0..all_see - start);
            continue;
        }
        for row in 0..span.rows {
            let position = first + row;
            let from = first_visible(position, shape.window).max(start);
            let to = span.visible_end(position, shape.window).min(start + TOKENS);
            if from < to {
                let heads = row * shape.heads..(row + 1) * shape.heads;
                attend_tile::<L, T>(shape, scratch, heads, tiles, from - start..to - start);
            }
        }
    }
}

/// A tile, and the two that follow it if they are still to be prefetched. While the tile is read line by line, the next
/// one is prefetched to the first-level cache and the one after it to the second-level cache, as with weights
/// (`kernels/tile.rs`).
#[derive(Clone, Copy)]
struct PrefetchedTile<T> {
    tile: T,
    ahead: Option<[T; 2]>,
}

// === impl PrefetchedTile ===

impl<T: TileReader> PrefetchedTile<T> {
    /// Prefetches dimension `dimension` of the keys of the following tiles.
    #[inline(always)]
    fn prefetch_key<L: Lanes>(self, dimension: usize) {
        let Some([next, after]) = self.ahead else { return };
        L::prefetch(next.key_ptr(dimension));
        L::prefetch_far(after.key_ptr(dimension));
    }

    /// Prefetches the value of `token` in the following tiles.
    #[inline(always)]
    fn prefetch_value<L: Lanes>(self, padded: usize, token: usize, dimensions: Range<usize>) {
        let Some([next, after]) = self.ahead else { return };
        let near = next.value_ptrs(padded, token, dimensions.clone());
        let far = after.value_ptrs(padded, token, dimensions);
        for line in (0..near.end as usize - near.start as usize).step_by(LINE_BYTES) {
            L::prefetch(near.start.wrapping_add(line));
            L::prefetch_far(far.start.wrapping_add(line));
        }
    }
}

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Adds the tokens `visible` of the first tile to the results of `queries`. Prefetches the two tiles that follow.
#[inline(always)]
fn attend_tile<L: Lanes, T: TileReader>(
    shape: AttentionShape,
    scratch: &mut Scratch,
    queries: Range<usize>,
    [tile, next, after]: [T; 3],
    visible: Range<usize>,
) {
    let mut tile = PrefetchedTile { tile, ahead: Some([next, after]) };
    let (mut from, end) = (queries.start, queries.end);
    while from < end {
        // Only the first queries prefetch the tiles that follow.
        tile.ahead = tile.ahead.filter(|_| from == 0);
        // The wide forms exist only for instruction sets with enough registers.
        from += match end - from {
            _ if T::ONE_QUERY => attend_queries::<L, T, 1>(shape, scratch, from, tile, visible.clone()),
            8.. if L::QUERIES >= 8 => attend_queries::<L, T, 8>(shape, scratch, from, tile, visible.clone()),
            4.. if L::QUERIES >= 8 => attend_queries::<L, T, 4>(shape, scratch, from, tile, visible.clone()),
            3 if L::QUERIES >= 8 => attend_queries::<L, T, 3>(shape, scratch, from, tile, visible.clone()),
            2.. if L::QUERIES >= 2 => attend_queries::<L, T, 2>(shape, scratch, from, tile, visible.clone()),
            _ => attend_queries::<L, T, 1>(shape, scratch, from, tile, visible.clone()),
        };
    }
}

/// Computes `N` queries at once. Returns `N`.
#[inline(always)]
fn attend_queries<L: Lanes, T: TileReader, const N: usize>(
    shape: AttentionShape,
    scratch: &mut Scratch,
    from: usize,
    tile: PrefetchedTile<T>,
    visible: Range<usize>,
) -> usize {
    let Scratch { queries, chunk: Sums { values: sums, softmax }, scores, .. } = scratch;
    let queries: [&[f32]; N] = std::array::from_fn(|n| &queries[(from + n) * shape.key..][..shape.key]);
    let scores = &mut scores[from..from + N];
    let softmax = &mut softmax[from..from + N];
    if T::KEYS_BY_TOKEN {
        score_by_token::<L, T, N>(queries, tile.tile, shape.key, visible.clone(), scores);
    } else {
        score::<L, T, N>(queries, tile, shape.key, scores);
    }
    if let Some(bound) = shape.softcap {
        // Scores are logarithms to base 2.
        bend_scores::<L>(scores, bound * std::f32::consts::LOG2_E);
    }
    for (scores, softmax) in scores.iter_mut().zip(softmax.iter_mut()) {
        softmax_weights::<L>(scores, softmax, visible.clone());
    }
    let padded = shape.value_padded;
    let sums = &mut sums[from * padded..(from + N) * padded];
    let mut column = 0;
    // As many columns at once as keep the multipliers busy and still fit in the registers.
    while N <= 4 && L::QUERIES >= 8 && column + 4 * WIDTH <= padded {
        accumulate::<L, T, N, 4>(sums, tile, padded, column, scores, softmax, visible.clone());
        column += 4 * WIDTH;
    }
    while column + 2 * WIDTH <= padded {
        accumulate::<L, T, N, 2>(sums, tile, padded, column, scores, softmax, visible.clone());
        column += 2 * WIDTH;
    }
    while column < padded {
        accumulate::<L, T, N, 1>(sums, tile, padded, column, scores, softmax, visible.clone());
        column += WIDTH;
    }
    N
}

/// `scores[n][token] = queries[n] · key of token`.
#[inline(always)]
fn score<L: Lanes, T: TileReader, const N: usize>(
    queries: [&[f32]; N],
    tile: PrefetchedTile<T>,
    dimensions: usize,
    scores: &mut [[f32; TOKENS]],
) {
    let mut sums = [[L::splat(0.0); 2]; N];
    let queries = queries.map(|query| &query[..dimensions]);
    for block in 0..dimensions.div_ceil(BLOCK) {
        let scales = tile.tile.key_scales::<L>(block);
        #[expect(clippy::needless_range_loop, reason = "it counts the dimensions of the tile and of all queries alike")]
        for dimension in block * BLOCK..dimensions.min((block + 1) * BLOCK) {
            tile.prefetch_key::<L>(dimension);
            let [low, high] = tile.tile.key::<L>(scales, dimension);
            for n in 0..N {
                let query = L::splat(queries[n][dimension]);
                sums[n][0] = low.fma(query, sums[n][0]);
                sums[n][1] = high.fma(query, sums[n][1]);
            }
        }
    }
    for (sums, scores) in sums.iter().zip(scores) {
        let (halves, _) = scores.as_chunks_mut::<WIDTH>();
        sums[0].store(&mut halves[0]);
        sums[1].store(&mut halves[1]);
    }
}

/// As [`score`], for keys that are stored token by token: a score is summed over the dimensions in each lane, and then
/// over the lanes.
#[inline(always)]
fn score_by_token<L: Lanes, T: TileReader, const N: usize>(
    queries: [&[f32]; N],
    tile: T,
    dimensions: usize,
    visible: Range<usize>,
    scores: &mut [[f32; TOKENS]],
) {
    for token in visible {
        let mut sums = [L::splat(0.0); N];
        let whole = dimensions / WIDTH * WIDTH;
        for column in (0..whole).step_by(WIDTH) {
            let key = tile.key_part::<L>(token, column);
            for n in 0..N {
                let (query, _) = queries[n][column..column + WIDTH].as_chunks::<WIDTH>();
                sums[n] = L::load(&query[0]).fma(key, sums[n]);
            }
        }
        if whole < dimensions {
            let key = tile.key_part::<L>(token, whole);
            for n in 0..N {
                sums[n] = L::load(&padded(&queries[n][whole..dimensions])).fma(key, sums[n]);
            }
        }
        for n in 0..N {
            scores[n][token] = sums[n].sum();
        }
    }
}

#[inline(always)]
fn bend_scores<L: Lanes>(scores: &mut [[f32; TOKENS]], bound: f32) {
    for lanes in scores.as_flattened_mut().as_chunks_mut::<WIDTH>().0 {
        bend(L::load(lanes), bound).store(lanes);
    }
}

/// Turns scores into softmax weights relative to the largest score so far.
#[inline(always)]
fn softmax_weights<L: Lanes>(scores: &mut [f32; TOKENS], softmax: &mut Softmax, visible: Range<usize>) {
    scores[..visible.start].fill(f32::NEG_INFINITY);
    scores[visible.end..].fill(f32::NEG_INFINITY);
    let (halves, _) = scores.as_chunks_mut::<WIDTH>();
    let (low, high) = (L::load(&halves[0]), L::load(&halves[1]));
    let found = low.max(high).largest();
    let largest = if found > softmax.largest { found } else { softmax.largest };
    softmax.factor = 1.0;
    if largest != softmax.largest {
        let mut lanes = [0.0; WIDTH];
        exp2(L::splat(softmax.largest - largest)).store(&mut lanes);
        softmax.factor = lanes[0];
    }
    let (low, high) = (exp2(low.sub(L::splat(largest))), exp2(high.sub(L::splat(largest))));
    low.store(&mut halves[0]);
    high.store(&mut halves[1]);
    softmax.largest = largest;
    softmax.sum = softmax.sum * softmax.factor + low.add(high).sum();
}

/// `sums = sums * factor + weights · values`, for `C` times [`WIDTH`] dimensions from `column` on.
#[inline(always)]
fn accumulate<L: Lanes, T: TileReader, const N: usize, const C: usize>(
    sums: &mut [f32],
    tile: PrefetchedTile<T>,
    padded: usize,
    column: usize,
    weights: &[[f32; TOKENS]],
    softmax: &[Softmax],
    visible: Range<usize>,
) {
    let mut registers = [[L::splat(0.0); C]; N];
    for n in 0..N {
        let (sums, _) = sums[n * padded + column..][..C * WIDTH].as_chunks::<WIDTH>();
        let factor = L::splat(softmax[n].factor);
        for c in 0..C {
            registers[n][c] = L::load(&sums[c]).mul(factor);
        }
    }
    let scales = tile.tile.scales::<L, C>(column);
    for token in visible {
        tile.prefetch_value::<L>(padded, token, column..column + C * WIDTH);
        let value = tile.tile.value::<L, C>(&scales, padded, token, column);
        for n in 0..N {
            let weight = L::splat(weights[n][token]);
            for c in 0..C {
                registers[n][c] = value[c].fma(weight, registers[n][c]);
            }
        }
    }
    for n in 0..N {
        let (sums, _) = sums[n * padded + column..][..C * WIDTH].as_chunks_mut::<WIDTH>();
        for c in 0..C {
            registers[n][c].store(&mut sums[c]);
        }
    }
}

#[cfg(test)]
mod tests;
