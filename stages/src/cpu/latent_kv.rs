//! Keys whose first dimensions are their values, as latent attention stores them: one row a token,
//! `[token][dimension]`, padded to whole lanes. In 8 bits the scales follow, `[group][token]`.

use half::f16;

use super::kv::{
    KvNumber, KvShape, KvTile, StoredNumber, TileReader, bytes, bytes_mut, floats, floats_mut, padded_value,
};
use super::lanes::{Kernel, Lanes, WIDTH};
use super::math::padded;
use super::quantised::{self, BLOCK};
use crate::kernels::Isa;
use crate::shard::TOKENS;

/// The rows of a tile in one stored type.
pub(super) trait TokenRows: Copy {
    /// Stored type of a number.
    type Number;
    /// As in [`TileReader`].
    const ONE_QUERY: bool;

    /// The [`WIDTH`] dimensions of the row of `token` from `column` on.
    fn part<L: Lanes>(self, token: usize, column: usize) -> L;
    /// Address of the first row.
    fn base_ptr(self) -> *const Self::Number;
}

/// A tile of such rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct LatentTile<R>(R);

/// Rows of numbers without scales.
#[derive(Debug, Clone, Copy)]
pub(super) struct NumberRows<'a, N> {
    values: &'a [N],
    width: usize,
}

/// Rows in half precision.
pub(super) type HalfRows<'a> = NumberRows<'a, u16>;

/// Rows in single precision.
pub(super) type FloatRows<'a> = NumberRows<'a, f32>;

/// Rows in 8 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByteRows<'a> {
    values: &'a [i8],
    /// `[group][token]`, in half precision.
    scales: &'a [[u16; TOKENS]],
    width: usize,
}

/// The tile whose memory is `words`.
#[inline(always)]
pub(super) fn latent_tile(words: &[u16], shape: KvShape) -> KvTile<'_> {
    let width = padded_value(shape.key);
    match shape.number {
        KvNumber::Half => KvTile::LatentHalf(LatentTile(HalfRows { values: words, width })),
        KvNumber::Float => KvTile::LatentFloat(LatentTile(FloatRows { values: floats(words), width })),
        KvNumber::Byte => {
            let (values, scales) = words.split_at(width * TOKENS / 2);
            let (values, scales) = (bytes(values), scales.as_chunks().0);
            KvTile::LatentByte(LatentTile(ByteRows { values, scales, width }))
        }
    }
}

/// Writes the row of token `token` of a tile.
pub(super) fn write_latent(isa: Isa, words: &mut [u16], shape: KvShape, token: usize, row: &[f32]) {
    let width = padded_value(shape.key);
    let place = token * width..token * width + row.len();
    match shape.number {
        KvNumber::Half => isa.run(WriteRow { words: &mut words[place], row }),
        KvNumber::Float => floats_mut(words)[place].copy_from_slice(row),
        KvNumber::Byte => {
            let (values, scales) = words.split_at_mut(width * TOKENS / 2);
            let scales = scales.as_chunks_mut::<TOKENS>().0;
            let values = bytes_mut(values)[place].chunks_mut(BLOCK);
            for ((to, scales), block) in values.zip(scales).zip(row.as_chunks().0) {
                let (scale, quantised) = quantised::quantise(block);
                scales[token] = scale;
                to.copy_from_slice(&quantised);
            }
        }
    }
}

/// Converts a row to half precision.
struct WriteRow<'a> {
    words: &'a mut [u16],
    row: &'a [f32],
}

impl Kernel for WriteRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let mut bits = [0; WIDTH];
        for (to, values) in self.words.chunks_mut(WIDTH).zip(self.row.chunks(WIDTH)) {
            L::load(&padded(values)).store_half(&mut bits);
            to.copy_from_slice(&bits[..values.len()]);
        }
    }
}

// === impl TokenRows ===

impl<N: StoredNumber> TokenRows for NumberRows<'_, N> {
    type Number = N;
    const ONE_QUERY: bool = N::ONE_QUERY;

    #[inline(always)]
    fn part<L: Lanes>(self, token: usize, column: usize) -> L {
        let (parts, _) = self.values[token * self.width + column..][..WIDTH].as_chunks::<WIDTH>();
        N::load(&parts[0])
    }

    #[inline(always)]
    fn base_ptr(self) -> *const N {
        self.values.as_ptr()
    }
}

impl TokenRows for ByteRows<'_> {
    type Number = i8;
    const ONE_QUERY: bool = true;

    #[inline(always)]
    fn part<L: Lanes>(self, token: usize, column: usize) -> L {
        let (parts, _) = self.values[token * self.width + column..][..WIDTH].as_chunks::<WIDTH>();
        let scale = f16::from_bits(self.scales[column / BLOCK][token]).to_f32();
        L::load_bytes(&parts[0]).mul(L::splat(scale))
    }

    #[inline(always)]
    fn base_ptr(self) -> *const i8 {
        self.values.as_ptr()
    }
}

// === impl TileReader ===

impl<R: TokenRows> TileReader for LatentTile<R> {
    type Number = R::Number;
    const KEYS_BY_TOKEN: bool = true;
    const ONE_QUERY: bool = R::ONE_QUERY;

    #[inline(always)]
    fn key_part<L: Lanes>(self, token: usize, column: usize) -> L {
        self.0.part(token, column)
    }

    #[inline(always)]
    fn key_scales<L: Lanes>(self, _: usize) -> [L; 2] {
        [L::splat(1.0); 2]
    }

    #[inline(always)]
    fn key<L: Lanes>(self, _: [L; 2], _: usize) -> [L; 2] {
        unreachable!("keys are stored by token")
    }

    #[inline(always)]
    fn scales<L: Lanes, const C: usize>(self, _: usize) -> [[f32; TOKENS]; 2] {
        [[1.0; TOKENS]; 2]
    }

    #[inline(always)]
    fn value<L: Lanes, const C: usize>(self, _: &[[f32; TOKENS]; 2], _: usize, token: usize, column: usize) -> [L; C] {
        let mut lanes = [L::splat(0.0); C];
        for (c, lanes) in lanes.iter_mut().enumerate() {
            *lanes = self.0.part(token, column + c * WIDTH);
        }
        lanes
    }

    #[inline(always)]
    fn base_ptrs(self) -> (*const [Self::Number; TOKENS], *const Self::Number) {
        (self.0.base_ptr().cast(), self.0.base_ptr())
    }
}
