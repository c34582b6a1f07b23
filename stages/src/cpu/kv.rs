//! The KV cache: keys and values of all sequences, in half precision or in 8 bits, in blocks of [`TOKENS`] tokens.
//!
//! One zeroed anonymous mapping holds all blocks, so a block that no sequence ever used takes no memory. A layer's part
//! of a block has two arrays for each key-value head. First come the keys as `[dimension][token]`: with one token in
//! each lane, the scores of sixteen tokens are computed at once without a sum over lanes. Then come the values as
//! `[token][dimension]`, each padded to a multiple of [`WIDTH`] dimensions.
//!
//! In 8 bits each of the two arrays is followed by its scales, `[group][token]`. A group is [`BLOCK`] neighbouring
//! dimensions of one key or value, which share a scale. The gateway decides which sequence a block belongs to.

use std::io;
use std::ops::Range;

use memmap2::MmapMut;
use schema::record::KvType;

use super::lanes::{Kernel, Lanes, WIDTH};
use super::latent_kv::{ByteRows, FloatRows, HalfRows, LatentTile, latent_tile, write_latent};
use super::math::padded;
use super::quantised::{self, BLOCK};
use crate::kernels::{Isa, Split};
use crate::shard::TOKENS;

/// The sizes of one layer's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KvShape {
    /// Key-value heads.
    pub(super) heads: usize,
    /// Dimensions of a key.
    pub(super) key: usize,
    /// Dimensions of a value.
    pub(super) value: usize,
    /// Stored type of a number. In 8 bits, `key` and `value` are multiples of [`BLOCK`].
    pub(super) number: KvNumber,
    /// True if a value is the first dimensions of its key, and is not stored again. There is one head then.
    pub(super) latent: bool,
}

/// Stored type of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KvNumber {
    /// Half precision.
    Half,
    /// A byte, with a scale for each group.
    Byte,
    /// Single precision, for comparisons with references alone.
    Float,
}

/// Keys and values of all layers of a shard.
#[derive(Debug)]
pub(super) struct KvCache {
    /// `[layer][block][head]`.
    map: MmapMut,
    layers: Vec<LayerPlace>,
}

/// The place of one layer's keys and values in the mapping, in 16-bit words.
#[derive(Debug, Clone, Copy)]
struct LayerPlace {
    shape: KvShape,
    start: usize,
    len: usize,
    blocks: usize,
}

/// One layer's keys and values, for reading by all threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct KvLayer<'a> {
    /// The layer's part of the mapping in 16-bit words: `[block][head]`.
    words: &'a [u16],
    shape: KvShape,
}

/// One layer's keys and values, for writing. Each head is written by one thread.
pub(super) struct KvLayerMut<'a> {
    /// As in [`KvLayer`].
    words: Split<'a, u16>,
    shape: KvShape,
    blocks: usize,
}

