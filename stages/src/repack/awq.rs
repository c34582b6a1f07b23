//! AWQ's groups: words of eight neighbours of a row, `[column][row / 8]`, in an order of their own.

use super::{Band, RepackError, finite, nibble, put_factors};
use crate::format::Format;

/// The place in a word of each of its eight rows. A word has rows 0, 2, 4, 6, 1, 3, 5 and 7, the lowest bits first.
const PLACES: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Writes the rows of `band`.
pub(super) fn write(
    band: &Band<'_>,
    (group, factors): (u64, Format),
    tensors: &[&[u8]],
    out: &mut [u8],
) -> Result<(), RepackError> {
    let &[words, zeros, scales] = tensors else { unreachable!("the lengths of three tensors were checked") };
    let (rows, group) = (band.stored_rows(), group as usize);
    let format = band.repacking.format();
    let (values, block_bytes) = (format.block_values(), format.block_bytes());
    for index in 0..band.cols() / values {
        let of_group = index * values / group * rows;
        for (row, at) in band.stored() {
            let scale = finite("scales", row, factors, scales, of_group + row)?;
            let block = &mut out[at + index * block_bytes..][..block_bytes];
            put_factors(block, scale, -(scale * f32::from(value(zeros, of_group, row))));
            for (sub, out) in block[8..].chunks_exact_mut(16).enumerate() {
                let first = index * values + 32 * sub;
                for (at, out) in out.iter_mut().enumerate() {
                    let [low, high] = [first + at, first + at + 16].map(|column| value(words, column * rows, row));
                    *out = low | high << 4;
                }
            }
        }
    }
    Ok(())
}

/// The value of row `row` in words of which those of row 0 begin at value `start`.
fn value(words: &[u8], start: usize, row: usize) -> u8 {
    nibble(words, start + row / 8 * 8 + PLACES[row % 8])
}
