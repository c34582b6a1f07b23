//! GPTQ's groups: words of eight neighbours of a column, `[column / 8][row]`.

use super::{Band, RepackError, finite, nibble, put_factors, put_nibbles};
use crate::format::Format;

/// Values in a word.
const WORD_VALUES: usize = 8;
/// Bytes of a word.
const WORD_BYTES: usize = 4;

/// Tensors of a matrix, without the group of each column.
pub(super) const PARTS: usize = 3;

/// Refuses columns whose groups, the words of `index`, are not those of neighbours.
pub(super) fn check_order(index: &[u8], group: u64) -> Result<(), RepackError> {
    for (column, bytes) in (0_u64..).zip(index.as_chunks::<4>().0) {
        let (expected, found) = (column / group, i32::from_le_bytes(*bytes));
        if u64::try_from(found) != Ok(expected) {
            return Err(RepackError::Order { column, expected, found });
        }
    }
    Ok(())
}

/// Writes the rows of `band`.
pub(super) fn write(
    band: &Band<'_>,
    (group, zeros_below, factors): (u64, u32, Format),
    tensors: &[&[u8]],
    out: &mut [u8],
) -> Result<(), RepackError> {
    let [words, zeros, scales, ..] = tensors else { unreachable!("the lengths of the tensors were checked") };
    let (rows, group) = (band.stored_rows(), group as usize);
    let format = band.repacking.format();
    let (values, block_bytes) = (format.block_values(), format.block_bytes());
    for index in 0..band.cols() / values {
        let of_group = index * values / group * rows;
        for (row, at) in band.stored() {
            let scale = finite("scales", row, factors, scales, of_group + row)?;
            // Stored less one, so that zero is stored as fifteen.
            let zero = (u32::from(nibble(zeros, of_group + row)) + zeros_below) & 15;
            let block = &mut out[at + index * block_bytes..][..block_bytes];
            put_factors(block, scale, -(scale * zero as f32));
            for (sub, out) in block[8..].chunks_exact_mut(16).enumerate() {
                let mut pairs = [0; 16];
                for (word, pairs) in pairs.chunks_exact_mut(WORD_BYTES).enumerate() {
                    let column = (index * values + 32 * sub) / WORD_VALUES + word;
                    pairs.copy_from_slice(&words[(column * rows + row) * WORD_BYTES..][..WORD_BYTES]);
                }
                put_nibbles(pairs, out);
            }
        }
    }
    Ok(())
}