/// One head's keys and values in one block.
#[derive(Debug, Clone, Copy)]
pub(super) enum KvTile<'a> {
    /// In half precision.
    Half(HalfTile<'a>),
    /// In 8 bits.
    Byte(ByteTile<'a>),
    /// In single precision.
    Float(FloatTile<'a>),
    /// Keys whose first dimensions are their values, in each of these types.
    LatentHalf(LatentTile<HalfRows<'a>>),
    /// As above.
    LatentByte(LatentTile<ByteRows<'a>>),
    /// As above.
    LatentFloat(LatentTile<FloatRows<'a>>),
}

/// A tile that kernels compute with. It yields its numbers as `f32` without rounding, sixteen in each `L`. In `[L; 2]`
/// there is one number for each of the [`TOKENS`] tokens.
pub(super) trait TileReader: Copy {
    /// Stored type of a number.
    type Number;
    /// True if the keys are stored token by token: `key_part` reads them, and `key` does not.
    const KEYS_BY_TOKEN: bool = false;
    /// True if queries are computed one at a time: for stored types whose speed matters little, so that fewer forms of
    /// attention are compiled.
    const ONE_QUERY: bool = false;

    /// The [`WIDTH`] dimensions of the key of `token` from `column` on. Those past the end are 0.
    fn key_part<L: Lanes>(self, token: usize, column: usize) -> L {
        let _ = (token, column);
        unreachable!("keys are stored by dimension")
    }

    /// Scales of all tokens' keys in group `group` of dimensions. `key` needs them.
    fn key_scales<L: Lanes>(self, group: usize) -> [L; 2];
    /// Dimension `dimension` of the keys of all tokens. `scales` are those of its group.
    fn key<L: Lanes>(self, scales: [L; 2], dimension: usize) -> [L; 2];
    /// Scales of all tokens' values in the one or two groups that hold the `C * WIDTH` dimensions from `column` on.
    /// `value` needs them.
    fn scales<L: Lanes, const C: usize>(self, column: usize) -> [[f32; TOKENS]; 2];
    /// The `C * WIDTH` dimensions of the value of `token` from `column` on. `padded` is [`KvShape::value_padded`].
    fn value<L: Lanes, const C: usize>(
        self,
        scales: &[[f32; TOKENS]; 2],
        padded: usize,
        token: usize,
        column: usize,
    ) -> [L; C];

    /// Addresses of the array of keys and of the array of values.
    fn base_ptrs(self) -> (*const [Self::Number; TOKENS], *const Self::Number);
    /// Address that `key` reads, for prefetching: `dimension` is not checked.
    #[inline(always)]
    fn key_ptr(self, dimension: usize) -> *const u8 {
        self.base_ptrs().0.wrapping_add(dimension).cast()
    }
    /// Addresses that `value` reads for `dimensions`, for prefetching: nothing is checked.
    #[inline(always)]
    fn value_ptrs(self, padded: usize, token: usize, dimensions: Range<usize>) -> Range<*const u8> {
        let (_, values) = self.base_ptrs();
        let ptr = |dimension| values.wrapping_add(token * padded + dimension).cast();
        ptr(dimensions.start)..ptr(dimensions.end)
    }
}

/// A kind of tile, as one of [`KvTile`].
pub(super) trait TileOf<'a>: TileReader {
    /// The tile in `tile`.
    ///
    /// # Panics
    /// If it is of another kind. All tiles of a layer are of the same one.
    fn of(tile: KvTile<'a>) -> Self;
}

macro_rules! tile_of {
    ($($kind:ident: $tile:ty),+ $(,)?) => {
        $(impl<'a> TileOf<'a> for $tile {
            #[inline(always)]
            fn of(tile: KvTile<'a>) -> Self {
                let KvTile::$kind(tile) = tile else { unreachable!("all tiles of a layer are of one kind") };
                tile
            }
        })+
    };
}

tile_of! {
    Half: HalfTile<'a>,
    Byte: ByteTile<'a>,
    Float: FloatTile<'a>,
    LatentHalf: LatentTile<HalfRows<'a>>,
    LatentByte: LatentTile<ByteRows<'a>>,
    LatentFloat: LatentTile<FloatRows<'a>>,
}

/// A tile in 8 bits. Every number is the product of a byte and its group's scale, which `f32` holds exactly.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByteTile<'a> {
    /// `[dimension][token]`.
    pub(super) keys: &'a [[i8; TOKENS]],
    /// `[group][token]`, in half precision.
    pub(super) key_scales: &'a [[u16; TOKENS]],
    /// `[token][dimension]`.
    pub(super) values: &'a [i8],
    /// `[group][token]`, in half precision.
    pub(super) value_scales: &'a [[u16; TOKENS]],
}

/// A tile of numbers without scales.
#[derive(Debug, Clone, Copy)]
pub(super) struct NumberTile<'a, N> {
    /// `[dimension][token]`.
    pub(super) keys: &'a [[N; TOKENS]],
    /// `[token][dimension]`, padded.
    pub(super) values: &'a [N],
}

/// A tile in half precision.
pub(super) type HalfTile<'a> = NumberTile<'a, u16>;

/// A tile in single precision.
pub(super) type FloatTile<'a> = NumberTile<'a, f32>;

/// A stored number that needs no scale.
pub(super) trait StoredNumber: Copy {
    /// [`TileReader::ONE_QUERY`] of its tiles.
    const ONE_QUERY: bool;

    /// The numbers as `f32`.
    fn load<L: Lanes>(from: &[Self; WIDTH]) -> L;
}

/// `value` dimensions, rounded up to a multiple of [`WIDTH`].
pub(super) fn padded_value(value: usize) -> usize {
    value.next_multiple_of(WIDTH)
}

// === impl KvShape ===

impl KvShape {
    /// Dimensions of a value, rounded up to a multiple of [`WIDTH`].
    pub(super) fn value_padded(self) -> usize {
        padded_value(self.value)
    }

    /// Number of 16-bit words that one head's keys and values take in a block. In 8 bits, two numbers share a word, and
    /// each group's scale takes a word per token.
    fn head_len(self) -> usize {
        let values = if self.latent { 0 } else { self.len_of(self.value_padded()) };
        self.len_of(self.key_padded()) + values
    }

    /// Dimensions of a key as stored. A key that its token's value is part of is read in whole lanes.
    fn key_padded(self) -> usize {
        if self.latent { padded_value(self.key) } else { self.key }
    }

    /// As [`Self::head_len`], for keys or values of `dimensions` dimensions alone.
    fn len_of(self, dimensions: usize) -> usize {
        match self.number {
            KvNumber::Half => TOKENS * dimensions,
            KvNumber::Byte => TOKENS * dimensions / 2 + TOKENS * dimensions.div_ceil(BLOCK),
            KvNumber::Float => TOKENS * dimensions * 2,
        }
    }

    /// Bytes that a layer takes for one block.
    pub(super) fn block_bytes(self) -> u64 {
        (self.heads * self.head_len()) as u64 * size_of::<u16>() as u64
    }

    /// Index in a layer's words of the first word of head `head` of block `block`.
    fn head_start(self, block: usize, head: usize) -> usize {
        (block * self.heads + head) * self.head_len()
    }
}

// === impl KvNumber ===

impl From<KvType> for KvNumber {
    fn from(kv_type: KvType) -> Self {
        match kv_type {
            KvType::F16 => Self::Half,
            KvType::Q8 => Self::Byte,
        }
    }
}

// === impl KvCache ===

impl KvCache {
    /// Allocates layers of these shapes, each with its number of blocks.
    ///
    /// # Errors
    /// If the system does not provide the address space.
    pub(super) fn new(layers: impl Iterator<Item = (KvShape, usize)>) -> io::Result<Self> {
        let out_of_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
        let mut end = 0_usize;
        let place = |(shape, blocks): (KvShape, usize)| {
            let start = end;
            let len = (shape.heads * shape.head_len()).checked_mul(blocks).ok_or_else(out_of_memory)?;
            end = start.checked_add(len).ok_or_else(out_of_memory)?;
            Ok(LayerPlace { shape, start, len, blocks })
        };
        let layers = layers.map(place).collect::<io::Result<_>>()?;
        let bytes = end.checked_mul(size_of::<u16>()).ok_or_else(out_of_memory)?;
        // The system refuses an empty mapping.
        Ok(Self { map: MmapMut::map_anon(bytes.max(1))?, layers })
    }

    /// Layer number `layer` of this cache, for reading.
    pub(super) fn layer(&self, layer: usize) -> KvLayer<'_> {
        let LayerPlace { shape, start, len, .. } = self.layers[layer];
        // SAFETY: the mapping begins on a page, so it is aligned. Each place lies in its words of two bytes, and any
        // bits are valid. It is borrowed as long as the slice.
        let words = unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<u16>().add(start), len) };
        KvLayer { words, shape }
    }

    /// Layer number `layer` of this cache, for writing.
    pub(super) fn layer_mut(&mut self, layer: usize) -> KvLayerMut<'_> {
        let LayerPlace { shape, start, len, blocks } = self.layers[layer];
        // SAFETY: as in `layer`. The mapping is borrowed exclusively.
        let words = unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast::<u16>().add(start), len) };
        KvLayerMut { words: Split::new(words), shape, blocks }
    }
}

