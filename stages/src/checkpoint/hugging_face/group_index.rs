//! GPTQ's list of the group of each column. It is read and not used: columns are only accepted in their order.

use std::os::unix::fs::FileExt as _;

use super::stored::StoredPart;
use crate::checkpoint::OpenError;
use crate::safetensors::Dtype;

/// Largest accepted list of groups of columns, in bytes: ten times that of the widest known matrix.
const GROUP_INDEX_BYTES_MAX: u64 = 4 << 20;

/// Refuses columns whose groups are not neighbours, as they are after quantisation in the order of activations.
pub(super) fn check(index: StoredPart<'_>, cols: u64, group: u64) -> Result<(), OpenError> {
    let piece = index.piece();
    if index.tensor.dtype != Dtype::I32 || index.tensor.shape != [cols] || piece.bytes > GROUP_INDEX_BYTES_MAX {
        let found = format!("{} {:?}", index.tensor.dtype.name(), index.tensor.shape);
        return Err(index.wrong(format!("I32 [{cols}]"), found));
    }
    let mut bytes = vec![0; piece.bytes as usize];
    let read = index.file.part.file.read_exact_at(&mut bytes, piece.offset);
    read.map_err(|cause| OpenError::Read { path: index.file.part.path.clone(), cause })?;
    for (column, bytes) in (0_u64..).zip(bytes.as_chunks::<4>().0) {
        let found = i32::from_le_bytes(*bytes);
        if i64::from(found) != (column / group) as i64 {
            let expected = format!(
                "group {} of column {column}, as columns in the order of activations (desc_act) are \
                                    not supported",
                column / group
            );
            return Err(index.wrong(expected, found.to_string()));
        }
    }
    Ok(())
}
