//! Random blocks in ggml's layouts: every bit is random except the 16-bit scales. The scales keep a product of
//! activations of ordinary size at ordinary size, so that logits stay finite for any number of layers. Does not depend
//! on models.

use std::io::{self, Write};

use half::{bf16, f16};
use stages::format::Format;

/// Approximate number of bytes that are written at once: they fit the nearest cache.
const PIECE_BYTES: usize = 32 << 10;

/// The place of a quantised format's scale, and the statistics of random bits at a scale of one.
struct Layout {
    scale: Scale,
    /// The offset of the minimums' factor, and its ratio to the scale that centres the values on zero.
    minimum: Option<(usize, f32)>,
    /// The standard deviation of a block's values at a scale of one.
    deviation: f32,
}

/// A quantised format's scale, and its offset in a block.
enum Scale {
    /// A 16-bit float.
    Half(usize),
    /// A 16-bit float in the upper halves of four bytes, two bytes apart.
    Scattered(usize),
    /// A power of two, as the exponent of a 32-bit float of twice the scale.
    Exponent(usize),
}

/// Xorshift generator, which is good enough for weights.
pub struct Random(u64);

/// Writes `values` random values. A dot product has `inputs` of them.
pub fn write(format: Format, values: usize, inputs: usize, random: &mut Random, out: &mut dyn Write) -> io::Result<()> {
    let deviation = 1.0 / (inputs as f32).sqrt();
    let pieces = PIECE_BYTES / format.block_bytes();
    let blocks = values / format.block_values();
    let mut piece = vec![0; pieces * format.block_bytes()];
    for first in (0..blocks).step_by(pieces) {
        let piece = &mut piece[..pieces.min(blocks - first) * format.block_bytes()];
        match layout(format) {
            None => floats(format, deviation, random, piece),
            Some(layout) => layout.fill(format, deviation, random, piece),
        }
        out.write_all(piece)?;
    }
    Ok(())
}

/// The layout of a quantised format. `None` for floats.
fn layout(format: Format) -> Option<Layout> {
    let (scale, minimum, deviation) = match format {
        Format::F32 | Format::F16 | Format::BF16 => return None,
        // 16, 32 or 256 different integers, all equally likely.
        Format::Q4_0 => (Scale::Half(0), None, 4.6),
        Format::Q4_1 => (Scale::Half(0), Some((2, -7.5)), 4.6),
        Format::Q5_0 => (Scale::Half(0), None, 9.2),
        Format::Q5_1 => (Scale::Half(0), Some((2, -15.5)), 9.2),
        Format::Q8_0 => (Scale::Half(0), None, 74.0),
        // The same, times the integer scales of the sub-blocks. These formats subtract minimums.
        Format::Q2K => (Scale::Half(80), Some((82, 1.5)), 13.9),
        Format::Q3K => (Scale::Half(108), None, 43.0),
        Format::Q4K => (Scale::Half(0), Some((2, 7.5)), 258.0),
        Format::Q5K => (Scale::Half(0), Some((2, 15.5)), 527.0),
        Format::Q6K => (Scale::Half(208), None, 1366.0),
        // The entries of a codebook, all equally likely; IQ4_XS has integer scales of sub-blocks, too.
        Format::Iq4Nl => (Scale::Half(0), None, 71.0),
        Format::Iq4Xs => (Scale::Half(0), None, 1316.0),
        Format::Mxfp4 => (Scale::Exponent(0), None, 5.9),
        // -1, 0 and 1; with two bits a value can be 2.
        Format::Tq1_0 => (Scale::Half(52), None, 0.8),
        Format::Tq2_0 => (Scale::Half(64), None, 1.2),
        // Points of a grid with random signs, times the integer scales of the sub-blocks.
        Format::Iq2Xxs => (Scale::Half(0), None, 45.0),
        Format::Iq2Xs | Format::Iq2S => (Scale::Half(0), None, 50.0),
        Format::Iq3Xxs => (Scale::Half(0), None, 116.0),
        Format::Iq3S => (Scale::Half(0), None, 150.0),
        Format::Iq1S => (Scale::Half(0), None, 7.4),
        Format::Iq1M => (Scale::Scattered(49), None, 7.4),
        Format::Affine4G32 | Format::Affine4G64 | Format::Affine4G128 => unreachable!("no GGUF file has it"),
        Format::Affine8G32 | Format::Affine8G64 | Format::F8E4M3 => unreachable!("no GGUF file has it"),
    };
    Some(Layout { scale, minimum, deviation })
}

// === impl Layout ===

impl Layout {
    fn fill(&self, format: Format, deviation: f32, random: &mut Random, out: &mut [u8]) {
        let scale = deviation / self.deviation;
        random.fill(out);
        for block in out.chunks_exact_mut(format.block_bytes()) {
            let mut put =
                |at: usize, value: f32| block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
            if let Some((at, times)) = self.minimum {
                put(at, scale * times);
            }
            match self.scale {
                Scale::Half(at) => put(at, scale),
                Scale::Scattered(at) => {
                    for (quarter, byte) in block[at..].iter_mut().step_by(2).take(4).enumerate() {
                        *byte = *byte & 15 | ((f16::from_f32(scale).to_bits() >> (4 * quarter)) as u8) << 4;
                    }
                }
                Scale::Exponent(at) => block[at] = ((2.0 * scale).to_bits() >> 23) as u8,
            }
        }
    }
}

fn floats(format: Format, deviation: f32, random: &mut Random, out: &mut [u8]) {
    // The root of 3 is the reciprocal of the standard deviation of uniform values from -1 to 1.
    let scale = deviation * 3.0_f32.sqrt();
    for out in out.chunks_exact_mut(format.block_bytes()) {
        let value = random.float() * scale;
        match format {
            Format::F32 => out.copy_from_slice(&value.to_le_bytes()),
            Format::F16 => out.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
            _ => out.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
        }
    }
}

// === impl Random ===

impl Random {
    /// A generator with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A uniform number from -1 to 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn fill(&mut self, out: &mut [u8]) {
        let (words, rest) = out.as_chunks_mut::<8>();
        words.iter_mut().for_each(|word| *word = self.next().to_le_bytes());
        let last = self.next().to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}