// === impl KvLayer ===

impl<'a> KvLayer<'a> {
    /// Number of key-value heads.
    #[inline(always)]
    pub(super) fn heads(&self) -> usize {
        self.shape.heads
    }

    /// Stored type of a number.
    pub(super) fn number(&self) -> KvNumber {
        self.shape.number
    }

    /// True if values are parts of their keys.
    pub(super) fn is_latent(&self) -> bool {
        self.shape.latent
    }

    /// The values of the token in `slot`, of a layer that keeps them in single precision with one head. `slot` is as in
    /// [`KvLayerMut::write`].
    pub(super) fn row(&self, slot: usize) -> &'a [f32] {
        let KvTile::Float(tile) = self.tile((slot / TOKENS) as u32, 0) else {
            unreachable!("such layers are in single precision")
        };
        &tile.values[slot % TOKENS * self.shape.value_padded()..][..self.shape.value]
    }

    /// Head `head` of block `block`.
    #[inline(always)]
    pub(super) fn tile(&self, block: u32, head: usize) -> KvTile<'a> {
        let start = self.shape.head_start(block as usize, head);
        let shape = self.shape;
        let words = &self.words[start..start + shape.head_len()];
        if shape.latent {
            return latent_tile(words, shape);
        }
        let (keys, values) = words.split_at(shape.len_of(shape.key));
        match shape.number {
            KvNumber::Half => KvTile::Half(HalfTile { keys: keys.as_chunks().0, values }),
            KvNumber::Float => KvTile::Float(FloatTile { keys: floats(keys).as_chunks().0, values: floats(values) }),
            KvNumber::Byte => {
                let (keys, key_scales) = keys.split_at(shape.key * TOKENS / 2);
                let (values, value_scales) = values.split_at(shape.value * TOKENS / 2);
                let (keys, values) = (bytes(keys).as_chunks().0, bytes(values));
                let (key_scales, value_scales) = (key_scales.as_chunks().0, value_scales.as_chunks().0);
                KvTile::Byte(ByteTile { keys, key_scales, values, value_scales })
            }
        }
    }
}

