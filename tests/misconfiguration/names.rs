//! Wrong names: of stages, clusters, variables and settings.

use super::case::{Case, Expected, Mistake, WELL};
use super::ground::Ground;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::ends("names: a stage's name that is taken", 1, "the name s0 is taken by", |ground| {
            flags(ground, "stage", &["--name", "s0"])
        }),
        Case::ends("names: a stage called \"a b/c\"", 64, "error: invalid value 'a b/c'", |ground| {
            flags(ground, "stage", &["--name", "a b/c"])
        }),
        Case::ends("names: a cluster called \"HOME!\"", 64, "error: invalid value 'HOME!'", |ground| {
            flags(ground, "stage", &["--cluster", "HOME!"])
        }),
        Case::stays(
            "names: a cluster that is misspelt",
            Expected { says: "is the cluster's name right?", ..WELL },
            |ground| {
                let mut stage = ground.baton("stage");
                stage.args(["--cluster", "hoem"]).env_remove("BATON_MODEL");
                ground.start(stage)
            },
        ),
        Case::ends("names: a flag that is misspelt", 64, "unexpected argument '--colour'", |ground| {
            flags(ground, "stage", &["--colour"])
        }),
        Case::stays("names: a variable that is misspelt", Expected { says: "BATON_ETDC", ..WELL }, |ground| {
            let mut stage = ground.baton("stage");
            stage.env("BATON_ETDC", "x");
            ground.start(stage)
        }),
        Case::ends(
            "names: a setting in the file that is misspelt",
            64,
            "expected `stages` or `store_listen`",
            |ground| {
                let path = ground.path("misspelt.toml");
                std::fs::write(&path, "[up]\nstage = 3\n").unwrap();
                flags(ground, "stage", &["--config", &path.display().to_string()])
            },
        ),
    ]
}

fn flags(ground: &mut Ground, verb: &str, more: &[&str]) -> Result<Mistake, String> {
    let mut command = ground.baton(verb);
    command.args(more);
    ground.start(command)
}
