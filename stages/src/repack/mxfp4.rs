//! Floats of 4 bits in groups of 32 with a power of two each, as gpt-oss and MLX have them.

use super::{Band, RepackError, put_nibbles};

/// Values that share an exponent.
const GROUP: usize = 32;
/// The exponent that means no number.
const NO_NUMBER: u8 = 255;

/// Writes the rows of `band`.
pub(super) fn write(band: &Band<'_>, tensors: &[&[u8]], out: &mut [u8]) -> Result<(), RepackError> {
    let groups = band.cols() / GROUP;
    for (row, at) in band.stored() {
        let exponents = &tensors[1][row * groups..(row + 1) * groups];
        let pairs = tensors[0][row * groups * 16..(row + 1) * groups * 16].as_chunks::<16>().0;
        let blocks = out[at..at + band.row_bytes].chunks_exact_mut(17);
        for (block, (exponent, pairs)) in blocks.zip(exponents.iter().zip(pairs)) {
            if *exponent == NO_NUMBER {
                return Err(RepackError::NotFinite { kind: "scales", row: row as u64, found: f32::NAN });
            }
            block[0] = *exponent;
            put_nibbles(*pairs, &mut block[1..]);
        }
    }
    Ok(())
}
