//! A position in a file's bytes, with reads that never pass their end.

use super::error::{GgufError, quoted};

/// Reads little-endian values one after the other.
pub(super) struct Cursor<'a> {
    /// The file's bytes, or its first ones.
    bytes: &'a [u8],
    /// The file's length, at least that of `bytes`.
    file_bytes: u64,
    position: usize,
    /// Bytes from the file's start that the last read needed, if `bytes` has fewer and the file has them.
    needed: Option<u64>,
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    /// A cursor at the start of a whole file.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self::of_prefix(bytes, bytes.len() as u64)
    }

    /// A cursor at the start of a file of `file_bytes` bytes, of which only the first are here.
    pub(super) fn of_prefix(bytes: &'a [u8], file_bytes: u64) -> Self {
        Self { bytes, file_bytes: file_bytes.max(bytes.len() as u64), position: 0, needed: None }
    }

    /// Bytes from the file's start that the read that failed needed. `None` if more bytes would not have helped it.
    pub(super) fn needed(&self) -> Option<u64> {
        self.needed
    }

    /// Bytes from the file's start.
    pub(super) fn position(&self) -> u64 {
        self.position as u64
    }

    /// Number of bytes up to the file's end.
    pub(super) fn remaining(&self) -> u64 {
        self.file_bytes - self.position as u64
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: u64, field: &dyn Fn() -> String) -> Result<&'a [u8], GgufError> {
        let end = usize::try_from(count).ok().and_then(|count| self.position.checked_add(count));
        let Some(taken) = end.and_then(|end| self.bytes.get(self.position..end)) else {
            let end = self.position().checked_add(count);
            self.needed = end.filter(|end| *end <= self.file_bytes);
            let expected = format!("{count} bytes");
            return Err(error(
                field(),
                self.position(),
                expected,
                format!("{} up to the file's end", self.remaining()),
            ));
        };
        self.position += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &dyn Fn() -> String) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, field)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, field: &dyn Fn() -> String) -> Result<u32, GgufError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &dyn Fn() -> String) -> Result<u64, GgufError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Reads a count of items that take at least `bytes_each` bytes each. Refuses a count that the rest of the file
    /// cannot hold.
    pub(super) fn count(&mut self, bytes_each: u64, field: &dyn Fn() -> String) -> Result<u64, GgufError> {
        let offset = self.position();
        let count = self.u64(field)?;
        let holds = self.remaining() / bytes_each;
        if count > holds {
            let expected = format!("at most {holds} (what the rest of the file can hold)");
            return Err(error(field(), offset, expected, count.to_string()));
        }
        Ok(count)
    }

    /// Reads a string: its length in bytes, then its UTF-8 bytes.
    pub(super) fn string(&mut self, field: &dyn Fn() -> String) -> Result<&'a str, GgufError> {
        let length = self.count(1, &|| format!("length of {}", field()))?;
        let offset = self.position();
        let bytes = self.take(length, field)?;
        std::str::from_utf8(bytes).map_err(|cause| {
            let good = String::from_utf8_lossy(&bytes[..cause.valid_up_to()]);
            let found = format!("a byte that is not UTF-8 after {}", quoted(&good));
            error(field(), offset + cause.valid_up_to() as u64, "UTF-8 text".to_owned(), found)
        })
    }
}

/// The error at `offset` of the file.
pub(super) fn error(
    field: impl Into<String>,
    offset: u64,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> GgufError {
    GgufError { field: field.into(), offset, expected: expected.into(), found: found.into() }
}
