//! Floats whose columns lie one after the other, as the experts of Llama 4 and gpt-oss do.

use super::Band;
use crate::format::Format;

/// Writes the rows of `band`. What is no finite number stays so, as it does in matrices that are not copied.
pub(super) fn write(band: &Band<'_>, format: Format, tensors: &[&[u8]], out: &mut [u8]) {
    let (bytes, rows) = (format.block_bytes(), band.stored_rows());
    for (column, values) in tensors[0].chunks_exact(rows * bytes).enumerate() {
        for (row, at) in band.stored() {
            out[at + column * bytes..][..bytes].copy_from_slice(&values[row * bytes..][..bytes]);
        }
    }
}
