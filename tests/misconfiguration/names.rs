//! Wrong names: of stages, clusters, variables and settings.

use super::case::{Case, Expected, HEALTHY, Mistake};
use super::fixture::Fixture;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::ends("names: a stage's name that is taken", 1, "the name s0 is taken by", |fixture| {
            flags(fixture, "stage", &["--name", "s0"])
        }),
        Case::ends("names: a stage called \"a b/c\"", 64, "error: invalid value 'a b/c'", |fixture| {
            flags(fixture, "stage", &["--name", "a b/c"])
        }),
        Case::ends("names: a cluster called \"HOME!\"", 64, "error: invalid value 'HOME!'", |fixture| {
            flags(fixture, "stage", &["--cluster", "HOME!"])
        }),
        Case::stays(
            "names: a cluster that is misspelt",
            Expected { last_line: "is the cluster's name right?", ..HEALTHY },
            |fixture| {
                let mut stage = fixture.baton("stage");
                stage.args(["--cluster", "hoem"]).env_remove("BATON_MODEL");
                fixture.start(stage)
            },
        ),
        Case::ends("names: a flag that is misspelt", 64, "unexpected argument '--colour'", |fixture| {
            flags(fixture, "stage", &["--colour"])
        }),
        Case::stays("names: a variable that is misspelt", Expected { last_line: "BATON_ETDC", ..HEALTHY }, |fixture| {
            let mut stage = fixture.baton("stage");
            stage.env("BATON_ETDC", "x");
            fixture.start(stage)
        }),
        Case::ends(
            "names: a setting in the file that is misspelt",
            64,
            "expected one of `stages`, `store`, `store_listen`, `share`, `restart`",
            |fixture| {
                let path = fixture.path("misspelt.toml");
                std::fs::write(&path, "[up]\nstage = 3\n").unwrap();
                flags(fixture, "stage", &["--config", &path.display().to_string()])
            },
        ),
    ]
}

fn flags(fixture: &mut Fixture, verb: &str, more: &[&str]) -> Result<Mistake, String> {
    let mut command = fixture.baton(verb);
    command.args(more);
    fixture.start(command)
}
