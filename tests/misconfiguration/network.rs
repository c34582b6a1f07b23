//! Firewalls around a machine that joins, in each direction.

use super::case::{Case, Expected, HEALTHY, Mistake};
use super::common::network::Rule;
use super::fixture::{Fixture, WRONG};

/// Layers are claimed, but no frame passes. The gateway writes that to the store, too.
const UNREACHED: Expected = Expected {
    health: (503, "no micro-batch comes through: gateway 0 cannot reach stage wrong at tcp://"),
    status: "not serving:",
    doctor: (4, "no micro-batch comes through"),
    ..HEALTHY
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::ends("network: nothing passes between a machine and etcd", 2, "cannot reach the store", |fixture| {
            behind(fixture, Rule::DropAll)
        }),
        Case::ends("network: nothing comes in", 2, "cannot reach the store", |fixture| behind(fixture, Rule::DropIn)),
        Case::ends("network: nothing goes out", 2, "cannot reach the store", |fixture| behind(fixture, Rule::DropOut)),
        Case::ends("network: every connection is reset", 2, "cannot reach the store", |fixture| {
            behind(fixture, Rule::Reset)
        }),
        Case::stays("network: one packet in ten is lost", Expected { last_line: "joined", ..HEALTHY }, |fixture| {
            behind(fixture, Rule::Loss)
        }),
        Case::ends("network: all passes but what goes to etcd", 2, "cannot reach the store", |fixture| {
            let port = etcd_port(fixture);
            behind(fixture, Rule::DropPort(port))
        }),
        Case::stays("network: etcd reaches a stage, and the gateway does not", UNREACHED, |fixture| {
            let port = etcd_port(fixture);
            fixture.network()?.set(WRONG, Rule::OnlyPort(port));
            let mut stage = fixture.baton_at(WRONG, "stage")?;
            stage.args(["--cluster", "barred", "--memory", "2GiB"]);
            let (cluster_ref, mut processes) = fixture.cluster("barred", &[]);
            processes.push(fixture.process(stage));
            Ok(Mistake::without_process()
                .at(cluster_ref)
                .holding(processes)
                .undone_by(|fixture| fixture.fleet.network().heal(WRONG)))
        }),
    ]
}

fn etcd_port(fixture: &Fixture) -> u16 {
    fixture.etcd.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port")
}

fn behind(fixture: &mut Fixture, rule: Rule) -> Result<Mistake, String> {
    let stage = fixture.baton_at(WRONG, "stage")?;
    fixture.network()?.set(WRONG, rule);
    let mistake = fixture.start(stage)?;
    Ok(mistake.undone_by(|fixture| fixture.fleet.network().heal(WRONG)))
}
