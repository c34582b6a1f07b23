//! The bytes of a mapping that are in memory, as the system counts them for this process.

use std::ops::Range;
use std::sync::{Arc, Weak};

use super::copies::Copies;
use super::mapping::Mapping;

/// Counts the bytes of a shard that are in memory. Does not keep the shard mapped.
#[derive(Debug, Default)]
pub struct Residency {
    runs: Vec<Weak<Mapping>>,
    copies: Weak<Copies>,
}

// === impl Residency ===

impl Residency {
    pub(super) fn of(runs: &[Arc<Mapping>], copies: &Arc<Copies>) -> Self {
        Self { runs: runs.iter().map(Arc::downgrade).collect(), copies: Arc::downgrade(copies) }
    }

    /// Bytes of the pages that are still mapped and in memory now. On Linux only the pages in this process's resident
    /// set count, elsewhere all pages in memory. The system counts the pages one by one, which takes milliseconds for
    /// each gigabyte. Copies count as a whole.
    pub fn bytes(&self) -> u64 {
        let runs: Vec<_> = self.runs.iter().filter_map(Weak::upgrade).collect();
        let mapped = if runs.is_empty() { 0 } else { resident_bytes(&runs) };
        mapped + self.copies.upgrade().map_or(0, |copies| copies.bytes())
    }
}

/// Resident bytes of the pages of `runs`. `/proc/self/smaps`, if it exists, gives those in this process's resident set.
/// Without it all pages in memory count, including those that other processes read.
fn resident_bytes(runs: &[Arc<Mapping>]) -> u64 {
    let addresses: Vec<_> = runs.iter().map(|run| run.addresses()).collect();
    match std::fs::read_to_string("/proc/self/smaps") {
        Ok(smaps) => resident_in(&smaps, &addresses),
        Err(_) => runs.iter().map(|run| run.in_core_bytes()).sum(),
    }
}

/// The sum of `Rss` over the areas that `runs` lie in. Two neighbouring mappings may be one area, so an area counts for
/// at most the bytes of `runs` in it.
fn resident_in(smaps: &str, runs: &[Range<usize>]) -> u64 {
    let mut own_bytes = 0;
    let mut resident = 0;
    for line in smaps.lines() {
        if let Some(area) = area_of(line) {
            let overlap = |run: &Range<usize>| area.end.min(run.end).saturating_sub(area.start.max(run.start)) as u64;
            own_bytes = runs.iter().map(overlap).sum();
        } else if let Some(kilobytes) = line.strip_prefix("Rss:") {
            let kilobytes: u64 = kilobytes.trim().trim_end_matches(" kB").parse().unwrap_or(0);
            resident += (kilobytes * 1024).min(own_bytes);
        }
    }
    resident
}

/// The addresses in an area's first line, `7f0000000000-7f0000001000 r--p …`.
fn area_of(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f0000004000 r--p 00000000 fe:00 42 /models/a.gguf
Size:                 16 kB
Rss:                  12 kB
Pss:                   6 kB
7f0000100000-7f0000102000 rw-p 00000000 00:00 0
Size:                  8 kB
Rss:                   8 kB
";

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one run is a list of one range")]
    fn only_the_own_runs_count() {
        assert_eq!(resident_in(SMAPS, &[0x7f00_0000_0000..0x7f00_0000_4000]), 12 << 10);
        assert_eq!(resident_in(SMAPS, &[0x1000..0x2000]), 0);
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one run is a list of one range")]
    fn an_area_shared_with_a_neighbour_counts_at_most_the_own_pages() {
        assert_eq!(resident_in(SMAPS, &[0x7f00_0000_1000..0x7f00_0000_2000]), 4 << 10);
    }
}
