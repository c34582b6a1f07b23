//! Floats of 8 bits with a scale for each block of rows and columns, as DeepSeek-V3 and Qwen3 have them.

use super::{Band, RepackError, finite};
use crate::format::Format;

/// The bits of a float that mean no number, without the sign.
const NO_NUMBER: u8 = 0x7f;

/// Writes the rows of `band`.
pub(super) fn write(
    band: &Band<'_>,
    ([high, wide], factors): ([u64; 2], Format),
    tensors: &[&[u8]],
    out: &mut [u8],
) -> Result<(), RepackError> {
    let (cols, high, wide) = (band.cols(), high as usize, wide as usize);
    let (values, block_bytes) = (Format::F8E4M3.block_values(), Format::F8E4M3.block_bytes());
    for (row, at) in band.stored() {
        let weights = tensors[0][row * cols..(row + 1) * cols].chunks_exact(values);
        let blocks = out[at..at + band.row_bytes].chunks_exact_mut(block_bytes);
        for (index, (block, weights)) in blocks.zip(weights).enumerate() {
            let place = row / high * cols.div_ceil(wide) + index * values / wide;
            let scale = finite("scales", row, factors, tensors[1], place)?;
            if weights.iter().any(|bits| bits & NO_NUMBER == NO_NUMBER) {
                return Err(RepackError::NotFinite { kind: "weights", row: row as u64, found: f32::NAN });
            }
            block[..4].copy_from_slice(&scale.to_le_bytes());
            block[4..].copy_from_slice(weights);
        }
    }
    Ok(())
}
