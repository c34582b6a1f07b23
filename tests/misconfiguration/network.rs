//! Firewalls: around a machine that joins, each way.

use super::case::{Case, Expected, Mistake, WELL};
use super::common::network::Rule;
use super::ground::{Ground, WRONG};

/// Layers are claimed, and no frame comes through; the gateway says so in the store, too.
const UNREACHED: Expected = Expected {
    health: (503, "no micro-batch comes through: gateway 0 cannot reach stage wrong at tcp://"),
    status: "not serving:",
    doctor: (4, "no micro-batch comes through"),
    ..WELL
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::ends("network: nothing passes between a machine and etcd", 2, "cannot reach the store", |ground| {
            behind(ground, Rule::Nothing)
        }),
        Case::ends("network: nothing comes in", 2, "cannot reach the store", |ground| behind(ground, Rule::NothingIn)),
        Case::ends("network: nothing goes out", 2, "cannot reach the store", |ground| behind(ground, Rule::NothingOut)),
        Case::ends("network: every connection is reset", 2, "cannot reach the store", |ground| {
            behind(ground, Rule::Reset)
        }),
        Case::stays("network: one packet in ten is lost", Expected { says: "joined", ..WELL }, |ground| {
            behind(ground, Rule::Loss)
        }),
        Case::ends("network: all passes but what goes to etcd", 2, "cannot reach the store", |ground| {
            let port = etcd_port(ground);
            behind(ground, Rule::NotTo(port))
        }),
        Case::stays("network: etcd reaches a stage, and the gateway does not", UNREACHED, |ground| {
            let port = etcd_port(ground);
            ground.network()?.set(WRONG, Rule::OnlyTo(port));
            let mut stage = ground.baton_at(WRONG, "stage")?;
            stage.args(["--cluster", "barred", "--memory", "2GiB"]);
            let (site, mut processes) = ground.cluster("barred", &[]);
            processes.push(ground.process(stage));
            Ok(Mistake::of_nobody().at(site).holding(processes).undone_by(|ground| ground.fleet.network().heal(WRONG)))
        }),
    ]
}

fn etcd_port(ground: &Ground) -> u16 {
    ground.etcd.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port")
}

fn behind(ground: &mut Ground, rule: Rule) -> Result<Mistake, String> {
    let stage = ground.baton_at(WRONG, "stage")?;
    ground.network()?.set(WRONG, rule);
    let mistake = ground.start(stage)?;
    Ok(mistake.undone_by(|ground| ground.fleet.network().heal(WRONG)))
}
