//! Pins that cannot be: they change nothing, and why stands beside them.

use super::case::{Case, Expected, Mistake, WELL};
use super::ground::Ground;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::stays(
            "pins: beyond the last layer",
            Expected { status: "the model has layers 0..30", ..WELL },
            |ground| pin(ground, "s0", r#"{"layers":[0,31]}"#),
        ),
        Case::stays(
            "pins: layers that leave a gap",
            Expected { status: "would be held by nobody", ..WELL },
            |ground| {
                ground.etcdctl(&["put", "/baton/v1/home/pins/s1", r#"{"layers":[]}"#]);
                pin(ground, "s0", r#"{"layers":[0,5]}"#)
            },
        ),
        Case::stays("pins: JSON that is cut off", Expected { status: "unreadable value", ..WELL }, |ground| {
            pin(ground, "s0", r#"{"layers":[0,12"#)
        }),
        Case::stays("pins: more memory than there is", Expected { status: "more than stage", ..WELL }, |ground| {
            pin(ground, "s0", r#"{"memory":"900TiB"}"#)
        }),
        Case::stays("pins: a stage that is not there", Expected { status: "is not there", ..WELL }, |ground| {
            pin(ground, "nobody", r#"{"layers":[]}"#)
        }),
        Case::ends("pins: `baton pin` beyond the last layer", 1, "cannot pin stage s0", |ground| {
            let mut verb = ground.baton("pin");
            verb.args(["s0", "0..31"]);
            ground.start(verb)
        }),
        Case::ends("pins: `baton pin` with layers backwards", 64, "invalid value '9..3'", |ground| {
            let mut verb = ground.baton("pin");
            verb.args(["s0", "9..3"]);
            ground.start(verb)
        }),
    ]
}

fn pin(ground: &mut Ground, stage: &str, value: &str) -> Result<Mistake, String> {
    ground.etcdctl(&["put", &format!("/baton/v1/home/pins/{stage}"), value]);
    Ok(Mistake::of_nobody().undone_by(|ground| {
        ground.etcdctl(&["del", "--prefix", "/baton/v1/home/pins/"]);
        ground.fleet.whole();
    }))
}
