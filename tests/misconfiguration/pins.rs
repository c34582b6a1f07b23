//! Pins that cannot be obeyed. They change nothing, and their status names the reason.

use super::case::{Case, Expected, HEALTHY, Mistake};
use super::fixture::Fixture;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::stays(
            "pins: beyond the last layer",
            Expected { status: "the model has layers 0..30", ..HEALTHY },
            |fixture| pin(fixture, "s0", r#"{"layers":[0,31]}"#),
        ),
        Case::stays(
            "pins: layers that leave a gap",
            Expected { status: "would be held by nobody", ..HEALTHY },
            |fixture| {
                fixture.etcdctl(&["put", "/baton/v1/home/pins/s1", r#"{"layers":[]}"#]);
                pin(fixture, "s0", r#"{"layers":[0,5]}"#)
            },
        ),
        Case::stays("pins: JSON that is cut off", Expected { status: "unreadable value", ..HEALTHY }, |fixture| {
            pin(fixture, "s0", r#"{"layers":[0,12"#)
        }),
        Case::stays("pins: more memory than there is", Expected { status: "more than stage", ..HEALTHY }, |fixture| {
            pin(fixture, "s0", r#"{"memory":"900TiB"}"#)
        }),
        Case::stays("pins: a stage that is not live", Expected { status: "is not live", ..HEALTHY }, |fixture| {
            pin(fixture, "nobody", r#"{"layers":[]}"#)
        }),
        Case::ends("pins: `baton pin` beyond the last layer", 1, "cannot pin stage s0", |fixture| {
            let mut verb = fixture.baton("pin");
            verb.args(["s0", "0..31"]);
            fixture.start(verb)
        }),
        Case::ends("pins: `baton pin` with layers backwards", 64, "invalid value '9..3'", |fixture| {
            let mut verb = fixture.baton("pin");
            verb.args(["s0", "9..3"]);
            fixture.start(verb)
        }),
    ]
}

fn pin(fixture: &mut Fixture, stage: &str, value: &str) -> Result<Mistake, String> {
    fixture.etcdctl(&["put", &format!("/baton/v1/home/pins/{stage}"), value]);
    Ok(Mistake::without_process().undone_by(|fixture| {
        fixture.etcdctl(&["del", "--prefix", "/baton/v1/home/pins/"]);
        fixture.fleet.wait_until_complete();
    }))
}
