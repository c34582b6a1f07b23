//! Memory of this process and of the machine, as the operating system counts it.

use schema::record::{MemoryUse, TouchedExperts};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// The machine a process runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Host name.
    pub host: String,
    /// Brand name of the processor, or the architecture if the system reports no name.
    pub chip: String,
    /// Number of hardware threads.
    pub cores: u32,
    /// Memory that processes can use, in bytes: the machine's total, or less if a control group sets a limit.
    pub memory_total_bytes: u64,
    /// Memory that processes can still allocate without swapping, in bytes.
    pub memory_available_bytes: u64,
}

/// The limit of a control group, in bytes.
#[derive(Clone, Copy)]
struct GroupLimit {
    /// The maximum that it may use.
    most: u64,
    /// The part of its use that cannot be reclaimed. Mapped weights are page cache: they count towards the group's use,
    /// but the system can reclaim them.
    kept: u64,
}

/// Memory that this process uses now. `weights_resident_bytes` and
/// the experts are 0: the loader that maps the weights fills them in.
pub fn measure() -> MemoryUse {
    #[cfg(target_os = "linux")]
    let measured = std::fs::read_to_string("/proc/self/smaps_rollup").ok().and_then(|rollup| from_rollup(&rollup));
    #[cfg(not(target_os = "linux"))]
    let measured = None;
    measured.unwrap_or_else(|| MemoryUse { rss_bytes: resident_set_bytes(), ..MemoryUse::default() })
}

/// The machine with its memory as it is now.
pub fn machine() -> Machine {
    let refresh =
        RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()).with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(refresh);
    let chip = system.cpus().first().map(|cpu| cpu.brand().trim()).filter(|brand| !brand.is_empty());
    // sysinfo panics on a query for the limits if it could not read the machine's memory.
    let limits = (system.total_memory() > 0).then(|| system.cgroup_limits()).flatten();
    let limit = limits.map(|limits| GroupLimit { most: limits.total_memory, kept: limits.rss });
    let (total, available) = within_limit(system.total_memory(), system.available_memory(), limit);
    Machine {
        host: System::host_name().unwrap_or_else(|| "unknown".to_owned()),
        chip: chip.unwrap_or(std::env::consts::ARCH).to_owned(),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        memory_total_bytes: total,
        memory_available_bytes: available,
    }
}

/// Total and available memory under a control group's `limit`.
fn within_limit(total: u64, available: u64, limit: Option<GroupLimit>) -> (u64, u64) {
    match limit {
        Some(GroupLimit { most, kept }) => (total.min(most), available.min(most.saturating_sub(kept))),
        None => (total, available),
    }
}

/// The resident set as reported by sysinfo, for systems without a finer count.
fn resident_set_bytes() -> u64 {
    let Ok(own) = sysinfo::get_current_pid() else { return 0 };
    let mut system = System::new();
    let refresh = sysinfo::ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(sysinfo::ProcessesToUpdate::Some(&[own]), false, refresh);
    system.process(own).map_or(0, sysinfo::Process::memory)
}

/// The sums in the text of `/proc/<pid>/smaps_rollup`. `None` if `Rss` or `Pss` is missing or not a number of kB.
#[cfg(target_os = "linux")]
fn from_rollup(rollup: &str) -> Option<MemoryUse> {
    let bytes_of = |name: &str| -> Option<u64> {
        let value = rollup.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(MemoryUse {
        rss_bytes: bytes_of("Rss")?,
        pss_bytes: bytes_of("Pss")?,
        pss_file_bytes: bytes_of("Pss_File").unwrap_or(0),
        pss_anonymous_bytes: bytes_of("Pss_Anon").unwrap_or(0),
        weights_resident_bytes: 0,
        experts_touched: 0,
        experts: TouchedExperts::default(),
        fetched_percent: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_name_cores_and_memory() {
        let machine = machine();
        assert!(!machine.host.is_empty() && !machine.chip.is_empty() && machine.cores > 0, "{machine:?}");
        assert!(machine.memory_available_bytes > 0, "{machine:?}");
        assert!(machine.memory_available_bytes <= machine.memory_total_bytes, "{machine:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn touched_memory_counts_as_anonymous() {
        const BYTES: u64 = 64 << 20;
        let before = measure();
        let touched = std::hint::black_box(vec![1u8; BYTES as usize]);
        let after = measure();
        drop(touched);
        let grown = after.pss_anonymous_bytes.saturating_sub(before.pss_anonymous_bytes);
        // Other tests of this process allocate and free some memory meanwhile.
        assert!(grown > BYTES / 2, "grew by {grown}: {before:?} {after:?}");
        assert!(after.pss_bytes <= after.rss_bytes, "{after:?}");
        assert!(after.pss_file_bytes > 0, "the program itself is file-backed: {after:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_rollup_is_read_by_name_and_a_foreign_text_is_refused() {
        let rollup = "55-7f ---p 00000000 00:00 0 [rollup]\nRss:  100 kB\nPss:   80 kB\nPss_Dirty: 5 kB\n\
                      Pss_Anon:  30 kB\nPss_File:  50 kB\n";
        let found = from_rollup(rollup).unwrap();
        assert_eq!((found.rss_bytes, found.pss_bytes), (100 << 10, 80 << 10));
        assert_eq!((found.pss_file_bytes, found.pss_anonymous_bytes), (50 << 10, 30 << 10));
        assert_eq!(from_rollup("Rss: many kB\n"), None);
    }

    #[test]
    fn a_control_group_bounds_total_and_available() {
        assert_eq!(within_limit(24, 20, None), (24, 20));
        let limit = |most, kept| Some(GroupLimit { most, kept });
        assert_eq!(within_limit(24, 20, limit(16, 6)), (16, 10));
        assert_eq!(within_limit(24, 3, limit(16, 6)), (16, 3), "the machine itself is short of memory");
        assert_eq!(within_limit(24, 20, limit(16, 17)), (16, 0));
        assert_eq!(within_limit(24, 20, limit(u64::MAX, 4)), (24, 20), "a group without a limit");
    }

    #[test]
    fn the_fallback_reports_a_resident_set() {
        assert!(resident_set_bytes() > 0);
    }
}
