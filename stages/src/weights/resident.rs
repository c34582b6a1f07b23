//! How much of a mapping is in memory, as the system counts it for this process.

use std::ops::Range;

/// Resident bytes of the pages at `runs`. From `/proc/self/smaps`: `mincore` would tell what is in the page cache,
/// whoever read it, and not what this process has.
#[cfg(target_os = "linux")]
pub(super) fn resident_bytes(runs: &[Range<usize>]) -> u64 {
    std::fs::read_to_string("/proc/self/smaps").map_or(0, |smaps| resident_in(&smaps, runs))
}

/// The system does not say what this process has of a file mapping.
#[cfg(not(target_os = "linux"))]
pub(super) fn resident_bytes(_runs: &[Range<usize>]) -> u64 {
    0
}

/// The `Rss` of the areas that `runs` lie in. Two neighbouring mappings may be one area: no more is counted than lies
/// in the runs.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux has smaps"))]
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
    fn only_the_own_runs_count() {
        assert_eq!(resident_in(SMAPS, &[0x7f00_0000_0000..0x7f00_0000_4000]), 12 << 10);
        assert_eq!(resident_in(SMAPS, &[0x1000..0x2000]), 0);
    }

    #[test]
    fn an_area_shared_with_a_neighbour_counts_at_most_the_own_pages() {
        assert_eq!(resident_in(SMAPS, &[0x7f00_0000_1000..0x7f00_0000_2000]), 4 << 10);
    }
}
