//! Disks that are full or read-only at each place that baton writes to, and folders without write permission.

use std::fs::File;
use std::process::Stdio;

use super::case::{Case, Expected, HEALTHY, Mistake};
use super::environment::as_nobody;
use super::fixture::{Fixture, TinyDisk};
use super::process::Process;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::ends("disk: a cache with too little room", 1, "choose another folder with --cache", |fixture| {
            cache(fixture, "size=64k")
        }),
        Case::ends("disk: a cache that is read-only", 1, "Read-only", |fixture| cache(fixture, "size=64k,ro")),
        Case::stays(
            "disk: a cache that is read-only, and the model's path",
            Expected { last_line: "joined", ..HEALTHY },
            |fixture| {
                let folder = fixture.path("ro-cache");
                let disk = TinyDisk::mount(&folder, "size=64k,ro")?;
                let mut stage = fixture.baton("stage");
                stage.arg("--cache").arg(folder);
                Ok(fixture.start(stage)?.holding(disk))
            },
        ),
        Case::ends("disk: the folder of sockets is full", 1, "chooses another place): No space left", |fixture| {
            sockets(fixture, "size=4k,nr_inodes=1")
        }),
        Case::ends("disk: the folder of sockets is read-only", 1, "chooses another place): Read-only", |fixture| {
            sockets(fixture, "size=64k,ro")
        }),
        Case::ends(
            "disk: the folder of sockets is another user's",
            1,
            "chooses another place): Permission denied",
            |fixture| {
                let stage = as_nobody(fixture, "stage")?;
                fixture.start(stage)
            },
        ),
        Case::ends("disk: the folder of sockets has too long a path", 1, "shorter directory", |fixture| {
            let folder = fixture.path(&"long".repeat(25));
            std::fs::create_dir_all(&folder).unwrap();
            let mut stage = fixture.baton("stage");
            stage.env("XDG_RUNTIME_DIR", folder);
            fixture.start(stage)
        }),
        Case::stays("disk: a stage's log is on a full disk", Expected { status: "wrong", ..HEALTHY }, |fixture| {
            full_log(fixture, "stage")
        }),
        Case::stays(
            "disk: a gateway's log is on a full disk",
            Expected { status: "gateway 1 at", ..HEALTHY },
            |fixture| full_log(fixture, "gateway"),
        ),
        Case::ends("disk: the answer goes to a full disk", 1, "cannot write the answer", |fixture| {
            let log = fixture.log();
            let mut verb = fixture.baton("status");
            let full = File::options().write(true).open("/dev/full").map_err(|error| error.to_string())?;
            verb.stdout(full).stderr(File::create(&log).unwrap());
            Ok(Mistake::of(Process::start_into(&mut verb, log)))
        }),
    ]
}

fn cache(fixture: &mut Fixture, options: &str) -> Result<Mistake, String> {
    let folder = fixture.path("tiny-cache");
    let disk = TinyDisk::mount(&folder, options)?;
    let mut pull = fixture.baton("pull");
    pull.env_remove("BATON_MODEL").arg("--cache").arg(folder);
    Ok(fixture.start(pull)?.holding(disk))
}

fn sockets(fixture: &mut Fixture, options: &str) -> Result<Mistake, String> {
    let folder = fixture.path("tiny-sockets");
    let disk = TinyDisk::mount(&folder, options)?;
    let mut stage = fixture.baton("stage");
    stage.env("XDG_RUNTIME_DIR", &folder).env("TMPDIR", &folder);
    Ok(fixture.start(stage)?.holding(disk))
}

/// A process that keeps running although it cannot write its log.
fn full_log(fixture: &mut Fixture, verb: &str) -> Result<Mistake, String> {
    let folder = fixture.path(&format!("full-log-{verb}"));
    let disk = TinyDisk::mount(&folder, "size=16k")?;
    let log = folder.join("log");
    let stderr = File::create(&log).unwrap();
    disk.fill();
    let mut command = fixture.baton(verb);
    command.arg("--log").arg("trace").stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    Ok(Mistake::of(Process::start_into(&mut command, log)).holding(disk))
}
