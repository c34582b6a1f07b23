//! An etcd that is shared, corrupted, emptied or set back.

use super::case::{Case, Expected, HEALTHY, Mistake};
use super::common::etcd::{Etcd, etcdctl};
use super::fixture::Fixture;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::stays("store: two clusters with one key in one etcd", HEALTHY, |fixture| {
            let (cluster_ref, processes) = fixture.cluster("twin", &["2GiB"]);
            Ok(Mistake::without_process().at(cluster_ref).holding(processes))
        }),
        Case::stays("store: the placement is corrupted", HEALTHY, |fixture| overwrite(fixture, "placement", "{broken")),
        Case::stays("store: the model is overwritten with another", HEALTHY, |fixture| {
            let model = fixture.etcdctl(&["get", "--print-value-only", "/baton/v1/home/model"]);
            let mut model: serde_json::Value = serde_json::from_str(&model).expect("a model");
            model["fingerprint"] = "00".repeat(16).into();
            overwrite(fixture, "model", &model.to_string())
        }),
        Case::stays("store: the key's mark is corrupted", HEALTHY, |fixture| overwrite(fixture, "key-mark", "{broken")),
        Case::stays("store: the cluster's prefix is deleted", HEALTHY, |fixture| {
            fixture.etcdctl(&["del", "--prefix", "/baton/v1/home/"]);
            Ok(Mistake::without_process().undone_by(|fixture| {
                fixture.fleet.wait_until_complete();
            }))
        }),
        Case::stays(
            "store: etcd is away",
            Expected {
                health: (200, "the store does not answer"),
                status: "cannot reach the store",
                doctor: (2, "cannot reach the store"),
                ..HEALTHY
            },
            |fixture| {
                fixture.etcd.kill();
                Ok(Mistake::without_process().undone_by(|fixture| {
                    fixture.etcd.restart();
                    fixture.fleet.wait_until_complete();
                }))
            },
        ),
        Case::stays("store: etcd has lost its data", HEALTHY, |fixture| {
            fixture.etcd.wipe();
            fixture.etcd.restart();
            Ok(Mistake::without_process().undone_by(|fixture| {
                fixture.fleet.wait_until_complete();
            }))
        }),
        Case::stays("store: etcd is set back to an older snapshot", HEALTHY, |fixture| {
            let snapshot = fixture.path("snapshot");
            fixture.etcd.save(&snapshot);
            // The snapshot does not contain the new placement and the pin's status.
            fixture.etcdctl(&["put", "/baton/v1/home/pins/s1", r#"{"layers":[]}"#]);
            super::common::wait_for("the layers move", std::time::Duration::from_secs(20), || {
                fixture.fleet.depth() == 1
            });
            fixture.etcd.restore(&snapshot);
            fixture.etcd.restart();
            Ok(Mistake::without_process().undone_by(|fixture| {
                fixture.fleet.wait_until_complete();
            }))
        }),
        Case::stays("store: etcd has no room left", Expected { health: (200, "no room"), ..HEALTHY }, |fixture| {
            let etcd = Etcd::start_with(1, "127.0.0.1", &["--quota-backend-bytes", "4194304"]);
            let (cluster_ref, processes) = fixture.cluster_at(&etcd.url, "full", &["2GiB"]);
            super::common::wait_for("it serves", std::time::Duration::from_secs(20), || cluster_ref.health().0 == 200);
            let large = "x".repeat(100_000);
            let mut filled = 0;
            while etcdctl(&etcd.url, &["put", &format!("/elsewhere/{filled}"), &large]).0 {
                filled += 1;
                assert!(filled < 100, "etcd takes more than its quota");
            }
            Ok(Mistake::without_process().at(cluster_ref).holding(processes).holding(etcd))
        }),
        Case::ends("store: an etcd that asks for a password", 1, "name a user with etcd_user", |fixture| {
            let etcd = Etcd::start();
            for words in [&["user", "add", "root:a"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
            {
                assert!(etcdctl(&etcd.url, words).0, "{words:?}");
            }
            let mut stage = fixture.baton("stage");
            stage.args(["--etcd", &etcd.url]);
            Ok(fixture.start(stage)?.holding(etcd))
        }),
    ]
}

fn overwrite(fixture: &mut Fixture, key: &str, value: &str) -> Result<Mistake, String> {
    fixture.etcdctl(&["put", &format!("/baton/v1/home/{key}"), value]);
    Ok(Mistake::without_process().undone_by(|fixture| {
        fixture.fleet.wait_until_complete();
    }))
}