// === impl KvLayerMut ===

impl KvLayerMut<'_> {
    /// Writes the key and, unless it is part of the key, the value that head `head` of this layer has for one token.
    /// `slot` is the token's place: its block times [`TOKENS`], plus its index in the block.
    ///
    /// # Safety
    /// No other thread writes the same head at the same time.
    pub(super) unsafe fn write(&self, isa: Isa, slot: usize, head: usize, key: &[f32], value: &[f32]) {
        let (block, token) = (slot / TOKENS, slot % TOKENS);
        assert!(block < self.blocks && head < self.shape.heads, "block {block}, head {head}");
        let start = self.shape.head_start(block, head);
        // SAFETY: the part belongs to this head. The caller promises that no other thread writes it.
        let part = unsafe { self.words.part(start..start + self.shape.head_len()) };
        if self.shape.latent {
            return write_latent(isa, part, self.shape, token, key);
        }
        let (keys, values) = part.split_at_mut(self.shape.len_of(self.shape.key));
        if self.shape.number == KvNumber::Float {
            let keys = floats_mut(keys).as_chunks_mut::<TOKENS>().0;
            keys.iter_mut().zip(key).for_each(|(tokens, key)| tokens[token] = *key);
            floats_mut(values)[token * self.shape.value_padded()..][..value.len()].copy_from_slice(value);
            return;
        }
        if self.shape.number == KvNumber::Byte {
            let (keys, scales) = keys.split_at_mut(self.shape.key * TOKENS / 2);
            let (keys, scales) = (bytes_mut(keys).as_chunks_mut::<TOKENS>().0, scales.as_chunks_mut::<TOKENS>().0);
            for ((keys, scales), key) in keys.chunks_mut(BLOCK).zip(scales).zip(key.as_chunks().0) {
                let (scale, quantised) = quantised::quantise(key);
                scales[token] = scale;
                keys.iter_mut().zip(quantised).for_each(|(tokens, byte)| tokens[token] = byte);
            }
            let (values, scales) = values.split_at_mut(self.shape.value * TOKENS / 2);
            let values = &mut bytes_mut(values)[token * value.len()..][..value.len()];
            let scales = scales.as_chunks_mut::<TOKENS>().0;
            for ((to, scales), value) in values.chunks_mut(BLOCK).zip(scales).zip(value.as_chunks().0) {
                let (scale, quantised) = quantised::quantise(value);
                scales[token] = scale;
                to.copy_from_slice(&quantised);
            }
            return;
        }
        let start = token * self.shape.value_padded();
        let values = &mut values[start..start + value.len()];
        isa.run(WriteToken { keys: keys.as_chunks_mut().0, values, token, key, value });
    }
}

