//! Stages that are killed, frozen, starved of memory or started twice, while requests run: one fault after another in
//! the same cluster.
#![cfg(target_os = "linux")]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::etcd::Etcd;
use common::fleet::Fleet;
use common::network::report_skipped;
use common::wait_for;

/// Lease TTL of these clusters: the least that etcd grants, so that a name becomes free soon.
const LEASE_TTL: Duration = Duration::from_secs(2);
/// Number of kills of one stage in quick succession.
const KILLS: u32 = 5;
/// Length of a prompt that uses most of the tokens that a stage of these clusters has room for.
const ROOM_TOKENS: u32 = 1500;

#[test]
fn stage_faults_change_no_answer() {
    let mut etcd = Etcd::start();
    let mut fleet = Fleet::start(&etcd, 4, None, &["--lease-ttl-s", "2"]);

    // Two stages are killed at once.
    let (one, other) = (fleet.stage_at_slot(1), fleet.stage_at_slot(2));
    let outcome = fleet.with_fault("two stages are killed", |fleet| {
        fleet.kill(one);
        fleet.kill(other);
    });
    assert!(outcome.attempts > 1, "the fault came too late: {outcome:?}");
    fleet.start_stage(one);
    fleet.start_stage(other);
    fleet.all_hold_layers();

    // A stage is frozen for longer than its lease, then thawed. From then on its frames are not accepted.
    let frozen = fleet.stage_at_slot(1);
    let outcome = fleet.with_fault("a stage is frozen beyond its lease", |fleet| fleet.signal(frozen, "STOP"));
    assert!(outcome.attempts > 1, "the fault came too late: {outcome:?}");
    std::thread::sleep(2 * LEASE_TTL);
    let refused = fleet.metric("baton_stage_process_frames_refused_total");
    let thawed = fleet.with_fault("it thaws under requests", |fleet| fleet.signal(frozen, "CONT"));
    println!("the frozen stage: {thawed:?}; complete again {:?} later", fleet.wait_until_complete());
    // Its frames are refused, or were lost with its links. None of them was accepted, as the tokens show.
    let counted = fleet.metric("baton_stage_process_frames_refused_total") - refused;
    println!("refused by the stages in the meantime: {counted} frames");

    // A stage is killed again and again, as by a crash at its start.
    let victim = fleet.stage_at_slot(0);
    fleet.with_fault("a stage is killed five times in short order", |fleet| {
        for _ in 0..KILLS {
            fleet.kill(victim);
            fleet.start_stage(victim);
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    println!("the kills: complete again {:?} later", fleet.wait_until_complete());

    // A second process with the same name ends and reports the reason.
    let output = fleet.command("s0").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("the name s0 is taken"), "{stderr}");

    // A stage is killed while no process can write its loss to the store.
    let victim = fleet.stage_at_slot(1);
    let outcome = fleet.with_fault("a stage is killed while etcd is down", |fleet| {
        etcd.kill();
        fleet.kill(victim);
        std::thread::sleep(Duration::from_secs(2));
        etcd.restart();
    });
    assert!(outcome.attempts > 1, "the fault came too late: {outcome:?}");
    fleet.start_stage(victim);
    fleet.wait_until_complete();
    fleet.answers_as_before();
    fleet.wait_until_released(&etcd);
    assert!(fleet.metric("baton_epochs_total") >= 5.0, "every fault begins an epoch");
    assert!(fleet.metric("baton_strikes_total") >= 1.0, "the first stage was evicted when it was killed");
}

#[test]
fn a_stage_that_the_system_kills_for_its_memory_is_the_only_one_that_ends() {
    let etcd = Etcd::start();
    let mut fleet = Fleet::start(&etcd, 2, None, &["--lease-ttl-s", "2"]);
    let victim = fleet.stage_at_slot(1);
    let cgroup = match MemoryCgroup::of(fleet.pid(victim)) {
        Ok(cgroup) => cgroup,
        Err(why) => {
            return report_skipped("a_stage_that_the_system_kills_for_its_memory_is_the_only_one_that_ends", &why);
        }
    };
    let client = fleet.client();
    let outcome = fleet.with_fault("the system kills a stage for its memory", |fleet| {
        cgroup.limit_to_usage();
        std::thread::scope(|scope| {
            // The large prompt uses KV blocks that were never used before. They need memory that is not available.
            let large: Vec<u32> = (0..ROOM_TOKENS).map(|at| 1000 + at * 13 % 9000).collect();
            let answer = scope.spawn(move || client.complete(&large, 1));
            let status = fleet.ended(victim);
            assert_eq!(status.signal(), Some(9), "{status}");
            fleet.start_stage(victim);
            answer.join().expect("the request that took the memory is answered, too");
        });
    });
    assert!(outcome.attempts > 1, "the fault came too late: {outcome:?}");
    fleet.answers_as_before();
    fleet.wait_until_released(&etcd);
}

/// A memory cgroup with one process in it, of the cgroup version that can be written here. Dropping it removes the
/// cgroup.
struct MemoryCgroup {
    folder: PathBuf,
    limit: &'static str,
}

impl MemoryCgroup {
    fn of(pid: u32) -> Result<Self, String> {
        let name = format!("baton-test-{}", std::process::id());
        let kinds = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let mut refused = String::new();
        for (root, limit) in kinds {
            let cgroup = Self { folder: Path::new(root).join(&name), limit };
            let enter = || {
                std::fs::create_dir(&cgroup.folder)?;
                std::fs::metadata(cgroup.folder.join(limit))?;
                std::fs::write(cgroup.folder.join("cgroup.procs"), pid.to_string())
            };
            match enter() {
                Ok(()) => return Ok(cgroup),
                Err(error) => refused = format!("no cgroup with {limit} can be made here ({error})"),
            }
        }
        Err(refused)
    }

    /// Sets the lowest limit that the kernel accepts, so that the process gets no more memory than it has. Version 1
    /// refuses a limit below the memory that cannot be reclaimed.
    fn limit_to_usage(&self) {
        let limit = self.folder.join(self.limit);
        let enough = (16..40).find(|power| std::fs::write(&limit, (1_u64 << power).to_string()).is_ok());
        println!("at most 2^{} bytes", enough.expect("some limit can be set"));
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        let _ = std::fs::read_to_string(self.folder.join("cgroup.procs")).map(|left| {
            for pid in left.split_whitespace() {
                let root = self.folder.parent().expect("a cgroup has one above it");
                let _ = std::fs::write(root.join("cgroup.procs"), pid);
            }
        });
        if self.folder.exists() {
            wait_for("the cgroup can be removed", Duration::from_secs(5), || std::fs::remove_dir(&self.folder).is_ok());
        }
    }
}
