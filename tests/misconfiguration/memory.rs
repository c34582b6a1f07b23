//! Too little memory, on one machine or on all.

use super::case::{Case, Expected, Mistake, WELL};
use super::ground::Ground;

/// Nobody has room for the layers.
const ALL_TOO_SMALL: Expected = Expected {
    health: (503, "are missing; what would help: one more stage that may use"),
    status: "not serving: layers 0..30 are held by nobody: the model needs 294.9 MiB",
    doctor: (3, "are missing; what would help"),
    ..WELL
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::stays("memory: one stage without room for a layer", Expected { status: "standby", ..WELL }, |ground| {
            let stage = ground.baton("stage");
            ground.start(stage)
        }),
        Case::stays("memory: no stage has room for its part", ALL_TOO_SMALL, |ground| {
            Ok(cluster(ground, "small", &["24MiB", "24MiB"]))
        }),
        Case::stays("memory: one of two stages has no room", WELL, |ground| {
            Ok(cluster(ground, "uneven", &["1MiB", "2GiB"]))
        }),
        Case::ends("memory: no room for a block of keys and values", 1, "expected at least the", |ground| {
            let mut stage = ground.baton("stage");
            stage.args(["--kv-memory", "4KiB", "--cluster", "narrow"]);
            ground.start(stage)
        }),
        Case::ends("memory: a size that is none", 64, "invalid value '6gb'", |ground| {
            let mut stage = ground.baton("stage");
            stage.args(["--memory", "6gb"]);
            ground.start(stage)
        }),
    ]
}

fn cluster(ground: &mut Ground, name: &str, memory: &[&str]) -> Mistake {
    let (site, processes) = ground.cluster(name, memory);
    Mistake::of_nobody().at(site).holding(processes)
}
