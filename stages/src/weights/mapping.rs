//! Read-only mappings of parts of a file: the one place here, beside the signal guard, with `unsafe`.

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Advice, Mmap, MmapOptions};

use super::guard::{self, Registration};

/// A mapped byte range of a file; the pages go with the value.
#[derive(Debug)]
pub(super) struct Mapping {
    map: Mmap,
    start: u64,
    /// Given back before the pages are, as fields drop in order of declaration after `drop`.
    _registration: Registration,
}

// === impl Mapping ===

impl Mapping {
    /// Maps `range` of `file`, which must lie inside it; `name` is what the guard calls the file.
    pub(super) fn new(file: &File, range: Range<u64>, name: &str) -> io::Result<Self> {
        let length = usize::try_from(range.end - range.start)
            .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, "the range does not fit the address space"))?;
        // SAFETY: the mapping is read-only and private to this value. Its bytes are plain numbers for which every bit
        // pattern is valid, so another process that writes the file changes values, not memory safety; one that
        // truncates it raises SIGBUS, which `guard` turns into a clean exit.
        let map = unsafe { MmapOptions::new().offset(range.start).len(length).map(file)? };
        let registration = guard::register(page_range(&map), name);
        Ok(Self { map, start: range.start, _registration: registration })
    }

    /// Where in the file the mapping begins and ends.
    pub(super) fn file_range(&self) -> Range<u64> {
        self.start..self.start + self.map.len() as u64
    }

    /// All mapped bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The bytes at `range` of the file, if all of it is mapped here.
    pub(super) fn at(&self, range: Range<u64>) -> Option<&[u8]> {
        let start = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        self.map.get(start..end)
    }

    /// The pages' addresses.
    pub(super) fn addresses(&self) -> Range<usize> {
        page_range(&self.map)
    }

    /// Asks the system to read the pages ahead, then touches each once, so that the next read does not wait.
    pub(super) fn prefetch(&self) {
        // Advice only: where the system refuses it the touches below still bring the pages in.
        let _ = self.map.advise(Advice::WillNeed);
        for byte in self.map.iter().step_by(page_bytes()) {
            std::hint::black_box(*byte);
        }
    }
}

/// The whole pages that hold `bytes`.
fn page_range(bytes: &[u8]) -> Range<usize> {
    let page = page_bytes();
    let start = bytes.as_ptr() as usize;
    start / page * page..(start + bytes.len()).next_multiple_of(page)
}

/// Bytes in a page of memory.
pub(super) fn page_bytes() -> usize {
    const FALLBACK: usize = 4096;
    // SAFETY: sysconf reads a constant of the system; it has no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(FALLBACK)
}
