//! The header's description of one tensor, and the checks that make it safe to use.

use super::GgufError;
use super::cursor::{Cursor, error};
use super::error::quoted;
use super::limits::{DIMENSIONS_MAX, TENSOR_NAME_BYTES_MAX};
use crate::format::Format;

/// The place of a tensor in the file, and the format of its bytes. The whole tensor lies inside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, such as `blk.3.attn_q.weight`.
    pub name: String,
    /// Its dimensions in ggml's order: the first is the length of a row. There are 1 to 4, none zero.
    pub dims: Vec<u64>,
    /// Storage format of its values.
    pub format: Format,
    /// Offset of its first byte from the file's start.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Minimum size of a description, in bytes: name length, one byte of name, dimension count, one dimension, format,
/// offset.
pub(super) const DESCRIPTION_BYTES_MIN: u64 = 8 + 1 + 4 + 8 + 4 + 8;

// === impl TensorInfo ===

impl TensorInfo {
    /// Reads description number `index`. Its offset is still relative to the tensor data.
    pub(super) fn read(cursor: &mut Cursor<'_>, index: u64, alignment: u64) -> Result<Self, GgufError> {
        let name = read_name(cursor, index)?;
        let field = |what: &str| format!("{what} of tensor {}", quoted(name));
        let dims = read_dimensions(cursor, &field)?;

        let format_offset = cursor.position();
        let number = cursor.u32(&|| field("format"))?;
        let format = Format::from_ggml(number)
            .map_err(|cause| error(field("format"), format_offset, "a supported type", cause.to_string()))?;
        let bytes = bytes_of(format, &dims).map_err(|(expected, found)| {
            error(field("dimensions"), format_offset - 8 * dims.len() as u64, expected, found)
        })?;

        let offset_offset = cursor.position();
        let offset = cursor.u64(&|| field("offset"))?;
        if !offset.is_multiple_of(alignment) {
            let expected = format!("a multiple of the alignment {alignment}");
            return Err(error(field("offset"), offset_offset, expected, offset.to_string()));
        }
        Ok(Self { name: name.to_owned(), dims, format, offset, bytes })
    }

    /// Converts the offset into one from the file's start. The tensor must end within the file.
    pub(super) fn resolve_offset(&mut self, data_offset: u64, file_bytes: u64) -> Result<(), GgufError> {
        let start = data_offset.checked_add(self.offset);
        let end = start.and_then(|start| start.checked_add(self.bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_bytes => {
                self.offset = start;
                Ok(())
            }
            _ => {
                let expected = format!("{} bytes from there within the file's {file_bytes}", self.bytes);
                let found = match end {
                    Some(end) => format!("an end at byte {end}"),
                    None => format!("offset {} past any file", self.offset),
                };
                let field = format!("data of tensor {}", quoted(&self.name));
                Err(error(field, start.unwrap_or(u64::MAX), expected, found))
            }
        }
    }

    /// Values in a row.
    pub fn cols(&self) -> u64 {
        self.dims[0]
    }

    /// Rows: the product of all dimensions but the first.
    pub fn rows(&self) -> u64 {
        self.dims[1..].iter().product()
    }

    /// One past its last byte, counted from the file's start.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

fn read_name<'a>(cursor: &mut Cursor<'a>, index: u64) -> Result<&'a str, GgufError> {
    let offset = cursor.position();
    let field = || format!("name of tensor {index}");
    let name = cursor.string(&field)?;
    if name.is_empty() || name.len() as u64 > TENSOR_NAME_BYTES_MAX {
        let expected = format!("1 to {TENSOR_NAME_BYTES_MAX} bytes");
        return Err(error(field(), offset, expected, format!("{} bytes", name.len())));
    }
    Ok(name)
}

fn read_dimensions(cursor: &mut Cursor<'_>, field: &dyn Fn(&str) -> String) -> Result<Vec<u64>, GgufError> {
    let offset = cursor.position();
    let count = cursor.u32(&|| field("dimension count"))?;
    if count == 0 || count > DIMENSIONS_MAX {
        let expected = format!("1 to {DIMENSIONS_MAX}");
        return Err(error(field("dimension count"), offset, expected, count.to_string()));
    }
    let mut dims = Vec::new();
    for index in 0..count {
        let offset = cursor.position();
        let name = || field(&format!("dimension {index}"));
        let dim = cursor.u64(&name)?;
        if dim == 0 {
            return Err(error(name(), offset, "at least 1", "0"));
        }
        dims.push(dim);
    }
    Ok(dims)
}

/// Size of a tensor of these dimensions, in bytes. The error holds the expected and the found value.
pub(super) fn bytes_of(format: Format, dims: &[u64]) -> Result<u64, (String, String)> {
    let (block_values, block_bytes) = (format.block_values() as u64, format.block_bytes() as u64);
    let cols = dims.first().copied().unwrap_or(0);
    if !cols.is_multiple_of(block_values) {
        let expected = format!("rows of a multiple of {block_values} values for {}", format.name());
        return Err((expected, format!("rows of {cols}")));
    }
    let rows = dims.iter().skip(1).try_fold(1u64, |rows, dim| rows.checked_mul(*dim));
    let bytes = rows.and_then(|rows| (cols / block_values).checked_mul(block_bytes)?.checked_mul(rows));
    // The number of values must fit 64 bits too: narrow formats have more values than bytes.
    let values = rows.and_then(|rows| rows.checked_mul(cols));
    match (bytes, values) {
        (Some(bytes), Some(_)) => Ok(bytes),
        _ => Err(("a product below 2^64".to_owned(), format!("{dims:?}"))),
    }
}
