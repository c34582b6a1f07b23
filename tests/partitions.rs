//! Stages on machines of their own, and faults of the network between them: it drops all packets, or those of one
//! direction, or some, or it is slow, or a cable is unplugged. Needs root and `etc/prepare netns`. The test reports
//! that it is skipped if they are missing.
#![cfg(target_os = "linux")]

mod common;

use std::time::Duration;

use common::etcd::{Etcd, etcdctl};
use common::fleet::Fleet;
use common::network::{Network, Rule, report_skipped};

/// A lease so long that its expiry cannot be the event that reveals a silent stage.
const LEASE_TTL_S: &str = "30";
/// No silent stage can be detected sooner than this.
const NOTICED_MIN: Duration = Duration::from_millis(1000);
/// Longest time from a fault to the last answer, including the work that is computed again. It is far shorter than such
/// a lease.
const TOOK_MAX: Duration = Duration::from_secs(18);
/// The same bound if a stage must detect that it is itself the one that cannot answer the gateway.
const SELF_EVICTION_MAX: Duration = Duration::from_secs(30);
/// Most tries to make a fault hit requests that are still running.
const TRIES_MAX: u32 = 4;

#[test]
fn network_faults_change_no_answer() {
    let network = match Network::of(4) {
        Ok(network) => network,
        Err(why) => {
            return report_skipped("network_faults_change_no_answer", &why);
        }
    };
    let etcd = Etcd::start_with(1, &network.hub(), &[]);
    let mut fleet = Fleet::start(&etcd, 4, Some(network), &["--lease-ttl-s", LEASE_TTL_S]);
    let (second, third) = (fleet.stage_at_slot(1), fleet.stage_at_slot(2));

    // Connections break, packets are lost, the link is slow: all stages stay in the cluster.
    let reset = fleet.with_fault("connections are reset for a moment", |fleet| {
        fleet.network().set(second, Rule::Reset);
        std::thread::sleep(Duration::from_millis(100));
        fleet.network().heal(second);
    });
    assert!(reset.took < TOOK_MAX, "{reset:?}");
    fleet.network().set(third, Rule::Loss);
    let loss = fleet.with_fault("one packet in ten is lost", |_| {});
    fleet.network().heal(third);
    fleet.network().limit_rate(third, "1mbit");
    let slow = fleet.with_fault("the link is slow", |_| {});
    fleet.network().unlimit_rate(third);
    assert!(loss.took < TOOK_MAX && slow.took < TOOK_MAX, "{loss:?} {slow:?}");
    fleet.wait_until_complete();

    // No packets pass, in both directions or in one: the other stages go on without the victim, long before its lease
    // ends. Or all packets pass except those between the last stage and the gateway: then another stage becomes the
    // last.
    let mut victims = Vec::new();
    let gateway = gateway_port(&etcd);
    for (what, slot, rule) in [
        ("nothing passes", 1, Some(Rule::DropAll)),
        ("nothing comes in", 1, Some(Rule::DropIn)),
        ("nothing goes out", usize::MAX, Some(Rule::DropOut)),
        ("the cable is pulled", 0, None),
        ("the last stage does not reach the gateway", usize::MAX, Some(Rule::DropPort(gateway))),
    ] {
        let most = if matches!(rule, Some(Rule::DropPort(_))) { SELF_EVICTION_MAX } else { TOOK_MAX };
        let mut tries = 0;
        loop {
            let victim = fleet.stage_at_slot(slot.min(fleet.depth() - 1));
            let epochs = fleet.metric("baton_epochs_total");
            let outcome = fleet.with_fault(what, |fleet| match rule {
                Some(rule) => fleet.network().set(victim, rule),
                None => fleet.network().unplug(victim),
            });
            let has_interrupted = outcome.attempts > 1 && outcome.took > NOTICED_MIN;
            assert!(outcome.took < most, "{what}: {outcome:?}");
            assert!(
                !has_interrupted || fleet.stage_at_slot(slot.min(fleet.depth() - 1)) != victim,
                "{what}: it is where it was"
            );
            assert!(
                !has_interrupted || fleet.metric("baton_epochs_total") > epochs,
                "{what} does not show in the metrics"
            );
            match rule {
                Some(_) => fleet.network().heal(victim),
                None => fleet.network().plug(victim),
            }
            victims.push(victim);
            if has_interrupted {
                break;
            }
            tries += 1;
            assert!(tries < TRIES_MAX, "{what}: the fault came too late each time: {outcome:?}");
            fleet.wait_until_complete();
        }
    }
    println!(
        "stages {victims:?} were cut off in turn; complete again {:?} after the last",
        fleet.wait_until_complete()
    );
    fleet.answers_as_before();
    fleet.wait_until_released(&etcd);
}

/// The port at which the gateway takes answers.
fn gateway_port(etcd: &Etcd) -> u16 {
    let (_, record) = etcdctl(&etcd.url, &["get", "--print-value-only", "/baton/v1/home/gateways/0"]);
    let record: serde_json::Value = serde_json::from_str(&record).expect("the gateway's record");
    let endpoint = record["endpoint"].as_str().expect("an endpoint");
    endpoint.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_else(|| panic!("no port in {endpoint}"))
}
