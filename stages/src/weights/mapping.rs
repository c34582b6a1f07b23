//! Read-only mappings of parts of a file. Only this file and the signal guard use `unsafe` in this module.

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Advice, Mmap, MmapOptions};

use super::guard::{self, RunRegistration};
use crate::checkpoint::Part;

/// A mapped byte range of a file. Dropping the value unmaps the pages.
#[derive(Debug)]
pub struct Mapping {
    // Dropped first, because fields drop in order: the guard must not keep an address whose page is unmapped.
    _registration: RunRegistration,
    map: Mmap,
    part: usize,
    start: u64,
}

// === impl Mapping ===

impl Mapping {
    /// Maps all of `part`, to read its header.
    pub(crate) fn of_whole(part: &Part) -> io::Result<Self> {
        Self::new(&part.file, 0, 0..part.stamp.bytes, &part.path.to_string_lossy())
    }

    /// Maps `range` of `file`, which must lie inside it. `part` is the file's number in its model, and `name` its name
    /// in the guard's message.
    pub(super) fn new(file: &File, part: usize, range: Range<u64>, name: &str) -> io::Result<Self> {
        let length = usize::try_from(range.end - range.start)
            .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, "the range does not fit the address space"))?;
        // SAFETY: the mapping is read-only and private to this value. Its bytes are plain numbers for which every bit
        // pattern is valid, so another process that writes the file changes values, not memory safety. A process that
        // truncates the file causes SIGBUS, which `guard` turns into a clean exit.
        let map = unsafe { MmapOptions::new().offset(range.start).len(length).map(file)? };
        let registration = guard::register(page_range(&map), name);
        Ok(Self { _registration: registration, map, part, start: range.start })
    }

    /// Number of the mapped file in its model.
    pub(super) fn part(&self) -> usize {
        self.part
    }

    /// The byte range of the file that is mapped.
    pub(super) fn file_range(&self) -> Range<u64> {
        self.start..self.start + self.map.len() as u64
    }

    /// All mapped bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The bytes at `range` of the file, if all of it is mapped here.
    pub(super) fn at(&self, range: Range<u64>) -> Option<&[u8]> {
        let start = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        self.map.get(start..end)
    }

    /// The pages' addresses.
    pub(crate) fn addresses(&self) -> Range<usize> {
        page_range(&self.map)
    }

    /// Asks the system to read the pages ahead, then reads a byte of each, so that the next read does not wait.
    pub(super) fn prefetch(&self) {
        // This is only advice. If the system refuses it, the reads below still bring the pages in.
        let _ = self.map.advise(Advice::WillNeed);
        touch(&self.map);
    }

    /// Bytes of the mapped pages that are in memory, including those that other processes read. 0 if the system does
    /// not report them.
    pub(super) fn in_core_bytes(&self) -> u64 {
        in_core_bytes(self.addresses())
    }

    /// The mapped bytes of the file in pieces of at most `bytes`, each with the number of bytes of its pages that are
    /// not in memory.
    pub(super) fn pieces(&self, bytes: usize) -> impl Iterator<Item = (Range<u64>, u64)> {
        let places = (self.start..).step_by(bytes);
        places.zip(self.map.chunks(bytes)).map(|(start, piece)| {
            let pages = page_range(piece);
            let absent_bytes = pages.len() as u64 - in_core_bytes(pages);
            (start..start + piece.len() as u64, absent_bytes)
        })
    }
}

/// Asks the system to read the pages of `bytes` ahead, unless the first and the last of them are in memory.
pub(super) fn ask_ahead(bytes: &[u8]) {
    let (pages, page) = (page_range(bytes), page_bytes());
    if bytes.is_empty() || [pages.start, pages.end - page].into_iter().all(is_in_core) {
        return;
    }
    // This is only advice. If the system refuses it, the pages are read when they are used.
    // SAFETY: `pages` are whole mapped pages, and this advice changes no memory.
    unsafe { libc::madvise(pages.start as *mut libc::c_void, pages.len(), libc::MADV_WILLNEED) };
}

/// True if the page at `address` is in memory.
fn is_in_core(address: usize) -> bool {
    let mut state = [0u8];
    // SAFETY: `state` has a byte for the page. For an address that is not mapped the system returns an error.
    let answer = unsafe { libc::mincore(address as *mut libc::c_void, page_bytes(), state.as_mut_ptr().cast()) };
    answer == 0 && state[0] & 1 == 1
}

/// Pages that this process had to wait for since it started. 0 if the system does not report them.
pub(crate) fn major_faults() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the system fills `usage` whole if it answers 0, and only then is it read.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return 0;
        }
        usage.assume_init()
    };
    usage.ru_majflt as i64
}

/// Reads a byte of each page of `bytes`.
pub(super) fn touch(bytes: &[u8]) {
    // They may start in the middle of a page, so steps of a page can miss the last one.
    for byte in bytes.iter().step_by(page_bytes()).chain(bytes.last()) {
        std::hint::black_box(*byte);
    }
}

/// Bytes of `pages`, which are whole pages, that are in memory. 0 if the system does not report them.
fn in_core_bytes(pages: Range<usize>) -> u64 {
    let mut states = vec![0u8; pages.len() / page_bytes()];
    // SAFETY: `states` has a byte for each page. For addresses that are not mapped the system returns an error.
    let answer = unsafe { libc::mincore(pages.start as *mut libc::c_void, pages.len(), states.as_mut_ptr().cast()) };
    let in_core = states.iter().filter(|state| **state & 1 == 1).count();
    if answer == 0 { (in_core * page_bytes()) as u64 } else { 0 }
}

/// The whole pages that hold `bytes`.
fn page_range(bytes: &[u8]) -> Range<usize> {
    let page = page_bytes();
    let start = bytes.as_ptr() as usize;
    start / page * page..(start + bytes.len()).next_multiple_of(page)
}

/// Bytes in a page of memory.
pub(crate) fn page_bytes() -> usize {
    const FALLBACK: usize = 4096;
    // SAFETY: sysconf reads a constant of the system and has no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(FALLBACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_that_are_not_in_memory_are_read_ahead_without_being_used() {
        use std::io::Write as _;
        use std::os::fd::AsRawFd as _;
        const BYTES: usize = 1 << 20;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; BYTES]).unwrap();
        file.sync_all().unwrap();
        // SAFETY: this advice about the file's cached pages changes no memory.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        let mapping = Mapping::new(&file, 0, 0..BYTES as u64, "test").unwrap();
        if mapping.in_core_bytes() > 0 {
            // A file system in memory has nowhere else to keep them.
            println!("left out: the system keeps the file's pages in memory");
            return;
        }
        ask_ahead(&mapping.bytes()[..BYTES / 2]);
        let started = std::time::Instant::now();
        while mapping.in_core_bytes() < BYTES as u64 / 2 {
            assert!(started.elapsed().as_secs() < 10, "{} bytes are in memory", mapping.in_core_bytes());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    #[test]
    fn the_partly_used_first_and_last_page_count_as_whole_ones() {
        let page = page_bytes() as u64;
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * page).unwrap();
        // From the end of page 1 to the start of page 4.
        let mapping = Mapping::new(&file, 0, 2 * page - 8..4 * page + 8, "test").unwrap();
        assert_eq!(mapping.addresses().len() as u64, 4 * page);
        mapping.prefetch();
        assert_eq!(mapping.in_core_bytes(), 4 * page);
        assert_eq!(mapping.at(2 * page..3 * page).unwrap().len() as u64, page);
        assert!(mapping.at(2 * page - 9..3 * page).is_none() && mapping.at(4 * page..4 * page + 9).is_none());
    }
}
