//! The environment of a process: proxies, home folders, limits, clocks, users.

use std::path::Path;
use std::process::Command;

use super::case::{Case, Expected, HEALTHY};
use super::fixture::Fixture;

/// The user and group `nobody`.
const NOBODY: u32 = 65534;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::stays(
            "environment: a proxy address without a listener",
            Expected { last_line: "joined", ..HEALTHY },
            |fixture| {
                let mut stage = fixture.baton("stage");
                for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
                    stage.env(name, "http://127.0.0.1:1");
                }
                fixture.start(stage)
            },
        ),
        Case::ends("environment: no home and no cache", 64, "expected HOME to be set, or --cache DIR", |fixture| {
            let mut stage = fixture.baton("stage");
            stage.env_remove("HOME").env_remove("XDG_CACHE_HOME");
            fixture.start(stage)
        }),
        Case::ends("environment: a log filter that is none", 64, "cannot use the log filter", |fixture| {
            let mut stage = fixture.baton("stage");
            stage.env("BATON_LOG", "=loud=");
            fixture.start(stage)
        }),
        Case::ends("environment: 8 open files at most", 1, "Too many open files", |fixture| {
            let baton = fixture.baton("stage");
            let mut limited = Command::new("sh");
            limited.args(["-c", "ulimit -n 8; exec \"$0\" \"$@\""]).arg(baton.get_program());
            let limited = wrapped(limited, &baton);
            fixture.start(limited)
        }),
        Case::stays(
            "environment: monotonic clocks an hour apart",
            Expected { last_line: "joined", ..HEALTHY },
            |fixture| {
                let offsets = ["--time", "--monotonic", "3600", "--boottime", "3600", "--fork", "--kill-child", "--"];
                let can = Command::new("unshare").args(offsets).arg("true").output();
                if !can.is_ok_and(|tried| tried.status.success()) {
                    return Err(
                        "no clock namespace can be made here: root has to, with util-linux 2.36 or newer".to_owned()
                    );
                }
                let baton = fixture.baton("stage");
                let mut ahead = Command::new("unshare");
                ahead.args(offsets).arg(baton.get_program());
                let ahead = wrapped(ahead, &baton);
                fixture.start(ahead)
            },
        ),
        Case::ends("environment: a lease of a second", 64, "expected 2 to 300", |fixture| {
            let mut stage = fixture.baton("stage");
            stage.args(["--lease-ttl-s", "1"]);
            fixture.start(stage)
        }),
        Case::ends("environment: a device that is not built in", 64, "built without", |fixture| {
            let mut stage = fixture.baton("stage");
            stage.args(["--device", "metal"]);
            fixture.start(stage)
        }),
    ]
}

/// `outer`, with the arguments and the environment of `inner`.
fn wrapped(mut outer: Command, inner: &Command) -> Command {
    outer.args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// `baton` with a verb, run by a user who owns nothing. The program and the model are copies that this user can read.
pub(crate) fn as_nobody(fixture: &Fixture, verb: &str) -> Result<Command, String> {
    use std::os::unix::process::CommandExt;
    let (program, model) = (fixture.path("baton"), fixture.path("model.gguf"));
    if !program.exists() {
        let place = |from: &Path, to: &Path| std::fs::copy(from, to).map(drop).map_err(|error| error.to_string());
        place(Path::new(env!("CARGO_BIN_EXE_baton")), &program)?;
        place(&super::common::model_path(), &model)?;
    }
    let can = Command::new(&program).arg("--version").uid(NOBODY).gid(NOBODY).output();
    if !can.is_ok_and(|tried| tried.status.success()) {
        return Err("no process can be run as another user: root has to".to_owned());
    }
    let mut command = wrapped(Command::new(&program), &fixture.baton(verb));
    command.env("BATON_MODEL", model).env("HOME", "/nonexistent").uid(NOBODY).gid(NOBODY);
    Ok(command)
}
