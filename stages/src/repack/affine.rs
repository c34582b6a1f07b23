//! MLX's groups: rows of integers, and a scale and a minimum for each group of a row.

use super::{Band, RepackError, finite, put_factors, put_nibbles};
use crate::format::Format;

/// Writes the rows of `band`.
pub(super) fn write(
    band: &Band<'_>,
    (bits, group, factors): (u32, u64, Format),
    tensors: &[&[u8]],
    out: &mut [u8],
) -> Result<(), RepackError> {
    let (cols, group, bits) = (band.cols(), group as usize, bits as usize);
    let format = band.repacking.format();
    let (values, block_bytes) = (format.block_values(), format.block_bytes());
    for (row, at) in band.stored() {
        let weights = &tensors[0][row * cols * bits / 8..(row + 1) * cols * bits / 8];
        let blocks = out[at..at + band.row_bytes].chunks_exact_mut(block_bytes);
        for (index, (block, weights)) in blocks.zip(weights.chunks_exact(values * bits / 8)).enumerate() {
            let place = row * (cols / group) + index * values / group;
            let scale = finite("scales", row, factors, tensors[1], place)?;
            let minimum = finite("biases", row, factors, tensors[2], place)?;
            put_factors(block, scale, minimum);
            if bits == 8 {
                block[8..].iter_mut().zip(weights).for_each(|(out, value)| *out = value ^ 0x80);
            } else {
                let pairs = weights.as_chunks::<16>().0;
                block[8..].chunks_exact_mut(16).zip(pairs).for_each(|(out, pairs)| put_nibbles(*pairs, out));
            }
        }
    }
    Ok(())
}
