//! Too little memory, on one machine or on all.

use super::case::{Case, Expected, HEALTHY, Mistake};
use super::fixture::Fixture;

/// No stage has room for the layers.
const ALL_TOO_SMALL: Expected = Expected {
    health: (503, "are missing; what would help: one more stage that may use"),
    status: "not serving: layers 0..30 are held by nobody: the model needs 295.6 MiB",
    doctor: (3, "are missing; what would help"),
    ..HEALTHY
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::stays(
            "memory: one stage without room for a layer",
            Expected { status: "standby", ..HEALTHY },
            |fixture| {
                let stage = fixture.baton("stage");
                fixture.start(stage)
            },
        ),
        Case::stays("memory: no stage has room for its part", ALL_TOO_SMALL, |fixture| {
            Ok(cluster(fixture, "small", &["24MiB", "24MiB"]))
        }),
        Case::stays("memory: one of two stages has no room", HEALTHY, |fixture| {
            Ok(cluster(fixture, "uneven", &["1MiB", "2GiB"]))
        }),
        Case::ends("memory: no room for a block of keys and values", 1, "expected at least the", |fixture| {
            let mut stage = fixture.baton("stage");
            stage.args(["--kv-memory", "4KiB", "--cluster", "narrow"]);
            fixture.start(stage)
        }),
        Case::ends("memory: a size that is none", 64, "invalid value '6gb'", |fixture| {
            let mut stage = fixture.baton("stage");
            stage.args(["--memory", "6gb"]);
            fixture.start(stage)
        }),
    ]
}

fn cluster(fixture: &mut Fixture, name: &str, memory: &[&str]) -> Mistake {
    let (cluster_ref, processes) = fixture.cluster(name, memory);
    Mistake::without_process().at(cluster_ref).holding(processes)
}