// === impl TileReader ===

impl StoredNumber for u16 {
    const ONE_QUERY: bool = false;

    #[inline(always)]
    fn load<L: Lanes>(from: &[Self; WIDTH]) -> L {
        L::load_half(from)
    }
}

impl StoredNumber for f32 {
    const ONE_QUERY: bool = true;

    #[inline(always)]
    fn load<L: Lanes>(from: &[Self; WIDTH]) -> L {
        L::load(from)
    }
}

impl<N: StoredNumber> TileReader for NumberTile<'_, N> {
    type Number = N;
    const ONE_QUERY: bool = N::ONE_QUERY;

    #[inline(always)]
    fn key_scales<L: Lanes>(self, _: usize) -> [L; 2] {
        [L::splat(1.0); 2]
    }

    #[inline(always)]
    fn key<L: Lanes>(self, _: [L; 2], dimension: usize) -> [L; 2] {
        let (numbers, _) = self.keys[dimension].as_chunks::<WIDTH>();
        [N::load(&numbers[0]), N::load(&numbers[1])]
    }

    #[inline(always)]
    fn scales<L: Lanes, const C: usize>(self, _: usize) -> [[f32; TOKENS]; 2] {
        [[1.0; TOKENS]; 2]
    }

    #[inline(always)]
    fn value<L: Lanes, const C: usize>(
        self,
        _: &[[f32; TOKENS]; 2],
        padded: usize,
        token: usize,
        column: usize,
    ) -> [L; C] {
        let (values, _) = self.values[token * padded + column..][..C * WIDTH].as_chunks::<WIDTH>();
        let mut lanes = [L::splat(0.0); C];
        for c in 0..C {
            lanes[c] = N::load(&values[c]);
        }
        lanes
    }

    #[inline(always)]
    fn base_ptrs(self) -> (*const [Self::Number; TOKENS], *const Self::Number) {
        (self.keys.as_ptr(), self.values.as_ptr())
    }
}

impl TileReader for ByteTile<'_> {
    type Number = i8;

    #[inline(always)]
    fn key_scales<L: Lanes>(self, group: usize) -> [L; 2] {
        let (scales, _) = self.key_scales[group].as_chunks::<WIDTH>();
        [L::load_half(&scales[0]), L::load_half(&scales[1])]
    }

    #[inline(always)]
    fn key<L: Lanes>(self, [low, high]: [L; 2], dimension: usize) -> [L; 2] {
        let (bytes, _) = self.keys[dimension].as_chunks::<WIDTH>();
        [L::load_bytes(&bytes[0]).mul(low), L::load_bytes(&bytes[1]).mul(high)]
    }

    #[inline(always)]
    fn scales<L: Lanes, const C: usize>(self, column: usize) -> [[f32; TOKENS]; 2] {
        const { assert!(C * WIDTH <= 2 * BLOCK) };
        let mut scales = [[0.0; TOKENS]; 2];
        let last = (column + C * WIDTH - 1) / BLOCK;
        for (into, bits) in scales.iter_mut().zip(&self.value_scales[column / BLOCK..=last]) {
            for (into, bits) in into.as_chunks_mut::<WIDTH>().0.iter_mut().zip(bits.as_chunks::<WIDTH>().0) {
                L::load_half(bits).store(into);
            }
        }
        scales
    }

    #[inline(always)]
    fn value<L: Lanes, const C: usize>(
        self,
        scales: &[[f32; TOKENS]; 2],
        padded: usize,
        token: usize,
        column: usize,
    ) -> [L; C] {
        let (values, _) = self.values[token * padded + column..][..C * WIDTH].as_chunks::<WIDTH>();
        let mut lanes = [L::splat(0.0); C];
        for c in 0..C {
            // `scales[0]` belongs to the group of `column`. If `C` is 2 or 4, `column` is a multiple of `C * WIDTH` and
            // so begins that group. If `C` is 1, all dimensions lie in it.
            let scale = L::splat(scales[c * WIDTH / BLOCK][token]);
            lanes[c] = L::load_bytes(&values[c]).mul(scale);
        }
        lanes
    }

    #[inline(always)]
    fn base_ptrs(self) -> (*const [Self::Number; TOKENS], *const Self::Number) {
        (self.keys.as_ptr(), self.values.as_ptr())
    }
}

