//! Addresses nobody has, addresses of others, names that do not resolve, ports that are taken.

use super::case::{Case, Mistake};
use super::ground::{Ground, OTHER, WRONG};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::ends("addresses: an etcd where nobody listens", 2, "is etcd running?", |ground| {
            let nobody = super::common::etcd::free_port();
            etcd(ground, "stage", &format!("127.0.0.1:{nobody}"))
        }),
        Case::ends("addresses: the gateway's in the place of etcd's", 2, "cannot reach the store", |ground| {
            let gateway = ground.fleet.door().http.to_string();
            etcd(ground, "stage", &gateway)
        }),
        Case::ends("addresses: etcd by https", 64, "speaks http to etcd, not https", |ground| {
            etcd(ground, "stage", "https://127.0.0.1:2379")
        }),
        Case::ends("addresses: etcd without a port", 64, "expected http://<host>:<port>", |ground| {
            etcd(ground, "gateway", "mini-1")
        }),
        Case::ends("addresses: an etcd whose name does not resolve", 2, "cannot reach the store", |ground| {
            let mut stage = ground.baton_at(WRONG, "stage")?;
            stage.args(["--etcd", "mini-1.invalid:2379"]);
            ground.start(stage)
        }),
        Case::ends(
            "addresses: an address that no machine has is advertised",
            1,
            "expected a name or address of this machine",
            |ground| {
                let nobody = ground.network()?.address(200);
                advertise(ground, &nobody)
            },
        ),
        Case::ends(
            "addresses: another machine's address is advertised",
            1,
            "expected a name or address of this machine",
            |ground| {
                let other = ground.network()?.address(0);
                advertise(ground, &other)
            },
        ),
        Case::ends(
            "addresses: a name that does not resolve is advertised",
            1,
            "expected a name or address of this machine",
            |ground| advertise(ground, "mini-9.invalid"),
        ),
        Case::ends("addresses: 0.0.0.0 is advertised", 64, "expected a host name or an address", |ground| {
            advertise(ground, "0.0.0.0")
        }),
        Case::ends("addresses: a port is advertised, too", 64, "without a port", |ground| {
            advertise(ground, "mini-1:2379")
        }),
        Case::ends("addresses: the gateway's port is taken", 1, "in use", |ground| {
            let taken = ground.fleet.door().http.to_string();
            listen(ground, &taken)
        }),
        Case::ends("addresses: the gateway listens at another's address", 1, "annot assign", |ground| {
            listen(ground, "192.0.2.1:8100")
        }),
        Case::ends("addresses: the gateway listens at a port alone", 64, "invalid socket address", |ground| {
            listen(ground, "8100")
        }),
        Case::ends("addresses: a machine with IPv6 only, an etcd with IPv4", 2, "unreachable", |ground| {
            let network = ground.network()?;
            let flushed = network.command(OTHER, "ip").args(["-4", "addr", "flush", "dev", "eth0"]).status();
            assert!(flushed.is_ok_and(|flushed| flushed.success()));
            let mut stage = ground.baton_at(OTHER, "stage")?;
            stage.args(["--advertise", "fe80::1"]);
            ground.start(stage)
        }),
    ]
}

fn etcd(ground: &mut Ground, verb: &str, url: &str) -> Result<Mistake, String> {
    let mut command = ground.baton(verb);
    command.args(["--etcd", url]);
    ground.start(command)
}

fn advertise(ground: &mut Ground, host: &str) -> Result<Mistake, String> {
    let mut stage = ground.baton_at(WRONG, "stage")?;
    stage.args(["--advertise", host]);
    ground.start(stage)
}

fn listen(ground: &mut Ground, address: &str) -> Result<Mistake, String> {
    let mut gateway = ground.baton("gateway");
    gateway.args(["--listen", address]);
    ground.start(gateway)
}
