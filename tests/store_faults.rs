//! etcd killed, restarted, without its leader and without room, while requests run.

mod common;

use std::time::Duration;

use common::etcd::{Etcd, etcdctl};
use common::fleet::Fleet;
use common::wait_for;

/// A quota so small that a few large values fill it.
const QUOTA_BYTES: &str = "4194304";
/// Longest wait until a gateway has learned that the store has no room.
const NAMED_WAIT_MAX: Duration = Duration::from_secs(10);

#[test]
fn etcd_faults_change_no_answer() {
    let mut etcd = Etcd::start_with(3, "127.0.0.1", &[]);
    let mut fleet = Fleet::start(&etcd, 2, None, &["--lease-ttl-s", "5"]);
    let outcome = fleet.with_fault("etcd's leader is killed", |_| etcd.kill_leader());
    assert_eq!(outcome.attempts, 1, "serving does not depend on etcd's leader");
    etcd.restart();
    fleet.with_fault("all of etcd is killed and comes back without its history", |_| {
        etcd.kill();
        std::thread::sleep(Duration::from_millis(500));
        etcd.restart();
        // The compaction below deletes the changes that the watches have not read yet.
        for at in 0..20 {
            assert!(etcdctl(&etcd.url, &["put", "/elsewhere", &at.to_string()]).0);
        }
        let (_, status) = etcdctl(&etcd.url, &["get", "/elsewhere", "-w", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let revision = status["header"]["revision"].as_u64().unwrap().to_string();
        assert!(etcdctl(&etcd.url, &["compact", &revision]).0);
    });
    let is_reachable = || fleet.get("/distributed/status").json()["store"]["reachable"] == true;
    wait_for("the gateway finds etcd again", Duration::from_secs(10), is_reachable);
    fleet.wait_until_complete();
    // The gateway follows etcd again: a change that is written now shows in its status.
    assert!(etcdctl(&etcd.url, &["put", "/baton/v1/home/pins/s0", "[1]"]).0);
    let has_changed = || fleet.get("/distributed/status").json()["complaints"].to_string().contains("pins/s0");
    wait_for("the gateway shows a change", Duration::from_secs(10), has_changed);
    assert!(etcdctl(&etcd.url, &["del", "--prefix", "/baton/v1/home/pins"]).0);
    fleet.wait_until_released(&etcd);
}

#[test]
fn an_etcd_without_room_is_named_and_serving_goes_on() {
    let etcd = Etcd::start_with(1, "127.0.0.1", &["--quota-backend-bytes", QUOTA_BYTES]);
    let mut fleet = Fleet::start(&etcd, 2, None, &["--lease-ttl-s", "5"]);
    let client = fleet.client();
    let alarms = || client.get("/distributed/status").json()["store"]["alarms"].to_string();
    assert_eq!(alarms(), "[]");
    let large = "x".repeat(100_000);
    let mut filled = 0;
    while etcdctl(&etcd.url, &["put", &format!("/elsewhere/{filled}"), &large]).0 {
        filled += 1;
        assert!(filled < 100, "etcd takes more than its quota");
    }
    wait_for("the gateway names it", NAMED_WAIT_MAX, || alarms().contains("no room"));
    let outcome = fleet.with_fault("etcd takes no writes", |_| std::thread::sleep(Duration::from_secs(6)));
    assert_eq!(outcome.attempts, 1, "{outcome:?}");
    let health = fleet.get("/health");
    assert!(health.status == 200 && health.body.contains("no room"), "{}", health.body);
    fleet.wait_until_complete();
    // Makes room, as etcd's manual describes.
    assert!(etcdctl(&etcd.url, &["del", "--prefix", "/elsewhere"]).0);
    let (_, listing) = etcdctl(&etcd.url, &["get", "/elsewhere", "-w", "json"]);
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    assert!(etcdctl(&etcd.url, &["compact", &listing["header"]["revision"].to_string()]).0);
    assert!(etcdctl(&etcd.url, &["defrag"]).0 && etcdctl(&etcd.url, &["alarm", "disarm"]).0);
    wait_for("the gateway shows no alarms", NAMED_WAIT_MAX, || alarms() == "[]");
    fleet.wait_until_released(&etcd);
}