/// The memory of `words` as signed bytes.
pub(super) fn bytes(words: &[u16]) -> &[i8] {
    // SAFETY: a word has two bytes. Any bytes are valid, and they are borrowed like the words.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 2) }
}

/// As [`bytes`], for writing.
pub(super) fn bytes_mut(words: &mut [u16]) -> &mut [i8] {
    // SAFETY: as in `bytes`, but borrowed exclusively. Any bytes are valid words.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 2) }
}

/// The memory of `words` as floats. They begin at a multiple of four bytes, as all lengths in front of them are even.
pub(super) fn floats(words: &[u16]) -> &[f32] {
    assert!(words.as_ptr().cast::<f32>().is_aligned(), "floats begin at a multiple of four bytes");
    // SAFETY: the words are aligned, and two of them are a float. Any bits are valid, and they are borrowed alike.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() / 2) }
}

/// As [`floats`], for writing.
pub(super) fn floats_mut(words: &mut [u16]) -> &mut [f32] {
    assert!(words.as_ptr().cast::<f32>().is_aligned(), "floats begin at a multiple of four bytes");
    // SAFETY: as in `floats`, but borrowed exclusively.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() / 2) }
}

/// Converts one token's key and value to half precision and writes them into one head's part of a block.
struct WriteToken<'a> {
    /// `[dimension][token]`.
    keys: &'a mut [[u16; TOKENS]],
    /// The value's place in the block.
    values: &'a mut [u16],
    /// The token's index in the block.
    token: usize,
    key: &'a [f32],
    value: &'a [f32],
}

impl Kernel for WriteToken<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let mut bits = [0; WIDTH];
        for (column, key) in self.keys.chunks_mut(WIDTH).zip(self.key.chunks(WIDTH)) {
            L::load(&padded(key)).store_half(&mut bits);
            for (tokens, bits) in column.iter_mut().zip(bits) {
                tokens[self.token] = bits;
            }
        }
        for (to, value) in self.values.chunks_mut(WIDTH).zip(self.value.chunks(WIDTH)) {
            L::load(&padded(value)).store_half(&mut bits);
            to.copy_from_slice(&bits[..value.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_where_it_was_written_and_nowhere_else() {
        let shape = KvShape { heads: 2, key: 20, value: 18, number: KvNumber::Half, latent: false };
        let mut cache = KvCache::new([(shape, 3); 2].into_iter()).unwrap();
        let key: Vec<f32> = (0..20).map(|i| i as f32 + 1.0).collect();
        let value: Vec<f32> = (0..18).map(|i| -1.0 - i as f32).collect();
        let layer = cache.layer_mut(1);
        // SAFETY: there is one thread.
        unsafe { layer.write(Isa::best(), 2 * TOKENS + 5, 1, &key, &value) };
        let half = |value: f32| half::f16::from_f32(value).to_bits();
        let KvTile::Half(tile) = cache.layer(1).tile(2, 1) else { panic!("expected half precision") };
        assert_eq!((tile.keys.len(), tile.values.len()), (20, TOKENS * 32));
        for (dimension, tokens) in tile.keys.iter().enumerate() {
            assert_eq!(tokens[5], half(key[dimension]));
            assert_eq!(tokens.iter().filter(|bits| **bits != 0).count(), 1);
        }
        for (index, bits) in tile.values.iter().enumerate() {
            let expected = if (5 * 32..5 * 32 + 18).contains(&index) { half(value[index - 5 * 32]) } else { 0 };
            assert_eq!(*bits, expected, "value {index}");
        }
        let others = [(0, 2, 1), (1, 1, 1), (1, 2, 0)];
        for (layer, block, head) in others {
            let KvTile::Half(tile) = cache.layer(layer).tile(block, head) else { panic!("expected half precision") };
            assert!(
                tile.keys.as_flattened().iter().chain(tile.values).all(|bits| *bits == 0),
                "{layer} {block} {head}"
            );
        }
    }
}
