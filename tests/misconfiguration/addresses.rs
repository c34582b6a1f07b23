//! Unused addresses, addresses of other machines, names that do not resolve, and ports that are taken.

use super::case::{Case, Mistake};
use super::fixture::{Fixture, OTHER, WRONG};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::ends("addresses: an etcd address without a listener", 2, "is etcd running?", |fixture| {
            let unused = super::common::etcd::free_port();
            etcd(fixture, "stage", &format!("127.0.0.1:{unused}"))
        }),
        Case::ends("addresses: the gateway's in the place of etcd's", 2, "cannot reach the store", |fixture| {
            let gateway = fixture.fleet.client().http.to_string();
            etcd(fixture, "stage", &gateway)
        }),
        Case::ends("addresses: https to an etcd without TLS", 2, "it speaks no TLS", |fixture| {
            let url = fixture.etcd.url.replacen("http://", "https://", 1);
            etcd(fixture, "stage", &url)
        }),
        Case::ends("addresses: etcd without a port", 64, "expected http(s)://<host>:<port>", |fixture| {
            etcd(fixture, "gateway", "mini-1")
        }),
        Case::ends("addresses: an etcd whose name does not resolve", 2, "cannot reach the store", |fixture| {
            let mut stage = fixture.baton_at(WRONG, "stage")?;
            stage.args(["--etcd", "mini-1.invalid:2379"]);
            fixture.start(stage)
        }),
        Case::ends(
            "addresses: an address that no machine has is advertised",
            1,
            "expected a name or address of this machine",
            |fixture| {
                let unused = fixture.network()?.address(200);
                advertise(fixture, &unused)
            },
        ),
        Case::ends(
            "addresses: another machine's address is advertised",
            1,
            "expected a name or address of this machine",
            |fixture| {
                let other = fixture.network()?.address(0);
                advertise(fixture, &other)
            },
        ),
        Case::ends(
            "addresses: a name that does not resolve is advertised",
            1,
            "expected a name or address of this machine",
            |fixture| advertise(fixture, "mini-9.invalid"),
        ),
        Case::ends("addresses: 0.0.0.0 is advertised", 64, "expected a host name or an address", |fixture| {
            advertise(fixture, "0.0.0.0")
        }),
        Case::ends("addresses: a port is advertised, too", 64, "without a port", |fixture| {
            advertise(fixture, "mini-1:2379")
        }),
        Case::ends("addresses: the gateway's port is taken", 1, "in use", |fixture| {
            let taken = fixture.fleet.client().http.to_string();
            listen(fixture, &taken)
        }),
        Case::ends("addresses: the gateway listens at another's address", 1, "annot assign", |fixture| {
            let mut gateway = fixture.baton("gateway");
            gateway.args(["--listen", "192.0.2.1:8100", "--insecure"]);
            fixture.start(gateway)
        }),
        Case::ends("addresses: the gateway listens beyond the machine without a key", 64, "--insecure", |fixture| {
            listen(fixture, "0.0.0.0:0")
        }),
        Case::ends("addresses: the gateway listens at a port alone", 64, "invalid socket address", |fixture| {
            listen(fixture, "8100")
        }),
        Case::ends("addresses: a machine with IPv6 only, an etcd with IPv4", 2, "unreachable", |fixture| {
            let network = fixture.network()?;
            let flushed = network.command(OTHER, "ip").args(["-4", "addr", "flush", "dev", "eth0"]).status();
            assert!(flushed.is_ok_and(|flushed| flushed.success()));
            let mut stage = fixture.baton_at(OTHER, "stage")?;
            stage.args(["--advertise", "fe80::1"]);
            fixture.start(stage)
        }),
    ]
}

fn etcd(fixture: &mut Fixture, verb: &str, url: &str) -> Result<Mistake, String> {
    let mut command = fixture.baton(verb);
    command.args(["--etcd", url]);
    fixture.start(command)
}

fn advertise(fixture: &mut Fixture, host: &str) -> Result<Mistake, String> {
    let mut stage = fixture.baton_at(WRONG, "stage")?;
    stage.args(["--advertise", host]);
    fixture.start(stage)
}

fn listen(fixture: &mut Fixture, address: &str) -> Result<Mistake, String> {
    let mut gateway = fixture.baton("gateway");
    gateway.args(["--listen", address]);
    fixture.start(gateway)
}
